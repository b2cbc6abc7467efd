//! The rules of other programs on a node: the CNI's masquerade, kube-proxy, portmap. Loads these rules; only this file
//! does I/O.

mod iptables;
mod kube_proxy_nftables;
mod masquerade;

use std::process::Command;

use akrobateo_core::family::Family;

use super::options::{KubeProxy, Options};
use crate::Namespace;

/// Loads the rules of all programs into a node.
pub(crate) fn load(options: &Options, node_number: usize, namespace: &Namespace) {
    namespace.load_nft(&masquerade::render(options, node_number));
    for (family, program) in Family::ALL.into_iter().zip(["iptables-nft-restore", "ip6tables-nft-restore"]) {
        namespace.run_program(&mut Command::new(program), &iptables::render(options, node_number, family));
        if options.kube_proxy == KubeProxy::Nftables {
            namespace.load_nft(&kube_proxy_nftables::render(options, node_number, family));
        }
    }
}
