//! The objects of the tests.

use std::collections::BTreeSet;

use akrobateo_core::family::Family;
use links::{
    Device, MacAddress, MaskedMark, NetworkObjects, ObservedObjects, Owner, Route, RouteDevice, Rule,
    RuleAction, RuleCondition,
};

pub(crate) const ROUTING_TABLE: u32 = 0x6b72_0000;

pub(crate) fn owner() -> Owner {
    Owner { device: "akr0".to_owned(), protocol: 107 }
}

pub(crate) fn mac(last_byte: u8) -> MacAddress {
    MacAddress([0x02, 0x61, 0x6b, 0x72, 0, last_byte])
}

/// Returns the desired objects of node 1 with the peers 2 and 3.
pub(crate) fn example_objects() -> NetworkObjects {
    let gateways = ["169.254.255.255", "fe80::6b72:ffff"].map(|text| text.parse().unwrap());
    let next_hop_mac = MacAddress([0x02, 0x61, 0x6b, 0x72, 0xff, 0xff]);
    NetworkObjects {
        device: Some(Device {
            vni: 6_384_498,
            local_address: "10.99.0.11".parse().unwrap(),
            port: 8478,
            mac: mac(1),
            mtu: 1450,
        }),
        addresses: BTreeSet::from(["169.254.107.114".parse().unwrap()]),
        forwarding_entries: [2, 3]
            .map(|peer| (mac(peer), format!("10.99.0.1{peer}").parse().unwrap()))
            .into(),
        neighbours: gateways.map(|gateway| (gateway, next_hop_mac)).into(),
        routes: ["0.0.0.0/0", "::/0"]
            .into_iter()
            .zip(gateways)
            .map(|(destination, gateway)| Route {
                table: ROUTING_TABLE,
                destination: destination.parse().unwrap(),
                gateway,
                device: RouteDevice::Tunnel,
            })
            .collect(),
        rules: Family::ALL.map(rule).into(),
    }
}

pub(crate) fn rule(family: Family) -> Rule {
    Rule {
        family,
        priority: 96,
        condition: RuleCondition::HasMark(MaskedMark { value: 0x6b72_0000, mask: 0xffff_0000 }),
        action: RuleAction::Table(ROUTING_TABLE),
    }
}

/// Asserts that the kernel's objects are the desired objects. Does not use `diff`, because `diff` itself is
/// under test.
pub(crate) fn assert_has_desired_objects(observed_objects: &ObservedObjects, desired: &NetworkObjects) {
    let device = observed_objects.device.as_ref();
    assert_eq!(device.is_some(), desired.device.is_some(), "{observed_objects:?}");
    if let (Some(found), Some(desired)) = (device, &desired.device) {
        let vxlan = found.vxlan.unwrap();
        assert_eq!(
            (vxlan.vni, vxlan.local_address, vxlan.port),
            (desired.vni, desired.local_address, desired.port)
        );
        assert_eq!((found.mac, found.mtu, found.is_up), (Some(desired.mac), desired.mtu, true));
        assert_eq!((found.reverse_path_filter, found.is_forwarding), (2, true));
        assert!(!found.generates_link_local_address);
    }
    let addresses: BTreeSet<_> = observed_objects.addresses.iter().map(|(address, _)| *address).collect();
    assert_eq!(addresses, desired.addresses);
    assert!(
        observed_objects
            .addresses
            .iter()
            .all(|(address, prefix)| *prefix == if address.is_ipv4() { 32 } else { 128 })
    );
    let entries: Vec<_> =
        observed_objects.forwarding_entries.iter().map(|(mac, node)| (*mac, *node)).collect();
    let desired_entries: Vec<_> =
        desired.forwarding_entries.iter().map(|(mac, node)| (*mac, Some(*node))).collect();
    assert_eq!(entries, desired_entries);
    assert_eq!(observed_objects.neighbours, desired.neighbours);
    let mut routes: Vec<_> = observed_objects.routes.iter().map(|route| route.route.unwrap()).collect();
    routes.sort_unstable();
    assert_eq!(routes, desired.routes.iter().copied().collect::<Vec<_>>());
    let mut rules: Vec<_> = observed_objects.rules.iter().map(|rule| rule.rule.unwrap()).collect();
    rules.sort_unstable();
    assert_eq!(rules, desired.rules.iter().copied().collect::<Vec<_>>());
}
