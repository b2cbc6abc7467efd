//! Properties of the allocation after each step of random events: Services come, change and go, endpoints move, ports
//! become reserved, workloads lag behind, and the operator restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_core::Frontend;
use akrobateo_core::annotations::{IP_MODE, NODE_SELECTOR};
use proptest::prelude::*;

use super::ALL;
use super::world::{World, names};
use crate::allocation::{AllocationResult, Observations, OccupiedPorts};
use crate::decide::fixtures::{ServiceBuilder, key, service};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::PortSet;

const SERVICES: usize = 5;
const PORTS: std::ops::Range<u16> = 80..84;

/// The spec of a Service: the inputs of the allocation that random events change.
#[derive(Clone, Debug)]
struct Model {
    ports: BTreeSet<u16>,
    families: usize,
    service_type: &'static str,
    nodes: Vec<&'static str>,
    is_local: bool,
    is_invalid: bool,
    node_port: Option<u16>,
    created: i64,
}

#[derive(Clone, Debug)]
enum Event {
    Apply(usize, Model),
    Delete(usize),
    MoveEndpoints(usize, Vec<&'static str>),
    /// The workload of one Service follows the last allocation.
    SyncWorkload(usize),
    SyncAllWorkloads,
    Restart,
    Reserve(Option<u16>),
}

fn name(index: usize) -> String {
    format!("s{index}")
}

impl Model {
    fn build(&self, index: usize) -> ServiceBuilder {
        let (ips, families): (&[&str], &[&str]) = match self.families {
            0 => (&["10.97.0.7"], &["IPv4"]),
            1 => (&["fd97::7"], &["IPv6"]),
            _ => (&["10.97.0.7", "fd97::7"], &["IPv4", "IPv6"]),
        };
        let selector = format!("name in ({})", self.nodes.join(","));
        let mut builder = self.ports.iter().fold(service(&name(index)), |service, port| service.tcp(*port));
        builder = builder.cluster_ips(ips).families(families).service_type(self.service_type);
        builder = builder.created_at(self.created).annotation(NODE_SELECTOR, &selector);
        builder = if self.is_local { builder.traffic_policy_local() } else { builder };
        builder = if self.is_invalid { builder.annotation(IP_MODE, "typo") } else { builder };
        match self.node_port {
            Some(port) => builder.node_port(port.into()),
            None => builder,
        }
    }
}

fn any_model() -> impl Strategy<Value = Model> {
    let nodes = || prop::sample::subsequence(&ALL[..], 1..=ALL.len());
    (
        prop::collection::btree_set(PORTS, 1..3),
        0_usize..3,
        prop_oneof![4 => Just("LoadBalancer"), 1 => Just("NodePort")],
        nodes(),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.15),
        prop::option::weighted(0.2, PORTS),
        0_i64..3,
    )
        .prop_map(|(ports, families, service_type, nodes, is_local, is_invalid, node_port, created)| {
            Model { ports, families, service_type, nodes, is_local, is_invalid, node_port, created }
        })
}

fn any_event() -> impl Strategy<Value = Event> {
    let nodes_with_ready_endpoint = prop::sample::subsequence(&ALL[..], 0..=ALL.len());
    prop_oneof![
        6 => (0..SERVICES, any_model()).prop_map(|(index, model)| Event::Apply(index, model)),
        1 => (0..SERVICES).prop_map(Event::Delete),
        2 => (0..SERVICES, nodes_with_ready_endpoint).prop_map(|(index, nodes)| Event::MoveEndpoints(index, nodes)),
        1 => (0..SERVICES).prop_map(Event::SyncWorkload),
        3 => Just(Event::SyncAllWorkloads),
        1 => Just(Event::Restart),
        1 => prop::option::of(PORTS).prop_map(Event::Reserve),
    ]
}

impl World {
    /// Changes the state of the cluster. Returns the Service to which the event belongs.
    fn handle(&mut self, event: &Event) -> Option<ServiceKey> {
        match event {
            Event::Apply(index, model) => {
                self.add(model.build(*index));
                Some(key(&name(*index)))
            }
            Event::Delete(index) => {
                self.services.remove(&key(&name(*index)));
                Some(key(&name(*index)))
            }
            Event::MoveEndpoints(index, nodes) => {
                self.nodes_with_ready_endpoint.insert(key(&name(*index)), names(nodes));
                Some(key(&name(*index)))
            }
            Event::SyncWorkload(index) => {
                self.sync_workload(&key(&name(*index)));
                None
            }
            Event::SyncAllWorkloads => {
                self.sync_workloads();
                None
            }
            Event::Restart => {
                self.restart();
                None
            }
            Event::Reserve(port) => {
                self.reserved_ports =
                    port.map_or_else(PortSet::default, |port| port.to_string().parse().unwrap());
                // The setting changes with a restart only.
                self.restart();
                None
            }
        }
    }

    /// Returns the ports of nodes that a Service's proxies may use.
    fn owned_ports(&self, key: &ServiceKey) -> BTreeSet<(String, Frontend)> {
        let (nodes, frontends) = match self.allocations.get(key) {
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let nodes = self.nodes.iter().filter(|node| allocation.allows(spec, node));
                (nodes.map(|node| node.name.clone()).collect(), spec.frontends())
            }
            Some(AllocationResult::Rejected(_)) => {
                let OccupiedPorts { frontends, nodes } = self.occupied_ports(key);
                let is_reserved = |port: &Frontend| self.reserved_ports.contains(port.host_port());
                let is_released = frontends.iter().any(is_reserved);
                (nodes, if is_released { BTreeSet::new() } else { frontends })
            }
            None => (BTreeSet::new(), BTreeSet::new()),
        };
        let on_node = |node: &String| frontends.iter().map(|port| (node.clone(), *port)).collect::<Vec<_>>();
        nodes.iter().flat_map(on_node).collect()
    }

    /// Returns what a new operator finds in the cluster of what a Service owns: nothing on a node where the last edit of
    /// the Service did not reach its workload.
    fn provable_ports(&self, key: &ServiceKey) -> BTreeSet<(String, Frontend)> {
        let OccupiedPorts { frontends, nodes } = self.occupied_ports(key);
        let mut owned = self.owned_ports(key);
        if !owned.iter().all(|(_, port)| frontends.contains(port)) {
            return BTreeSet::new();
        }
        owned.retain(|(node, _)| nodes.contains(node));
        owned
    }

    /// Returns true if the previous proxies of another Service keep a port of the claim on the node: that Service was
    /// rejected before its proxies were changed.
    fn is_held_by_rejected(&self, key: &ServiceKey, node: &str, frontends: &BTreeSet<Frontend>) -> bool {
        self.held.iter().any(|(other, held)| {
            let is_rejected = matches!(self.allocations.get(other), Some(AllocationResult::Rejected(_)));
            let is_shared = held.nodes.contains(node) && !held.frontends.is_disjoint(frontends);
            other != key && is_rejected && is_shared
        })
    }

    /// Returns the number of workloads that have a port.
    fn count_holders(&self, node: &str, port: Frontend) -> usize {
        let holds = |held: &&OccupiedPorts| held.nodes.contains(node) && held.frontends.contains(&port);
        self.held.values().filter(holds).count()
    }
}

/// Checks the properties that concern one state.
fn check_state(world: &World) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    for key in world.services.keys() {
        for (node, port) in world.owned_ports(key) {
            prop_assert!(!world.reserved_ports.contains(port.host_port()), "{key} holds reserved {port}");
            if let Some(other) = owners.insert((node.clone(), port), key) {
                // Two Services were rejected while their workloads still had the same port.
                let are_rejected = [key, other]
                    .iter()
                    .all(|key| matches!(world.allocations.get(key), Some(AllocationResult::Rejected(_))));
                prop_assert!(are_rejected, "{key} and {other} hold {port} on {node}");
            }
        }
    }
    Ok(())
}

/// Checks that every Service without an event keeps what it owns.
fn check_step(
    before: &World,
    after: &World,
    touched: &[ServiceKey],
    restarted: bool,
) -> Result<(), TestCaseError> {
    for key in after.services.keys().filter(|key| !touched.contains(key)) {
        let owned = if restarted { before.provable_ports(key) } else { before.owned_ports(key) };
        let owned_after = after.owned_ports(key);
        let is_local_without_claim = |node: &String| {
            let spec = after.services[key].spec.as_ref();
            spec.and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
                && !after.recent_endpoint_nodes(key).contains(node)
        };
        // A change of the reserved ports can change the allocation_result, and with it what the Service claims.
        let is_rejected =
            |world: &World| matches!(world.allocations.get(key), Some(AllocationResult::Rejected(_)));
        if is_rejected(before) != is_rejected(after) {
            continue;
        }
        let frontends: BTreeSet<_> = owned.iter().map(|(_, port)| *port).collect();
        for (node, port) in owned {
            let is_released = frontends.iter().any(|port| after.reserved_ports.contains(port.host_port()))
                || is_local_without_claim(&node)
                || after.is_held_by_rejected(key, &node, &frontends)
                || (restarted && before.count_holders(&node, port) > 1);
            prop_assert!(
                is_released || owned_after.contains(&(node.clone(), port)),
                "{key} lost {port} on {node} to {touched:?}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_event_takes_a_port_from_a_service_that_holds_it(
        batches in prop::collection::vec(prop::collection::vec(any_event(), 1..4), 1..16),
    ) {
        let mut world = World::new();
        for batch in batches {
            let before = world.clone();
            let touched: Vec<_> = batch.iter().filter_map(|event| world.handle(event)).collect();
            let restarted = batch.iter().any(|event| matches!(event, Event::Restart | Event::Reserve(_)));
            // Workloads that change in the same batch are evidence too.
            let observed = World { held: world.held.clone(), ..before };
            world.allocate();
            check_state(&world)?;
            check_step(&observed, &world, &touched, restarted)?;
        }
    }

    #[test]
    fn the_order_of_events_in_a_batch_does_not_matter(
        first in prop::collection::vec(any_event(), 1..8),
        (batch, shuffled) in prop::collection::vec(any_model(), SERVICES)
            .prop_map(|models| models.into_iter().enumerate().collect::<Vec<_>>())
            .prop_flat_map(|batch| (Just(batch.clone()), Just(batch).prop_shuffle())),
    ) {
        let mut world = World::new();
        for event in &first {
            world.handle(event);
        }
        world.allocate();
        world.sync_workloads();
        let allocate_after = |batch: &[(usize, Model)], nodes: Vec<NodeInfo>| {
            let services: Vec<_> = batch.iter().map(|(index, model)| Arc::new(model.build(*index).build())).collect();
            world.allocations.update(&services, &nodes, &world.defaults(), &world)
        };
        let reversed = world.nodes.iter().rev().cloned().collect();
        let (left, right) = (allocate_after(&batch, world.nodes.clone()), allocate_after(&shuffled, reversed));
        for index in 0..SERVICES {
            let key = key(&name(index));
            match (left.get(&key), right.get(&key)) {
                (Some(AllocationResult::Accepted(_, left)), Some(AllocationResult::Accepted(_, right))) => {
                    prop_assert_eq!(&left.owned_nodes, &right.owned_nodes);
                    prop_assert_eq!(&left.taken_nodes, &right.taken_nodes);
                    prop_assert_eq!(left.conflicts.len(), right.conflicts.len());
                }
                (left, right) => prop_assert_eq!(left, right),
            }
        }
    }

    #[test]
    fn a_settled_state_does_not_change_after_a_restart(events in prop::collection::vec(any_event(), 1..16)) {
        let mut world = World::new();
        for event in &events {
            world.handle(event);
            world.allocate();
            world.sync_workloads();
        }
        let before: Vec<_> = (0..SERVICES).map(|index| world.allowed(&name(index))).collect();
        world.restart();
        world.allocate();
        let after: Vec<_> = (0..SERVICES).map(|index| world.allowed(&name(index))).collect();
        prop_assert_eq!(before, after);
    }
}
