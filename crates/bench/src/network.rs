//! The network of a variant: client, nodes, proxy pod and backend, each in its own namespace. Does I/O.

use std::net::Ipv4Addr;

use netns_testkit::link::{Interface, connect};
use netns_testkit::{Bridge, Namespace};

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

/// The role of a node, which determines how the node handles packets to its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeRole {
    /// The node only routes. Clients use the backend's address, and conntrack is off.
    RouteOnly,
    /// The node translates its own address to the backend and masquerades, as kube-proxy does for a load balancer's
    /// address.
    KubeProxy,
    /// The node translates only the `ClusterIP` to the backend. kube-proxy does the same on a node with a node agent.
    ClusterIp,
    /// The node translates its own address to the proxy pod, as portmap does for a hostPort. The node also translates
    /// the `ClusterIP` to the backend.
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
    /// The nodes. Clients send packets to the first node.
    pub(crate) nodes: Vec<Namespace>,
    _segment: Option<Bridge>,
}

impl Network {
    /// Creates the network with one node, for a Service with this number of ports.
    pub(crate) fn with_one_node(role: NodeRole, ports: u16) -> Self {
        let [client, node, pod, backend] = std::array::from_fn(|_| Namespace::new());
        connect_to_node(&node, "client", addr::NODE, &client, addr::CLIENT);
        connect_to_node(&node, "pod", addr::POD_GATEWAY, &pod, addr::POD);
        connect_to_node(&node, "backend", addr::BACKEND_GATEWAY, &backend, addr::BACKEND);
        for router in [&node, &pod] {
            set_router_sysctls(router);
        }
        set_client_sysctls(&client);
        set_backend_sysctls(&backend);
        NodeRules { role, ports, node: addr::NODE, pod: addr::POD, backend: addr::BACKEND }.load(&node);
        Self { client, pod, backend, nodes: vec![node], _segment: None }
    }

    /// Returns a network in which a segment connects the client and the nodes.
    pub(crate) fn with_segment(
        segment: Bridge,
        client: Namespace,
        nodes: Vec<Namespace>,
        pod: Namespace,
        backend: Namespace,
    ) -> Self {
        Self { client, pod, backend, nodes, _segment: Some(segment) }
    }
}

/// Makes a namespace forward packets.
pub(crate) fn set_router_sysctls(router: &Namespace) {
    router.set_sysctl("ipv4/ip_forward", "1");
    // The default timeout is two minutes. With this timeout the closed connections of one sample would slow down the
    // next sample.
    router.set_sysctl("netfilter/nf_conntrack_tcp_timeout_time_wait", "1");
}

/// Makes a backend forget closed connections at once. The nodes forget closed connections after one second (see
/// [`set_router_sysctls`]). If the backend still remembered the source port, the new connection would wait for a
/// second. Real nodes remember closed connections longer than backends, so they do not choose such a port.
pub(crate) fn set_backend_sysctls(backend: &Namespace) {
    backend.set_sysctl("ipv4/tcp_max_tw_buckets", "0");
}

/// Sets the range of the source ports that the kernel chooses.
pub(crate) fn set_client_sysctls(client: &Namespace) {
    // The load generator chooses the source ports of short connections below this range.
    client.set_sysctl("ipv4/ip_local_port_range", "50000 65000");
}

/// The rules of a node, as values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeRules {
    /// The role of the node.
    pub(crate) role: NodeRole,
    /// The number of the Service's ports.
    pub(crate) ports: u16,
    /// The address to which clients send packets.
    pub(crate) node: Ipv4Addr,
    /// The proxy pod.
    pub(crate) pod: Ipv4Addr,
    /// The backend's pod.
    pub(crate) backend: Ipv4Addr,
}

impl NodeRules {
    /// Loads the rules into a node. A node that only routes has no rules.
    pub(crate) fn load(self, node: &Namespace) {
        if self.role != NodeRole::RouteOnly {
            node.load_nft(&self.render());
        }
    }

    /// Returns the rules in the format of nft(8). The rules look up ports in a map, as kube-proxy does in nftables
    /// mode.
    ///
    /// portmap has one rule per port. Here one rule matches all ports, so that the number of ports affects only the
    /// proxies.
    fn render(self) -> String {
        let Self { role, ports, node, pod, backend } = self;
        let (first, last) = (addr::FIRST_SERVICE_PORT, addr::FIRST_SERVICE_PORT + ports - 1);
        let (cluster_ip, backend_port) = (addr::CLUSTER_IP, addr::BACKEND_PORT);
        let node_address_rule = match role {
            NodeRole::RouteOnly | NodeRole::ClusterIp => String::new(),
            NodeRole::KubeProxy => format!("ip daddr {node} jump service"),
            NodeRole::Portmap => {
                format!("ip daddr {node} meta l4proto {{ tcp, udp }} th dport {first}-{last} dnat to {pod}")
            }
        };
        let elements: Vec<_> = (first..=last).map(|port| format!("tcp . {port} : goto endpoint")).collect();
        let elements = format!("{}, {}", elements.join(", "), elements.join(", ").replace("tcp", "udp"));
        let masquerade_rule =
            if role == NodeRole::KubeProxy { "ct status dnat masquerade fully-random" } else { "" };
        format!(
            "table ip node {{
  chain endpoint {{ meta l4proto {{ tcp, udp }} dnat to {backend}:{backend_port}; }}
  map ports {{ type inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}
  chain service {{ meta l4proto . th dport vmap @ports; }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    {node_address_rule}
    ip daddr {cluster_ip} jump service
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    {masquerade_rule}
  }}
}}
"
        )
    }
}

/// Connects interface `name` of the node with interface eth0 of `peer`, which uses the node as its gateway.
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

    fn node_rules(role: NodeRole, ports: u16) -> String {
        NodeRules { role, ports, node: addr::NODE, pod: addr::POD, backend: addr::BACKEND }.render()
    }

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
        // kube-proxy lets the kernel choose all source ports at random.
        assert!(node_rules(NodeRole::KubeProxy, 1).contains("masquerade fully-random"));
        assert!(!node_rules(NodeRole::Portmap, 1).contains("masquerade"));
    }
}
