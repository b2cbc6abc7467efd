//! The variants that the benchmark compares. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use akrobateo_agent::probe::PeerPath;

use crate::layout::{self, Layout};
use crate::load::Load;
use crate::network::{NodeRole, addr};

/// The path of connections from the client to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataPath {
    /// The client connects to the backend's address, and the node only routes.
    Direct,
    /// The node translates its own address to the backend's address, as kube-proxy does.
    NodeDnat,
    /// A proxy pod with Akrobateo in kernel mode.
    Kernel,
    /// A proxy pod with klipper-lb's rules, set with this iptables program.
    Klipper(Iptables),
    /// A proxy pod with a program that copies bytes between sockets.
    Userspace {
        /// The program.
        proxy: UserspaceProxy,
        /// True if the program sends a PROXY header to the backend.
        proxy_header: bool,
    },
    /// The node agent, on both nodes. The path keeps the client's address of packets to the other node. Without a path,
    /// the agent masquerades these packets.
    Agent(Option<PeerPath>),
}

/// The kernel interface of an iptables program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Iptables {
    /// nftables.
    Nft,
    /// xtables.
    Legacy,
}

/// A proxy that copies bytes between sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserspaceProxy {
    /// Akrobateo in userspace mode.
    Akrobateo,
    /// `HAProxy` with its default settings.
    HaProxy,
    /// `HAProxy` with forced splicing.
    HaProxySplice,
    /// The stream module of nginx.
    Nginx,
}

/// A data path for Services, and the number of their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// The name on the command line and in the results.
    pub(crate) name: &'static str,
    /// The name in tables.
    pub(crate) title: &'static str,
    /// The data path.
    pub(crate) data_path: DataPath,
    /// The network.
    pub(crate) layout: Layout,
    /// The number of the Service's ports. The node agent has one Service per port.
    pub(crate) ports: u16,
    /// The number of the endpoints of each Service.
    pub(crate) endpoints: u8,
}

/// The variants without a PROXY header. The first variant is the baseline of the table.
pub(crate) const VARIANTS_WITHOUT_PROXY_HEADER: [Variant; 9] = [
    variant("direct", "direct routing", DataPath::Direct, 1),
    variant("node-dnat", "one DNAT in the node, like kube-proxy", DataPath::NodeDnat, 1),
    variant("akrobateo", "**akrobateo-lb**, 1 port", DataPath::Kernel, 1),
    variant("klipper-nft", "klipper's rules, iptables-nft, 1 port", DataPath::Klipper(Iptables::Nft), 1),
    variant(
        "klipper-legacy",
        "klipper's rules, iptables-legacy, 1 port",
        DataPath::Klipper(Iptables::Legacy),
        1,
    ),
    variant("akrobateo-1k", "**akrobateo-lb**, 1,000 ports", DataPath::Kernel, 1000),
    variant(
        "klipper-nft-1k",
        "klipper's rules, iptables-nft, 1,000 ports",
        DataPath::Klipper(Iptables::Nft),
        1000,
    ),
    variant(
        "klipper-legacy-1k",
        "klipper's rules, iptables-legacy, 1,000 ports",
        DataPath::Klipper(Iptables::Legacy),
        1000,
    ),
    userspace("haproxy", "HAProxy, TCP mode", UserspaceProxy::HaProxy, false),
];

/// The variants that send a PROXY header. The variant `haproxy-proxy` is the baseline of the table.
pub(crate) const VARIANTS_WITH_PROXY_HEADER: [Variant; 4] = [
    userspace("userspace", "**akrobateo-lb**, userspace", UserspaceProxy::Akrobateo, true),
    userspace("haproxy-proxy", "HAProxy", UserspaceProxy::HaProxy, true),
    userspace("haproxy-splice", "HAProxy, forced splice", UserspaceProxy::HaProxySplice, true),
    userspace("nginx", "nginx stream", UserspaceProxy::Nginx, true),
];

/// The variants with two nodes. The first variant is the baseline of the table.
pub(crate) const VARIANTS_WITH_TWO_NODES: [Variant; 12] = [
    remote_variant("remote-direct", "direct routing, remote", DataPath::Direct),
    local_variant("local-dnat", "one DNAT in the node, like kube-proxy, local", DataPath::NodeDnat),
    remote_variant("remote-dnat", "one DNAT in the node, like kube-proxy, remote", DataPath::NodeDnat),
    local_variant("local-lb", "**akrobateo-lb**, local", DataPath::Kernel),
    remote_variant("remote-lb", "**akrobateo-lb**, remote", DataPath::Kernel),
    remote_variant(
        "remote-klipper",
        "klipper's rules, iptables-nft, remote",
        DataPath::Klipper(Iptables::Nft),
    ),
    local_variant("agent-local", "**akrobateo-agent**, local", DataPath::Agent(None)),
    remote_variant("agent-masquerade", "**akrobateo-agent**, remote, masquerade", DataPath::Agent(None)),
    remote_variant(
        "agent-direct",
        "**akrobateo-agent**, remote, direct",
        DataPath::Agent(Some(PeerPath::Direct)),
    ),
    remote_variant(
        "agent-tunnel",
        "**akrobateo-agent**, remote, tunnel",
        DataPath::Agent(Some(PeerPath::Tunnel)),
    ),
    Variant {
        endpoints: 10,
        ..remote_variant(
            "agent-direct-10",
            "**akrobateo-agent**, remote, direct, 1 Service of 10 endpoints",
            DataPath::Agent(Some(PeerPath::Direct)),
        )
    },
    Variant {
        ports: 1000,
        endpoints: 10,
        ..remote_variant(
            "agent-direct-1k",
            "**akrobateo-agent**, remote, direct, 1,000 Services of 10 endpoints",
            DataPath::Agent(Some(PeerPath::Direct)),
        )
    },
];

const fn variant(name: &'static str, title: &'static str, data_path: DataPath, ports: u16) -> Variant {
    Variant { name, title, data_path, layout: Layout::OneNode, ports, endpoints: 1 }
}

const fn local_variant(name: &'static str, title: &'static str, data_path: DataPath) -> Variant {
    Variant { layout: Layout::LocalBackend, ..variant(name, title, data_path, 1) }
}

const fn remote_variant(name: &'static str, title: &'static str, data_path: DataPath) -> Variant {
    Variant { layout: Layout::RemoteBackend, ..variant(name, title, data_path, 1) }
}

const fn userspace(
    name: &'static str,
    title: &'static str,
    proxy: UserspaceProxy,
    proxy_header: bool,
) -> Variant {
    variant(name, title, DataPath::Userspace { proxy, proxy_header }, 1)
}

/// Returns all variants.
pub(crate) fn all() -> impl Iterator<Item = Variant> {
    let variants_with_one_node = VARIANTS_WITHOUT_PROXY_HEADER.into_iter().chain(VARIANTS_WITH_PROXY_HEADER);
    variants_with_one_node.chain(VARIANTS_WITH_TWO_NODES)
}

/// Returns the variant with this name.
pub(crate) fn get(name: &str) -> Result<Variant, String> {
    all().find(|variant| variant.name == name).ok_or_else(|| {
        let names: Vec<_> = all().map(|variant| variant.name).collect();
        format!("unknown variant {name:?}, expected one of {}", names.join(", "))
    })
}

impl Variant {
    /// Returns true if the benchmark measures this load on the variant. Only variants without a userspace proxy forward
    /// UDP. The loads on one processor need a backend on one processor.
    pub(crate) fn supports(self, load: Load) -> bool {
        match load {
            Load::Udp => !matches!(self.data_path, DataPath::Userspace { .. }),
            Load::Requests => !self.has_two_nodes(),
            Load::SingleConnection | Load::SingleDatagram => self.has_two_nodes(),
            Load::Connections | Load::Upload | Load::Download => true,
        }
    }

    /// Returns true if the network has two nodes. With two nodes, the client and the backend have different processors.
    pub(crate) fn has_two_nodes(self) -> bool {
        self.layout != Layout::OneNode
    }

    /// Returns true if connections reach the backend with a PROXY header.
    pub(crate) const fn sends_proxy_header(self) -> bool {
        matches!(self.data_path, DataPath::Userspace { proxy_header: true, .. })
    }

    /// Returns the role of the node to which clients send packets.
    pub(crate) const fn node_role(self) -> NodeRole {
        match self.data_path {
            DataPath::Direct => NodeRole::RouteOnly,
            DataPath::NodeDnat => NodeRole::KubeProxy,
            DataPath::Kernel | DataPath::Klipper(_) | DataPath::Userspace { .. } => NodeRole::Portmap,
            DataPath::Agent(_) => NodeRole::ClusterIp,
        }
    }

    /// Returns the addresses that the backend listens on.
    pub(crate) fn backend_addresses(self) -> Vec<Ipv4Addr> {
        match self.layout {
            Layout::OneNode => vec![addr::BACKEND],
            two_nodes => layout::backend_addresses(two_nodes.backend_node(), self.endpoints),
        }
    }

    /// Returns the address and the first port that clients connect to.
    pub(crate) fn frontend(self) -> SocketAddr {
        match (self.data_path, self.layout) {
            (DataPath::Direct, _) => (self.backend_addresses()[0], addr::BACKEND_PORT),
            (_, Layout::OneNode) => (addr::NODE, addr::FIRST_SERVICE_PORT),
            _ => (layout::node_address(layout::NODES[0]), addr::FIRST_SERVICE_PORT),
        }
        .into()
    }

    /// Returns the source address that the backend should see. If the backend sees another address, the packets took a
    /// wrong path.
    pub(crate) fn expected_source_address(self) -> IpAddr {
        let [client, gateway, pod] = match self.layout {
            Layout::OneNode => [addr::CLIENT, addr::BACKEND_GATEWAY, addr::POD],
            Layout::LocalBackend => [layout::CLIENT, layout::pod_gateway(layout::NODES[0]), layout::PROXY],
            Layout::RemoteBackend => [layout::CLIENT, layout::node_address(layout::NODES[0]), layout::PROXY],
        };
        let keeps_client = self.layout == Layout::LocalBackend;
        IpAddr::V4(match self.data_path {
            DataPath::Direct | DataPath::Userspace { proxy_header: true, .. } | DataPath::Agent(Some(_)) => {
                client
            }
            DataPath::NodeDnat => gateway,
            DataPath::Kernel | DataPath::Klipper(_) | DataPath::Userspace { proxy_header: false, .. } => pod,
            DataPath::Agent(None) => {
                if keeps_client {
                    client
                } else {
                    gateway
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variant_is_found_by_its_name() {
        for variant in all() {
            assert_eq!(get(variant.name), Ok(variant));
        }
        assert!(get("envoy").unwrap_err().contains("klipper-nft-1k, "));
    }
}
