//! The state of the proxies of a DaemonSet on each node during a rollout. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::addresses::is_published;
use super::occupied_ports::{has_ended, selects};
use super::pod_digest::is_outdated;
use super::pod_failure::is_failing;
use super::pod_status::{is_ready, target_node};
use super::rollout_limits::replacement_time;
use super::service_state::ServiceState;
use super::workload::Workload;
use crate::node_info::NodeInfo;

/// A node that is reachable and should have a proxy, or has one.
pub(super) struct NodeProxy<'a> {
    pub(super) node: &'a NodeInfo,
    pub(super) state: ProxyState<'a>,
    /// True if a new proxy may start on the node.
    pub(super) may_return: bool,
    pub(super) is_published: bool,
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
    /// The deletion of the proxy does not end.
    NotDeleted,
    OutdatedReady(&'a Pod),
    OutdatedNotReady(&'a Pod),
}

impl<'a> NodeProxy<'a> {
    /// Returns the proxy of a node; `None` if the node has and needs none.
    pub(super) fn find(
        workload: &Workload,
        state: &'a ServiceState,
        node: &'a NodeInfo,
        now: Timestamp,
    ) -> Option<Self> {
        let template = workload.pod_template()?;
        let may_return = template.spec.as_ref().is_some_and(|spec| selects(spec, node));
        let pods = state.pods.iter().map(|pod| &**pod);
        let pods: Vec<_> =
            pods.filter(|pod| target_node(pod) == Some(node.name.as_str()) && !has_ended(pod)).collect();
        if pods.is_empty() && !may_return {
            return None;
        }
        let replacement_time = replacement_time(workload.host_ports().len());
        let end = |times: &BTreeMap<String, Timestamp>| {
            times.get(&node.name).map(|at| *at + replacement_time).filter(|end| *end > now)
        };
        let interruption_end = end(&state.pod_times.last_ready_at);
        let change_end = interruption_end.max(end(&state.pod_times.changed_at));
        let kept: Vec<_> =
            pods.iter().copied().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        let proxy_state = if let Some(pod) = kept.iter().find(|pod| is_outdated(pod, template)) {
            if is_ready(pod) { ProxyState::OutdatedReady(pod) } else { ProxyState::OutdatedNotReady(pod) }
        } else if kept.iter().any(|pod| is_ready(pod)) {
            ProxyState::Ready
        } else if let Some(ends_at) = change_end {
            ProxyState::Changing {
                was_ready: interruption_end.is_some(),
                is_failing: kept.iter().any(|pod| is_failing(pod)),
                ends_at,
            }
        } else if !kept.is_empty() {
            ProxyState::Failed
        } else if pods.is_empty() {
            ProxyState::Missing
        } else {
            ProxyState::NotDeleted
        };
        let is_published = state.service.as_ref().is_some_and(|service| is_published(service, node));
        Some(Self { node, state: proxy_state, may_return, is_published })
    }
}

impl ProxyState<'_> {
    /// Returns the time at which the replacement of the proxy should have ended.
    pub(super) const fn change_ends_at(&self) -> Option<Timestamp> {
        match self {
            Self::Changing { ends_at, .. } => Some(*ends_at),
            _ => None,
        }
    }
}
