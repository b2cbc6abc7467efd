//! An Ethernet bridge that several namespaces share, in its own namespace. Does I/O.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::link::{Interface, connect};
use crate::namespace::Namespace;

/// An Ethernet bridge: the network between nodes, or between nodes and clients.
#[derive(Debug)]
pub struct Bridge {
    namespace: Namespace,
    port_count: AtomicU32,
}

impl Bridge {
    /// Creates a bridge without ports.
    #[expect(clippy::new_without_default, reason = "the constructor creates a kernel object")]
    pub fn new() -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add bridge type bridge\nlink set bridge up");
        Self { namespace, port_count: AtomicU32::new(0) }
    }

    /// Creates `interface`, and connects this interface with a new port of the bridge.
    pub fn attach(&self, interface: &Interface<'_>) {
        let port = format!("port{}", self.port_count.fetch_add(1, Ordering::Relaxed));
        connect(&Interface { namespace: &self.namespace, name: &port, addresses: &[] }, interface);
        self.namespace.ip(&format!("link set {port} master bridge"));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener};

    use super::*;
    use crate::{DEADLINE, eventually, isolated, tcp};

    #[test]
    fn nodes_and_a_client_on_one_bridge_reach_each_other() {
        isolated(|| {
            let bridge = Bridge::new();
            let addresses =
                ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| text.parse::<IpAddr>().unwrap());
            let namespaces = addresses.map(|_| Namespace::new());
            for (namespace, address) in namespaces.iter().zip(addresses) {
                bridge.attach(&Interface { namespace, name: "eth0", addresses: &[address] });
            }
            let [client, first_node, second_node] = &namespaces;
            for (node, address) in [(first_node, addresses[1]), (second_node, addresses[2])] {
                let listener = node.run(|| TcpListener::bind((address, 80)).unwrap());
                let stream = client.run(|| {
                    eventually("the node answers", || tcp::connect(None, (address, 80).into(), DEADLINE).ok())
                });
                let (_, peer) = listener.accept().unwrap();
                assert_eq!(peer, stream.local_addr().unwrap());
                assert_eq!(peer.ip(), addresses[0]);
            }
        });
    }
}
