//! The desired state of one Service. Pure.

use k8s_openapi::api::core::v1::LoadBalancerIngress;
use k8s_openapi::jiff::Timestamp;

use super::condition::Exposure;
use super::note::Note;
use super::rollout::Rollout;
use super::unpublished::UnpublishedNode;
use super::workload::Workload;
use super::write_limits::WriteLimits;

/// The desired state of one Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) proxy: ProxyDecision,
    /// True if the existing workload has all desired fields, so that an apply would change nothing.
    pub(super) is_workload_applied: bool,
    /// The desired status; `None` if another controller owns the status. The operator must not change the status of
    /// another controller.
    pub(crate) status: Option<DesiredStatus>,
    /// The nodes that should serve clients but are not published.
    pub(crate) unpublished_nodes: Vec<UnpublishedNode>,
    /// The replacement of outdated proxies.
    pub(crate) rollout: Rollout,
    /// The time of the next reconciliation if no event triggers a reconciliation earlier.
    pub(crate) recheck_at: Option<Timestamp>,
    /// The limits of the operator's writes. The limits delay the first status write of a shared Service, and all writes
    /// during a conflict with another program.
    pub(super) write_limits: WriteLimits,
}

impl Decision {
    /// Returns a decision without a rollout.
    pub(super) fn new(proxy: ProxyDecision, status: Option<DesiredStatus>) -> Self {
        Self {
            proxy,
            is_workload_applied: false,
            status,
            unpublished_nodes: Vec::new(),
            rollout: Rollout::default(),
            recheck_at: None,
            write_limits: WriteLimits::default(),
        }
    }

    /// Adds a part to the message of the condition.
    pub(super) fn add_note(&mut self, note: Note) {
        if let Some(exposure) = self.status.as_mut().and_then(|status| status.exposure.as_mut()) {
            exposure.add_note(note);
        }
    }

    /// Moves the next reconciliation to `latest_time` if the next reconciliation would be later.
    pub(super) fn recheck_no_later_than(&mut self, latest_time: Option<Timestamp>) {
        self.recheck_at = self.recheck_at.into_iter().chain(latest_time).min();
    }
}

/// The desired state of a Service's proxies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ProxyDecision {
    /// The workloads of the Service must be deleted.
    DeleteWorkloads,
    /// Exactly this workload must exist.
    RunWorkload(Workload),
    /// The existing workloads stay unchanged, because the current spec is invalid.
    KeepWorkloads,
}

/// The desired status of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredStatus {
    pub(crate) addresses: Vec<LoadBalancerIngress>,
    /// The content of the condition, or `None` if Akrobateo does not serve the Service.
    pub(crate) exposure: Option<Exposure>,
}
