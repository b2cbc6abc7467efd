//! The resourceVersions that the rules of the node agents must contain. Pure: the time is an argument.
//!
//! Each write to a status gives a Service a new resourceVersion. The agents need not apply such a version, so the
//! operator remembers the version at which it first saw the current settings of the Service.

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
pub(super) struct ServiceVersions(HashMap<ServiceKey, SeenVersion>);

/// For each Service with externalTrafficPolicy Local, the version at which each of its nodes got an endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointVersions(HashMap<ServiceKey, BTreeMap<String, SeenVersion>>);

impl SeenVersion {
    /// Converts the time of the monotonic clock.
    pub(super) fn to_observed(self, clock: Clock) -> ObservedVersion {
        ObservedVersion { version: self.version, seen_at: clock.to_timestamp(self.seen_at) }
    }
}

impl ServiceVersions {
    /// Records the version of a Service. `has_same_settings` is true if only fields have changed that the agents do not
    /// read, since the last call.
    pub(super) fn record(
        &mut self,
        key: ServiceKey,
        service: &Service,
        has_same_settings: bool,
        now: Instant,
    ) {
        let current = SeenVersion { version: resource_version(service), seen_at: now };
        let recorded = self.0.entry(key).or_insert(current);
        // The current version is smaller only if the cluster's data was restored from a backup.
        if !has_same_settings || current.version < recorded.version {
            *recorded = current;
        }
    }

    /// Removes the records of all Services that do not exist.
    pub(super) fn retain_existing(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.0.retain(|key, _| exists(key));
    }

    /// Returns the version of a Service.
    pub(super) fn get(&self, key: &ServiceKey) -> Option<SeenVersion> {
        self.0.get(key).copied()
    }
}

impl EndpointVersions {
    /// Records the nodes with an endpoint. `version` is the newest version of the Service's `EndpointSlices`.
    pub(super) fn record(&mut self, key: &ServiceKey, nodes: &BTreeSet<String>, version: u64, now: Instant) {
        if nodes.is_empty() {
            self.0.remove(key);
            return;
        }
        let recorded = self.0.entry(key.clone()).or_default();
        recorded.retain(|node, seen| nodes.contains(node) && seen.version <= version);
        for node in nodes {
            recorded.entry(node.clone()).or_insert(SeenVersion { version, seen_at: now });
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

    /// Returns the version at which a node got an endpoint; `None` if the node has no endpoint.
    pub(super) fn get(&self, key: &ServiceKey, node: &str) -> Option<SeenVersion> {
        self.0.get(key)?.get(node).copied()
    }
}
