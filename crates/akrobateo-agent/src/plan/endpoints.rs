//! The endpoints of a Service's port, from its `EndpointSlices`. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use akrobateo_core::Protocol;
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointPort, EndpointSlice};

use super::endpoint_nodes::{EndpointNodes, first_address};
use super::node::NodeNumbers;
use crate::config::Endpoint;

/// Returns the endpoints of one port, sorted and without duplicates. The slices must belong to the port's Service.
///
/// A port of a slice belongs to the Service's port with the same name and protocol, as in kube-proxy.
pub(super) fn endpoints(
    slices: &[Arc<EndpointSlice>],
    port_name: &str,
    protocol: Protocol,
    node_numbers: &NodeNumbers,
    endpoint_nodes: &EndpointNodes,
) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let matching_port = ports.find(|port| has_name_and_protocol(port, port_name, protocol));
        let Some(number) = matching_port.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        let slice_endpoints = slice.endpoints.iter().flatten();
        endpoints.extend(slice_endpoints.filter_map(|it| endpoint(it, number, node_numbers, endpoint_nodes)));
    }
    endpoints.sort();
    endpoints.dedup();
    endpoints
}

/// Returns the nodes with endpoints on which no agent runs. Packets to these endpoints are masqueraded.
pub(super) fn nodes_without_agent<'a>(
    slices: &'a [Arc<EndpointSlice>],
    node_numbers: &'a NodeNumbers,
) -> impl Iterator<Item = &'a str> {
    let nodes = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let nodes = nodes.filter_map(|endpoint| endpoint.node_name.as_deref());
    nodes.filter(|node| !node_numbers.contains_key(*node))
}

fn has_name_and_protocol(port: &EndpointPort, name: &str, protocol: Protocol) -> bool {
    port.name.as_deref().unwrap_or_default() == name
        && port.protocol.as_deref().unwrap_or("TCP") == protocol.api_name()
}

/// Returns an endpoint with this port; `None` if the endpoint has no IP address.
fn endpoint(
    endpoint: &discovery::Endpoint,
    port: u16,
    node_numbers: &NodeNumbers,
    endpoint_nodes: &EndpointNodes,
) -> Option<Endpoint> {
    let address = first_address(endpoint)?;
    let conditions = endpoint.conditions.as_ref();
    let is_terminating = conditions.and_then(|it| it.terminating).unwrap_or(false);
    // An endpoint without the condition `ready` is ready.
    let is_ready = conditions.and_then(|it| it.ready).unwrap_or(true);
    let is_serving = conditions.and_then(|it| it.serving).unwrap_or(is_ready);
    let hints = endpoint.hints.as_ref();
    Some(Endpoint {
        address: SocketAddr::new(address, port),
        node: endpoint.node_name.as_deref().and_then(|name| node_numbers.get(name)).copied(),
        has_node_conflict: endpoint_nodes.has_conflict(address),
        is_ready,
        is_serving_while_terminating: is_serving && is_terminating,
        hinted_zones: hints
            .iter()
            .flat_map(|it| it.for_zones.iter().flatten())
            .map(|it| it.name.clone())
            .collect(),
        hinted_nodes: hints
            .iter()
            .flat_map(|it| it.for_nodes.iter().flatten())
            .map(|it| it.name.clone())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn addresses(slices: &[Value], port_name: &str, protocol: Protocol) -> Vec<String> {
        let slices: Vec<_> =
            slices.iter().map(|slice| Arc::new(serde_json::from_value(slice.clone()).unwrap())).collect();
        let node_numbers = [("n1".to_owned(), 1)].into();
        let endpoints = endpoints(&slices, port_name, protocol, &node_numbers, &EndpointNodes::default());
        endpoints
            .iter()
            .map(|it| {
                format!("{} {:?} {} {}", it.address, it.node, it.is_ready, it.is_serving_while_terminating)
            })
            .collect()
    }

    fn slice(address: &str, node: &str, conditions: &Value, ports: &Value) -> Value {
        json!({
            "addressType": "IPv4", "ports": ports,
            "endpoints": [{ "addresses": [address], "nodeName": node, "conditions": conditions }],
        })
    }

    #[test]
    fn endpoints_match_the_name_and_the_protocol_of_the_port() {
        let ports = json!([
            { "name": "dns", "port": 5353, "protocol": "UDP" },
            { "name": "dns-tcp", "port": 5354 },
        ]);
        let slices =
            [slice("10.1.0.1", "n1", &json!({}), &ports), slice("fd00::1", "n2", &json!({}), &ports)];
        assert_eq!(
            addresses(&slices, "dns", Protocol::Udp),
            ["10.1.0.1:5353 Some(1) true false", "[fd00::1]:5353 None true false"]
        );
        assert_eq!(addresses(&slices[..1], "dns-tcp", Protocol::Tcp), ["10.1.0.1:5354 Some(1) true false"]);
        assert!(addresses(&slices, "dns", Protocol::Tcp).is_empty());
        let slices_without_port_name = [slice("10.1.0.1", "n1", &json!({}), &json!([{ "port": 80 }]))];
        assert_eq!(addresses(&slices_without_port_name, "", Protocol::Tcp).len(), 1);
        assert_eq!(addresses(&[slices[0].clone(), slices[0].clone()], "dns", Protocol::Udp).len(), 1);
    }

    #[test]
    fn endpoint_has_the_conditions_of_its_slice() {
        let ports = json!([{ "port": 80 }]);
        for (conditions, expected) in [
            (json!({ "ready": false, "serving": true, "terminating": true }), "false true"),
            (json!({ "ready": false, "serving": false, "terminating": true }), "false false"),
            (json!({ "ready": false }), "false false"),
            (json!({ "ready": true, "terminating": false }), "true false"),
        ] {
            let slices = [slice("10.1.0.1", "n1", &conditions, &ports)];
            assert_eq!(addresses(&slices, "", Protocol::Tcp), [format!("10.1.0.1:80 Some(1) {expected}")]);
        }
    }
}
