//! Replaces outdated proxies: decides which pods to delete now, and lists the outdated proxies. Pure.
//!
//! The operator itself replaces the pods of a DaemonSet. Kubernetes would replace all pods even after a change of the
//! placement, and would wait for nodes that are not available.

use std::fmt;

use akrobateo_services::node_info::NodeInfo;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::occupied_ports::{has_ended, is_selected_by_affinity};
use super::pod_digest::is_outdated;
use super::pod_status::pods_by_node;
use super::rollout_limits::{MAX_FAILED_ATTEMPTS, max_simultaneous_replacements};
use super::rollout_nodes::{NodeProxy, ProxyState};
use super::service_state::ServiceState;
use super::workload::Workload;

/// The replacement of a Service's outdated proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// The pods to delete now. The workload's controller then creates new pods.
    pub(crate) pods_to_delete: Vec<PodReference>,
    /// The nodes whose proxy is outdated.
    pub(crate) outdated_proxies: Vec<OutdatedProxy>,
    /// The time of the next check. The rollout may continue at this time without an event.
    pub(crate) recheck_at: Option<Timestamp>,
}

/// The identity of one pod. The UID distinguishes the pod from a later pod with the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodReference {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
}

/// A node with an outdated proxy. A proxy is outdated if its pod was created before the last change of the forwarding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutdatedProxy {
    pub(crate) node: String,
    /// The reason why the rollout does not replace the proxy soon; `None` if the rollout replaces the proxy soon.
    pub(crate) delay: Option<RolloutDelay>,
}

/// The reason why an outdated proxy is not replaced soon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RolloutDelay {
    #[error(
        "the node is not Ready, or is about to be removed; its proxy is replaced when the node is Ready again"
    )]
    NodeLost,
    #[error("the proxy pod of the node is not deleted yet; check the kubelet of the node")]
    NotDeleted,
    #[error("the node has a taint that the proxies do not tolerate, so no new proxy would start on the node")]
    NodeTainted,
    #[error(
        "the rollout stopped, because new proxies were not created or did not become ready; correct the cause, or undo the \
         change"
    )]
    ReplacementsFail,
    #[error("the rollout makes no progress; run: kubectl describe {0}")]
    NoProgress(String),
}

impl fmt::Display for OutdatedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.delay {
            Some(delay) => write!(f, "node {} ({delay})", self.node),
            None => write!(f, "node {}", self.node),
        }
    }
}

impl RolloutDelay {
    /// Returns true if the rollout does not continue by itself, so that the user has to act.
    pub(super) const fn needs_attention(&self) -> bool {
        !matches!(self, Self::NodeLost)
    }
}

impl Rollout {
    /// Plans the next step of a workload's rollout. The workload must already have the desired spec.
    pub(super) fn plan(workload: &Workload, state: &ServiceState, now: Timestamp) -> Self {
        match workload {
            Workload::DaemonSet(_) => Self::plan_daemonset(workload, state, now),
            Workload::Deployment(_) => Self::plan_deployment(workload, state),
        }
    }

    fn plan_daemonset(workload: &Workload, state: &ServiceState, now: Timestamp) -> Self {
        let Some(template) = workload.pod_template() else { return Self::default() };
        if !state.pods.iter().any(|pod| is_outdated(pod, template)) {
            return Self::default();
        }
        let proxies = NodeProxy::find_all(workload, template, state, now);
        let step = RolloutStep::new(&proxies);
        let outdated_proxies: Vec<_> = proxies
            .iter()
            .filter(|proxy| proxy.is_outdated)
            .map(|proxy| OutdatedProxy { node: proxy.node.name.clone(), delay: step.find_delay(proxy) })
            .collect();
        let change_ends = proxies.iter().filter_map(|proxy| proxy.state.change_ends_at());
        Self {
            pods_to_delete: if workload.is_observed_by_controller() {
                step.choose_pods_to_delete()
            } else {
                Vec::new()
            },
            recheck_at: change_ends.min().filter(|_| !outdated_proxies.is_empty()),
            outdated_proxies,
        }
    }

    /// Plans the deletion of pods on nodes that the pods' affinity no longer selects. The Deployment controller
    /// replaces outdated pods itself, but does not delete such misplaced pods.
    fn plan_deployment(workload: &Workload, state: &ServiceState) -> Self {
        let Some(template) = workload.pod_template() else { return Self::default() };
        let (mut pods_to_delete, mut outdated_proxies) = (Vec::new(), Vec::new());
        let mut pods_by_node = pods_by_node(&state.pods);
        for node in state.nodes.iter() {
            let mut pods = pods_by_node.remove(node.name.as_str()).unwrap_or_default();
            pods.retain(|pod| !has_ended(pod));
            let is_on_selected_node =
                |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| is_selected_by_affinity(spec, node));
            let running_pods = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let misplaced_pods = running_pods.filter(|pod| !is_on_selected_node(pod) && !node.is_lost());
            pods_to_delete.extend(misplaced_pods.map(|pod| PodReference::new(pod, node)));
            if pods.iter().any(|pod| is_outdated(pod, template)) {
                let delay = if node.is_lost() {
                    Some(RolloutDelay::NodeLost)
                } else {
                    workload
                        .is_rollout_stuck()
                        .then(|| RolloutDelay::NoProgress(workload.kubectl_arguments()))
                };
                outdated_proxies.push(OutdatedProxy { node: node.name.clone(), delay });
            }
        }
        Self { pods_to_delete, outdated_proxies, recheck_at: None }
    }
}

impl PodReference {
    fn new(pod: &Pod, node: &NodeInfo) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node: node.name.clone(),
        }
    }
}

/// One step of a DaemonSet's rollout.
///
/// Before the first new proxy is ready, the rollout replaces one proxy at a time. In this phase, the rollout replaces
/// only available proxies. The failure of a new proxy therefore shows a fault of the new pods. After a new proxy is
/// ready, the rollout no longer waits for nodes whose proxy fails. The rollout then waits only for nodes whose new pod
/// is not created.
struct RolloutStep<'a> {
    /// The available outdated proxies, in the order of their replacement.
    available_proxies: Vec<(&'a NodeInfo, &'a Pod)>,
    /// The outdated proxies that are not available.
    unavailable_proxies: Vec<(&'a NodeInfo, &'a Pod)>,
    /// The maximum number of available proxies to replace now.
    replacement_limit: usize,
    replaces_unavailable_proxies: bool,
    /// True if a new proxy is ready.
    has_ready_new_proxy: bool,
    is_stopped: bool,
}

impl<'a> RolloutStep<'a> {
    fn new(proxies: &[NodeProxy<'a>]) -> Self {
        let count_proxies = |has_state: fn(&ProxyState) -> bool| {
            proxies.iter().filter(|proxy| has_state(&proxy.state)).count()
        };
        let has_ready_new_proxy = count_proxies(|state| matches!(state, ProxyState::Ready)) > 0;
        let changing_count = if has_ready_new_proxy {
            count_proxies(|state| {
                matches!(state, ProxyState::Changing { was_ready: true, is_failing: false, .. })
            })
        } else {
            count_proxies(|state| matches!(state, ProxyState::Changing { .. }))
        };
        let mut replaceable_proxies: Vec<_> =
            proxies.iter().filter(|proxy| may_replace_ready_proxy(proxy, has_ready_new_proxy)).collect();
        // Unpublished nodes come first, because no client uses their proxies.
        replaceable_proxies.sort_by_key(|proxy| proxy.is_published);
        let available_proxies: Vec<_> = replaceable_proxies
            .into_iter()
            .filter_map(|proxy| match proxy.state {
                ProxyState::OutdatedReady(pod) => Some((proxy.node, pod)),
                _ => None,
            })
            .collect();
        let unavailable_proxies: Vec<_> = proxies
            .iter()
            .filter_map(|proxy| match proxy.state {
                ProxyState::OutdatedNotReady(pod) => Some((proxy.node, pod)),
                _ => None,
            })
            .collect();
        let failed_count = count_proxies(|state| matches!(state, ProxyState::Failed));
        let has_too_many_failures = !has_ready_new_proxy
            && (failed_count >= MAX_FAILED_ATTEMPTS || (failed_count > 0 && available_proxies.len() == 1));
        // If the new pod of one node is not created, the same failure is likely on other nodes.
        let is_pod_missing = count_proxies(|state| matches!(state, ProxyState::Missing)) > 0;
        let is_stopped = !available_proxies.is_empty() && (is_pod_missing || has_too_many_failures);
        let max_simultaneous = if has_ready_new_proxy {
            max_simultaneous_replacements(count_proxies(|state| !matches!(state, ProxyState::Lost)))
        } else {
            1
        };
        Self {
            replaces_unavailable_proxies: has_ready_new_proxy || available_proxies.is_empty() || is_stopped,
            available_proxies,
            unavailable_proxies,
            has_ready_new_proxy,
            replacement_limit: if is_stopped { 0 } else { max_simultaneous.saturating_sub(changing_count) },
            is_stopped,
        }
    }

    /// Returns the pods to delete now.
    fn choose_pods_to_delete(&self) -> Vec<PodReference> {
        let unavailable_to_replace =
            self.unavailable_proxies.iter().filter(|_| self.replaces_unavailable_proxies);
        let available_to_replace = self.available_proxies.iter().take(self.replacement_limit);
        unavailable_to_replace
            .chain(available_to_replace)
            .map(|(node, pod)| PodReference::new(pod, node))
            .collect()
    }

    /// Returns the reason why the rollout does not replace the outdated proxy of a node soon.
    fn find_delay(&self, proxy: &NodeProxy) -> Option<RolloutDelay> {
        let may_be_replaced = may_replace_ready_proxy(proxy, self.has_ready_new_proxy);
        match proxy.state {
            ProxyState::Lost => Some(RolloutDelay::NodeLost),
            ProxyState::NotDeleted => Some(RolloutDelay::NotDeleted),
            ProxyState::OutdatedReady(_) if may_be_replaced => {
                self.is_stopped.then_some(RolloutDelay::ReplacementsFail)
            }
            ProxyState::OutdatedReady(_) => Some(RolloutDelay::NodeTainted),
            _ => None,
        }
    }
}

/// Returns true if the rollout may replace the ready proxy of the node. While no new proxy is ready, the rollout leaves
/// a ready proxy in place on nodes where no new proxy could start.
const fn may_replace_ready_proxy(proxy: &NodeProxy, has_ready_new_proxy: bool) -> bool {
    has_ready_new_proxy || proxy.may_start_proxy
}
