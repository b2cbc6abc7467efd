//! A table that is similar to the node agent's table.

use std::net::IpAddr;
use std::num::NonZeroU32;

use akrobateo_core::Family;
use netfilter::nft::Table;
use netfilter::nft::abi::{ct, exthdr, fib, meta, reject, rt};
use netfilter::nft::model::{
    Chain, ChainType, DataType, Direction, Element, ElementChange, Expr, Hook, KeyMatching, NatFlags,
    NatKind, PayloadBase, PayloadField, Reg, Reject, Rule, Set, SetDefinition, TableFamily, TableId, Value,
    Verdict,
};

/// The bit of flows whose destination the table has translated.
pub(crate) const TRANSLATED_MARK: u32 = 0x2000_0000;
/// The bit of flows with session affinity.
pub(crate) const AFFINITY_MARK: u32 = 0x1000_0000;
pub(crate) const FRONTEND_PORT: u16 = 80;
/// The port of a frontend with session affinity.
pub(crate) const AFFINITY_PORT: u16 = 81;
/// The port of a frontend without endpoints.
pub(crate) const PORT_WITHOUT_ENDPOINTS: u16 = 82;
pub(crate) const ENDPOINT_PORT: u16 = 8080;
pub(crate) const CONNTRACK_ZONE: u16 = 0x6b02;

/// The values that differ between the address families.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) family: Family,
    pub(crate) nfproto: u8,
    pub(crate) suffix: &'static str,
    pub(crate) address_type: DataType,
    pub(crate) client: IpAddr,
    pub(crate) node: IpAddr,
    pub(crate) pods: [IpAddr; 2],
    pub(crate) pod_gateways: [IpAddr; 2],
    /// The offsets of the source and destination address in the IP header.
    pub(crate) address_offsets: [u32; 2],
}

pub(crate) fn addresses(family: Family) -> Addresses {
    let ip = |text: &str| text.parse().unwrap();
    match family {
        Family::V4 => Addresses {
            family,
            nfproto: 2,
            suffix: "4",
            address_type: DataType::IPV4,
            client: ip("192.0.2.100"),
            node: ip("192.0.2.1"),
            pods: [ip("10.244.1.10"), ip("10.244.2.10")],
            pod_gateways: [ip("10.244.1.1"), ip("10.244.2.1")],
            address_offsets: [12, 16],
        },
        Family::V6 => Addresses {
            family,
            nfproto: 10,
            suffix: "6",
            address_type: DataType::IPV6,
            client: ip("fd00:99::100"),
            node: ip("fd00:99::1"),
            pods: [ip("fd00:1::10"), ip("fd00:2::10")],
            pod_gateways: [ip("fd00:1::1"), ip("fd00:2::1")],
            address_offsets: [8, 24],
        },
    }
}

pub(crate) fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn concat(parts: &[&[u8]]) -> Value {
    Value::concat(parts).unwrap()
}

fn nonzero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

/// Returns the expressions that match packets of one family.
fn is_family(addresses: Addresses) -> [Expr; 2] {
    [Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) }, Expr::equal(Reg(0), [addresses.nfproto])]
}

/// Returns the expressions that load the protocol and the destination port.
fn load_protocol_and_port(first_register: u8) -> [Expr; 2] {
    [
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(first_register) },
        Expr::payload(PayloadBase::Transport, 2, 2, Reg(first_register + 1)),
    ]
}

/// Returns the first register after an address that starts at register 0.
fn register_after_address(addresses: Addresses) -> u8 {
    u8::try_from(addresses.address_type.length / 4).unwrap()
}

fn frontend_parts(addresses: Addresses) -> [DataType; 3] {
    [addresses.address_type, DataType::PROTOCOL, DataType::PORT]
}

fn build_sets(addresses: Addresses) -> Vec<Set> {
    let Addresses { suffix, address_type, node, pods, .. } = addresses;
    let frontends = [(FRONTEND_PORT, "n2"), (AFFINITY_PORT, "a2"), (PORT_WITHOUT_ENDPOINTS, "refuse")];
    let protocols = [6_u8, 17];
    let services = protocols.iter().flat_map(|protocol| {
        frontends.map(|(port, chain)| {
            let key = concat(&[&ip_bytes(node), &[*protocol], &port.to_be_bytes()]);
            Element::new(key).with_verdict(Verdict::goto(chain))
        })
    });
    let endpoints = protocols.iter().flat_map(|protocol| {
        [FRONTEND_PORT, AFFINITY_PORT].into_iter().flat_map(move |port| {
            (0_u32..).zip(pods).map(move |(slot, pod)| {
                let key = concat(&[&[*protocol], &port.to_be_bytes(), &slot.to_ne_bytes()]);
                let value = concat(&[&ip_bytes(pod), &ENDPOINT_PORT.to_be_bytes()]);
                Element::new(key).with_value(value)
            })
        })
    });
    let endpoint_type = DataType::concat(&[address_type, DataType::PORT]);
    let slot_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT, DataType::NUMBER]);
    let frontend_type = DataType::concat(&frontend_parts(addresses));
    let (lowest, highest) = (ip_bytes(pods[0]), ip_bytes(pods[1]));
    let allowed_type = DataType::concat(&[DataType::PROTOCOL, DataType::PORT, address_type]);
    let part_lens = vec![1, 2, u8::try_from(address_type.length).unwrap()];
    let allowed_range = Element::interval(
        concat(&[&[6], &FRONTEND_PORT.to_be_bytes(), &vec![0; lowest.len()]]),
        concat(&[&[6], &FRONTEND_PORT.to_be_bytes(), &vec![255; lowest.len()]]),
    );
    vec![
        Set::new(format!("services{suffix}"), SetDefinition::verdict_map(frontend_type), services.collect()),
        Set::new(
            format!("endpoints{suffix}"),
            SetDefinition::map(slot_type, endpoint_type).with_max_elements(64),
            endpoints.collect(),
        ),
        Set::new(
            format!("inside{suffix}"),
            SetDefinition::set(address_type).with_matching(KeyMatching::Intervals),
            vec![Element::interval(
                Value::from_slice(&lowest).unwrap(),
                Value::from_slice(&highest).unwrap(),
            )],
        ),
        Set::new(
            format!("allowed{suffix}"),
            SetDefinition::set(allowed_type).with_matching(KeyMatching::IntervalsOfParts(part_lens)),
            vec![allowed_range],
        ),
        Set::new(
            format!("affinity{suffix}"),
            SetDefinition::dynamic(frontend_type, Some(endpoint_type), nonzero(1000), Some(nonzero(10_800))),
            Vec::new(),
        ),
    ]
}

/// Chooses an endpoint at random, and translates the destination to this endpoint.
fn rule_that_chooses_endpoint(addresses: Addresses) -> Rule {
    let mut rule = is_family(addresses).to_vec();
    rule.extend(load_protocol_and_port(0));
    rule.push(Expr::RandomNumber { modulus: nonzero(2), dreg: Reg(2) });
    rule.push(Expr::map(format!("endpoints{}", addresses.suffix), Reg(0), Reg(8)));
    rule.push(destination_nat(addresses));
    Rule::new(rule)
}

fn destination_nat(addresses: Addresses) -> Expr {
    Expr::Nat {
        kind: NatKind::Destination,
        family: addresses.family,
        address: Some(Reg(8)),
        port: Some(Reg(8 + register_after_address(addresses))),
        flags: NatFlags::default(),
    }
}

/// Translates the destination to the client's remembered endpoint, if the table has one.
fn rule_that_finds_endpoint_of_client(addresses: Addresses) -> Rule {
    let Addresses { suffix, address_type, address_offsets, .. } = addresses;
    let mut rule = is_family(addresses).to_vec();
    rule.push(Expr::payload(PayloadBase::Network, address_offsets[0], address_type.length, Reg(0)));
    rule.extend(load_protocol_and_port(register_after_address(addresses)));
    rule.push(Expr::map(format!("affinity{suffix}"), Reg(0), Reg(8)));
    rule.push(destination_nat(addresses));
    Rule::new(rule)
}

/// Remembers the endpoint of a new flow, after the translation of its destination.
///
/// The rule takes the endpoint from the packet. The rule does not use the map of endpoints, because the nft program
/// 1.0.6 aborts when it lists such a rule.
fn rule_that_stores_endpoint(addresses: Addresses) -> Rule {
    let Addresses { suffix, address_type, address_offsets, .. } = addresses;
    let next_register = register_after_address(addresses);
    let mut rule = vec![
        Expr::Ct { key: ct::KEY_MARK, direction: None, dreg: Reg(0) },
        Expr::and(Reg(0), AFFINITY_MARK),
        Expr::not_equal(Reg(0), [0; 4]),
    ];
    rule.extend(is_family(addresses));
    rule.extend([
        Expr::payload(PayloadBase::Network, address_offsets[0], address_type.length, Reg(0)),
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(next_register) },
        Expr::Ct {
            key: ct::KEY_DESTINATION_PORT,
            direction: Some(Direction::Original),
            dreg: Reg(next_register + 1),
        },
        Expr::payload(PayloadBase::Network, address_offsets[1], address_type.length, Reg(8)),
        Expr::payload(PayloadBase::Transport, 2, 2, Reg(8 + next_register)),
        Expr::ChangeElement {
            set: format!("affinity{suffix}").into(),
            change: ElementChange::Update,
            key: Reg(0),
            value: Some(Reg(8)),
            timeout_seconds: Some(nonzero(600)),
        },
    ]);
    Rule::new(rule).with_comment("remember the endpoint")
}

fn rule_that_finds_service(addresses: Addresses) -> Rule {
    let Addresses { suffix, address_type, address_offsets, .. } = addresses;
    let mut rule = is_family(addresses).to_vec();
    rule.push(Expr::payload(PayloadBase::Network, address_offsets[1], address_type.length, Reg(0)));
    rule.extend(load_protocol_and_port(register_after_address(addresses)));
    rule.push(Expr::verdict_map(format!("services{suffix}"), Reg(0)));
    Rule::new(rule)
}

fn rule_that_marks_flow(bits: u32) -> Rule {
    Rule::new(vec![
        Expr::Ct { key: ct::KEY_MARK, direction: None, dreg: Reg(0) },
        Expr::or(Reg(0), bits),
        Expr::SetCt { key: ct::KEY_MARK, direction: None, sreg: Reg(0) },
    ])
}

/// Sets the conntrack zone of flows that come from a peer. The rule recognizes the peer by its MAC address.
fn rule_that_sets_zone() -> Rule {
    Rule::new(vec![
        Expr::Meta { key: meta::KEY_INPUT_INTERFACE_NAME, dreg: Reg(0) },
        Expr::equal(Reg(0), Value::from_interface_name("eth0").unwrap()),
        Expr::payload(PayloadBase::Link, 6, 6, Reg(0)),
        Expr::map("peer_zone", Reg(0), Reg(0)),
        Expr::SetCt { key: ct::KEY_ZONE, direction: Some(Direction::Original), sreg: Reg(0) },
    ])
}

pub(crate) fn table(peer_mac: [u8; 6]) -> Table {
    let families = Family::ALL.map(addresses);
    let mut sets: Vec<_> = families.into_iter().flat_map(build_sets).collect();
    let peer = Element::new(Value::from(peer_mac)).with_value(Value::from(CONNTRACK_ZONE.to_ne_bytes()));
    sets.push(Set::new("peer_zone", SetDefinition::map(DataType::MAC, DataType::ZONE), vec![peer]));
    let services = families.map(rule_that_finds_service).to_vec();
    let choose_endpoint = families.map(rule_that_chooses_endpoint).to_vec();
    let two_endpoint_rules = [vec![rule_that_marks_flow(TRANSLATED_MARK)], choose_endpoint.clone()].concat();
    let affinity = families.map(rule_that_finds_endpoint_of_client).to_vec();
    let two_endpoint_affinity_rules =
        [vec![rule_that_marks_flow(TRANSLATED_MARK | AFFINITY_MARK)], affinity, choose_endpoint].concat();
    let [first_family, _] = families;
    let mut masquerade = is_family(first_family).to_vec();
    masquerade.extend([
        Expr::Ct { key: ct::KEY_STATUS, direction: None, dreg: Reg(0) },
        Expr::and(Reg(0), ct::STATUS_DNAT),
        Expr::not_equal(Reg(0), [0; 4]),
        Expr::payload(PayloadBase::Network, 12, 4, Reg(1)),
        Expr::is_in("inside4", Reg(1)),
        Expr::Masquerade(NatFlags::FULLY_RANDOM),
    ]);
    let accept_unless_local = vec![
        Expr::Fib { result: fib::RESULT_ADDRESS_TYPE, flags: fib::NFTA_FIB_F_DADDR, dreg: Reg(0) },
        Expr::not_equal(Reg(0), fib::TYPE_LOCAL.to_ne_bytes()),
        Expr::Verdict(Verdict::Accept),
    ];
    let postrouting = [families.map(rule_that_stores_endpoint).to_vec(), vec![masquerade.into()]].concat();
    let prerouting = [vec![Rule::new(accept_unless_local)], services].concat();
    Table {
        sets,
        chains: vec![
            Chain::regular("n2", two_endpoint_rules),
            Chain::regular("a2", two_endpoint_affinity_rules),
            Chain::regular("refuse", vec![rule_that_marks_flow(TRANSLATED_MARK)]),
            Chain::base("raw", ChainType::Filter, Hook::Prerouting, -310, vec![rule_that_sets_zone()]),
            Chain::base("nat_pre", ChainType::Nat, Hook::Prerouting, -110, prerouting),
            Chain::base("nat_post", ChainType::Nat, Hook::Postrouting, 90, postrouting),
            input_chain(),
            forward_chain(),
        ],
        ..Table::empty(TableId::new(TableFamily::Inet, "akrobateo"))
    }
}

/// Rejects packets to a frontend without endpoints.
fn input_chain() -> Chain {
    let is_refused = |protocol: u8| {
        vec![
            Expr::Ct { key: ct::KEY_MARK, direction: None, dreg: Reg(0) },
            Expr::and(Reg(0), TRANSLATED_MARK),
            Expr::not_equal(Reg(0), [0; 4]),
            Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(0) },
            Expr::equal(Reg(0), [protocol]),
        ]
    };
    let refuse_rule = |protocol, reject| [is_refused(protocol), vec![Expr::Reject(reject)]].concat().into();
    Chain::base(
        "input",
        ChainType::Filter,
        Hook::Input,
        -10,
        vec![
            refuse_rule(6, Reject::TcpReset),
            refuse_rule(17, Reject::Icmpx(reject::ICMPX_PORT_UNREACHABLE)),
        ],
    )
}

/// Limits the segment size of TCP to the path MTU.
fn forward_chain() -> Chain {
    let limit_segment_size = vec![
        Expr::Meta { key: meta::KEY_L4PROTO, dreg: Reg(0) },
        Expr::equal(Reg(0), [6]),
        Expr::payload(PayloadBase::Transport, 13, 1, Reg(0)),
        Expr::Bitwise { sreg: Reg(0), dreg: Reg(0), mask: Value::from([6]), xor: Value::from([0]) },
        Expr::equal(Reg(0), [2]),
        Expr::Route { key: rt::KEY_TCP_MSS, dreg: Reg(0) },
        Expr::ToNetworkOrder { sreg: Reg(0), dreg: Reg(0), length: 2, size: 2 },
        Expr::SetTcpOption { kind: exthdr::TCP_OPTION_MAXSEG, offset: 2, length: 2, sreg: Reg(0) },
    ];
    Chain::base("forward", ChainType::Filter, Hook::Forward, -160, vec![limit_segment_size.into()])
}

/// The table that writes the MAC address of frames with a mark.
pub(crate) fn egress_table(mark: u32, mac: [u8; 6]) -> Table {
    let element = Element::new(Value::from(mark.to_ne_bytes())).with_value(Value::from(mac));
    let rule = vec![
        Expr::Meta { key: meta::KEY_MARK, dreg: Reg(0) },
        Expr::map("macs", Reg(0), Reg(0)),
        Expr::SetPayload(PayloadField { base: PayloadBase::Link, offset: 0, length: 6 }, Reg(0)),
        Expr::Immediate { dreg: Reg(0), value: Value::from([0; 4]) },
        Expr::SetMeta { key: meta::KEY_MARK, sreg: Reg(0) },
    ];
    let egress = Hook::Egress(vec!["eth0".into()]);
    Table {
        sets: vec![Set::new("macs", SetDefinition::map(DataType::MARK, DataType::MAC), vec![element])],
        chains: vec![Chain::base("egress", ChainType::Filter, egress, 0, vec![rule.into()])],
        ..Table::empty(TableId::new(TableFamily::Netdev, "akrobateo"))
    }
}
