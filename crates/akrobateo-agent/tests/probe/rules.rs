//! The tables of a node, as text for nft(8): the rules of the probe, and a small part of the data path.
//!
//! On each node, the Service port 80 + N leads to the first pod of node N.

use akrobateo_agent::marks::Marks;
use akrobateo_agent::probe::{ForwardingMode, PROBE_PORT, PeerPath, TargetId, foreign_address};
use akrobateo_agent::tunnel;
use akrobateo_core::family::Family;
use netns_testkit::laboratory::addresses::{BACKEND_PORT, cluster_pod_range, pod_address, pod_range};
use netns_testkit::laboratory::{Laboratory, Node};

const FIRST_CONNTRACK_ZONE: u16 = 0x4000;
const TRANSLATED_FLOW_BIT: u32 = 0x2000_0000;

/// Returns the Service port that each node forwards to the first pod of node `peer`.
pub(crate) fn service_port(peer: usize) -> u16 {
    80 + u16::try_from(peer).unwrap()
}

/// Returns the words for a family: the keyword of nft(8), the suffix of the names of sets, and the type of addresses.
fn family_words(family: Family) -> (&'static str, &'static str, &'static str) {
    match family {
        Family::V4 => ("ip", "4", "ipv4_addr"),
        Family::V6 => ("ip6", "6", "ipv6_addr"),
    }
}

fn conntrack_zone(peer: usize) -> u16 {
    FIRST_CONNTRACK_ZONE + u16::try_from(peer).unwrap()
}

/// Returns the tables of a node. Before a mode is set, all packets to other nodes are masqueraded.
pub(crate) fn render_tables(laboratory: &Laboratory, node: &Node) -> String {
    let (zones, macs) = peer_elements(laboratory, node);
    let families: Vec<_> = node.addresses.iter().map(|address| Family::from_ip(*address)).collect();
    let for_each_family =
        |render: &dyn Fn(Family) -> String| families.iter().map(|family| render(*family)).collect::<String>();
    let uplink = node.uplink;
    let own_marks = format!("meta mark and 0xff000000 == {}", Marks::default().own_bits);
    format!(
        "table inet akrobateo {{
  map peer_zone {{ typeof ether saddr : ct original zone; elements = {{ {} }}
  }}
{}
  chain raw_pre {{ type filter hook prerouting priority -310;
{}  }}
  chain nat_pre {{ type nat hook prerouting priority -110;
{}    ct original zone != 0 meta mark set meta mark or 0x4000 accept
{}  }}
  chain nat_post {{ type nat hook postrouting priority 90;
{}    ct mark and {TRANSLATED_FLOW_BIT} == 0 accept
{}    masquerade fully-random
  }}
  chain steer_pre {{ type filter hook prerouting priority -90;
{}  }}
  chain steer_out {{ type route hook output priority -90;
    {own_marks} accept
{}  }}
  chain post {{ type filter hook postrouting priority -160; ct original zone 0 accept
{}  }}
}}
table netdev akrobateo {{
  map macs {{ type mark : ether_addr; elements = {{ {} }}
  }}
  chain uplink {{ type filter hook egress device \"{uplink}\" priority 0;
    meta mark and 0xffc00000 == {} ether daddr set meta mark map @macs meta mark set 0
  }}
  chain tunnel {{ type filter hook egress device \"akr0\" priority 0;
    ether daddr set meta mark map @macs meta mark set 0
    ether daddr {} drop
  }}
}}
",
        zones,
        for_each_family(&render_sets),
        for_each_family(&|family| zone_rules(node, family)),
        for_each_family(&|family| probe_dnat_rule(node, family)),
        for_each_family(&|family| service_rules(laboratory, node, family)),
        for_each_family(&|family| probe_snat_rules(node, family, &own_marks)),
        for_each_family(&keep_client_address_rule),
        for_each_family(&steering_rules),
        for_each_family(&steering_rules),
        for_each_family(&|family| reply_mark_rule(uplink, family)),
        macs,
        Marks::default().direct_mark(0),
        tunnel::NEXT_HOP_MAC,
    )
}

/// Returns the elements of the maps from MAC addresses to zones, and from marks to MAC addresses.
fn peer_elements(laboratory: &Laboratory, node: &Node) -> (String, String) {
    let (mut zones, mut macs) = (Vec::new(), Vec::new());
    for peer in laboratory.nodes.iter().filter(|peer| peer.number != node.number) {
        let number = u16::try_from(peer.number).unwrap();
        let (tunnel_mac, zone) = (tunnel::tunnel_mac(number), conntrack_zone(peer.number));
        zones.push(format!("{} : {zone}, {tunnel_mac} : {zone}", peer.mac));
        let (direct_mark, tunnel_mark) =
            (Marks::default().direct_mark(number), Marks::default().tunnel_mark(number));
        macs.push(format!("{direct_mark} : {}, {tunnel_mark} : {tunnel_mac}", peer.mac));
    }
    (zones.join(", "), macs.join(", "))
}

fn render_sets(family: Family) -> String {
    let (_, suffix, address_type) = family_words(family);
    format!(
        "  set kept{suffix} {{ type {address_type};
  }}
  map pod_mark{suffix} {{ type {address_type} : mark;
  }}
  map zone_mark{suffix} {{ typeof ct original zone : meta mark;
  }}
  map zone_mac{suffix} {{ typeof ct original zone : meta mark;
  }}
"
    )
}

/// Returns the rules that set the conntrack zone by the MAC address of the peer.
fn zone_rules(node: &Node, family: Family) -> String {
    let (ip, ..) = family_words(family);
    let (own_pods, pods) = (pod_range(family, node.number), cluster_pod_range(family));
    let (uplink, address) = (node.uplink, node.address(family));
    ["akr0", uplink]
        .into_iter()
        .flat_map(|device| [&own_pods, &address.to_string()].map(|destination| format!(
            "    iifname {device} {ip} daddr {destination} {ip} saddr != {pods} ct original zone set ether saddr map @peer_zone\n"
        )))
        .collect()
}

fn probe_dnat_rule(node: &Node, family: Family) -> String {
    let ((ip, ..), foreign, address) = (family_words(family), foreign_address(family), node.address(family));
    format!("    ct original zone != 0 {ip} saddr {foreign} udp dport {PROBE_PORT} dnat {ip} to {address}\n")
}

fn service_rules(laboratory: &Laboratory, node: &Node, family: Family) -> String {
    let ((ip, ..), address) = (family_words(family), node.address(family));
    let rule = |peer: &Node| {
        let endpoint = std::net::SocketAddr::new(pod_address(family, peer.number, 1), BACKEND_PORT);
        let port = service_port(peer.number);
        format!(
            "    {ip} daddr {address} meta l4proto {{ tcp, udp }} th dport {port} ct mark set ct mark or {TRANSLATED_FLOW_BIT} \
             meta mark set meta mark or 0x4000 dnat {ip} to {endpoint}\n"
        )
    };
    laboratory.nodes.iter().map(rule).collect()
}

fn probe_snat_rules(node: &Node, family: Family, own_marks: &str) -> String {
    let ((ip, ..), foreign, address) = (family_words(family), foreign_address(family), node.address(family));
    format!(
        "    {own_marks} {ip} saddr {address} udp dport {PROBE_PORT} snat {ip} to {foreign}\n    \
         ct original zone != 0 snat {ip} to {ip} saddr\n"
    )
}

fn keep_client_address_rule(family: Family) -> String {
    let (ip, suffix, _) = family_words(family);
    format!("    {ip} daddr @kept{suffix} snat {ip} to {ip} saddr\n")
}

fn steering_rules(family: Family) -> String {
    let (ip, suffix, _) = family_words(family);
    format!(
        "    ct mark and {TRANSLATED_FLOW_BIT} != 0 ct direction original meta mark set {ip} daddr map @pod_mark{suffix}\n    \
         meta protocol {ip} ct original zone != 0 ct direction reply \
         meta mark set ct original zone map @zone_mark{suffix}\n"
    )
}

fn reply_mark_rule(uplink: &str, family: Family) -> String {
    let (ip, suffix, _) = family_words(family);
    format!(
        "    oifname {uplink} meta protocol {ip} ct direction reply \
         meta mark set ct original zone map @zone_mac{suffix}\n"
    )
}

/// Returns the commands of nft(8) that add the elements for a mode, and delete the elements for other modes.
pub(crate) fn render_mode_commands(id: TargetId, mode: ForwardingMode) -> String {
    let (_, suffix, _) = family_words(id.family);
    let peer = usize::from(id.peer);
    let (pod, zone) = (pod_address(id.family, peer, 1), conntrack_zone(peer));
    let (direct_mark, tunnel_mark) =
        (Marks::default().direct_mark(id.peer), Marks::default().tunnel_mark(id.peer));
    let elements = [
        (format!("kept{suffix} {{ {pod}"), String::new(), matches!(mode, ForwardingMode::Keep(_))),
        (
            format!("pod_mark{suffix} {{ {pod}"),
            format!(" : {tunnel_mark}"),
            mode == ForwardingMode::Keep(PeerPath::Tunnel),
        ),
        (
            format!("zone_mark{suffix} {{ {zone}"),
            format!(" : {tunnel_mark}"),
            mode == ForwardingMode::Keep(PeerPath::Tunnel),
        ),
        (
            format!("zone_mac{suffix} {{ {zone}"),
            format!(" : {direct_mark}"),
            mode == ForwardingMode::Keep(PeerPath::Direct),
        ),
    ];
    // An element must exist before it can be deleted.
    elements
        .map(|(key, value, is_needed)| {
            let add = format!("add element inet akrobateo {key}{value} }}\n");
            let delete = format!("delete element inet akrobateo {key} }}\n");
            if is_needed { add } else { add + &delete }
        })
        .concat()
}
