//! The state of the proxies of a DaemonSet on each node during a rollout. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::addresses::is_published;
use super::occupied_ports::{has_ended, selects};
use super::pod_digest::is_outdated;
use super::pod_failure::is_failing;
use super::pod_status::{is_ready, is_scheduled, pods_by_node};
use super::rollout_limits::replacement_time;
use super::service_state::{PodTimes, ServiceState};
use super::workload::Workload;
use crate::node_info::NodeInfo;

/// A node that should have a proxy, or has one.
pub(super) struct NodeProxy<'a> {
    pub(super) node: &'a NodeInfo,
    pub(super) state: ProxyState<'a>,
    /// True if a new proxy may start on the node.
    pub(super) may_return: bool,
    pub(super) is_published: bool,
    /// True if one of its pods is outdated, also if this pod is being deleted.
    pub(super) is_outdated: bool,
}

/// The state of a node's proxy.
pub(super) enum ProxyState<'a> {
    /// The proxy is ready and not outdated.
    Ready,
    /// No proxy is ready, but the pods changed a short time ago.
    Changing {
        /// True if a proxy was ready a short time ago: the node is interrupted.
        was_ready: bool,
        is_failing: bool,
        ends_at: Timestamp,
    },
    /// The new proxy does not become ready.
    Failed,
    /// There is no pod.
    Missing,
    /// The node is not reachable, or about to be removed.
    Lost,
    /// The deletion of the proxy does not end.
    NotDeleted,
    OutdatedReady(&'a Pod),
    OutdatedNotReady(&'a Pod),
}

impl<'a> NodeProxy<'a> {
    /// Returns the proxies of a DaemonSet on all nodes that have or need one.
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
            let may_return = template.spec.as_ref().is_some_and(|spec| selects(spec, node));
            if pods.is_empty() && !may_return {
                continue;
            }
            proxies.push(Self {
                node,
                state: if node.is_lost() {
                    ProxyState::Lost
                } else {
                    let ends = ChangeEnds::new(&state.pod_times, &node.name, replacement_time, now);
                    ProxyState::new(&pods, template, &ends)
                },
                may_return,
                is_published: state.service.as_ref().is_some_and(|service| is_published(service, node)),
                is_outdated: pods.iter().any(|pod| is_scheduled(pod) && is_outdated(pod, template)),
            });
        }
        proxies
    }
}

/// The times at which the replacement of a node's proxy should have ended, if they are in the future.
struct ChangeEnds {
    /// Counted from the last time when a proxy was ready.
    of_interruption: Option<Timestamp>,
    /// Counted also from the last change of the pods.
    of_change: Option<Timestamp>,
}

impl ChangeEnds {
    fn new(times: &PodTimes, node: &str, replacement_time: SignedDuration, now: Timestamp) -> Self {
        let end = |times: &BTreeMap<String, Timestamp>| {
            times.get(node).map(|at| *at + replacement_time).filter(|end| *end > now)
        };
        let of_interruption = end(&times.last_ready_at);
        Self { of_interruption, of_change: of_interruption.max(end(&times.changed_at)) }
    }
}

impl<'a> ProxyState<'a> {
    fn new(pods: &[&'a Pod], template: &PodTemplateSpec, ends: &ChangeEnds) -> Self {
        let kept: Vec<_> =
            pods.iter().copied().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        if let Some(pod) = kept.iter().find(|pod| is_outdated(pod, template)) {
            if is_ready(pod) { Self::OutdatedReady(pod) } else { Self::OutdatedNotReady(pod) }
        } else if kept.iter().any(|pod| is_ready(pod)) {
            Self::Ready
        } else if let Some(ends_at) = ends.of_change {
            let was_ready = ends.of_interruption.is_some();
            Self::Changing { was_ready, is_failing: kept.iter().any(|pod| is_failing(pod)), ends_at }
        } else if !kept.is_empty() {
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
            Self::Changing { ends_at, .. } => Some(*ends_at),
            _ => None,
        }
    }
}
