//! Records the times when the operator saw changes of the proxy pods of each node, by the operator's clock. Pure.
//!
//! The times in objects are not sufficient: they come from the clocks of other machines, and the object of a deleted
//! pod no longer exists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::pod_status::{is_ready, is_scheduled, pods_by_node};
use super::service_state::PodChangeTimes;

/// The changes of the proxy pods of all Services.
#[derive(Debug, Default)]
pub(crate) struct PodChanges(HashMap<ServiceKey, ServicePodRecord>);

#[derive(Debug, Default)]
struct ServicePodRecord {
    nodes: BTreeMap<String, NodePodRecord>,
    /// The time when the operator first saw the Service's workload without a pod; `None` if the workload is missing or
    /// has pods.
    without_pods_since: Option<Timestamp>,
}

/// The pods of a node, and the times of their changes.
#[derive(Debug)]
struct NodePodRecord {
    pods: BTreeSet<PodIdentity>,
    /// True if the Service's proxies may run on the node.
    may_run_proxy: bool,
    /// The time when the operator first saw the current values of `pods` and `may_run_proxy`.
    changed_at: Timestamp,
    /// The time when the operator last saw a ready pod.
    last_ready_at: Option<Timestamp>,
}

/// The UID of a pod, and true if the pod is being deleted.
type PodIdentity = (Option<String>, bool);

impl PodChanges {
    /// Records the pods of a Service, and returns the times of their changes. The times of unchanged pods remain the
    /// same.
    ///
    /// `has_workload` is true if the Service has a workload, so that pods should exist. `may_run_proxy` returns true if
    /// the Service's proxies may run on a node.
    pub(crate) fn update(
        &mut self,
        key: &ServiceKey,
        has_workload: bool,
        pods: &[Arc<Pod>],
        nodes: &[NodeInfo],
        may_run_proxy: impl Fn(&NodeInfo) -> bool,
        now: Timestamp,
    ) -> PodChangeTimes {
        let mut previous_record = self.0.remove(key);
        let mut record = ServicePodRecord::default();
        let mut pods_by_node = pods_by_node(pods);
        for node in nodes {
            let pods = pods_by_node.remove(node.name.as_str()).unwrap_or_default();
            let previous_node_record =
                previous_record.as_mut().and_then(|record| record.nodes.remove(&node.name));
            // Just after the operator's start, a replacement of the proxy may be in progress.
            let may_have_been_ready = previous_record.is_none() && pods.iter().any(|pod| is_scheduled(pod));
            let node_record = NodePodRecord::new(
                &pods,
                may_run_proxy(node),
                previous_node_record,
                may_have_been_ready,
                now,
            );
            record.nodes.insert(node.name.clone(), node_record);
        }
        let earlier_time = previous_record.and_then(|record| record.without_pods_since);
        record.without_pods_since = (has_workload && pods.is_empty()).then(|| earlier_time.unwrap_or(now));
        let times = record.to_change_times();
        self.0.insert(key.clone(), record);
        times
    }

    /// Removes the records of a Service that no longer exists.
    pub(crate) fn forget(&mut self, key: &ServiceKey) {
        self.0.remove(key);
    }
}

impl ServicePodRecord {
    fn to_change_times(&self) -> PodChangeTimes {
        let nodes = self.nodes.iter();
        let last_ready_times =
            nodes.clone().filter_map(|(node, record)| Some((node.clone(), record.last_ready_at?)));
        PodChangeTimes {
            last_change_times: nodes.map(|(node, record)| (node.clone(), record.changed_at)).collect(),
            last_ready_times: last_ready_times.collect(),
            without_pods_since: self.without_pods_since,
        }
    }
}

impl NodePodRecord {
    /// Returns the new record of a node that had the record `previous`. `may_have_been_ready` is true if a proxy may
    /// have been ready recently.
    fn new(
        pods: &[&Pod],
        may_run_proxy: bool,
        previous: Option<Self>,
        may_have_been_ready: bool,
        now: Timestamp,
    ) -> Self {
        let is_or_was_ready = may_have_been_ready || pods.iter().any(|pod| is_ready(pod));
        let previously_ready_at = previous.as_ref().and_then(|previous| previous.last_ready_at);
        let to_identity = |pod: &&Pod| (pod.metadata.uid.clone(), pod.metadata.deletion_timestamp.is_some());
        let pods: BTreeSet<_> = pods.iter().map(to_identity).collect();
        let unchanged_record =
            previous.filter(|previous| previous.pods == pods && previous.may_run_proxy == may_run_proxy);
        Self {
            changed_at: unchanged_record.map_or(now, |record| record.changed_at),
            last_ready_at: if is_or_was_ready { Some(now) } else { previously_ready_at },
            pods,
            may_run_proxy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{at, key, node, pod};

    #[test]
    fn change_times_come_from_the_clock_of_the_operator() {
        let nodes = [NodeInfo::from_node(&node("n1").internal_ip("10.0.0.1").build())];
        let mut changes = PodChanges::default();
        let mut times_after_update = |pods: &[Pod], may_run_proxy: bool, now| {
            let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
            let times = changes.update(&key("web"), true, &pods, &nodes, |_| may_run_proxy, at(now));
            (times.last_change_times["n1"], times.without_pods_since)
        };
        // The clock of the API server is one hour ahead of the operator's clock.
        let running_pod = pod("a").on("n1").created_at(3600).ready().build();
        let deleted_pod = pod("a").on("n1").created_at(3600).terminating(3700).build();
        assert_eq!(times_after_update(std::slice::from_ref(&running_pod), true, 0), (at(0), None));
        assert_eq!(times_after_update(&[running_pod], true, 100), (at(0), None));
        assert_eq!(times_after_update(&[deleted_pod], true, 110), (at(110), None));
        assert_eq!(times_after_update(&[], true, 120), (at(120), Some(at(120))));
        assert_eq!(times_after_update(&[], true, 130), (at(120), Some(at(120))));
        // The node is no longer allocated to the Service, and is then allocated again. Each of these two steps counts
        // as a change.
        assert_eq!(times_after_update(&[], false, 140), (at(140), Some(at(120))));
        assert_eq!(times_after_update(&[], true, 150), (at(150), Some(at(120))));
    }

    #[test]
    fn time_without_pods_starts_when_the_workload_exists() {
        let mut changes = PodChanges::default();
        let mut without_pods_since = |has_workload, now| {
            changes.update(&key("web"), has_workload, &[], &[], |_| true, at(now)).without_pods_since
        };
        assert_eq!(without_pods_since(false, 0), None);
        assert_eq!(without_pods_since(true, 3600), Some(at(3600)));
        assert_eq!(without_pods_since(true, 3610), Some(at(3600)));
        assert_eq!(without_pods_since(false, 3620), None);
    }

    #[test]
    fn pod_changes_record_the_time_of_the_last_ready_proxy() {
        let nodes = [NodeInfo::from_node(&node("n1").build())];
        let last_ready_at = |changes: &mut PodChanges, pods: &[Pod], now| {
            let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
            let times = changes.update(&key("web"), true, &pods, &nodes, |_| true, at(now));
            times.last_ready_times.get("n1").copied()
        };
        let ready_pod = || [pod("a").on("n1").ready().build()];
        let deleted_pod = || [pod("a").on("n1").ready().terminating(20).build()];
        let starting_pod = || [pod("b").on("n1").build()];
        let mut changes = PodChanges::default();
        for (pods, now) in [
            (&ready_pod()[..], 0),
            (&ready_pod(), 10),
            (&deleted_pod(), 20),
            (&[], 21),
            (&starting_pod(), 22),
        ] {
            assert_eq!(last_ready_at(&mut changes, pods, now), Some(at(now.min(10))));
        }
        // After a start of the operator, a pod with a node may be the replacement of a ready proxy, but a pod without a
        // node is not.
        assert_eq!(last_ready_at(&mut PodChanges::default(), &starting_pod(), 30), Some(at(30)));
        let waiting_pod = [pod("b").restricted_to_node("n1").build()];
        let mut changes = PodChanges::default();
        assert_eq!(last_ready_at(&mut changes, &waiting_pod, 30), None);
        assert_eq!(last_ready_at(&mut changes, &starting_pod(), 31), None);
    }
}
