//! A network of a client, a node and two pods.

use std::net::{IpAddr, TcpListener};
use std::process::Command;

use akrobateo_core::Family;
use netns_testkit::Namespace;
use netns_testkit::link::{Interface, connect};

use super::table::{ENDPOINT_PORT, addresses};

pub(crate) struct Network {
    pub(crate) client_netns: Namespace,
    pub(crate) node_netns: Namespace,
    pub(crate) netns_of_pods: [Namespace; 2],
}

impl Network {
    pub(crate) fn new() -> Self {
        let network = Self {
            client_netns: Namespace::new(),
            node_netns: Namespace::new(),
            netns_of_pods: [Namespace::new(), Namespace::new()],
        };
        let families = Family::ALL.map(addresses);
        connect(
            &Interface {
                namespace: &network.client_netns,
                name: "eth0",
                addresses: &families.map(|addresses| addresses.client),
            },
            &Interface {
                namespace: &network.node_netns,
                name: "eth0",
                addresses: &families.map(|addresses| addresses.node),
            },
        );
        for (index, pod) in network.netns_of_pods.iter().enumerate() {
            let gateways = families.map(|addresses| addresses.pod_gateways[index]);
            connect(
                &Interface {
                    namespace: &network.node_netns,
                    name: &format!("pod{index}"),
                    addresses: &gateways,
                },
                &Interface {
                    namespace: pod,
                    name: "eth0",
                    addresses: &families.map(|addresses| addresses.pods[index]),
                },
            );
            pod.add_default_routes(&gateways);
        }
        network.node_netns.set_sysctl("ipv4/ip_forward", "1");
        network.node_netns.set_sysctl("ipv6/conf/all/forwarding", "1");
        network
    }

    /// Returns the MAC address of the client.
    pub(crate) fn client_mac(&self) -> [u8; 6] {
        // /sys would show the interfaces of the namespace in which this process has started.
        let output =
            self.client_netns.run_program(Command::new("ip").args(["-brief", "link", "show", "eth0"]), "");
        let mac = output.split_whitespace().nth(2).unwrap();
        let bytes: Vec<_> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    /// Opens a listener in each pod. The index of a listener is the index of its pod.
    pub(crate) fn listen(&self, ip: impl Fn(usize) -> IpAddr) -> Vec<TcpListener> {
        let open_listener = |(index, pod): (usize, &Namespace)| {
            let address = (ip(index), ENDPOINT_PORT);
            let listener = pod.run(|| TcpListener::bind(address).unwrap());
            listener.set_nonblocking(true).unwrap();
            listener
        };
        self.netns_of_pods.iter().enumerate().map(open_listener).collect()
    }
}
