//! Remembers when the operator saw the proxy pods of published nodes change, by its own clock. Pure.
//!
//! The times in objects come from the clocks of other machines, and a deleted pod leaves none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;

use super::addresses::is_published;
use super::pod_status::runs_on;
use super::service_state::PodTimes;
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// The changes of the proxy pods of all Services.
#[derive(Debug, Default)]
pub(crate) struct PodChanges(HashMap<ServiceKey, ServiceRecord>);

#[derive(Debug, Default)]
struct ServiceRecord {
    nodes: BTreeMap<String, NodeRecord>,
    /// The time since when the Service has no pod at all.
    without_pods_since: Option<Timestamp>,
}

/// The pods of a node and the owner of its ports, and when they were first seen.
#[derive(Debug)]
struct NodeRecord {
    pods: BTreeSet<PodIdentity>,
    /// True if the Service's proxies may run on the node.
    is_owned: bool,
    since: Timestamp,
}

/// The UID of a pod, and true if it is being deleted.
type PodIdentity = (Option<String>, bool);

impl PodChanges {
    /// Records the pods of a Service, and returns when they changed. The times of unchanged pods stay. `owns` returns true
    /// if the Service's proxies may run on a node.
    pub(crate) fn update(
        &mut self,
        key: &ServiceKey,
        service: &Service,
        pods: &[Arc<Pod>],
        nodes: &[NodeInfo],
        owns: impl Fn(&NodeInfo) -> bool,
        now: Timestamp,
    ) -> PodTimes {
        let mut previous = self.0.remove(key).unwrap_or_default();
        let mut record = ServiceRecord::default();
        for node in nodes.iter().filter(|node| is_published(service, node)) {
            let (pods, is_owned) = (pods_on(pods, &node.name), owns(node));
            let since = match previous.nodes.remove(&node.name) {
                Some(known) if known.pods == pods && known.is_owned == is_owned => known.since,
                _ => now,
            };
            record.nodes.insert(node.name.clone(), NodeRecord { pods, is_owned, since });
        }
        record.without_pods_since = pods.is_empty().then(|| previous.without_pods_since.unwrap_or(now));
        let changed_at = record.nodes.iter().map(|(node, record)| (node.clone(), record.since)).collect();
        let times = PodTimes { changed_at, without_pods_since: record.without_pods_since };
        self.0.insert(key.clone(), record);
        times
    }

    /// Removes the records of a Service that no longer exists.
    pub(crate) fn forget(&mut self, key: &ServiceKey) {
        self.0.remove(key);
    }
}

fn pods_on(pods: &[Arc<Pod>], node: &str) -> BTreeSet<PodIdentity> {
    let pods = pods.iter().filter(|pod| runs_on(pod, node));
    pods.map(|pod| (pod.metadata.uid.clone(), pod.metadata.deletion_timestamp.is_some())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{at, key, node, pod, service};

    #[test]
    fn times_are_those_at_which_the_operator_saw_a_change() {
        let service = service("web").published("10.0.0.1", "VIP", "akrobateo").build();
        let nodes = [NodeInfo::from_node(&node("n1").internal_ip("10.0.0.1").build())];
        let mut changes = PodChanges::default();
        let mut changed_at = |pods: &[Pod], is_owned: bool, now| {
            let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
            let times = changes.update(&key("web"), &service, &pods, &nodes, |_| is_owned, at(now));
            (times.changed_at["n1"], times.without_pods_since)
        };
        // The clock of the API server is an hour ahead.
        let running = pod("a").on("n1").created_at(3600).ready().build();
        let deleted = pod("a").on("n1").created_at(3600).terminating(3700).build();
        assert_eq!(changed_at(std::slice::from_ref(&running), true, 0), (at(0), None));
        assert_eq!(changed_at(&[running], true, 100), (at(0), None));
        assert_eq!(changed_at(&[deleted], true, 110), (at(110), None));
        assert_eq!(changed_at(&[], true, 120), (at(120), Some(at(120))));
        assert_eq!(changed_at(&[], true, 130), (at(120), Some(at(120))));
        // The time begins again when the Service gets or loses the node.
        assert_eq!(changed_at(&[], false, 140), (at(140), Some(at(120))));
        assert_eq!(changed_at(&[], true, 150), (at(150), Some(at(120))));
    }
}
