//! Filters of the segment. The filters drop or change frames in the same way as switches and clouds. Pure.

use akrobateo_core::family::Family;

use super::addresses::node_address;

/// A property of the segment between the nodes and the client. Each number in a variant is the number of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The node's port passes only packets from and to the node's own address, as a cloud's source and destination
    /// check does.
    OwnAddressOnly(usize),
    /// The node's port passes only packets with the node's own source address. All packets to the node pass.
    OwnSourceAddressOnly(usize),
    /// The node's port passes only frames with the node's own source MAC address, as a virtual switch does.
    OwnMacOnly(usize),
    /// The frames of the node arrive with the MAC address of a gateway, as in a routed network.
    GatewayMac(usize),
    /// All IP packets from the first node to the second node are lost. ARP and neighbour discovery work.
    OneWay {
        /// The node that sends.
        from_node: usize,
        /// The node that does not receive these packets.
        to_node: usize,
    },
    /// IP packets that are longer than this number of bytes are lost without an ICMP error.
    MaxPacketLen(u16),
    /// ICMP errors are lost: destination unreachable, fragmentation needed, packet too big.
    DropIcmpErrors,
}

/// Returns the name of the segment's port to which the node is connected.
pub(crate) fn bridge_port_name(node_number: usize) -> String {
    format!("node{node_number}")
}

/// Returns the commands of nft(8) that replace the previous filters by `filters`. `macs` has the nodes' MAC addresses.
pub(crate) fn render(filters: &[Filter], macs: &[String]) -> String {
    let render_rules = |select_rules: fn(Filter, &[String]) -> Vec<String>| {
        filters.iter().flat_map(|filter| select_rules(*filter, macs)).collect::<Vec<_>>().join("\n    ")
    };
    format!(
        "table bridge segment\ndelete table bridge segment\ntable bridge segment {{\n  \
         chain incoming {{ type filter hook prerouting priority 0;\n    {}\n  }}\n  \
         chain forwarded {{ type filter hook forward priority 0;\n    {}\n  }}\n}}\n",
        render_rules(incoming_rules),
        render_rules(forwarded_rules),
    )
}

/// Returns the rules that change a frame when the frame arrives.
fn incoming_rules(filter: Filter, _macs: &[String]) -> Vec<String> {
    match filter {
        Filter::GatewayMac(node_number) => {
            let port = bridge_port_name(node_number);
            vec![format!("iifname {port} ether type {{ ip, ip6 }} ether saddr set 02:99:99:99:99:99")]
        }
        _ => Vec::new(),
    }
}

fn forwarded_rules(filter: Filter, macs: &[String]) -> Vec<String> {
    match filter {
        Filter::OwnAddressOnly(node_number) => {
            let mut rules = own_address_rules(node_number, "iifname", "saddr");
            rules.extend(own_address_rules(node_number, "oifname", "daddr"));
            rules
        }
        Filter::OwnSourceAddressOnly(node_number) => own_address_rules(node_number, "iifname", "saddr"),
        Filter::OwnMacOnly(node_number) => {
            vec![format!(
                "iifname {} ether saddr != {} drop",
                bridge_port_name(node_number),
                macs[node_number - 1]
            )]
        }
        Filter::GatewayMac(_) => Vec::new(),
        Filter::OneWay { from_node, to_node } => {
            let direction =
                format!("iifname {} oifname {}", bridge_port_name(from_node), bridge_port_name(to_node));
            vec![
                format!("{direction} ether type ip drop"),
                format!("{direction} ether type ip6 icmpv6 type != {{ 133-137 }} drop"),
                format!("{direction} ether type ip6 meta l4proto != ipv6-icmp drop"),
            ]
        }
        Filter::MaxPacketLen(length) => vec![format!("meta length > {length} drop")],
        Filter::DropIcmpErrors => vec![
            "icmp type destination-unreachable drop".to_owned(),
            "icmpv6 type { destination-unreachable, packet-too-big } drop".to_owned(),
        ],
    }
}

fn own_address_rules(node_number: usize, port_match: &str, address_field: &str) -> Vec<String> {
    let [v4, v6] = Family::ALL.map(|family| node_address(family, node_number));
    let port = bridge_port_name(node_number);
    vec![
        format!("{port_match} {port} ip {address_field} != {v4} drop"),
        format!("{port_match} {port} ip6 {address_field} != {{ {v6}, fe80::/10, ff00::/8, :: }} drop"),
    ]
}
