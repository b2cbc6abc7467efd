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

/// Returns true if the Service's status has an address of this node.
#[must_use]
pub fn is_published(service: &Service, node: &NodeInfo) -> bool {
    let ingress = published_addresses(service).iter();
    let mut addresses = ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok());
    addresses.any(|address| node.has_address(address))
}

/// Returns the names of the nodes with an address in the Service's status.
#[must_use]
pub fn published_nodes(service: &Service, nodes: &[NodeInfo]) -> BTreeSet<String> {
    let ingress = published_addresses(service).iter();
    let addresses: Vec<IpAddr> = ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect();
    let is_published = |node: &&NodeInfo| addresses.iter().any(|address| node.has_address(*address));
    nodes.iter().filter(is_published).map(|node| node.name.clone()).collect()
}
