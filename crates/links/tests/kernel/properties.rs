//! Tests with random objects: from any state of the kernel, the changes lead to the desired objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use akrobateo_core::family::Family;
use ipnet::IpNet;
use links::{
    Client, Device, MacAddress, MaskedMark, NetworkObjects, Route, RouteDevice, Rule, RuleAction,
    RuleCondition, diff,
};
use netns_testkit::{Namespace, isolated};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::objects::{ROUTING_TABLE, assert_has_desired_objects, mac, owner};

const GATEWAYS: [&str; 4] = ["169.254.255.255", "169.254.255.254", "fe80::6b72:ffff", "fe80::6b72:fffe"];
const DESTINATIONS: [&str; 5] = ["0.0.0.0/0", "10.244.2.0/24", "::/0", "fd44:2::/64", "fd44:3::10/128"];

/// The interface index of another device.
const UPLINK_INDEX: u32 = 77;

fn any_device() -> impl Strategy<Value = Device> {
    let local_address = prop::sample::select(vec!["10.99.0.11", "10.99.0.12", "fd99::11"]);
    let (vni, port) = (prop::sample::select(vec![6_384_498, 7]), prop::sample::select(vec![8478, 8480]));
    (vni, local_address, port, 1..3u8, prop::sample::select(vec![1280, 1450, 8950])).prop_map(
        |(vni, local_address, port, mac_byte, mtu)| Device {
            vni,
            local_address: local_address.parse().unwrap(),
            port,
            mac: mac(mac_byte),
            mtu,
        },
    )
}

fn any_address(texts: &'static [&'static str]) -> impl Strategy<Value = IpAddr> {
    prop::sample::select(texts).prop_map(|text| text.parse().unwrap())
}

fn any_mac() -> impl Strategy<Value = MacAddress> {
    (2..6u8).prop_map(mac)
}

/// The addresses of peers: two of IPv4, and two of IPv6.
const PEER_ADDRESSES: [&str; 4] = ["10.99.0.12", "10.99.0.13", "fd99::12", "fd99::13"];

fn any_route() -> impl Strategy<Value = Route> {
    let table = prop::sample::select(vec![ROUTING_TABLE, 77, 254]);
    let device = prop::sample::select(vec![RouteDevice::Tunnel, RouteDevice::Other(UPLINK_INDEX)]);
    (table, prop::sample::select(&DESTINATIONS[..]), 0..2usize, device).prop_map(
        |(table, destination, gateway, device)| {
            let destination: IpNet = destination.parse().unwrap();
            // Through the uplink, the gateway is the address of a peer. The kernel rejects the gateway 169.254.255.255
            // if another program has added a network with this broadcast address.
            let gateways = match device {
                RouteDevice::Tunnel => &GATEWAYS,
                RouteDevice::Other(_) => &PEER_ADDRESSES,
            };
            let gateways = if destination.addr().is_ipv4() { &gateways[..2] } else { &gateways[2..] };
            Route { table, destination, gateway: gateways[gateway].parse().unwrap(), device }
        },
    )
}

fn any_condition() -> impl Strategy<Value = RuleCondition> {
    let mark = MaskedMark { value: 0x6b72_0002, mask: 0xffff_3fff };
    prop::sample::select(vec![
        RuleCondition::All,
        RuleCondition::HasMark(mark),
        RuleCondition::LacksMark(mark),
        RuleCondition::HasMark(MaskedMark { value: 0, mask: 1 }),
    ])
}

/// Returns an action. The action goto needs a rule that has the target's priority.
fn any_action() -> impl Strategy<Value = RuleAction> {
    let goto = RuleAction::Goto(98);
    prop::sample::select(vec![
        RuleAction::Table(ROUTING_TABLE),
        RuleAction::Table(77),
        goto,
        RuleAction::Continue,
    ])
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let any_rule = (prop::sample::select(&Family::ALL[..]), 95..99u32, any_condition(), any_action());
    any_rule
        .prop_filter("a goto leads to a later rule", |(_, priority, _, action)| {
            *action != RuleAction::Goto(98) || *priority < 98
        })
        .prop_map(|(family, priority, condition, action)| Rule { family, priority, condition, action })
}

/// Returns random objects that can exist together. There is at most one route for each table and destination.
fn any_objects() -> impl Strategy<Value = NetworkObjects> {
    let forwarding = prop::collection::btree_map(any_mac(), 2..9u8, 0..4);
    let neighbours = prop::collection::btree_map(any_address(&GATEWAYS), any_mac(), 0..4);
    let routes = prop::collection::vec(any_route(), 0..5);
    let addresses =
        prop::collection::btree_set(any_address(&["169.254.107.114", "10.1.1.1", "fd10::1"]), 0..3);
    let rules = prop::collection::btree_set(any_rule(), 0..4);
    (prop::option::weighted(0.8, any_device()), addresses, forwarding, neighbours, routes, rules).prop_map(
        |(device, addresses, forwarding, neighbours, routes, rules)| {
            let routes: BTreeMap<_, _> =
                routes.into_iter().map(|route| ((route.table, route.destination), route)).collect();
            let mut routes: BTreeSet<_> = routes.into_values().collect();
            let Some(device) = device else {
                routes.retain(|route| route.device != RouteDevice::Tunnel);
                return NetworkObjects { routes, rules, ..NetworkObjects::default() };
            };
            let prefix = if device.local_address.is_ipv4() { "10.99.0." } else { "fd99::" };
            let entry = |(mac, node)| (mac, format!("{prefix}{node}").parse().unwrap());
            NetworkObjects {
                device: Some(device),
                addresses,
                forwarding_entries: forwarding.into_iter().map(entry).collect(),
                neighbours,
                routes,
                rules,
            }
        },
    )
}

/// Commands of ip(8) and bridge(8) with which another program disturbs the objects. Each command may fail.
const DISTURBANCES: [&str; 24] = [
    "ip link set akr0 down",
    "ip link set akr0 up",
    "ip link delete akr0",
    "ip link set akr0 mtu 1000",
    "ip link set akr0 mtu 1500",
    "ip link set akr0 address 02:00:00:00:00:77",
    "ip link set akr0 addrgenmode eui64",
    "ip address add 169.254.107.114/16 dev akr0",
    "ip address add fd77::1/64 dev akr0",
    "ip address flush dev akr0",
    "ip neighbour flush dev akr0 nud permanent",
    "ip neighbour replace 169.254.255.255 lladdr 02:00:00:00:00:55 dev akr0 nud stale",
    "bridge fdb append 00:00:00:00:00:00 dev akr0 dst 10.99.0.77",
    "bridge fdb replace 02:61:6b:72:00:02 dev akr0 dst 10.99.0.77 port 5",
    "bridge fdb delete 02:61:6b:72:00:03 dev akr0",
    "ip route add default dev akr0 table 1802633216 metric 7 proto 107",
    "ip -6 route add blackhole fd55::/64 table 9 proto 107",
    "ip route flush table 1802633216",
    "ip rule add priority 96 fwmark 0x6b720000/0xffff0000 lookup 1802633216 protocol 107",
    "ip -6 rule add not from fd00::/8 priority 3 lookup 9 protocol 107",
    "ip rule delete priority 96",
    "ip rule delete priority 98",
    "ip rule add not fwmark 0x6b700000/0xfff00000 priority 95 goto 99 protocol 107",
    "ip link set uplink down",
];

fn disturb(namespace: &Namespace, command: &str) {
    let mut words = command.split(' ');
    let mut program = std::process::Command::new(words.next().unwrap());
    namespace.run(|| program.args(words).output().unwrap());
}

#[test]
fn changes_lead_from_any_state_to_the_desired_objects() {
    isolated(|| {
        let mut runner =
            TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
        let namespace = Namespace::new();
        namespace.ip(&format!("link add uplink index {UPLINK_INDEX} type veth peer name peer"));
        let strategy = (
            any_objects(),
            prop::collection::vec(prop::sample::select(&DISTURBANCES[..]), 0..5),
            any_objects(),
        );
        let result = runner.run(&strategy, |(first_objects, disturbances, second_objects)| {
            for (objects, disturbances) in [(&first_objects, &disturbances[..]), (&second_objects, &[])] {
                namespace.ip("link set uplink up");
                namespace.run(|| {
                    let mut client = Client::open(owner()).unwrap();
                    client.reconcile(objects).unwrap_or_else(|error| panic!("{error}"));
                    let observed_objects = client.observe().unwrap();
                    assert_has_desired_objects(&observed_objects, objects);
                    assert_eq!(diff(&observed_objects, objects), []);
                });
                for command in disturbances {
                    disturb(&namespace, command);
                }
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
    });
}
