//! The addresses and the nodes in a Service's status. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};

use crate::node_info::NodeInfo;

/// Returns the addresses in the Service's status.
#[must_use]
pub fn published_addresses(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_deref()).unwrap_or_default()
}

/// Returns the IP addresses in the Service's status.
pub fn parse_published_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    published_addresses(service).iter().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

/// Returns true if the Service's status has an address of this node.
#[must_use]
pub fn is_published(service: &Service, node: &NodeInfo) -> bool {
    parse_published_addresses(service).any(|address| node.has_address(address))
}

/// Returns true if one of the addresses belongs to this node.
#[must_use]
pub fn has_node_address(addresses: &[IpAddr], node: &NodeInfo) -> bool {
    addresses.iter().any(|address| node.has_address(*address))
}

/// Returns the names of the nodes with one of these addresses.
#[must_use]
pub fn nodes_with_addresses(addresses: &[IpAddr], nodes: &[NodeInfo]) -> BTreeSet<String> {
    let nodes = nodes.iter().filter(|node| has_node_address(addresses, node));
    nodes.map(|node| node.name.clone()).collect()
}

/// Returns the names of the nodes with an address in the Service's status.
#[must_use]
pub fn published_nodes(service: &Service, nodes: &[NodeInfo]) -> BTreeSet<String> {
    nodes_with_addresses(&parse_published_addresses(service).collect::<Vec<_>>(), nodes)
}
