//! The network of a test: a client, node, proxy pod and backend; the node routes between them. Does I/O.

use std::io::ErrorKind;

use netns_testkit::link::{Interface, connect};
use netns_testkit::{Namespace, eventually};

use super::addr::{self, parse_ip, with_port};
use super::traffic::{NO_REPLY_TIMEOUT, connect_tcp};

/// A port on which no program listens.
const CLOSED_PORT: u16 = 9;

/// The connected namespaces. In the proxy pod, IPv6 forwarding is on and IPv4 forwarding is off, as in a new pod.
#[derive(Debug)]
pub struct Network {
    pub client: Namespace,
    pub node: Namespace,
    pub pod: Namespace,
    pub backend: Namespace,
}

impl Network {
    pub fn new() -> Self {
        let [client, node, pod, backend] = std::array::from_fn(|_| Namespace::new());
        for namespace in [&client, &node, &pod, &backend] {
            // Switches off duplicate address detection, because this detection would delay each interface by a second.
            namespace.set_sysctl("ipv6/conf/default/accept_dad", "0");
        }
        connect_to_node(
            &node,
            "client",
            addr::NODE,
            &client,
            &[addr::CLIENT, addr::CLIENT_2, addr::CLIENT_3],
        );
        connect_to_node(&node, "pod", addr::POD_GATEWAY, &pod, &[addr::POD]);
        let backend_addresses = [addr::BACKEND, addr::BACKEND_2];
        connect_to_node(&node, "backend", addr::BACKEND_GATEWAY, &backend, &backend_addresses);
        node.set_sysctl("ipv4/ip_forward", "1");
        node.set_sysctl("ipv6/conf/all/forwarding", "1");
        pod.set_sysctl("ipv4/ip_forward", "0");
        pod.set_sysctl("ipv6/conf/all/forwarding", "1");
        // Container runtimes also set this sysctl to 0.
        pod.set_sysctl("ipv4/ip_unprivileged_port_start", "0");
        let network = Self { client, node, pod, backend };
        network.wait_until_reachable();
        network
    }

    /// Waits until each path works. Without this wait, a missing reply could mean that a path does not work yet.
    fn wait_until_reachable(&self) {
        for family_index in 0..2 {
            for (namespace, source, destination) in [
                (&self.client, addr::CLIENT, addr::POD),
                (&self.client, addr::CLIENT_2, addr::POD),
                (&self.client, addr::CLIENT_3, addr::POD),
                (&self.pod, addr::POD, addr::BACKEND),
                (&self.pod, addr::POD, addr::BACKEND_2),
            ] {
                let destination = with_port(destination[family_index], CLOSED_PORT);
                eventually("a closed port refuses connections", || {
                    let result = connect_tcp(namespace, source[family_index], &destination, NO_REPLY_TIMEOUT);
                    (result.unwrap_err().kind() == ErrorKind::ConnectionRefused).then_some(())
                });
            }
        }
    }
}

/// Connects interface `name` of the node with interface eth0 of `peer`. The namespace `peer` uses the node as its
/// gateway.
fn connect_to_node(
    node: &Namespace,
    name: &str,
    gateway: [&str; 2],
    peer: &Namespace,
    peer_addresses: &[[&str; 2]],
) {
    let gateway = gateway.map(parse_ip);
    let addresses: Vec<_> = peer_addresses.as_flattened().iter().map(|ip| parse_ip(ip)).collect();
    connect(
        &Interface { namespace: node, name, addresses: &gateway },
        &Interface { namespace: peer, name: "eth0", addresses: &addresses },
    );
    peer.add_default_routes(&gateway);
}
