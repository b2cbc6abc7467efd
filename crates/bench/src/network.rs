//! The network of a variant: client, node, proxy pod and backend, each in its own namespace. Does I/O.

use std::net::Ipv4Addr;

use netns_testkit::Namespace;
use netns_testkit::link::{Interface, connect};

/// The addresses and ports in the network.
pub(crate) mod addr {
    use std::net::Ipv4Addr;

    /// The client.
    pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    /// The node's address in the client's network.
    pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// The node's address in the backend's network.
    pub(crate) const BACKEND_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
    /// The proxy pod.
    pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);
    /// The node's address in the proxy pod's network.
    pub(super) const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
    /// The Service's address; no interface has this address.
    pub(crate) const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 3, 7);
    /// The address of the pod behind the Service.
    pub(crate) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 7);
    /// The port that the backend listens on.
    pub(crate) const BACKEND_PORT: u16 = 8080;
    /// The Service's first port; more ports follow it.
    pub(crate) const FIRST_SERVICE_PORT: u16 = 20_000;
}

/// The method by which the node handles packets to its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeRole {
    /// The node only routes: clients use the backend's address, and conntrack is off.
    RouteOnly,
    /// DNAT to the backend with masquerade, as kube-proxy does for a load balancer's address.
    KubeProxy,
    /// DNAT to the proxy pod, as portmap does for a hostPort. The node also translates the `ClusterIP` to the backend.
    Portmap,
}

/// The connected namespaces.
#[derive(Debug)]
pub(crate) struct Network {
    /// The client, which generates the load.
    pub(crate) client: Namespace,
    /// The proxy pod.
    pub(crate) pod: Namespace,
    /// The backend's pod.
    pub(crate) backend: Namespace,
    _node: Namespace,
}

impl Network {
    /// Creates the network of a Service with this number of ports.
    pub(crate) fn new(role: NodeRole, ports: u16) -> Self {
        let [client, node, pod, backend] = std::array::from_fn(|_| Namespace::new());
        connect_to_node(&node, "client", addr::NODE, &client, addr::CLIENT);
        connect_to_node(&node, "pod", addr::POD_GATEWAY, &pod, addr::POD);
        connect_to_node(&node, "backend", addr::BACKEND_GATEWAY, &backend, addr::BACKEND);
        for router in [&node, &pod] {
            router.set_sysctl("ipv4/ip_forward", "1");
            // With the default timeout of two minutes, the closed connections of one sample would slow down the next
            // sample.
            router.set_sysctl("netfilter/nf_conntrack_tcp_timeout_time_wait", "1");
        }
        // The load generator chooses source ports below this range for short connections.
        client.set_sysctl("ipv4/ip_local_port_range", "50000 65000");
        if role != NodeRole::RouteOnly {
            node.load_nft(&node_rules(role, ports));
        }
        Self { client, pod, backend, _node: node }
    }
}

/// Returns the node's rules. The rules look up ports in a map, as kube-proxy does in nftables mode.
///
/// portmap has one rule per port. In the benchmark one rule matches all ports, so that the number of ports affects only
/// the proxies.
fn node_rules(role: NodeRole, ports: u16) -> String {
    let last = addr::FIRST_SERVICE_PORT + ports - 1;
    let (first, backend, backend_port) = (addr::FIRST_SERVICE_PORT, addr::BACKEND, addr::BACKEND_PORT);
    let node_address_rule = match role {
        NodeRole::RouteOnly => String::new(),
        NodeRole::KubeProxy => format!("ip daddr {} jump service", addr::NODE),
        NodeRole::Portmap => {
            format!(
                "ip daddr {} meta l4proto {{ tcp, udp }} th dport {first}-{last} dnat to {}",
                addr::NODE,
                addr::POD
            )
        }
    };
    let elements: Vec<_> = (first..=last).map(|port| format!("tcp . {port} : goto endpoint")).collect();
    let elements = format!("{}, {}", elements.join(", "), elements.join(", ").replace("tcp", "udp"));
    let masquerade_rule = if role == NodeRole::KubeProxy { "ct status dnat masquerade" } else { "" };
    format!(
        "table ip node {{
  chain endpoint {{ meta l4proto {{ tcp, udp }} dnat to {backend}:{backend_port}; }}
  map ports {{ type inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}
  chain service {{ meta l4proto . th dport vmap @ports; }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    {node_address_rule}
    ip daddr {} jump service
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    {masquerade_rule}
  }}
}}
",
        addr::CLUSTER_IP
    )
}

/// Connects interface `name` of the node with interface eth0 of `peer`. The namespace `peer` uses the node as its
/// gateway.
fn connect_to_node(node: &Namespace, name: &str, gateway: Ipv4Addr, peer: &Namespace, address: Ipv4Addr) {
    let gateway = gateway.into();
    connect(
        &Interface { namespace: node, name, addresses: &[gateway] },
        &Interface { namespace: peer, name: "eth0", addresses: &[address.into()] },
    );
    peer.add_default_routes(&[gateway]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_rules_map_each_port_for_both_protocols() {
        let rules = node_rules(NodeRole::Portmap, 3);
        for element in ["tcp . 20000 :", "tcp . 20002 :", "udp . 20000 :", "udp . 20002 :"] {
            assert!(rules.contains(element), "{element} in {rules}");
        }
        assert!(!rules.contains("20003"));
    }

    #[test]
    fn node_masquerades_only_in_the_role_of_kube_proxy() {
        assert!(node_rules(NodeRole::KubeProxy, 1).contains("masquerade"));
        assert!(!node_rules(NodeRole::Portmap, 1).contains("masquerade"));
    }
}
