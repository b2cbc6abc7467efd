//! Tests of properties of the allocation after each step of random events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akrobateo_core::Frontend;
use k8s_openapi::api::core::v1::Service;
use proptest::prelude::*;

use super::cluster_model::ClusterModel;
use super::events::{Event, NODES, SERVICE_COUNT, ServiceModel, any_event, any_model, key};
use crate::allocation::node_ports::NodePorts;
use crate::allocation::{AllocationResult, Observations, OccupiedPorts};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::parsed_services::ParsedService;
use crate::spec::LoadBalancerSpec;

type PortOnNode<'a> = (&'a str, Frontend);

impl ClusterModel {
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
    fn owned_ports(&self, key: &ServiceKey) -> BTreeSet<PortOnNode<'_>> {
        let owned_ports: OccupiedPorts = match self.allocations.get(key) {
            Some(AllocationResult::Accepted(spec, allocation)) => {
                let nodes = self.nodes.iter().filter(|node| allocation.allows(spec, node));
                OccupiedPorts {
                    nodes: nodes.map(|node| node.name.clone()).collect(),
                    frontends: spec.frontends(),
                    is_assumed: false,
                }
            }
            Some(AllocationResult::Rejected(_)) => {
                let mut occupied_ports = self.occupied_ports(key);
                if let Some(granted_nodes) = &self.allocations.entries[key].granted_nodes {
                    occupied_ports.nodes.retain(|node| granted_nodes.contains(node));
                }
                if self.has_reserved_port(&occupied_ports.frontends) {
                    OccupiedPorts::default()
                } else {
                    occupied_ports
                }
            }
            None => OccupiedPorts::default(),
        };
        let nodes = self.nodes.iter().filter(|node| owned_ports.nodes.contains(&node.name));
        nodes.flat_map(|node| owned_ports.frontends.iter().map(|port| (node.name.as_str(), *port))).collect()
    }

    /// Returns the owned ports of a Service that a new operator can find in the cluster. The result is empty if the
    /// last edit of the Service did not reach its workload. Nodes where another workload has one of the ports are
    /// omitted.
    fn ports_found_after_restart(&self, key: &ServiceKey) -> BTreeSet<PortOnNode<'_>> {
        let OccupiedPorts { frontends, nodes, .. } = self.occupied_ports(key);
        let mut owned_ports = self.owned_ports(key);
        if !owned_ports.iter().all(|(_, port)| frontends.contains(port)) {
            return BTreeSet::new();
        }
        owned_ports.retain(|(node, _)| {
            nodes.contains(*node) && self.count_workloads_with_port(node, &frontends) == 1
        });
        owned_ports
    }

    /// Returns the number of workloads that have one of these ports on the node.
    fn count_workloads_with_port(&self, node: &str, ports: &BTreeSet<Frontend>) -> usize {
        let occupied_ports = self.services.keys().map(|key| self.occupied_ports(key));
        occupied_ports
            .filter(|occupied_ports| {
                occupied_ports.nodes.contains(node) && !occupied_ports.frontends.is_disjoint(ports)
            })
            .count()
    }

    /// Returns true if another Service is rejected, and its previous proxies still have one of these ports on the node.
    fn rejected_service_has_port(
        &self,
        key: &ServiceKey,
        node: &str,
        frontends: &BTreeSet<Frontend>,
    ) -> bool {
        self.services.keys().filter(|other_owner| *other_owner != key && self.is_rejected(other_owner)).any(
            |other_owner| {
                let occupied_ports = self.occupied_ports(other_owner);
                occupied_ports.nodes.contains(node) && !occupied_ports.frontends.is_disjoint(frontends)
            },
        )
    }

    /// Returns true if the Service claims its ports on a node. The Service must select the node, and must have an
    /// endpoint on the node if the traffic policy requires a local endpoint.
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

/// Checks that each port has at most one owner, and that reserved ports have no owner.
fn check_owners(cluster: &ClusterModel) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    for key in cluster.services.keys() {
        for (node, port) in cluster.owned_ports(key) {
            prop_assert!(
                !cluster.reserved_ports.contains(port.host_port()),
                "{key} owns the reserved port {port}"
            );
            if let Some(other_owner) = owners.insert((node, port), key) {
                // Both Services were rejected while their workloads still had the same port.
                let are_rejected = cluster.is_rejected(key) && cluster.is_rejected(other_owner);
                prop_assert!(are_rejected, "{key} and {other_owner} own {port} on {node}");
            }
        }
    }
    Ok(())
}

/// Checks that a Service without an event still owns its previous ports. `may_lose` returns true for a node and ports
/// that the Service may lose.
fn check_kept_ports(
    cluster_after: &ClusterModel,
    key: &ServiceKey,
    owned_ports: BTreeSet<PortOnNode<'_>>,
    may_lose: impl Fn(&str, &BTreeSet<Frontend>) -> bool,
) -> Result<(), TestCaseError> {
    let owned_ports_after = cluster_after.owned_ports(key);
    let frontends: BTreeSet<_> = owned_ports.iter().map(|(_, port)| *port).collect();
    for (name, port) in owned_ports {
        // An accepted Service gives up a node on which it no longer claims its ports. The proxies of a rejected Service
        // leave a node that they no longer select.
        let is_node_abandoned = cluster_after.node(name).is_none_or(|node| match cluster_after.spec(key) {
            Some(spec) => !cluster_after.is_claiming(key, spec, node),
            None => !cluster_after.occupied_ports(key).nodes.contains(name),
        });
        let may_lose_port =
            cluster_after.has_reserved_port(&frontends) || is_node_abandoned || may_lose(name, &frontends);
        prop_assert!(
            may_lose_port || owned_ports_after.contains(&(name, port)),
            "{key} lost {port} on {name}"
        );
    }
    Ok(())
}

/// Checks that each Service that does not own a claimed node has a reason to wait. A nodePort of another Service is a
/// reason. Another Service that owns one of the ports on the node is a reason if it had a port on the node before the
/// events, if its workload selected the node after the events, or if it precedes the waiting Service.
fn check_waiting_services(
    cluster_before: &ClusterModel,
    cluster_after_events: &ClusterModel,
    cluster_after: &ClusterModel,
) -> Result<(), TestCaseError> {
    let defaults = cluster_after.defaults();
    let services = cluster_after.services.values();
    let services: Vec<_> = services.map(|it| ParsedService::from_service(it, &defaults)).collect();
    let node_ports = NodePorts::from_services(services.iter());
    let rank = |key: &ServiceKey, node: &str| {
        let service = &cluster_after.services[key];
        (!cluster_before.is_published(key, node), service.metadata.creation_timestamp.clone(), key.clone())
    };
    for key in cluster_after.services.keys() {
        let Some(spec) = cluster_after.spec(key) else { continue };
        let owned_nodes: BTreeSet<_> =
            cluster_after.owned_ports(key).into_iter().map(|(node, _)| node).collect();
        let claimed_nodes =
            cluster_after.nodes.iter().filter(|node| cluster_after.is_claiming(key, spec, node));
        for NodeInfo { name: node, .. } in
            claimed_nodes.filter(|node| !owned_nodes.contains(node.name.as_str()))
        {
            let blocks = |owner: &ServiceKey, port: &Frontend| {
                let owns_port = cluster_after.owned_ports(owner).contains(&(node.as_str(), *port));
                let had_port_on_node = || {
                    cluster_before.owned_ports(owner).iter().any(|(owned_node, _)| owned_node == node)
                        || cluster_after_events.occupied_ports(owner).nodes.contains(node)
                };
                owns_port && (had_port_on_node() || rank(owner, node) < rank(key, node))
            };
            let is_blocked = spec.frontends().iter().any(|port| {
                let mut other_services =
                    cluster_after.services.keys().filter(|other_owner| *other_owner != key);
                node_ports.get_other_owner(*port, key).is_some()
                    || other_services.any(|other_owner| blocks(other_owner, port))
            });
            prop_assert!(is_blocked, "{key} waits for {node} without a reason");
        }
    }
    Ok(())
}

/// Builds the Services of a batch, in the order of the batch.
fn build_services(batch: &[(usize, ServiceModel)]) -> Vec<Arc<Service>> {
    batch
        .iter()
        .map(|(index, model)| Arc::new(model.build(*index, usize::from(model.is_replacement))))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// The operator updates the workloads after each step.
    #[test]
    fn services_keep_their_ports_and_get_released_ports(
        batches in prop::collection::vec(prop::collection::vec(any_event(), 1..4), 1..16),
    ) {
        let mut cluster = ClusterModel::new();
        for batch in batches {
            let cluster_before = cluster.clone();
            let changed_services: Vec<_> = batch.iter().filter_map(|event| cluster.handle(event)).collect();
            let cluster_after_events = cluster.clone();
            cluster.allocate();
            check_owners(&cluster)?;
            prop_assert!(cluster.allocate_until_stable(), "the allocation does not become stable");
            check_owners(&cluster)?;
            check_waiting_services(&cluster_before, &cluster_after_events, &cluster)?;
            // A change of the reserved ports can reject or accept a Service. After this change, the Service has another
            // claim than before.
            let is_unchanged = |key: &ServiceKey| cluster_before.is_rejected(key) == cluster.is_rejected(key);
            let is_restarted = batch.iter().any(Event::is_restart);
            for key in cluster.services.keys().filter(|key| !changed_services.contains(key) && is_unchanged(key)) {
                // The labels of a node changed during a restart, so the workloads of two Services select the node. The
                // rejected Service is not published on this node, and the cluster does not show which of the two
                // Services owned the node before.
                let has_ambiguous_owner = |node: &str, ports: &BTreeSet<Frontend>| {
                    is_restarted
                        && cluster.is_rejected(key)
                        && !cluster_before.is_published(key, node)
                        && cluster_after_events.count_workloads_with_port(node, ports) > 1
                };
                check_kept_ports(&cluster, key, cluster_before.owned_ports(key), has_ambiguous_owner)?;
            }
        }
    }

    /// A restarted operator may not find all ports that the previous operator allocated, because the operator updates
    /// the workloads late.
    #[test]
    fn services_keep_their_ports_while_workloads_are_outdated(
        batches in prop::collection::vec(prop::collection::vec(any_event(), 1..4), 1..16),
    ) {
        let mut cluster = ClusterModel::new();
        for batch in batches {
            let cluster_before = cluster.clone();
            let changed_services: Vec<_> = batch.iter().filter_map(|event| cluster.handle(event)).collect();
            let is_restarted = batch.iter().any(Event::is_restart);
            // `cluster_after_events` has the workloads after the events, and the allocation before the events.
            let mut cluster_after_events = cluster.clone();
            cluster_after_events.allocations = cluster_before.allocations.clone();
            cluster.allocate();
            check_owners(&cluster)?;
            let is_unchanged = |key: &ServiceKey| cluster_before.is_rejected(key) == cluster.is_rejected(key);
            for key in cluster.services.keys().filter(|key| !changed_services.contains(key) && is_unchanged(key)) {
                let owned_ports =
                    if is_restarted { cluster_after_events.ports_found_after_restart(key) } else { cluster_before.owned_ports(key) };
                check_kept_ports(&cluster, key, owned_ports, |node, ports| {
                    cluster.rejected_service_has_port(key, node, ports)
                })?;
            }
        }
    }

    #[test]
    fn allocation_ignores_the_order_of_services_and_nodes(
        earlier_events in prop::collection::vec(any_event(), 1..8),
        (batch, shuffled_batch) in prop::collection::vec(any_model(), SERVICE_COUNT)
            .prop_map(|models| models.into_iter().enumerate().collect::<Vec<_>>())
            .prop_flat_map(|batch| (Just(batch.clone()), Just(batch).prop_shuffle())),
        node_order in Just(NODES.to_vec()).prop_shuffle(),
    ) {
        let mut cluster = ClusterModel::new();
        for event in &earlier_events {
            cluster.handle(event);
        }
        cluster.allocate();
        cluster.sync_workloads();
        let allocate_batch = |batch: &[(usize, ServiceModel)], nodes: &[NodeInfo]| {
            cluster.allocations.update(&build_services(batch), nodes, &cluster.defaults(), &cluster)
        };
        let shuffled_nodes: Vec<_> = node_order.iter().filter_map(|name| cluster.node(name).cloned()).collect();
        prop_assert_eq!(shuffled_nodes.len(), cluster.nodes.len());
        let allocations = allocate_batch(&batch, &cluster.nodes);
        let shuffled_allocations = allocate_batch(&shuffled_batch, &shuffled_nodes);
        for index in 0..SERVICE_COUNT {
            prop_assert_eq!(allocations.get(&key(index)), shuffled_allocations.get(&key(index)));
        }
    }

    #[test]
    fn stable_state_survives_a_restart(events in prop::collection::vec(any_event(), 1..16)) {
        let mut cluster = ClusterModel::new();
        for event in &events {
            cluster.handle(event);
            cluster.allocate_until_stable();
        }
        cluster.expire_assumed_endpoints();
        prop_assert!(cluster.allocate_until_stable());
        let cluster_before = cluster.clone();
        cluster.restart();
        cluster.allocate();
        // After a start, the operator treats missing endpoints as recent for some time. So a Service without endpoints
        // reports its conflicts only after this time.
        let assumes_missing_endpoints = cluster.assumes_missing_endpoints();
        for index in 0..SERVICE_COUNT {
            let key = key(index);
            prop_assert_eq!(cluster_before.owned_ports(&key), cluster.owned_ports(&key));
            if !assumes_missing_endpoints {
                prop_assert_eq!(cluster_before.allocations.get(&key), cluster.allocations.get(&key));
            }
        }
        cluster.expire_assumed_endpoints();
        cluster.allocate();
        for index in 0..SERVICE_COUNT {
            let key = key(index);
            prop_assert_eq!(cluster_before.allocations.get(&key), cluster.allocations.get(&key));
        }
    }
}
