//! The state of the proxies of a DaemonSet on each node during a rollout. Pure.

use std::collections::BTreeMap;

use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::is_published;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::occupied_ports::{has_ended, selects_node};
use super::pod_digest::is_outdated;
use super::pod_failure::is_failing;
use super::pod_status::{is_ready, is_scheduled, pods_by_node};
use super::rollout_limits::replacement_time;
use super::service_state::{PodChangeTimes, ServiceState};
use super::workload::Workload;

/// A node that has a proxy or should have one.
pub(super) struct NodeProxy<'a> {
    pub(super) node: &'a NodeInfo,
    pub(super) state: ProxyState<'a>,
    /// True if a new proxy may start on the node.
    pub(super) may_start_proxy: bool,
    pub(super) is_published: bool,
    /// True if the node has an outdated pod, even if this pod is being deleted.
    pub(super) is_outdated: bool,
}

/// The state of a node's proxy.
pub(super) enum ProxyState<'a> {
    /// The proxy is ready and not outdated.
    Ready,
    /// No proxy is ready, but the node's pods have changed recently.
    Changing {
        /// True if a proxy was ready recently. The replacement then interrupts the forwarding on this node.
        was_ready: bool,
        is_failing: bool,
        change_ends_at: Timestamp,
    },
    /// The new proxy of the node fails to become ready.
    Failed,
    /// The node has no pod.
    Missing,
    /// The node is unreachable, or is about to be removed.
    Lost,
    /// The deletion of the proxy takes longer than a replacement should take.
    NotDeleted,
    /// The proxy is outdated and ready.
    OutdatedReady(&'a Pod),
    /// The proxy is outdated and not ready.
    OutdatedNotReady(&'a Pod),
}

impl<'a> NodeProxy<'a> {
    /// Returns the proxies of a DaemonSet on all nodes that have or need a proxy.
    pub(super) fn find_all(
        workload: &Workload,
        template: &PodTemplateSpec,
        state: &'a ServiceState,
        now: Timestamp,
    ) -> Vec<Self> {
        let mut pods_by_node = pods_by_node(&state.pods);
        let replacement_time = replacement_time(workload.host_ports().len());
        let mut proxies = Vec::new();
        for node in state.nodes.iter() {
            let mut pods = pods_by_node.remove(node.name.as_str()).unwrap_or_default();
            pods.retain(|pod| !has_ended(pod));
            let may_start_proxy = template.spec.as_ref().is_some_and(|spec| selects_node(spec, node));
            if pods.is_empty() && !may_start_proxy {
                continue;
            }
            proxies.push(Self {
                node,
                state: if node.is_lost() {
                    ProxyState::Lost
                } else {
                    let change_end_times =
                        ChangeEndTimes::new(&state.pod_change_times, &node.name, replacement_time, now);
                    ProxyState::new(&pods, template, &change_end_times)
                },
                may_start_proxy,
                is_published: state.service.as_ref().is_some_and(|service| is_published(service, node)),
                is_outdated: pods.iter().any(|pod| is_scheduled(pod) && is_outdated(pod, template)),
            });
        }
        proxies
    }
}

/// The times at which the replacement of a node's proxy should end. A field is `None` if its time has passed.
struct ChangeEndTimes {
    /// The end of the replacement, counted from the last time when a proxy of the node was ready.
    interruption_end: Option<Timestamp>,
    /// The later of two times: `interruption_end`, and the end of the replacement counted from the last change of the
    /// node's pods.
    change_end: Option<Timestamp>,
}

impl ChangeEndTimes {
    fn new(times: &PodChangeTimes, node: &str, replacement_time: SignedDuration, now: Timestamp) -> Self {
        let end = |times: &BTreeMap<String, Timestamp>| {
            times.get(node).map(|at| *at + replacement_time).filter(|end| *end > now)
        };
        let interruption_end = end(&times.last_ready_times);
        Self { interruption_end, change_end: interruption_end.max(end(&times.last_change_times)) }
    }
}

impl<'a> ProxyState<'a> {
    fn new(pods: &[&'a Pod], template: &PodTemplateSpec, change_end_times: &ChangeEndTimes) -> Self {
        let existing_pods: Vec<_> =
            pods.iter().copied().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        if let Some(pod) = existing_pods.iter().find(|pod| is_outdated(pod, template)) {
            if is_ready(pod) { Self::OutdatedReady(pod) } else { Self::OutdatedNotReady(pod) }
        } else if existing_pods.iter().any(|pod| is_ready(pod)) {
            Self::Ready
        } else if let Some(change_ends_at) = change_end_times.change_end {
            let was_ready = change_end_times.interruption_end.is_some();
            Self::Changing {
                was_ready,
                is_failing: existing_pods.iter().any(|pod| is_failing(pod)),
                change_ends_at,
            }
        } else if !existing_pods.is_empty() {
            Self::Failed
        } else if pods.is_empty() {
            Self::Missing
        } else {
            Self::NotDeleted
        }
    }

    /// Returns the time at which the replacement of the proxy should have ended.
    pub(super) const fn change_ends_at(&self) -> Option<Timestamp> {
        match self {
            Self::Changing { change_ends_at, .. } => Some(*change_ends_at),
            _ => None,
        }
    }
}
