//! Marks packets that go through the tunnel, and replies that go back to the peer that has forwarded the request. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::Table;
use netfilter::nft::abi::{ct, exthdr, meta};
use netfilter::nft::model::{
    Chain, ChainType, CmpOp, DataType, Element, Expr, Hook, PayloadBase, PayloadField, Reg, Rule, Set,
    SetDefinition, Value, Verdict,
};

use super::expressions::{
    accept, has_flow_bits, has_packet_bits, is_direction, is_output_interface, is_protocol,
    load_conntrack_zone, rule,
};
use super::identity::netdev_table_id;
use super::ip_version::{IpVersion, address_value, all_ip_versions};
use crate::config::{Endpoint, NodeConfig, Peer};
use crate::marks::{
    self, MASQUERADED_FLOW_BIT, OWN_MARK_MASK, PEER_FLOW_BIT, PEER_MARK_MASK, PURPOSE_MASK,
    TRANSLATED_FLOW_BIT,
};
use crate::probe::PeerPath;
use crate::tunnel;

/// The sets with the zones of the peers to which a path keeps the client's address. The names have the suffix 4 or 6.
pub(super) const KEPT_PEERS_SET: &str = "kept_peers";
/// The priority of the chains `steer_pre` and `steer_out`. These chains run after the translation of destinations.
const STEERING_PRIORITY: i32 = -90;
/// The TCP flag SYN, and the mask of the flags SYN and RST. The first packet in each direction of a connection has the
/// flag SYN.
const SYN: u8 = 0x02;
const SYN_OR_RST: u8 = 0x06;
/// The priority of the chain `post`. This chain runs before the translation of sources.
const REPLY_MARKING_PRIORITY: i32 = -160;

/// Adds the sets and chains that mark packets.
pub(super) fn add_steering_chains(table: &mut Table, config: &NodeConfig) {
    let ip_versions = all_ip_versions();
    for ip_version in ip_versions {
        table.sets.extend(build_sets(config, ip_version));
    }
    let mut steering = vec![rule([&has_flow_bits(TRANSLATED_FLOW_BIT | PEER_FLOW_BIT, 0), &[accept()]])];
    steering.extend(
        ip_versions.iter().map(|ip_version| rule_that_marks_requests(*ip_version, "tunnel_marks", &[])),
    );
    if config.peers.iter().any(has_lost_tunnel) {
        let is_established = is_established();
        steering.extend(
            ip_versions.iter().map(|ip_version| {
                rule_that_marks_requests(*ip_version, "lost_tunnel_marks", &is_established)
            }),
        );
    }
    steering.extend(
        ip_versions.iter().map(|ip_version| rule_that_marks_replies(*ip_version, "zone_tunnel_marks", &[])),
    );
    if !config.node.has_egress_hook {
        steering.extend(
            ip_versions
                .iter()
                .map(|ip_version| rule_that_marks_replies(*ip_version, "zone_direct_marks", &[])),
        );
    }
    // Probes and their answers have a mark already.
    let own_marks = rule([&has_packet_bits(OWN_MARK_MASK, config.node.marks.own_bits), &[accept()]]);
    let steering_out = [vec![own_marks], steering.clone()].concat();
    let leaves_uplink = is_output_interface(&config.node.uplink);
    let mut postrouting = vec![rule([&has_flow_bits(PEER_FLOW_BIT, 0), &[accept()]])];
    postrouting.extend(
        ip_versions
            .iter()
            .map(|ip_version| rule_that_marks_replies(*ip_version, "zone_direct_marks", &leaves_uplink)),
    );
    let filter = |name, hook, priority, rules| Chain::base(name, ChainType::Filter, hook, priority, rules);
    // Packets of other programs pass these chains too. The agent creates the chains only if a rule of the chains can
    // match.
    let has_egress_hook = config.node.has_egress_hook;
    if !has_egress_hook
        || Family::ALL.iter().any(|family| has_peer_with_path(config, *family, PeerPath::Tunnel))
    {
        table.chains.extend([
            filter("steer_pre", Hook::Prerouting, STEERING_PRIORITY, steering),
            Chain::base("steer_out", ChainType::Route, Hook::Output, STEERING_PRIORITY, steering_out),
        ]);
    }
    if has_egress_hook {
        table.chains.push(filter("post", Hook::Postrouting, REPLY_MARKING_PRIORITY, postrouting));
    }
}

/// Returns the expressions that match packets of flows with packets in both directions.
fn is_established() -> Vec<Expr> {
    vec![
        Expr::Ct { key: ct::KEY_STATE, direction: None, dreg: Reg(0) },
        Expr::and(Reg(0), ct::STATE_ESTABLISHED),
        Expr::not_equal(Reg(0), [0; 4]),
    ]
}

/// Returns the rule that marks packets to endpoints behind the tunnel.
fn rule_that_marks_requests(ip_version: IpVersion, map: &str, condition: &[Expr]) -> Rule {
    rule([
        condition,
        &has_flow_bits(TRANSLATED_FLOW_BIT | MASQUERADED_FLOW_BIT, TRANSLATED_FLOW_BIT),
        &is_direction(ct::DIRECTION_ORIGINAL),
        &ip_version.match_packets(),
        &[
            ip_version.load_destination(Reg(0)),
            Expr::map(ip_version.add_suffix(map), Reg(0), Reg(0)),
            Expr::SetMeta { key: meta::KEY_MARK, sreg: Reg(0) },
        ],
    ])
}

/// Returns the rule that marks replies of flows that have come through a peer.
fn rule_that_marks_replies(ip_version: IpVersion, map: &str, condition: &[Expr]) -> Rule {
    rule([
        condition,
        &has_flow_bits(PEER_FLOW_BIT, PEER_FLOW_BIT),
        &is_direction(ct::DIRECTION_REPLY),
        &ip_version.match_packets(),
        &[
            load_conntrack_zone(Reg(0)),
            Expr::map(ip_version.add_suffix(map), Reg(0), Reg(0)),
            Expr::SetMeta { key: meta::KEY_MARK, sreg: Reg(0) },
        ],
    ])
}

fn build_sets(config: &NodeConfig, ip_version: IpVersion) -> [Set; 5] {
    let node_marks = config.node.marks;
    let zone_marks = |name: &str, path: PeerPath, mark: &dyn Fn(u16) -> u32| {
        let peers = config.peers.iter().filter(|peer| reply_path(peer, ip_version.family) == path);
        let elements = peers.map(|peer| {
            let zone = Value::from(marks::conntrack_zone(peer.number).to_ne_bytes());
            Element::new(zone).with_value(Value::from(mark(peer.number).to_ne_bytes()))
        });
        Set::new(
            ip_version.add_suffix(name),
            SetDefinition::map(DataType::ZONE, DataType::MARK),
            elements.collect(),
        )
    };
    let endpoint_marks = |name: &str, endpoints: BTreeMap<IpAddr, u32>| {
        let elements = endpoints.into_iter().map(|(address, mark)| {
            Element::new(address_value(address)).with_value(Value::from(mark.to_ne_bytes()))
        });
        let definition = SetDefinition::map(ip_version.address_type, DataType::MARK);
        Set::new(ip_version.add_suffix(name), definition, elements.collect())
    };
    // The set is only for a restarted agent: the agent reads the paths from the set, and keeps them until the probe has
    // decided.
    let kept_peers = config.peers.iter().filter(|peer| peer.paths.contains_key(&ip_version.family));
    let kept_peers =
        kept_peers.map(|peer| Element::new(Value::from(marks::conntrack_zone(peer.number).to_ne_bytes())));
    [
        Set::new(
            ip_version.add_suffix(KEPT_PEERS_SET),
            SetDefinition::set(DataType::ZONE),
            kept_peers.collect(),
        ),
        endpoint_marks("tunnel_marks", endpoints_in_tunnel(config, ip_version.family)),
        endpoint_marks("lost_tunnel_marks", endpoints_of_lost_tunnels(config, ip_version.family)),
        zone_marks("zone_tunnel_marks", PeerPath::Tunnel, &|number| node_marks.tunnel_mark(number)),
        zone_marks("zone_direct_marks", PeerPath::Direct, &|number| node_marks.direct_mark(number)),
    ]
}

/// Returns the path of replies to a peer. If no path has ever worked, the replies take the direct path, because the
/// client would not accept replies with this node's address.
fn reply_path(peer: &Peer, family: Family) -> PeerPath {
    peer.last_paths.get(&family).copied().unwrap_or(PeerPath::Direct)
}

/// Returns true if only established flows to the peer may be in the tunnel. The rules depend on the peers alone, because
/// a change of one Service does not calculate the rules from the other Services.
fn has_lost_tunnel(peer: &Peer) -> bool {
    let mut last_paths = peer.last_paths.iter();
    last_paths.any(|(family, path)| {
        *path == PeerPath::Tunnel && (peer.is_silent || !peer.paths.contains_key(family))
    })
}

/// Returns true if flows to or from a peer may be on this path.
fn has_peer_with_path(config: &NodeConfig, family: Family, path: PeerPath) -> bool {
    config.peers.iter().any(|peer| peer.last_paths.get(&family) == Some(&path))
}

/// Returns the addresses of endpoints that new flows reach through the tunnel, with the mark of their packets.
fn endpoints_in_tunnel(config: &NodeConfig, family: Family) -> BTreeMap<IpAddr, u32> {
    find_endpoints(config, family, |endpoint| config.path_to(endpoint) == Some(PeerPath::Tunnel))
}

/// Returns the addresses of endpoints that only established flows reach through the tunnel, with the mark of their
/// packets. New flows to these endpoints are masqueraded.
fn endpoints_of_lost_tunnels(config: &NodeConfig, family: Family) -> BTreeMap<IpAddr, u32> {
    if !config.peers.iter().any(has_lost_tunnel) {
        return BTreeMap::new();
    }
    find_endpoints(config, family, |endpoint| {
        config.path_to(endpoint).is_none() && config.last_path_to(endpoint) == Some(PeerPath::Tunnel)
    })
}

/// Returns the addresses of these endpoints, with the mark of packets that go through the tunnel.
fn find_endpoints(
    config: &NodeConfig,
    family: Family,
    is_included: impl Fn(&Endpoint) -> bool,
) -> BTreeMap<IpAddr, u32> {
    // If the tunnel is not needed, the function skips the search through thousands of endpoints.
    if !has_peer_with_path(config, family, PeerPath::Tunnel) {
        return BTreeMap::new();
    }
    // Services that masquerade are included. New flows of these Services ignore the mark, but flows that began before
    // the masquerade may still need the mark.
    let ports = config.services.iter().flat_map(|service| &service.ports);
    ports
        .flat_map(|port| &port.endpoints)
        .filter(|endpoint| Family::from_ip(endpoint.address.ip()) == family && is_included(endpoint))
        .filter_map(|endpoint| Some((endpoint.address.ip(), config.node.marks.tunnel_mark(endpoint.node?))))
        .collect()
}

/// Returns the table whose egress hooks write MAC addresses and remove the marks.
pub(super) fn netdev_table(config: &NodeConfig) -> Table {
    let marks = config.node.marks;
    let macs = config.peers.iter().flat_map(|peer| {
        let tunnel_mac = tunnel::tunnel_mac(peer.number);
        [
            (marks.direct_mark(peer.number), peer.mac),
            (marks.tunnel_mark(peer.number) & PEER_MARK_MASK, tunnel_mac),
        ]
    });
    let macs = macs
        .map(|(mark, mac)| Element::new(Value::from(mark.to_ne_bytes())).with_value(Value::from(mac.0)))
        .collect();
    let has_direct_mark = has_packet_bits(PURPOSE_MASK, marks.direct_mark(0));
    let write_mac_of_peer = write_mac_of_peer();
    let uplink = vec![rule([&has_direct_mark, &write_mac_of_peer])];
    let mut tunnel = Vec::from(Family::ALL.map(|family| rule_that_clamps_segment_size(config, family)));
    tunnel.push(Rule::new(write_mac_of_peer));
    tunnel.push(rule_that_drops_packets_without_peer());
    let egress = |name: &'static str, interface: &str, rules| {
        let hook = Hook::Egress(vec![interface.to_owned().into()]);
        Chain::base(name, ChainType::Filter, hook, 0, rules)
    };
    let mut chains = vec![egress("uplink", &config.node.uplink, uplink)];
    if config.needs_tunnel() {
        chains.push(egress("tunnel", tunnel::TUNNEL_DEVICE, tunnel));
    }
    Table {
        sets: vec![Set::new("macs", SetDefinition::map(DataType::MARK, DataType::MAC), macs)],
        chains,
        ..Table::empty(netdev_table_id())
    }
}

/// Returns the expressions that write the MAC address for the packet's mark, and remove the mark.
fn write_mac_of_peer() -> Vec<Expr> {
    vec![
        Expr::Meta { key: meta::KEY_MARK, dreg: Reg(0) },
        // Other programs, for example Calico and kube-proxy, may have set other bits.
        Expr::and(Reg(0), PEER_MARK_MASK),
        Expr::map("macs", Reg(0), Reg(0)),
        Expr::SetPayload(PayloadField { base: PayloadBase::Link, offset: 0, length: 6 }, Reg(0)),
        Expr::Immediate { dreg: Reg(0), value: Value::from([0; 4]) },
        Expr::SetMeta { key: meta::KEY_MARK, sreg: Reg(0) },
    ]
}

/// Returns the rule that drops packets whose mark belongs to no peer. The destination MAC address of these packets was
/// not replaced.
fn rule_that_drops_packets_without_peer() -> Rule {
    Rule::new(vec![
        Expr::payload(PayloadBase::Link, 0, 6, Reg(0)),
        Expr::equal(Reg(0), tunnel::NEXT_HOP_MAC.0),
        Expr::Verdict(Verdict::Drop),
    ])
}

/// Returns the rule that reduces the segment size of TCP connections to the tunnel's MTU, because ICMP errors may be
/// lost.
pub(super) fn rule_that_clamps_segment_size(config: &NodeConfig, family: Family) -> Rule {
    let (ether_type, headers_length): (u16, u32) = match family {
        Family::V4 => (0x0800, 40),
        Family::V6 => (0x86dd, 60),
    };
    let segment_size =
        u16::try_from(tunnel::tunnel_mtu_of_node(config).saturating_sub(headers_length)).unwrap_or(u16::MAX);
    rule([
        &[
            Expr::Meta { key: meta::KEY_PROTOCOL, dreg: Reg(0) },
            Expr::Cmp { sreg: Reg(0), op: CmpOp::Equal, value: Value::from(ether_type.to_be_bytes()) },
        ],
        &is_protocol(Protocol::Tcp.number()),
        &[
            Expr::payload(PayloadBase::Transport, 13, 1, Reg(0)),
            Expr::Bitwise {
                sreg: Reg(0),
                dreg: Reg(0),
                mask: Value::from([SYN_OR_RST]),
                xor: Value::from([0]),
            },
            Expr::equal(Reg(0), [SYN]),
            Expr::Immediate { dreg: Reg(0), value: Value::from(segment_size.to_be_bytes()) },
            Expr::SetTcpOption { kind: exthdr::TCP_OPTION_MAXSEG, offset: 2, length: 2, sreg: Reg(0) },
        ],
    ])
}
