//! The network with two nodes and a client on one Ethernet segment, and with pods on the nodes. Does I/O.

use std::net::Ipv4Addr;

use netns_testkit::link::Interface;
use netns_testkit::{Bridge, Namespace};

use crate::layout::{
    CLIENT, CLIENT_POD, INTERFACE, Layout, NODES, PROXY, backend_addresses, node_address, node_mac,
    pod_gateway,
};
use crate::network::{
    Network, NodeRole, NodeRules, set_backend_sysctls, set_client_sysctls, set_router_sysctls,
};

/// Creates the network. `backend_node` is the node of the backend, and `endpoints` is the number of its addresses.
pub(crate) fn build(role: NodeRole, layout: Layout, ports: u16, endpoints: u8) -> Network {
    let segment = Bridge::new();
    let client = new_namespace();
    attach(&segment, &client, CLIENT);
    set_client_sysctls(&client);
    let nodes = NODES.map(|node| new_node(&segment, node));
    for (index, node) in NODES.into_iter().enumerate() {
        let peer = NODES[1 - index];
        nodes[index].ip(&format!(
            "route add {}/24 via {}",
            Ipv4Addr::new(10, 244, peer, 0),
            node_address(peer)
        ));
        client.ip(&format!(
            "route add {}/24 via {}",
            Ipv4Addr::new(10, 244, node, 0),
            node_address(NODES[0])
        ));
    }
    let pod = new_pod(&nodes[0], NODES[0], "proxy", &[PROXY]);
    set_router_sysctls(&pod);
    let backend_node = layout.backend_node();
    let addresses = backend_addresses(backend_node, endpoints);
    let backend = new_pod(&nodes[usize::from(backend_node) - 1], backend_node, "backend", &addresses);
    set_backend_sysctls(&backend);
    if role == NodeRole::RouteOnly && backend_node != NODES[0] {
        // Replies take the same path back as the requests, as in the variants with address translation.
        nodes[1].ip(&format!("route add {CLIENT}/32 via {}", node_address(NODES[0])));
    }
    let rules = NodeRules { role, ports, node: node_address(NODES[0]), pod: PROXY, backend: addresses[0] };
    rules.load(&nodes[0]);
    let other_role = if role == NodeRole::RouteOnly { role } else { NodeRole::ClusterIp };
    NodeRules { role: other_role, ..rules }.load(&nodes[1]);
    Network::with_segment(segment, client, nodes.into(), pod, backend)
}

/// Adds a pod with clients on the first node.
pub(crate) fn add_client_pod(network: &Network) -> Namespace {
    let pod = new_pod(&network.nodes[0], NODES[0], "clients", &[CLIENT_POD]);
    set_client_sysctls(&pod);
    pod
}

/// Creates a namespace whose interfaces accept packets from all addresses and ignore ICMP redirects. Redirects would
/// change the path of the packets.
fn new_namespace() -> Namespace {
    let namespace = Namespace::new();
    for scope in ["all", "default"] {
        for setting in ["rp_filter", "accept_redirects", "send_redirects"] {
            namespace.set_sysctl(&format!("ipv4/conf/{scope}/{setting}"), "0");
        }
    }
    namespace
}

fn attach(segment: &Bridge, namespace: &Namespace, address: Ipv4Addr) {
    segment.attach(&Interface { namespace, name: INTERFACE, addresses: &[address.into()] });
}

fn new_node(segment: &Bridge, number: u8) -> Namespace {
    let node = new_namespace();
    attach(segment, &node, node_address(number));
    node.ip(&format!("link set {INTERFACE} address {}", links::MacAddress(node_mac(number))));
    set_router_sysctls(&node);
    node
}

/// Creates a pod with its own link to the node, as the CNI plugin ptp does. The node gets a route to the pod.
fn new_pod(node: &Namespace, node_number: u8, name: &str, addresses: &[Ipv4Addr]) -> Namespace {
    let pod = new_namespace();
    netns_testkit::link::connect(
        &Interface { namespace: node, name, addresses: &[] },
        &Interface { namespace: &pod, name: INTERFACE, addresses: &[] },
    );
    let gateway = pod_gateway(node_number);
    node.ip(&format!("address add {gateway}/32 dev {name}"));
    for address in addresses {
        node.ip(&format!("route add {address}/32 dev {name}"));
        pod.ip(&format!("address add {address}/32 dev {INTERFACE}"));
    }
    pod.ip(&format!(
        "route add {gateway}/32 dev {INTERFACE} src {}\nroute add default via {gateway}",
        addresses[0]
    ));
    pod
}
