//! Random events in the model of a cluster: changes of Services, nodes and endpoints, forged proxies, restarts. Pure.

use std::collections::BTreeSet;

use akrobateo_core::annotations::{IP_MODE, NODE_SELECTOR};
use akrobateo_core::{Family, Frontend, LOAD_BALANCER_CLASS, Protocol};
use k8s_openapi::api::core::v1::Service;
use proptest::prelude::*;

use super::cluster_model::{ClusterModel, names};
use crate::allocation::{Observations, OccupiedPorts};
use crate::fixtures::{node, service};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::PortSet;

pub(super) const SERVICE_COUNT: usize = 6;
const PORTS: std::ops::Range<u16> = 80..84;
pub(super) const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const FAMILIES: [&[&str]; 4] = [&["IPv4"], &["IPv6"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]];
const TENANTS: [&str; 2] = ["tenant-a", "tenant-b"];

/// The fields of a Service that random events change. The allocation reads these fields.
#[derive(Clone, Debug)]
pub(super) struct ServiceModel {
    /// True if this Service replaces an earlier Service with the same name.
    pub(super) is_replacement: bool,
    ports: BTreeSet<(Protocol, u16)>,
    families: &'static [&'static str],
    service_type: &'static str,
    class: Option<&'static str>,
    node_selector: String,
    is_local: bool,
    has_invalid_annotation: bool,
    node_port: Option<u16>,
    health_check_node_port: Option<u16>,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Apply(usize, ServiceModel),
    Delete(usize),
    MoveEndpoints(usize, Vec<&'static str>),
    /// Adds a node, or changes its pool label (`true` selects the pool `edge`). `None` removes the node.
    SetNode(&'static str, Option<bool>),
    /// A tenant runs pods that look like the proxies of its Service. The pods have this hostPort. A pod runs on each of
    /// these nodes on which the port is free.
    ForgeProxies(usize, u16, Vec<&'static str>),
    /// The operator updates the workload of one Service to the last allocation.
    SyncWorkload(usize),
    SyncAllWorkloads,
    Restart,
    /// Ends the time in which a new operator assumes endpoints.
    ExpireAssumedEndpoints,
    /// The operator restarts with this reserved port, or without a reserved port.
    Reserve(Option<u16>),
}

/// Returns the key of the Service with this index. The first tenant has the even indexes, and the second tenant has the
/// odd indexes.
pub(super) fn key(index: usize) -> ServiceKey {
    ServiceKey { namespace: TENANTS[index % 2].to_owned(), name: format!("s{index}") }
}

impl ServiceModel {
    /// Returns the Service. `replacement_count` is the number of earlier Services with this name.
    pub(super) fn build(&self, index: usize, replacement_count: usize) -> Service {
        let ips: Vec<_> = self
            .families
            .iter()
            .map(|&family| if family == "IPv4" { "10.97.0.7" } else { "fd97::7" })
            .collect();
        let mut builder = service(&key(index).name);
        for &(protocol, port) in &self.ports {
            builder = if protocol == Protocol::Tcp { builder.tcp(port) } else { builder.udp(port) };
        }
        builder = builder.cluster_ips(&ips).families(self.families).service_type(self.service_type);
        // Two Services may have the same creation time.
        let created_at = (index + 3 * replacement_count) % 4;
        builder =
            builder.created_at(created_at.try_into().unwrap()).uid(&format!("{index}-{replacement_count}"));
        builder = builder.annotation(NODE_SELECTOR, &self.node_selector);
        builder = if let Some(class) = self.class { builder.class(class) } else { builder };
        builder = if self.has_invalid_annotation { builder.annotation(IP_MODE, "typo") } else { builder };
        builder = if let Some(port) = self.node_port { builder.node_port(port.into()) } else { builder };
        if self.is_local {
            builder = builder.traffic_policy_local();
            if let Some(port) = self.health_check_node_port {
                builder = builder.health_check_node_port(port.into());
            }
        }
        let mut service = builder.build();
        service.metadata.namespace = Some(key(index).namespace);
        service
    }
}

fn any_nodes(min_count: usize) -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(&NODES[..], min_count..=NODES.len())
}

pub(super) fn any_model() -> impl Strategy<Value = ServiceModel> {
    let protocol = prop_oneof![3 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp)];
    let selector = prop_oneof![
        3 => any_nodes(1).prop_map(|nodes| format!("name in ({})", nodes.join(","))),
        1 => Just("pool=edge".to_owned()),
        1 => Just("pool!=edge".to_owned()),
    ];
    let service_type_and_class = (
        prop_oneof![6 => Just("LoadBalancer"), 1 => Just("NodePort"), 1 => Just("ClusterIP")],
        prop_oneof![6 => Just(None), 1 => Just(Some(LOAD_BALANCER_CLASS)), 1 => Just(Some("example.com/lb"))],
    );
    let node_ports = (prop::option::weighted(0.15, PORTS), prop::option::weighted(0.3, PORTS));
    (
        prop::bool::weighted(0.1),
        prop::collection::btree_set((protocol, PORTS), 1..3),
        prop::sample::select(&FAMILIES[..]),
        service_type_and_class,
        selector,
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.15),
        node_ports,
    )
        .prop_map(
            |(
                is_replacement,
                ports,
                families,
                (service_type, class),
                node_selector,
                is_local,
                has_invalid_annotation,
                node_ports,
            )| {
                ServiceModel {
                    is_replacement,
                    ports,
                    families,
                    service_type,
                    class,
                    node_selector,
                    is_local,
                    has_invalid_annotation,
                    node_port: node_ports.0,
                    health_check_node_port: node_ports.1,
                }
            },
        )
}

pub(super) fn any_event() -> impl Strategy<Value = Event> {
    let pool = prop_oneof![3 => any::<bool>().prop_map(Some), 1 => Just(None)];
    prop_oneof![
        8 => (0..SERVICE_COUNT, any_model()).prop_map(|(index, model)| Event::Apply(index, model)),
        1 => (0..SERVICE_COUNT).prop_map(Event::Delete),
        3 => (0..SERVICE_COUNT, any_nodes(0)).prop_map(|(index, nodes)| Event::MoveEndpoints(index, nodes)),
        2 => (prop::sample::select(&NODES[..]), pool).prop_map(|(name, pool)| Event::SetNode(name, pool)),
        1 => (0..SERVICE_COUNT, PORTS, any_nodes(1))
            .prop_map(|(index, port, nodes)| Event::ForgeProxies(index, port, nodes)),
        1 => (0..SERVICE_COUNT).prop_map(Event::SyncWorkload),
        3 => Just(Event::SyncAllWorkloads),
        1 => Just(Event::Restart),
        1 => Just(Event::ExpireAssumedEndpoints),
        1 => prop::option::of(PORTS).prop_map(Event::Reserve),
    ]
}

impl Event {
    /// Returns true if the event restarts the operator.
    pub(super) const fn is_restart(&self) -> bool {
        matches!(self, Self::Restart | Self::Reserve(_))
    }
}

impl ClusterModel {
    /// Applies the event to the cluster. Returns the key of the Service that the event changes.
    pub(super) fn handle(&mut self, event: &Event) -> Option<ServiceKey> {
        match event {
            Event::Apply(index, model) => {
                let replacement_count = self.replacement_counts.entry(key(*index)).or_default();
                *replacement_count += usize::from(model.is_replacement);
                let service = model.build(*index, *replacement_count);
                self.add(service);
                return Some(key(*index));
            }
            Event::Delete(index) => {
                self.delete(&key(*index));
                *self.replacement_counts.entry(key(*index)).or_default() += 1;
                return Some(key(*index));
            }
            Event::MoveEndpoints(index, nodes) => {
                self.nodes_with_ready_endpoint.insert(key(*index), names(nodes));
                return Some(key(*index));
            }
            Event::ForgeProxies(index, port, nodes) => {
                self.forge_proxies(&key(*index), *port, nodes);
                return Some(key(*index));
            }
            Event::SetNode(name, pool) => self.set_node(name, *pool),
            Event::SyncWorkload(index) => self.sync_workload(&key(*index)),
            Event::SyncAllWorkloads => self.sync_workloads(),
            Event::Restart => self.restart(),
            Event::ExpireAssumedEndpoints => self.expire_assumed_endpoints(),
            Event::Reserve(port) => {
                self.reserved_ports =
                    port.map_or_else(PortSet::default, |port| port.to_string().parse().unwrap());
                // An operator reads this setting only at its start.
                self.restart();
            }
        }
        None
    }

    fn set_node(&mut self, name: &str, is_in_pool: Option<bool>) {
        self.nodes.retain(|node| node.name != name);
        if let Some(is_in_pool) = is_in_pool {
            let pool = if is_in_pool { "edge" } else { "core" };
            let new_node = node(name).label("name", name).label("pool", pool).build();
            self.nodes.push(NodeInfo::from_node(&new_node));
            self.nodes.sort_by(|left, right| left.name.cmp(&right.name));
        }
    }

    /// Adds forged pods with this hostPort to a Service. The pods run only on nodes where the port is free.
    fn forge_proxies(&mut self, key: &ServiceKey, port: u16, nodes: &[&str]) {
        let port = port.try_into().unwrap();
        let forged_frontends = Family::ALL.map(|family| Frontend { family, protocol: Protocol::Tcp, port });
        let is_occupied = |node: &str| {
            self.services.keys().filter(|other| *other != key).any(|other| {
                let occupied_ports = self.occupied_ports(other);
                occupied_ports.nodes.contains(node)
                    && forged_frontends.iter().any(|port| occupied_ports.frontends.contains(port))
            })
        };
        let nodes: Vec<_> = nodes.iter().copied().filter(|node| !is_occupied(node)).collect();
        if self.occupied_ports(key) == OccupiedPorts::default() {
            self.occupied_port_overrides.insert(
                key.clone(),
                OccupiedPorts { frontends: forged_frontends.into(), nodes: names(&nodes), is_assumed: false },
            );
        }
    }
}
