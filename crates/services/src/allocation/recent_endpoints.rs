//! Remembers for a short time which nodes had an endpoint of a Service. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::key::ServiceKey;

/// The time for which a node remains in the records after its last endpoint disappeared.
///
/// A restart of the only replica must not give the node's ports to another Service.
const RETENTION_TIME: Duration = Duration::from_mins(1);

/// The nodes with an endpoint of each Service, now or a short time ago.
#[derive(Debug, Default)]
pub struct RecentEndpoints(HashMap<ServiceKey, ServiceEndpointRecord>);

/// The nodes with an endpoint of one Service.
#[derive(Debug, Default)]
struct ServiceEndpointRecord {
    /// The UID of the Service. A new Service with the same name gets a new record.
    service_uid: Option<String>,
    nodes: BTreeMap<String, LastSeen>,
}

/// The time at which a node last had an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastSeen {
    /// The node has an endpoint now.
    Now,
    /// The last endpoint disappeared at this time.
    Until(Instant),
}

impl RecentEndpoints {
    /// Records the nodes that have an endpoint of the Service with this UID now. Returns true if the recorded nodes
    /// changed.
    pub fn record(
        &mut self,
        key: &ServiceKey,
        service_uid: Option<&String>,
        current_nodes: &BTreeSet<String>,
        now: Instant,
    ) -> bool {
        let record = self.0.entry(key.clone()).or_default();
        let previous_nodes = record.nodes.clone();
        if record.service_uid.as_ref() != service_uid {
            *record = ServiceEndpointRecord {
                service_uid: service_uid.cloned(),
                ..ServiceEndpointRecord::default()
            };
        }
        for (node, last_seen) in &mut record.nodes {
            if !current_nodes.contains(node) && *last_seen == LastSeen::Now {
                *last_seen = LastSeen::Until(now);
            }
        }
        record.nodes.extend(current_nodes.iter().map(|node| (node.clone(), LastSeen::Now)));
        record.nodes != previous_nodes
    }

    /// Removes the nodes whose last endpoint disappeared more than [`RETENTION_TIME`] ago. Returns the Services of
    /// these nodes.
    pub fn expire(&mut self, now: Instant) -> Vec<ServiceKey> {
        let mut changed_services = Vec::new();
        for (key, record) in &mut self.0 {
            let previous_count = record.nodes.len();
            record.nodes.retain(|_, last_seen| last_seen.expiry().is_none_or(|expiry| expiry > now));
            if record.nodes.len() < previous_count {
                changed_services.push(key.clone());
            }
        }
        self.0.retain(|_, record| !record.nodes.is_empty());
        changed_services
    }

    /// Returns the time of the next expiry; `None` if nothing expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.0
            .values()
            .flat_map(|record| record.nodes.values())
            .filter_map(|last_seen| last_seen.expiry())
            .min()
    }

    /// Returns the nodes with an endpoint of a Service, now or a short time ago.
    #[must_use]
    pub fn nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        self.0.get(key).into_iter().flat_map(|record| record.nodes.keys()).cloned().collect()
    }

    /// Returns the nodes that have an endpoint of a Service now.
    #[must_use]
    pub fn current_nodes(&self, key: &ServiceKey) -> BTreeSet<String> {
        let nodes = self.0.get(key).into_iter().flat_map(|record| &record.nodes);
        nodes.filter(|(_, last_seen)| **last_seen == LastSeen::Now).map(|(node, _)| node.clone()).collect()
    }

    /// Removes the records of a Service.
    pub fn forget(&mut self, key: &ServiceKey) {
        self.0.remove(key);
    }

    /// Removes the records of all Services that do not exist.
    pub fn retain_existing(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.0.retain(|key, _| exists(key));
    }
}

impl LastSeen {
    fn expiry(self) -> Option<Instant> {
        match self {
            Self::Now => None,
            Self::Until(end) => Some(end + RETENTION_TIME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::key;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn node_remains_recorded_for_one_minute_after_its_last_endpoint() {
        let (mut recent, start) = (RecentEndpoints::default(), Instant::now());
        let time_after = |seconds| start + Duration::from_secs(seconds);
        assert!(recent.record(&key("web"), None, &nodes(&["n1", "n2"]), start));
        assert_eq!(recent.next_expiry(), None);
        assert!(recent.record(&key("web"), None, &nodes(&["n2"]), time_after(10)));
        assert!(!recent.record(&key("web"), None, &nodes(&["n2"]), time_after(20)));
        assert_eq!(recent.nodes(&key("web")), nodes(&["n1", "n2"]));
        assert_eq!(recent.current_nodes(&key("web")), nodes(&["n2"]));
        assert_eq!(recent.next_expiry(), Some(time_after(70)));
        assert!(recent.expire(time_after(69)).is_empty());
        assert_eq!(recent.expire(time_after(70)), [key("web")]);
        assert_eq!(recent.nodes(&key("web")), nodes(&["n2"]));
        assert_eq!(recent.next_expiry(), None);
    }

    #[test]
    fn returning_endpoint_stops_the_expiry_of_its_node() {
        let (mut recent, start) = (RecentEndpoints::default(), Instant::now());
        let time_after = |seconds| start + Duration::from_secs(seconds);
        recent.record(&key("web"), None, &nodes(&["n1"]), start);
        recent.record(&key("web"), None, &nodes(&[]), time_after(10));
        // A later record of the same nodes does not delay the expiry.
        recent.record(&key("web"), None, &nodes(&[]), time_after(40));
        assert_eq!(recent.next_expiry(), Some(time_after(70)));
        recent.record(&key("web"), None, &nodes(&["n1"]), time_after(60));
        assert!(recent.expire(time_after(1000)).is_empty());
        assert_eq!(recent.nodes(&key("web")), nodes(&["n1"]));
    }

    #[test]
    fn recreated_service_does_not_inherit_recent_endpoints() {
        let (mut recent, start) = (RecentEndpoints::default(), Instant::now());
        let uids = ["a", "b"].map(str::to_owned);
        recent.record(&key("web"), Some(&uids[0]), &nodes(&["n1"]), start);
        assert!(recent.record(&key("web"), Some(&uids[1]), &nodes(&["n2"]), start));
        assert_eq!(recent.nodes(&key("web")), nodes(&["n2"]));
        recent.retain_existing(|_| false);
        assert!(recent.nodes(&key("web")).is_empty());
    }
}
