//! The path of a packet through a cluster: client, node, proxy pod, backend; the node routes between them.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use super::traffic::{IMPATIENCE, tcp};
use super::{Namespace, eventually};

/// The addresses of the network, of either family.
pub mod at {
    /// Clients; the second and third are further addresses of the first.
    pub const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8:1::2"];
    pub const CLIENT_2: [&str; 2] = ["192.0.2.130", "2001:db8:1::8002"];
    pub const CLIENT_3: [&str; 2] = ["192.0.2.200", "2001:db8:1::c000"];
    /// The node, as clients see it.
    pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:1::1"];
    /// The proxy pod.
    pub const POD: [&str; 2] = ["10.244.0.5", "fd00:244::5"];
    /// Two addresses of the backend, which stand for `ClusterIP`s.
    pub const BACKEND: [&str; 2] = ["10.96.3.7", "fd00:96::7"];
    pub const BACKEND_2: [&str; 2] = ["10.96.3.8", "fd00:96::8"];
}

/// An address as a URL or an argument has it.
pub fn with_port(ip: &str, port: u16) -> String {
    let ip: IpAddr = ip.parse().unwrap();
    std::net::SocketAddr::new(ip, port).to_string()
}

/// The nodes, connected; the pod passes IPv6 on, and IPv4 as new namespaces have it: not.
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
            // Otherwise an interface waits a second before it uses its link-local address.
            namespace.sysctl("ipv6/conf/default/accept_dad", "0");
        }
        let clients = [at::CLIENT, at::CLIENT_2, at::CLIENT_3].concat();
        connect(&node, &client, "client", at::NODE, &clients);
        connect(&node, &pod, "pod", ["10.244.0.1", "fd00:244::1"], &at::POD);
        let backends = [at::BACKEND, at::BACKEND_2].concat();
        connect(&node, &backend, "backend", ["10.96.3.1", "fd00:96::1"], &backends);
        node.sysctl("ipv4/ip_forward", "1");
        node.sysctl("ipv6/conf/all/forwarding", "1");
        pod.sysctl("ipv4/ip_forward", "0");
        pod.sysctl("ipv6/conf/all/forwarding", "1");
        // As container runtimes set it.
        pod.sysctl("ipv4/ip_unprivileged_port_start", "0");
        let network = Self { client, node, pod, backend };
        network.settle();
        network
    }

    /// Waits until neighbours have found each other, for else silence would prove nothing.
    fn settle(&self) {
        for family in 0..2 {
            for (from, source, to) in [
                (&self.client, at::CLIENT, at::POD),
                (&self.client, at::CLIENT_2, at::POD),
                (&self.client, at::CLIENT_3, at::POD),
                (&self.pod, at::POD, at::BACKEND),
                (&self.pod, at::POD, at::BACKEND_2),
            ] {
                eventually("an unused port refuses connections", || {
                    let tried = tcp(from, source[family], &with_port(to[family], 9), IMPATIENCE);
                    (tried.unwrap_err().kind() == ErrorKind::ConnectionRefused).then_some(())
                });
            }
        }
    }
}

/// Connects `node` with `end` by an interface that `node` names `name` and `end` names eth0.
fn connect(node: &Namespace, end: &Namespace, name: &str, gateway: [&str; 2], addresses: &[&str]) {
    let netns = format!("/proc/{}/fd/{}", std::process::id(), end.file().as_raw_fd());
    let prefix = |ip: &str| if ip.contains(':') { format!("{ip}/64 nodad") } else { format!("{ip}/24") };
    let assign = |device: &str, ips: &[&str]| {
        ips.iter().map(|ip| format!("address add {} dev {device}\n", prefix(ip))).collect::<Vec<_>>().concat()
    };
    node.ip(&format!(
        "link add {name} type veth peer name eth0 netns {netns}\n{}link set {name} up",
        assign(name, &gateway)
    ));
    let [v4, v6] = gateway;
    end.ip(&format!(
        "{}link set eth0 up\nroute add default via {v4}\nroute add ::/0 via {v6}",
        assign("eth0", addresses)
    ));
}
