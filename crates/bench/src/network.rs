//! The path of a packet through a cluster: client, node, proxy pod, backend, each in a namespace of its own.

use crate::failure::Failure;
use crate::namespace::Namespace;

/// The addresses on the path.
pub(crate) mod at {
    use std::net::Ipv4Addr;

    /// The client.
    pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    /// The node, as clients see it.
    pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// The node, as the backend sees it.
    pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
    /// The proxy pod.
    pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);
    /// The Service; an address of no interface.
    pub(crate) const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 3, 7);
    /// The pod behind the Service.
    pub(crate) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 7);
    /// Where the backend frontends.
    pub(crate) const BACKEND_PORT: u16 = 8080;
    /// The first of a Service's ports; the others follow.
    pub(crate) const FIRST_PORT: u16 = 20_000;
}

/// What the node does with what arrives at its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// Nothing: the client knows the backend's address. Connections aren't tracked either.
    Routes,
    /// As kube-proxy for a load balancer's address: to the backend, masqueraded.
    Answers,
    /// As portmap for a hostPort: to the proxy pod. kube-proxy then takes it from the `ClusterIP` to the backend.
    HandsOver,
}

/// The namespaces, connected.
#[derive(Debug)]
pub(crate) struct Network {
    /// Where the load comes from.
    pub(crate) client: Namespace,
    /// Where proxies run.
    pub(crate) pod: Namespace,
    /// Where it goes to.
    pub(crate) backend: Namespace,
    _node: Namespace,
}

impl Network {
    /// A new one, for a Service of `ports` ports.
    pub(crate) fn new(behaviour: Node, ports: u16) -> Result<Self, Failure> {
        let (client, node) = (Namespace::new()?, Namespace::new()?);
        let (pod, backend) = (Namespace::new()?, Namespace::new()?);
        connect(&node, &client, "client", &at::NODE.to_string(), &at::CLIENT.to_string())?;
        connect(&node, &pod, "pod", "10.244.0.1", &at::POD.to_string())?;
        connect(&node, &backend, "backend", &at::GATEWAY.to_string(), &at::BACKEND.to_string())?;
        for router in [&node, &pod] {
            router.sysctl("ipv4/ip_forward", "1")?;
            // Closed connections would be kept for two minutes, and one sample weigh on the next.
            router.sysctl("netfilter/nf_conntrack_tcp_timeout_time_wait", "1")?;
        }
        // Short connections choose theirs below.
        client.sysctl("ipv4/ip_local_port_range", "50000 65000")?;
        if behaviour != Node::Routes {
            node.nft(&rules(behaviour, ports))?;
        }
        Ok(Self { client, pod, backend, _node: node })
    }
}

/// The node's rules. Ports are in maps, as kube-proxy has them in nftables mode, and portmap not: it is the proxies that
/// are measured with many ports.
fn rules(behaviour: Node, ports: u16) -> String {
    let last = at::FIRST_PORT + ports - 1;
    let (first, backend, backend_port) = (at::FIRST_PORT, at::BACKEND, at::BACKEND_PORT);
    let entry = match behaviour {
        Node::Routes => String::new(),
        Node::Answers => format!("ip daddr {} jump service", at::NODE),
        Node::HandsOver => {
            format!(
                "ip daddr {} meta l4proto {{ tcp, udp }} th dport {first}-{last} dnat to {}",
                at::NODE,
                at::POD
            )
        }
    };
    let elements: Vec<_> = (first..=last).map(|port| format!("tcp . {port} : goto endpoint")).collect();
    let elements = format!("{}, {}", elements.join(", "), elements.join(", ").replace("tcp", "udp"));
    let masquerade = if behaviour == Node::Answers { "ct status dnat masquerade" } else { "" };
    format!(
        "table ip node {{
  chain endpoint {{ meta l4proto {{ tcp, udp }} dnat to {backend}:{backend_port}; }}
  map ports {{ type inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}
  chain service {{ meta l4proto . th dport vmap @ports; }}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    {entry}
    ip daddr {} jump service
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    {masquerade}
  }}
}}
",
        at::CLUSTER_IP
    )
}

/// Connects `node` with `end` by an interface that `node` names `name` and `end` names eth0.
fn connect(
    node: &Namespace,
    end: &Namespace,
    name: &str,
    gateway: &str,
    address: &str,
) -> Result<(), Failure> {
    node.ip(&format!(
        "link add {name} type veth peer name eth0 netns {}
address add {gateway}/24 dev {name}
link set {name} up",
        end.path()
    ))?;
    end.ip(&format!(
        "address add {address}/24 dev eth0
link set eth0 up
route add default via {gateway}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_the_service_is_in_the_nodes_map_for_both_protocols() {
        let rules = rules(Node::HandsOver, 3);
        for element in ["tcp . 20000 :", "tcp . 20002 :", "udp . 20000 :", "udp . 20002 :"] {
            assert!(rules.contains(element), "{element} in {rules}");
        }
        assert!(!rules.contains("20003"));
    }

    #[test]
    fn only_what_kube_proxy_answers_for_the_nodes_address_is_masqueraded() {
        assert!(rules(Node::Answers, 1).contains("masquerade"));
        assert!(!rules(Node::HandsOver, 1).contains("masquerade"));
    }
}
