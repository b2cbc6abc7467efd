//! The properties of port ownership: the ports that no change may take away, and the stable state after each round.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::{Frontend, Protocol};
use e2e::{Failure, ensure, exposed_condition};

use crate::model::{Model, ServiceId, ServiceModel};
use crate::observed_state::{ObservedState, PortOnNode};

/// The properties of port ownership, and the data that the checks need.
pub(crate) struct PortOwnershipProperties {
    /// The stable state at the end of the previous round.
    pub(crate) state_before_round: ObservedState,
    /// For each tenant, the index of the node that runs its backend.
    pub(crate) backend_node_by_tenant: [usize; 2],
}

impl PortOwnershipProperties {
    /// Checks the state in the middle of a round. If the round does not change a Service, the Service must keep its
    /// ports, and no other workload may get these ports.
    pub(crate) fn check_state_during_round(
        &self,
        model: &Model,
        current_state: &ObservedState,
    ) -> Result<(), Failure> {
        for (&id, previous_ports) in &self.state_before_round.ports_by_service {
            let Some(service) = model.services.get(&id) else { continue };
            let ports_to_keep = previous_ports.iter().filter(|(node, _)| {
                // The previous proxies of a rejected Service keep their ports on all nodes.
                let is_claimed = service.claims_ports_on_node(
                    model.pool_by_node[*node],
                    self.backend_node_by_tenant[id.tenant_index] == *node,
                );
                model.must_keep_ports_on_node(id, *node)
                    && (is_claimed || !service.is_valid(model.reserved_port))
            });
            for (node, port) in ports_to_keep {
                ensure(current_state.ports_of_service(id).contains(&(*node, *port)), || {
                    format!(
                        "{id:?} lost {port} on node {node} although only {:?} changed",
                        model.changing_services
                    )
                })?;
                // A DaemonSet selects a node by its labels before the operator excludes the node.
                if model.relabelled_nodes.contains(node) {
                    continue;
                }
                let mut other_workloads =
                    current_state.ports_by_service.iter().filter(|(other, _)| **other != id);
                let new_owner = other_workloads.find(|(_, ports)| ports.contains(&(*node, *port)));
                ensure(new_owner.is_none(), || {
                    format!("{:?} got {port} on node {node} from {id:?}", new_owner.map(|(id, _)| id))
                })?;
            }
        }
        Ok(())
    }

    /// Checks the stable state at the end of a round.
    pub(crate) fn check_stable_state(
        &self,
        model: &Model,
        current_state: &ObservedState,
    ) -> Result<(), Failure> {
        check_port_owners(model, current_state)?;
        let node_port_owners = node_port_owners(current_state);
        for (&id, service) in
            model.services.iter().filter(|(_, service)| service.is_valid(model.reserved_port))
        {
            let claimed_nodes = self.claimed_nodes(model, id, service);
            let owned_nodes: BTreeSet<_> =
                current_state.ports_of_service(id).into_iter().map(|(node, _)| node).collect();
            for node in claimed_nodes.difference(&owned_nodes) {
                if service.has_enough_nodes(owned_nodes.len()) {
                    continue;
                }
                let is_blocked = service.frontends().into_iter().any(|port| {
                    current_state
                        .ports_by_service
                        .iter()
                        .any(|(other, used_ports)| *other != id && used_ports.contains(&(*node, port)))
                        || node_port_owners
                            .get(&port)
                            .is_some_and(|owners| owners.iter().any(|owner| *owner != id))
                        || self.is_spare_node_of_another_deployment(model, current_state, id, (*node, port))
                });
                ensure(is_blocked, || format!("{id:?} waits for node {node} without a reason: {service:?}"))?;
            }
            // The scheduler may place all replicas of a Deployment on nodes without an endpoint.
            let has_enough_nodes = service.has_enough_nodes(owned_nodes.len());
            if !claimed_nodes.is_empty() && claimed_nodes.is_disjoint(&owned_nodes) && !has_enough_nodes {
                let condition = current_state.services.get(&id).and_then(exposed_condition);
                let has_owner_in_message =
                    condition.is_some_and(|condition| condition.message.contains("Service e2e-"));
                ensure(has_owner_in_message, || {
                    format!("the condition of {id:?} does not contain the owner of the ports: {condition:?}")
                })?;
            }
        }
        Ok(())
    }

    fn claimed_nodes(&self, model: &Model, id: ServiceId, service: &ServiceModel) -> BTreeSet<usize> {
        let is_claimed = |node: &usize| {
            service.claims_ports_on_node(
                model.pool_by_node[*node],
                self.backend_node_by_tenant[id.tenant_index] == *node,
            )
        };
        (0..model.pool_by_node.len()).filter(is_claimed).collect()
    }

    /// Returns true if the Deployment of another Service owns the port on a node, but excludes the node. A Deployment
    /// with enough other nodes continues to exclude the node, because a change of the excluded nodes replaces all pods.
    fn is_spare_node_of_another_deployment(
        &self,
        model: &Model,
        current_state: &ObservedState,
        id: ServiceId,
        (node, port): PortOnNode,
    ) -> bool {
        let mut other_services = model.services.iter().filter(|(other, service)| {
            **other != id && service.is_valid(model.reserved_port) && service.frontends().contains(&port)
        });
        other_services.any(|(&other, service)| {
            let owned_nodes: BTreeSet<_> =
                current_state.ports_of_service(other).into_iter().map(|(node, _)| node).collect();
            service.has_enough_nodes(owned_nodes.len())
                && self.claimed_nodes(model, other, service).contains(&node)
        })
    }
}

/// Checks that no port has two owners, that only eligible Services use ports, and that no Service uses a reserved
/// port.
fn check_port_owners(model: &Model, current_state: &ObservedState) -> Result<(), Failure> {
    let mut owners = BTreeMap::new();
    for (&id, used_ports) in &current_state.ports_by_service {
        let is_eligible = model.services.get(&id).is_some_and(ServiceModel::is_eligible);
        ensure(is_eligible || used_ports.is_empty(), || {
            format!("{id:?} is not eligible, but uses {used_ports:?}")
        })?;
        for &(node, port) in used_ports {
            ensure(model.reserved_port != Some(port.port.get()), || {
                format!("{id:?} uses the reserved port {port}")
            })?;
            if let Some(other) = owners.insert((node, port), id) {
                return Err(Failure::UnexpectedState(format!(
                    "{other:?} and {id:?} use {port} on node {node}"
                )));
            }
        }
    }
    Ok(())
}

/// Returns the nodePorts and healthCheckNodePorts with their Services, for both families.
fn node_port_owners(current_state: &ObservedState) -> BTreeMap<Frontend, Vec<ServiceId>> {
    let mut node_port_owners: BTreeMap<Frontend, Vec<ServiceId>> = BTreeMap::new();
    for (&id, service) in &current_state.services {
        let Some(spec) = &service.spec else { continue };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse::<Protocol>().ok()?;
            Some((protocol, port.node_port?))
        });
        let health_check = spec.health_check_node_port.map(|port| (Protocol::Tcp, port));
        for (protocol, port) in ports.chain(health_check) {
            let Some(port) = u16::try_from(port).ok().and_then(|port| port.try_into().ok()) else { continue };
            for family in akrobateo_core::Family::ALL {
                node_port_owners.entry(Frontend { family, protocol, port }).or_default().push(id);
            }
        }
    }
    node_port_owners
}
