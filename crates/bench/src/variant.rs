//! The variants that are compared. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

/// A data path for a Service, and the number of the Service's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// The name on the command line and in the results.
    pub(crate) name: &'static str,
    /// The name in tables.
    pub(crate) title: &'static str,
    /// The data path.
    pub(crate) data_path: DataPath,
    /// The number of the Service's ports.
    pub(crate) ports: u16,
}

/// The variants that send no PROXY header. The first variant is the baseline of the table.
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

const fn variant(name: &'static str, title: &'static str, data_path: DataPath, ports: u16) -> Variant {
    Variant { name, title, data_path, ports }
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
    VARIANTS_WITHOUT_PROXY_HEADER.into_iter().chain(VARIANTS_WITH_PROXY_HEADER)
}

/// Returns the variant with this name.
pub(crate) fn get(name: &str) -> Result<Variant, String> {
    all().find(|variant| variant.name == name).ok_or_else(|| {
        let names: Vec<_> = all().map(|variant| variant.name).collect();
        format!("unknown variant {name:?}, expected one of {}", names.join(", "))
    })
}

impl Variant {
    /// Returns true if the variant can forward this load. A variant with a userspace proxy does not forward UDP.
    pub(crate) fn supports(self, load: Load) -> bool {
        load != Load::Udp || !matches!(self.data_path, DataPath::Userspace { .. })
    }

    /// Returns true if connections reach the backend with a PROXY header.
    pub(crate) const fn sends_proxy_header(self) -> bool {
        matches!(self.data_path, DataPath::Userspace { proxy_header: true, .. })
    }

    /// Returns the role of the node.
    pub(crate) const fn node_role(self) -> NodeRole {
        match self.data_path {
            DataPath::Direct => NodeRole::RouteOnly,
            DataPath::NodeDnat => NodeRole::KubeProxy,
            DataPath::Kernel | DataPath::Klipper(_) | DataPath::Userspace { .. } => NodeRole::Portmap,
        }
    }

    /// Returns the address and the first port that clients connect to.
    pub(crate) fn frontend(self) -> SocketAddr {
        match self.data_path {
            DataPath::Direct => (addr::BACKEND, addr::BACKEND_PORT),
            _ => (addr::NODE, addr::FIRST_SERVICE_PORT),
        }
        .into()
    }

    /// Returns the source address that the backend should see. If the backend sees another address, the packets took a
    /// wrong path.
    pub(crate) const fn expected_source_address(self) -> IpAddr {
        let source: Ipv4Addr = match self.data_path {
            DataPath::Direct | DataPath::Userspace { proxy_header: true, .. } => addr::CLIENT,
            DataPath::NodeDnat => addr::BACKEND_GATEWAY,
            DataPath::Kernel | DataPath::Klipper(_) | DataPath::Userspace { proxy_header: false, .. } => {
                addr::POD
            }
        };
        IpAddr::V4(source)
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
        assert!(get("envoy").unwrap_err().contains("klipper-nft-1k"));
    }
}
