//! Properties of the allocation after each step of random events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_core::Frontend;
use k8s_openapi::api::core::v1::Service;
use proptest::prelude::*;

use super::events::{Event, Model, NODES, SERVICES, any_event, any_model, key};
use super::world::World;
use crate::allocation::node_ports::NodePorts;
use crate::allocation::{AllocationResult, Observations, OccupiedPorts};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::LoadBalancerSpec;

type NodePort<'a> = (&'a str, Frontend);

impl World {
    /// Returns the spec of an accepted Service.
    fn spec(&self, key: &ServiceKey) -> Option<&LoadBalancerSpec> {
        match self.allocations.get(key) {
            Some(AllocationResult::Accepted(spec, _)) => Some(spec),
            _ => None,
        }
    }

    fn is_rejected(&self, key: &ServiceKey) -> bool {
        matches!(self.allocations.get(key), Some(AllocationResult::Rejected(_)))
    }

    fn has_reserved_port(&self, frontends: &BTreeSet<Frontend>) -> bool {
        frontends.iter().any(|port| self.reserved_ports.contains(port.host_port()))
    }

    /// Returns the ports of nodes that a Service's proxies may use.
    fn owned_ports(&self, key: &ServiceKey) -> BTreeSet<NodePort<'_>> {
        let owned: OccupiedPorts = match self.allocations.get(key) {
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let nodes = self.nodes.iter().filter(|node| allocation.allows(spec, node));
                OccupiedPorts {
                    nodes: nodes.map(|node| node.name.clone()).collect(),
                    frontends: spec.frontends(),
                }
            }
            Some(AllocationResult::Rejected(_)) => {
                let mut held = self.occupied_ports(key);
                if let Some(granted) = &self.allocations.entries[key].granted_nodes {
                    held.nodes.retain(|node| granted.contains(node));
                }
                if self.has_reserved_port(&held.frontends) { OccupiedPorts::default() } else { held }
            }
            None => OccupiedPorts::default(),
        };
        let nodes = self.nodes.iter().filter(|node| owned.nodes.contains(&node.name));
        nodes.flat_map(|node| owned.frontends.iter().map(|port| (node.name.as_str(), *port))).collect()
    }

    /// Returns what a new operator finds in the cluster of what a Service owns: nothing on a node where the last edit of
    /// the Service did not reach its workload, or where another workload has one of its ports.
    fn ports_found_after_restart(&self, key: &ServiceKey) -> BTreeSet<NodePort<'_>> {
        let OccupiedPorts { frontends, nodes } = self.occupied_ports(key);
        let mut owned = self.owned_ports(key);
        if !owned.iter().all(|(_, port)| frontends.contains(port)) {
            return BTreeSet::new();
        }
        owned.retain(|(node, _)| nodes.contains(*node) && self.count_holders(node, &frontends) == 1);
        owned
    }

    /// Returns the number of workloads that have one of these ports.
    fn count_holders(&self, node: &str, ports: &BTreeSet<Frontend>) -> usize {
        let held = self.services.keys().map(|key| self.occupied_ports(key));
        held.filter(|held| held.nodes.contains(node) && !held.frontends.is_disjoint(ports)).count()
    }

    /// Returns true if the previous proxies of another Service keep a port of the claim on the node: that Service was
    /// rejected before its proxies were changed.
    fn rejected_service_holds_port(
        &self,
        key: &ServiceKey,
        node: &str,
        frontends: &BTreeSet<Frontend>,
    ) -> bool {
        self.services.keys().filter(|other| *other != key && self.is_rejected(other)).any(|other| {
            let held = self.occupied_ports(other);
            held.nodes.contains(node) && !held.frontends.is_disjoint(frontends)
        })
    }

    /// Returns true if the Service claims its ports on a node: it selects the node, and has an endpoint there if it needs
    /// one.
    fn is_claiming(&self, key: &ServiceKey, spec: &LoadBalancerSpec, node: &NodeInfo) -> bool {
        let needs_endpoint = spec.is_external_traffic_policy_local;
        spec.nodes.matches(node) && (!needs_endpoint || self.recent_endpoint_nodes(key).contains(&node.name))
    }

    fn is_published(&self, key: &ServiceKey, node: &str) -> bool {
        self.published_nodes.get(key).is_some_and(|nodes| nodes.contains(node))
    }

    fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// Checks that no port has two owners, and that no Service owns a reserved port.
fn check_owners(world: &World) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    for key in world.services.keys() {
        for (node, port) in world.owned_ports(key) {
            prop_assert!(!world.reserved_ports.contains(port.host_port()), "{key} holds reserved {port}");
            if let Some(other) = owners.insert((node, port), key) {
                // Two Services were rejected while their workloads still had the same port.
                let are_rejected = world.is_rejected(key) && world.is_rejected(other);
                prop_assert!(are_rejected, "{key} and {other} hold {port} on {node}");
            }
        }
    }
    Ok(())
}

/// Checks that every Service without an event keeps what it owned, `owned`.
fn check_kept(
    after: &World,
    key: &ServiceKey,
    owned: BTreeSet<NodePort<'_>>,
    is_excused: impl Fn(&str, &BTreeSet<Frontend>) -> bool,
) -> Result<(), TestCaseError> {
    let owned_after = after.owned_ports(key);
    let frontends: BTreeSet<_> = owned.iter().map(|(_, port)| *port).collect();
    for (name, port) in owned {
        // The Service selects the node no longer, or a Local Service has no endpoint there. The proxies of a rejected
        // Service leave a node whose labels they do not select.
        let is_given_up = after.node(name).is_none_or(|node| match after.spec(key) {
            Some(spec) => !after.is_claiming(key, spec, node),
            None => !after.occupied_ports(key).nodes.contains(name),
        });
        let is_released = after.has_reserved_port(&frontends) || is_given_up || is_excused(name, &frontends);
        prop_assert!(is_released || owned_after.contains(&(name, port)), "{key} lost {port} on {name}");
    }
    Ok(())
}

/// Checks that each claim without its node waits for a Service that held a port there before the events, or whose
/// workload selected the node after them, or that precedes it.
fn check_waiting(before: &World, observed: &World, after: &World) -> Result<(), TestCaseError> {
    let services: Vec<_> = after.services.values().cloned().collect();
    let node_ports = NodePorts::from_services(&services);
    let rank = |key: &ServiceKey, node: &str| {
        let service = &after.services[key];
        (!before.is_published(key, node), service.metadata.creation_timestamp.clone(), key.clone())
    };
    for key in after.services.keys() {
        let Some(spec) = after.spec(key) else { continue };
        let owned: BTreeSet<_> = after.owned_ports(key).into_iter().map(|(node, _)| node).collect();
        let claimed = after.nodes.iter().filter(|node| after.is_claiming(key, spec, node));
        for NodeInfo { name: node, .. } in claimed.filter(|node| !owned.contains(node.name.as_str())) {
            let blocks = |owner: &ServiceKey, port: &Frontend| {
                let owns = after.owned_ports(owner).contains(&(node.as_str(), *port));
                let held = || {
                    before.owned_ports(owner).iter().any(|(held, _)| held == node)
                        || observed.occupied_ports(owner).nodes.contains(node)
                };
                owns && (held() || rank(owner, node) < rank(key, node))
            };
            let is_blocked = spec.frontends().iter().any(|port| {
                let mut others = after.services.keys().filter(|other| *other != key);
                node_ports.get_other_owner(*port, key).is_some() || others.any(|other| blocks(other, port))
            });
            prop_assert!(is_blocked, "nothing keeps {key} from {node}");
        }
    }
    Ok(())
}

/// Returns the Services of the cluster, in the order of the events.
fn services_of(batch: &[(usize, Model)]) -> Vec<Arc<Service>> {
    batch.iter().map(|(index, model)| Arc::new(model.build(*index, usize::from(model.replaces)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Workloads follow each step, as in a cluster whose operator has time to act.
    #[test]
    fn no_event_takes_a_port_from_another_service_and_the_next_one_takes_over(
        batches in prop::collection::vec(prop::collection::vec(any_event(), 1..4), 1..16),
    ) {
        let mut world = World::new();
        for batch in batches {
            let before = world.clone();
            let touched: Vec<_> = batch.iter().filter_map(|event| world.handle(event)).collect();
            let observed = world.clone();
            world.allocate();
            check_owners(&world)?;
            prop_assert!(world.settle(), "the workloads do not settle");
            check_owners(&world)?;
            check_waiting(&before, &observed, &world)?;
            // A change of the reserved ports can change the result, and with it what the Service claims.
            let is_unchanged = |key: &ServiceKey| before.is_rejected(key) == world.is_rejected(key);
            let is_restarted = batch.iter().any(Event::is_restart);
            for key in world.services.keys().filter(|key| !touched.contains(key) && is_unchanged(key)) {
                // A node got a label during a restart, so the workloads of two Services select it. A rejected Service is
                // not published on a new node. So nothing in the cluster shows which of them had the node before.
                let is_ambiguous = |node: &str, ports: &BTreeSet<Frontend>| {
                    is_restarted
                        && world.is_rejected(key)
                        && !before.is_published(key, node)
                        && observed.count_holders(node, ports) > 1
                };
                check_kept(&world, key, before.owned_ports(key), is_ambiguous)?;
            }
        }
    }

    /// Workloads lag behind, so an operator that starts again may not find everything that the previous one allocated.
    #[test]
    fn no_event_takes_a_port_from_another_service_while_workloads_lag_behind(
        batches in prop::collection::vec(prop::collection::vec(any_event(), 1..4), 1..16),
    ) {
        let mut world = World::new();
        for batch in batches {
            let before = world.clone();
            let touched: Vec<_> = batch.iter().filter_map(|event| world.handle(event)).collect();
            let is_restarted = batch.iter().any(Event::is_restart);
            // Workloads that change in the same batch are evidence too.
            let mut observed = world.clone();
            observed.allocations = before.allocations.clone();
            world.allocate();
            check_owners(&world)?;
            let is_unchanged = |key: &ServiceKey| before.is_rejected(key) == world.is_rejected(key);
            for key in world.services.keys().filter(|key| !touched.contains(key) && is_unchanged(key)) {
                let owned = if is_restarted { observed.ports_found_after_restart(key) } else { before.owned_ports(key) };
                check_kept(&world, key, owned, |node, ports| world.rejected_service_holds_port(key, node, ports))?;
            }
        }
    }

    #[test]
    fn the_order_of_services_and_nodes_does_not_matter(
        first in prop::collection::vec(any_event(), 1..8),
        (batch, shuffled) in prop::collection::vec(any_model(), SERVICES)
            .prop_map(|models| models.into_iter().enumerate().collect::<Vec<_>>())
            .prop_flat_map(|batch| (Just(batch.clone()), Just(batch).prop_shuffle())),
        node_order in Just(NODES.to_vec()).prop_shuffle(),
    ) {
        let mut world = World::new();
        for event in &first {
            world.handle(event);
        }
        world.allocate();
        world.sync_workloads();
        let update = |batch: &[(usize, Model)], nodes: &[NodeInfo]| {
            world.allocations.update(&services_of(batch), nodes, &world.defaults(), &world)
        };
        let shuffled_nodes: Vec<_> = node_order.iter().filter_map(|name| world.node(name).cloned()).collect();
        prop_assert_eq!(shuffled_nodes.len(), world.nodes.len());
        let (left, right) = (update(&batch, &world.nodes), update(&shuffled, &shuffled_nodes));
        for index in 0..SERVICES {
            prop_assert_eq!(left.get(&key(index)), right.get(&key(index)));
        }
    }

    #[test]
    fn a_settled_state_does_not_change_after_a_restart(events in prop::collection::vec(any_event(), 1..16)) {
        let mut world = World::new();
        for event in &events {
            world.handle(event);
            world.settle();
        }
        world.expire_assumed_endpoints();
        prop_assert!(world.settle());
        let before = world.clone();
        world.restart();
        world.allocate();
        // A Service without endpoints reports its conflicts again only after this time.
        let has_assumed_endpoints = world.has_assumed_endpoints();
        for index in 0..SERVICES {
            let key = key(index);
            prop_assert_eq!(before.owned_ports(&key), world.owned_ports(&key));
            if !has_assumed_endpoints {
                prop_assert_eq!(before.allocations.get(&key), world.allocations.get(&key));
            }
        }
        world.expire_assumed_endpoints();
        world.allocate();
        for index in 0..SERVICES {
            let key = key(index);
            prop_assert_eq!(before.allocations.get(&key), world.allocations.get(&key));
        }
    }
}
