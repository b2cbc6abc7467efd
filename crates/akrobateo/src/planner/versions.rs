//! The resourceVersions that the rules of the node agents must contain. Pure: the time is an argument.
//!
//! Each write to the status gives the Service a new resourceVersion, but the agents need not apply this version. The
//! operator therefore remembers the version at which it first saw the current settings of the Service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::core::v1::Service;

use super::clock::Clock;
use crate::cache::resource_version;
use crate::decide::ObservedVersion;

/// A resourceVersion, and the time when the operator first saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenVersion {
    pub(super) version: u64,
    pub(super) seen_at: Instant,
}

/// The versions of the settings of all Services.
#[derive(Debug, Default)]
pub(super) struct ServiceVersions {
    services: HashMap<ServiceKey, SeenVersion>,
    /// The same Services, sorted by version.
    by_version: BTreeSet<(u64, ServiceKey)>,
}

/// For each Service with externalTrafficPolicy Local, the version of the `EndpointSlices` at which each node got an
/// endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointVersions(HashMap<ServiceKey, BTreeMap<String, SeenVersion>>);

impl SeenVersion {
    /// Converts the time of the monotonic clock.
    pub(super) fn to_observed_version(self, clock: Clock) -> ObservedVersion {
        ObservedVersion { version: self.version, seen_at: clock.to_timestamp(self.seen_at) }
    }
}

impl ServiceVersions {
    /// Records the version of a Service. `has_same_settings` is true if the last call had the same settings.
    pub(super) fn record(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        has_same_settings: bool,
        now: Instant,
    ) {
        let current_version = SeenVersion { version: resource_version(service), seen_at: now };
        let recorded_version = self.get(key);
        // A version that is smaller than the recorded version means that the cluster's data was restored from a backup.
        let is_current =
            |recorded: SeenVersion| has_same_settings && recorded.version <= current_version.version;
        if !recorded_version.is_some_and(is_current) {
            self.forget(key);
            self.by_version.insert((current_version.version, key.clone()));
            self.services.insert(key.clone(), current_version);
        }
    }

    /// Removes the record of a Service.
    pub(super) fn forget(&mut self, key: &ServiceKey) {
        if let Some(recorded_version) = self.services.remove(key) {
            self.by_version.remove(&(recorded_version.version, key.clone()));
        }
    }

    /// Removes the records of all Services that do not exist.
    pub(super) fn retain_existing(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.services.retain(|key, _| exists(key));
        self.by_version.retain(|(_, key)| exists(key));
    }

    /// Returns the newest version that the operator first saw at this time or earlier.
    pub(super) fn newest_seen_until(&self, time: Instant) -> u64 {
        let mut newest_first = self.by_version.iter().rev();
        let is_seen = |key| self.get(key).is_some_and(|seen| seen.seen_at <= time);
        newest_first.find(|(_, key)| is_seen(key)).map_or(0, |(version, _)| *version)
    }

    /// Returns the Services whose versions are greater than `after` and not greater than `until`.
    pub(super) fn find_between(&self, after: u64, until: u64) -> impl Iterator<Item = &ServiceKey> {
        let first_key = ServiceKey { namespace: String::new(), name: String::new() };
        let newer_services = self.by_version.range((after.saturating_add(1), first_key)..);
        newer_services.take_while(move |(version, _)| *version <= until).map(|(_, key)| key)
    }

    /// Returns the version of a Service.
    pub(super) fn get(&self, key: &ServiceKey) -> Option<SeenVersion> {
        self.services.get(key).copied()
    }
}

impl EndpointVersions {
    /// Records the nodes with an endpoint. `version` is the newest version of the Service's `EndpointSlices`.
    pub(super) fn record(&mut self, key: &ServiceKey, nodes: &BTreeSet<String>, version: u64, now: Instant) {
        if nodes.is_empty() {
            self.0.remove(key);
            return;
        }
        let recorded_versions = self.0.entry(key.clone()).or_default();
        recorded_versions.retain(|node, seen| nodes.contains(node) && seen.version <= version);
        for node in nodes {
            recorded_versions.entry(node.clone()).or_insert(SeenVersion { version, seen_at: now });
        }
    }

    /// Removes the records of a Service.
    pub(super) fn forget(&mut self, key: &ServiceKey) {
        self.0.remove(key);
    }

    /// Removes the records of all Services that do not exist.
    pub(super) fn retain_existing(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.0.retain(|key, _| exists(key));
    }

    /// Returns the Services with an endpoint on the node whose versions are greater than `after` and not greater than
    /// `until`.
    pub(super) fn find_between(
        &self,
        node: &str,
        after: u64,
        until: u64,
    ) -> impl Iterator<Item = &ServiceKey> {
        let is_between = move |seen: &SeenVersion| seen.version > after && seen.version <= until;
        let services = self.0.iter();
        services.filter(move |(_, nodes)| nodes.get(node).is_some_and(is_between)).map(|(key, _)| key)
    }

    /// Returns the version at which a node got an endpoint; `None` if the node has no endpoint.
    pub(super) fn get(&self, key: &ServiceKey, node: &str) -> Option<SeenVersion> {
        self.0.get(key)?.get(node).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decide::fixtures::{key, service};

    #[test]
    fn version_of_a_service_changes_only_with_its_settings() {
        let (mut versions, start) = (ServiceVersions::default(), Instant::now());
        let mut record = |version: &str, has_same_settings: bool| {
            let mut service = service("web").build();
            service.metadata.resource_version = Some(version.to_owned());
            versions.record(&key("web"), &service, has_same_settings, start);
            versions.get(&key("web")).unwrap().version
        };
        assert_eq!(record("5", false), 5);
        assert_eq!(record("9", true), 5);
        assert_eq!(record("10", false), 10);
        assert_eq!(record("3", true), 3, "the data of the cluster was restored");
    }

    #[test]
    fn newest_version_ignores_versions_that_were_seen_later() {
        let (mut versions, start) = (ServiceVersions::default(), Instant::now());
        for (name, version, seconds) in [("web", "5", 0), ("api", "4", 1), ("dns", "9", 2)] {
            let mut service = service(name).build();
            service.metadata.resource_version = Some(version.to_owned());
            versions.record(&key(name), &service, false, start + Duration::from_secs(seconds));
        }
        let newest_version = |seconds| versions.newest_seen_until(start + Duration::from_secs(seconds));
        assert_eq!([newest_version(0), newest_version(1), newest_version(2)], [5, 5, 9]);
    }

    #[test]
    fn node_keeps_the_version_of_its_first_endpoint() {
        let (mut versions, start) = (EndpointVersions::default(), Instant::now());
        let mut record = |nodes: &[&str], version: u64| {
            let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
            versions.record(&key("web"), &nodes, version, start + Duration::from_secs(version));
            let version = |node| versions.get(&key("web"), node).map(|seen| seen.version);
            (version("n1"), version("n2"))
        };
        assert_eq!(record(&["n1"], 5), (Some(5), None));
        assert_eq!(record(&["n1", "n2"], 7), (Some(5), Some(7)));
        assert_eq!(record(&["n2"], 8), (None, Some(7)));
        assert_eq!(record(&["n1", "n2"], 9), (Some(9), Some(7)));
        assert_eq!(record(&[], 10), (None, None));
    }
}
