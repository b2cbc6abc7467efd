//! Remembers when the operator saw the proxy pods of nodes change, by its own clock. Pure.
//!
//! The times in objects come from the clocks of other machines, and a deleted pod leaves none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::pod_status::{is_ready, is_scheduled, pods_by_node};
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

/// The pods of a node and the owner of its ports, when this state was first seen, and when the last ready pod was seen.
#[derive(Debug)]
struct NodeRecord {
    pods: BTreeSet<PodIdentity>,
    /// True if the Service's proxies may run on the node.
    is_owned: bool,
    since: Timestamp,
    last_ready_at: Option<Timestamp>,
}

/// The UID of a pod, and true if it is being deleted.
type PodIdentity = (Option<String>, bool);

impl PodChanges {
    /// Records the pods of a Service, and returns when they changed. The times of unchanged pods stay. `owns` returns true
    /// if the Service's proxies may run on a node.
    pub(crate) fn update(
        &mut self,
        key: &ServiceKey,
        pods: &[Arc<Pod>],
        nodes: &[NodeInfo],
        owns: impl Fn(&NodeInfo) -> bool,
        now: Timestamp,
    ) -> PodTimes {
        let mut previous = self.0.remove(key);
        let mut record = ServiceRecord::default();
        let mut pods_by_node = pods_by_node(pods);
        for node in nodes {
            let (pods, is_owned) = (pods_by_node.remove(node.name.as_str()).unwrap_or_default(), owns(node));
            let known = previous.as_mut().and_then(|previous| previous.nodes.remove(&node.name));
            // The operator may have started while the proxy was being replaced.
            let may_be_changing = previous.is_none() && pods.iter().any(|pod| is_scheduled(pod));
            record
                .nodes
                .insert(node.name.clone(), NodeRecord::new(&pods, is_owned, known, may_be_changing, now));
        }
        let previously_without_pods = previous.and_then(|previous| previous.without_pods_since);
        record.without_pods_since = pods.is_empty().then(|| previously_without_pods.unwrap_or(now));
        let times = record.to_times();
        self.0.insert(key.clone(), record);
        times
    }

    /// Removes the records of a Service that no longer exists.
    pub(crate) fn forget(&mut self, key: &ServiceKey) {
        self.0.remove(key);
    }
}

impl ServiceRecord {
    fn to_times(&self) -> PodTimes {
        let nodes = self.nodes.iter();
        let last_ready =
            nodes.clone().filter_map(|(node, record)| Some((node.clone(), record.last_ready_at?)));
        PodTimes {
            changed_at: nodes.map(|(node, record)| (node.clone(), record.since)).collect(),
            last_ready_at: last_ready.collect(),
            without_pods_since: self.without_pods_since,
        }
    }
}

impl NodeRecord {
    /// Returns the record of a node after the record `known`. `may_be_changing` is true if a proxy may have been ready a
    /// short time ago.
    fn new(
        pods: &[&Pod],
        is_owned: bool,
        known: Option<Self>,
        may_be_changing: bool,
        now: Timestamp,
    ) -> Self {
        let is_or_was_ready = may_be_changing || pods.iter().any(|pod| is_ready(pod));
        let previously_ready_at = known.as_ref().and_then(|known| known.last_ready_at);
        let identity = |pod: &&Pod| (pod.metadata.uid.clone(), pod.metadata.deletion_timestamp.is_some());
        let pods: BTreeSet<_> = pods.iter().map(identity).collect();
        let unchanged = known.filter(|known| known.pods == pods && known.is_owned == is_owned);
        Self {
            since: unchanged.map_or(now, |known| known.since),
            last_ready_at: if is_or_was_ready { Some(now) } else { previously_ready_at },
            pods,
            is_owned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{at, key, node, pod};

    #[test]
    fn times_are_those_at_which_the_operator_saw_a_change() {
        let nodes = [NodeInfo::from_node(&node("n1").internal_ip("10.0.0.1").build())];
        let mut changes = PodChanges::default();
        let mut changed_at = |pods: &[Pod], is_owned: bool, now| {
            let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
            let times = changes.update(&key("web"), &pods, &nodes, |_| is_owned, at(now));
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

    #[test]
    fn the_last_ready_proxy_of_a_node_is_remembered() {
        let nodes = [NodeInfo::from_node(&node("n1").build())];
        let last_ready_at = |changes: &mut PodChanges, pods: &[Pod], now| {
            let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
            changes.update(&key("web"), &pods, &nodes, |_| true, at(now)).last_ready_at.get("n1").copied()
        };
        let ready = || [pod("a").on("n1").ready().build()];
        let deleted = || [pod("a").on("n1").ready().terminating(20).build()];
        let starting = || [pod("b").on("n1").build()];
        let mut changes = PodChanges::default();
        for (pods, now) in [(&ready()[..], 0), (&ready(), 10), (&deleted(), 20), (&[], 21), (&starting(), 22)]
        {
            assert_eq!(last_ready_at(&mut changes, pods, now), Some(at(now.min(10))));
        }
        // The operator may start while a proxy is being replaced, but a pod without a node replaces none.
        assert_eq!(last_ready_at(&mut PodChanges::default(), &starting(), 30), Some(at(30)));
        let waiting = [pod("b").meant_for("n1").build()];
        let mut changes = PodChanges::default();
        assert_eq!(last_ready_at(&mut changes, &waiting, 30), None);
        assert_eq!(last_ready_at(&mut changes, &starting(), 31), None);
    }
}
