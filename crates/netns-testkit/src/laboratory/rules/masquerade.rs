//! The CNI's masquerade, in the format of nft(8). Pure.

use akrobateo_core::family::Family;

use super::super::addresses::{cluster_pod_range, pod_range};
use super::super::options::{Options, PodMasquerade};

/// Returns the table of a node.
pub(super) fn render(options: &Options, node_number: usize) -> String {
    let rules: String =
        Family::ALL.into_iter().flat_map(|family| masquerade_rules(options, node_number, family)).collect();
    format!(
        "table inet cni {{\n  chain post {{ type nat hook postrouting priority srcnat;\n{rules}  }}\n}}\n"
    )
}

fn masquerade_rules(options: &Options, node_number: usize, family: Family) -> Vec<String> {
    let (ip, multicast) = match family {
        Family::V4 => ("ip", "224.0.0.0/4"),
        Family::V6 => ("ip6", "ff00::/8"),
    };
    let (cluster_range, own_range) = (cluster_pod_range(family), pod_range(family, node_number));
    let unmasqueraded_range =
        if options.pod_masquerade == PodMasquerade::OutsideNode { own_range.as_str() } else { cluster_range };
    let mut rules = vec![format!(
        "    {ip} saddr {own_range} {ip} daddr != {unmasqueraded_range} {ip} daddr != {multicast} \
         masquerade fully-random\n"
    )];
    if options.pod_masquerade == PodMasquerade::Flannel {
        rules.push(format!("    {ip} saddr != {cluster_range} {ip} daddr {own_range} return\n"));
        rules.push(format!(
            "    {ip} saddr != {cluster_range} {ip} daddr {cluster_range} masquerade fully-random\n"
        ));
    }
    rules
}
