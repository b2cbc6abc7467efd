//! The properties of port ownership: the ports that no event may take, and the state after the operator has settled. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::{Frontend, Protocol};
use e2e::{Failure, ensure, exposed_condition};

use crate::holdings::{NodePort, Observed};
use crate::model::{Model, ServiceId, ServiceModel};

/// The ports that Services held before a round, and the nodes of the tenants' backends.
pub(crate) struct Properties {
    pub(crate) settled: Observed,
    pub(crate) backend_nodes: [usize; 2],
}

impl Properties {
    /// Checks at any time of a round: a Service that the round does not change keeps its ports, and no other workload gets
    /// one of them.
    pub(crate) fn check_step(&self, model: &Model, now: &Observed) -> Result<(), Failure> {
        for (&id, held) in &self.settled.holdings {
            let Some(service) = model.services.get(&id) else { continue };
            let kept = held.iter().filter(|(node, _)| {
                // The previous proxies of a rejected Service keep their ports on all nodes.
                let claims = service.claims(model.pools[*node], self.backend_nodes[id.tenant] == *node);
                model.must_keep_ports_on_node(id, *node) && (claims || !service.is_valid(model.reserved_port))
            });
            for (node, port) in kept {
                ensure(now.held(id).contains(&(*node, *port)), || {
                    format!("{id:?} lost {port} on node {node} although only {:?} changed", model.active)
                })?;
                // A DaemonSet selects a node by its labels before the operator excludes the node.
                if model.relabelled_nodes.contains(node) {
                    continue;
                }
                let mut others = now.holdings.iter().filter(|(other, _)| **other != id);
                let thief = others.find(|(_, ports)| ports.contains(&(*node, *port)));
                ensure(thief.is_none(), || {
                    format!("{:?} got {port} on node {node} from {id:?}", thief.map(|(id, _)| id))
                })?;
            }
        }
        Ok(())
    }

    /// Checks the state in which nothing changes any more.
    pub(crate) fn check_settled(&self, model: &Model, now: &Observed) -> Result<(), Failure> {
        check_owners(model, now)?;
        let node_ports = node_ports(now);
        for (&id, service) in
            model.services.iter().filter(|(_, service)| service.is_valid(model.reserved_port))
        {
            let claimed = self.claimed_nodes(model, id, service);
            let owned: BTreeSet<_> = now.held(id).into_iter().map(|(node, _)| node).collect();
            for node in claimed.difference(&owned) {
                if service.has_enough_nodes(owned.len()) {
                    continue;
                }
                let is_blocked = service.frontends().into_iter().any(|port| {
                    now.holdings.iter().any(|(other, held)| *other != id && held.contains(&(*node, port)))
                        || node_ports.get(&port).is_some_and(|owners| owners.iter().any(|owner| *owner != id))
                        || self.is_spare_node_of_another_deployment(model, now, id, (*node, port))
                });
                ensure(is_blocked, || format!("nothing keeps {id:?} from node {node}: {service:?}"))?;
            }
            if !claimed.is_empty() && claimed.is_disjoint(&owned) {
                let condition = now.services.get(&id).and_then(exposed_condition);
                let names_owner =
                    condition.is_some_and(|condition| condition.message.contains("Service e2e-"));
                ensure(names_owner, || {
                    format!("{id:?} has a condition that does not name the owner of its ports: {condition:?}")
                })?;
            }
        }
        Ok(())
    }

    fn claimed_nodes(&self, model: &Model, id: ServiceId, service: &ServiceModel) -> BTreeSet<usize> {
        let claims =
            |node: &usize| service.claims(model.pools[*node], self.backend_nodes[id.tenant] == *node);
        (0..model.pools.len()).filter(claims).collect()
    }

    /// Returns true if another Service's Deployment owns the port of a node that it excludes. A Deployment with enough other
    /// nodes excludes such a node until it needs the node, because the change would replace all of its pods.
    fn is_spare_node_of_another_deployment(
        &self,
        model: &Model,
        now: &Observed,
        id: ServiceId,
        (node, port): NodePort,
    ) -> bool {
        let mut others = model.services.iter().filter(|(other, service)| {
            **other != id && service.is_valid(model.reserved_port) && service.frontends().contains(&port)
        });
        others.any(|(&other, service)| {
            let held: BTreeSet<_> = now.held(other).into_iter().map(|(node, _)| node).collect();
            service.has_enough_nodes(held.len()) && self.claimed_nodes(model, other, service).contains(&node)
        })
    }
}

/// Checks that no port has two owners, and that only eligible Services hold ports, and no reserved one.
fn check_owners(model: &Model, now: &Observed) -> Result<(), Failure> {
    let mut owners = BTreeMap::new();
    for (&id, held) in &now.holdings {
        let is_eligible = model.services.get(&id).is_some_and(ServiceModel::is_eligible);
        ensure(is_eligible || held.is_empty(), || format!("{id:?} holds {held:?} and is not served"))?;
        for &(node, port) in held {
            ensure(model.reserved_port != Some(port.port.get()), || format!("{id:?} holds reserved {port}"))?;
            if let Some(other) = owners.insert((node, port), id) {
                return Err(Failure::UnexpectedState(format!(
                    "{other:?} and {id:?} hold {port} on node {node}"
                )));
            }
        }
    }
    Ok(())
}

/// Returns the nodePorts and healthCheckNodePorts with their Services, for both families.
fn node_ports(now: &Observed) -> BTreeMap<Frontend, Vec<ServiceId>> {
    let mut node_ports: BTreeMap<Frontend, Vec<ServiceId>> = BTreeMap::new();
    for (&id, service) in &now.services {
        let Some(spec) = &service.spec else { continue };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse::<Protocol>().ok()?;
            Some((protocol, port.node_port?))
        });
        let health_check = spec.health_check_node_port.map(|port| (Protocol::Tcp, port));
        for (protocol, port) in ports.chain(health_check) {
            let Some(port) = u16::try_from(port).ok().and_then(|port| port.try_into().ok()) else { continue };
            for family in akrobateo_core::Family::ALL {
                node_ports.entry(Frontend { family, protocol, port }).or_default().push(id);
            }
        }
    }
    node_ports
}
