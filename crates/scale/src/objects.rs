//! The Services and their `EndpointSlices`. Services have no selector, because no pods exist. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use crate::cluster::{address_at, node_address, node_name};

/// The namespace of all Services.
pub(crate) const NAMESPACE: &str = "scale";
/// The number of endpoints of each Service.
pub(crate) const ENDPOINT_COUNT: usize = 10;
/// The port of the first Service. No two Services have the same port, because all Services use all nodes.
const FIRST_PORT: usize = 20_000;
/// One of this number of Services has the externalTrafficPolicy Local.
const LOCAL_INTERVAL: usize = 10;
/// The first address of endpoints that have not changed.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// The first address of changed endpoints. The distance from this address is the number of the change.
const FIRST_CHANGED_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 192, 0, 0);
const MAX_CHANGE_COUNT: u32 = 1 << 22;

/// The endpoints of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    service: usize,
    node_count: usize,
    addresses: Vec<Ipv4Addr>,
}

/// Returns the name of a Service.
pub(crate) fn service_name(index: usize) -> String {
    format!("service-{index:04}")
}

/// Returns the object of a Service.
pub(crate) fn service(index: usize) -> serde_json::Result<Service> {
    let port = FIRST_PORT + index;
    let policy = if is_local(index) { "Local" } else { "Cluster" };
    serde_json::from_value(json!({
        "metadata": {
            "name": service_name(index), "namespace": NAMESPACE,
            "labels": { "app.kubernetes.io/name": service_name(index) },
        },
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": policy,
            "ports": [{ "name": "http", "port": port, "targetPort": 8080, "protocol": "TCP" }],
        },
    }))
}

/// Returns the addresses that the status of a Service must have.
pub(crate) fn expected_addresses(index: usize, node_count: usize) -> BTreeSet<Ipv4Addr> {
    if is_local(index) {
        return (0..ENDPOINT_COUNT)
            .map(|slot| node_address(node_of_endpoint(index, slot, node_count)))
            .collect();
    }
    (0..node_count).map(node_address).collect()
}

/// Returns the number of the change that set this address of an endpoint; `None` for an endpoint that has not changed.
pub(crate) fn change_number(address: Ipv4Addr) -> Option<u32> {
    let distance = address.to_bits().checked_sub(FIRST_CHANGED_ADDRESS.to_bits())?;
    (distance < MAX_CHANGE_COUNT).then_some(distance)
}

const fn is_local(index: usize) -> bool {
    index % LOCAL_INTERVAL == LOCAL_INTERVAL - 1
}

/// Spreads the endpoints of a Service over the nodes.
fn node_of_endpoint(service: usize, slot: usize, node_count: usize) -> usize {
    let distance = (node_count / ENDPOINT_COUNT).max(1);
    (service + slot * distance) % node_count
}

impl Endpoints {
    /// Returns the endpoints of a Service that have not changed.
    pub(crate) fn new(service: usize, node_count: usize) -> Self {
        let address = |slot| address_at(FIRST_ADDRESS, service * ENDPOINT_COUNT + slot);
        Self { service, node_count, addresses: (0..ENDPOINT_COUNT).map(address).collect() }
    }

    /// Replaces one endpoint by an endpoint with another address on the same node, like a pod that was replaced.
    pub(crate) fn change(&mut self, slot: usize, change_number: u32) {
        if let Some(address) = self.addresses.get_mut(slot % ENDPOINT_COUNT) {
            *address = Ipv4Addr::from(FIRST_CHANGED_ADDRESS.to_bits().saturating_add(change_number));
        }
    }

    /// Returns the name of the `EndpointSlice`.
    pub(crate) fn name(&self) -> String {
        format!("{}-0", service_name(self.service))
    }

    /// Returns the `EndpointSlice`.
    pub(crate) fn slice(&self) -> serde_json::Result<EndpointSlice> {
        let endpoint = |(slot, address): (usize, &Ipv4Addr)| {
            let node = node_of_endpoint(self.service, slot, self.node_count);
            json!({
                "addresses": [address],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": node_name(node),
                "zone": format!("zone-{}", node % 3),
                "targetRef": {
                    "kind": "Pod", "namespace": NAMESPACE,
                    "name": format!("{}-{address}", service_name(self.service)),
                    "uid": format!("00000000-0000-0000-0000-{:012x}", address.to_bits()),
                },
            })
        };
        let endpoints: Vec<_> = self.addresses.iter().enumerate().map(endpoint).collect();
        serde_json::from_value(json!({
            "metadata": {
                "name": self.name(), "namespace": NAMESPACE,
                "labels": {
                    "kubernetes.io/service-name": service_name(self.service),
                    "endpointslice.kubernetes.io/managed-by": "scale",
                },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_service_expects_the_nodes_of_its_endpoints() {
        assert_eq!(expected_addresses(0, 100).len(), 100);
        assert_eq!(expected_addresses(9, 100).len(), ENDPOINT_COUNT);
        assert_eq!(expected_addresses(9, 5).len(), 5);
        let slice = Endpoints::new(9, 100).slice().unwrap();
        let nodes: BTreeSet<_> =
            slice.endpoints.iter().flatten().filter_map(|it| it.node_name.clone()).collect();
        let expected: BTreeSet<_> = (0..100)
            .filter(|node| expected_addresses(9, 100).contains(&node_address(*node)))
            .map(node_name)
            .collect();
        assert_eq!(nodes, expected);
    }

    #[test]
    fn address_of_a_changed_endpoint_has_the_number_of_the_change() {
        let mut endpoints = Endpoints::new(3, 10);
        assert!(endpoints.addresses.iter().all(|address| change_number(*address).is_none()));
        endpoints.change(2, 70_000);
        assert_eq!(change_number(endpoints.addresses[2]), Some(70_000));
        let addresses: BTreeSet<_> = endpoints.addresses.iter().collect();
        assert_eq!(addresses.len(), ENDPOINT_COUNT);
    }

    #[test]
    fn services_have_different_ports_below_the_node_ports() {
        let port = |index| service(index).unwrap().spec.unwrap().ports.unwrap()[0].port;
        assert!(port(0) != port(1) && port(6_000) < 30_000);
    }
}
