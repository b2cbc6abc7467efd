//! The ways from client to backend that are compared. Pure.

use std::net::{IpAddr, Ipv4Addr};

use crate::measure::Measure;
use crate::network::{Node, at};

/// What carries connections from client to backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The client knows the backend's address, and the node routes.
    Direct,
    /// kube-proxy answers for the node's address.
    NodeDnat,
    /// Akrobateo's proxy pod, kernel mode.
    Kernel,
    /// A proxy pod with the peer's rules, set with this iptables.
    Klipper(Iptables),
    /// A proxy pod that copies, and sends a PROXY header or not.
    Userspace(Copier, bool),
}

/// The kernel interface that an iptables program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Iptables {
    /// nftables.
    Nft,
    /// xtables.
    Legacy,
}

/// A program that copies bytes from socket to socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copier {
    /// Akrobateo's, userspace mode.
    Akrobateo,
    /// `HAProxy` as it comes.
    HaProxy,
    /// `HAProxy` that always splices.
    HaProxySplice,
    /// nginx's stream module.
    Nginx,
}

/// A way, and how many ports the Service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Its name on the command line and in the results.
    pub(crate) name: &'static str,
    /// Its name in tables.
    pub(crate) title: &'static str,
    /// The way.
    pub(crate) way: Way,
    /// The Service's ports.
    pub(crate) ports: u16,
}

/// What is compared without PROXY header; the first is what all are compared with.
pub(crate) const KERNEL: [Variant; 9] = [
    variant("direct", "direct routing", Way::Direct, 1),
    variant("node-dnat", "one DNAT in the node, as kube-proxy does", Way::NodeDnat, 1),
    variant("akrobateo", "**akrobateo-lb**, 1 port", Way::Kernel, 1),
    variant("klipper-nft", "klipper's rules, iptables-nft, 1 port", Way::Klipper(Iptables::Nft), 1),
    variant("klipper-legacy", "klipper's rules, iptables-legacy, 1 port", Way::Klipper(Iptables::Legacy), 1),
    variant("akrobateo-1k", "**akrobateo-lb**, 1,000 ports", Way::Kernel, 1000),
    variant(
        "klipper-nft-1k",
        "klipper's rules, iptables-nft, 1,000 ports",
        Way::Klipper(Iptables::Nft),
        1000,
    ),
    variant(
        "klipper-legacy-1k",
        "klipper's rules, iptables-legacy, 1,000 ports",
        Way::Klipper(Iptables::Legacy),
        1000,
    ),
    variant("haproxy", "HAProxy, TCP mode", Way::Userspace(Copier::HaProxy, false), 1),
];

/// What sends a PROXY header.
pub(crate) const USERSPACE: [Variant; 4] = [
    variant("userspace", "**akrobateo-lb**, userspace", Way::Userspace(Copier::Akrobateo, true), 1),
    variant("haproxy-proxy", "HAProxy", Way::Userspace(Copier::HaProxy, true), 1),
    variant("haproxy-splice", "HAProxy, forced splice", Way::Userspace(Copier::HaProxySplice, true), 1),
    variant("nginx", "nginx stream", Way::Userspace(Copier::Nginx, true), 1),
];

const fn variant(name: &'static str, title: &'static str, way: Way, ports: u16) -> Variant {
    Variant { name, title, way, ports }
}

/// All variants.
pub(crate) fn all() -> impl Iterator<Item = Variant> {
    KERNEL.into_iter().chain(USERSPACE)
}

/// The variant with this name.
pub(crate) fn named(name: &str) -> Result<Variant, String> {
    let names: Vec<_> = all().map(|variant| variant.name).collect();
    all()
        .find(|variant| variant.name == name)
        .ok_or_else(|| format!("{name:?} is none of {}", names.join(", ")))
}

impl Variant {
    /// Whether this load can be put on it: datagrams where the kernel forwards.
    pub(crate) fn carries(self, measure: Measure) -> bool {
        measure != Measure::Datagrams || !matches!(self.way, Way::Userspace(..))
    }

    /// Whether connections reach the backend with a PROXY header.
    pub(crate) const fn header(self) -> bool {
        matches!(self.way, Way::Userspace(_, true))
    }

    /// What the node does.
    pub(crate) const fn node(self) -> Node {
        match self.way {
            Way::Direct => Node::Routes,
            Way::NodeDnat => Node::Answers,
            Way::Kernel | Way::Klipper(_) | Way::Userspace(..) => Node::HandsOver,
        }
    }

    /// Where clients connect.
    pub(crate) const fn entry(self) -> Ipv4Addr {
        match self.way {
            Way::Direct => at::BACKEND,
            _ => at::NODE,
        }
    }

    /// The client's address as the backend sees it: by it one knows that the way is the one that was meant.
    pub(crate) const fn seen(self) -> IpAddr {
        IpAddr::V4(match self.way {
            Way::Direct | Way::Userspace(_, true) => at::CLIENT,
            Way::NodeDnat => at::GATEWAY,
            Way::Kernel | Way::Klipper(_) | Way::Userspace(_, false) => at::POD,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_found_by_its_name_and_none_has_anothers() {
        for variant in all() {
            assert_eq!(named(variant.name), Ok(variant));
        }
        assert!(named("envoy").unwrap_err().contains("klipper-nft-1k"));
    }
}
