//! The Services that the plan of a node serves, and the Services that the plan refuses. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_core::Frontend;
use akrobateo_services::agent_report::{PortOwner, PortProblem};
use akrobateo_services::allocation::Allocation;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;

use super::template::{ServiceTemplate, Templates};

/// The maximum number of conflicts in the report for one Service. A Service can have 1,000 ports, and the report must fit
/// into the annotation of a Lease (256 KiB).
const MAX_REPORTED_CONFLICTS: usize = 3;

/// The decisions of one plan.
#[derive(Default)]
pub(super) struct Decisions {
    pub(super) served_services: Templates,
    /// The frontends of the served Services.
    used_frontends: BTreeSet<Frontend>,
    pub(super) refused_ports: Vec<PortProblem>,
    pub(super) unserved_services: Vec<String>,
    pub(super) doubly_used_ports: Vec<PortProblem>,
    pub(super) services_waiting_for_proxies: Vec<String>,
}

impl Decisions {
    /// Adds a Service to the served Services. Returns false, and adds nothing, if another served Service has one of the
    /// ports.
    pub(super) fn serve(&mut self, template: Arc<ServiceTemplate>) -> bool {
        let frontends = template.frontends();
        let are_ports_free = self.used_frontends.is_disjoint(&frontends);
        if are_ports_free {
            self.used_frontends.extend(frontends);
            self.served_services.insert(template.key.clone(), template);
        }
        are_ports_free
    }

    /// Reports the Services that own the ports of a refused Service on this node.
    pub(super) fn refuse(&mut self, key: &ServiceKey, allocation: &Allocation, node: &NodeInfo) {
        if allocation.unclaimed_nodes.contains(&node.name) {
            return;
        }
        let conflicts = allocation.conflicts.iter().take(MAX_REPORTED_CONFLICTS);
        self.refused_ports.extend(conflicts.map(|conflict| PortProblem {
            service: key.to_string(),
            port: conflict.port.to_string(),
            owner: PortOwner::Service(conflict.owner.to_string()),
        }));
    }
}
