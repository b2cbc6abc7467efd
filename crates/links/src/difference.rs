//! Finds the changes that lead from the observed objects to the desired objects. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_core::family::Family;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;

use crate::mac::MacAddress;
use crate::objects::{Device, NetworkObjects, Route, Rule};
use crate::observed::{ObservedDevice, ObservedObjects, VxlanSettings};

/// The loose mode of `rp_filter`, which accepts a packet although the route to its source uses another device.
pub(crate) const LOOSE_REVERSE_PATH_FILTER: i32 = 2;

/// One change of the kernel's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Deletes the device, with its addresses, neighbours, forwarding entries and routes.
    DeleteDevice,
    /// Creates the device. A new observation is necessary before other changes.
    CreateDevice(Device),
    /// Sets the device's MAC address, MTU, reverse path filter and forwarding.
    ConfigureDevice(Device),
    /// Disables the generation of a link-local IPv6 address for the device.
    DisableLinkLocalAddress,
    /// Sets the device up.
    SetDeviceUp,
    /// Adds an address.
    AddAddress(IpAddr),
    /// Deletes an address with this prefix length.
    DeleteAddress(IpAddr, u8),
    /// Adds or replaces the MAC address of a neighbour.
    SetNeighbour(IpAddr, MacAddress),
    /// Deletes a neighbour.
    DeleteNeighbour(IpAddr),
    /// Adds or replaces the node's address for a MAC address.
    SetForwardingEntry(MacAddress, IpAddr),
    /// Deletes the entry of a MAC address.
    DeleteForwardingEntry(MacAddress),
    /// Adds a route. If a route with the same table and destination exists, the new route replaces this route.
    SetRoute(Route),
    /// Deletes a route that the kernel has listed.
    DeleteRoute(Box<RouteMessage>),
    /// Adds a rule.
    AddRule(Rule),
    /// Deletes a rule that the kernel has listed.
    DeleteRule(Box<RuleMessage>),
}

/// Returns the changes that lead from `observed_objects` to `desired`, in the order in which the kernel accepts these
/// changes.
///
/// New objects come first, and most deletions last, so that packets always find a complete set of objects. If the
/// device must be created, its creation is the last change, because the kernel chooses some settings of a new device.
#[must_use]
pub fn diff(observed_objects: &ObservedObjects, desired: &NetworkObjects) -> Vec<Change> {
    let mut changes = match (&observed_objects.device, &desired.device) {
        (None, Some(device)) => return vec![Change::CreateDevice(device.clone())],
        (Some(observed_device), Some(device)) if observed_device.vxlan != Some(vxlan_settings(device)) => {
            return vec![Change::DeleteDevice, Change::CreateDevice(device.clone())];
        }
        (Some(observed_device), Some(device)) => {
            let mut changes = device_changes(observed_device, device);
            changes.extend(additions_on_device(observed_objects, desired));
            changes
        }
        (_, None) => Vec::new(),
    };
    changes.extend(routing_additions(observed_objects, desired));
    changes.extend(routing_deletions(observed_objects, desired));
    match (&observed_objects.device, &desired.device) {
        (Some(_), Some(_)) => changes.extend(deletions_on_device(observed_objects, desired)),
        (Some(_), None) => changes.push(Change::DeleteDevice),
        (None, _) => {}
    }
    changes
}

fn vxlan_settings(device: &Device) -> VxlanSettings {
    VxlanSettings { vni: device.vni, local_address: device.local_address, port: device.port }
}

fn device_changes(observed_device: &ObservedDevice, desired: &Device) -> Vec<Change> {
    let is_configured = observed_device.mac == Some(desired.mac)
        && observed_device.mtu == desired.mtu
        && observed_device.reverse_path_filter == LOOSE_REVERSE_PATH_FILTER
        && observed_device.is_forwarding;
    let changes = [
        (observed_device.generates_link_local_address, Change::DisableLinkLocalAddress),
        (!is_configured, Change::ConfigureDevice(desired.clone())),
        (!observed_device.is_up, Change::SetDeviceUp),
    ];
    changes.into_iter().filter_map(|(is_needed, change)| is_needed.then_some(change)).collect()
}

fn additions_on_device(observed_objects: &ObservedObjects, desired: &NetworkObjects) -> Vec<Change> {
    let mut changes = Vec::new();
    for address in &desired.addresses {
        if !observed_objects.addresses.contains(&(*address, host_prefix_len(*address))) {
            changes.push(Change::AddAddress(*address));
        }
    }
    // Other addresses are deleted before routes are added. The network of an unwanted address could have a broadcast
    // address that is the next hop of a new route. The kernel would reject this route.
    for (address, prefix_len) in &observed_objects.addresses {
        if !desired.addresses.contains(address) || *prefix_len != host_prefix_len(*address) {
            changes.push(Change::DeleteAddress(*address, *prefix_len));
        }
    }
    for (address, mac) in &desired.neighbours {
        if observed_objects.neighbours.get(address) != Some(mac) {
            changes.push(Change::SetNeighbour(*address, *mac));
        }
    }
    for (mac, node) in &desired.forwarding_entries {
        if observed_objects.forwarding_entries.get(mac) != Some(&Some(*node)) {
            changes.push(Change::SetForwardingEntry(*mac, *node));
        }
    }
    changes
}

fn routing_additions(observed_objects: &ObservedObjects, desired: &NetworkObjects) -> Vec<Change> {
    let observed_routes: BTreeSet<_> =
        observed_objects.routes.iter().filter_map(|route| route.route).collect();
    let observed_rules: BTreeSet<_> = observed_objects.rules.iter().filter_map(|rule| rule.rule).collect();
    let routes = desired.routes.difference(&observed_routes).copied().map(Change::SetRoute);
    let rules = desired.rules.difference(&observed_rules).copied().map(Change::AddRule);
    routes.chain(rules).collect()
}

/// Returns the deletions of all routes and rules that are not desired. Rules are deleted first, so that no rule sends
/// packets into an incomplete routing table.
fn routing_deletions(observed_objects: &ObservedObjects, desired: &NetworkObjects) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut kept_rules = BTreeSet::new();
    for observed_rule in &observed_objects.rules {
        // The kernel allows several equal rules, but one rule is enough.
        let is_desired =
            observed_rule.rule.is_some_and(|rule| desired.rules.contains(&rule) && kept_rules.insert(rule));
        if !is_desired {
            changes.push(Change::DeleteRule(Box::new(observed_rule.message.clone())));
        }
    }
    for observed_route in &observed_objects.routes {
        // Routes with the table and destination of a desired route need no deletion, because the desired route has
        // replaced them.
        let is_desired = observed_route.route.is_some_and(|route| {
            let has_same_key =
                |desired: &Route| (desired.table, desired.destination) == (route.table, route.destination);
            desired.routes.iter().any(has_same_key)
        });
        if !is_desired {
            changes.push(Change::DeleteRoute(Box::new(observed_route.message.clone())));
        }
    }
    changes
}

fn deletions_on_device(observed_objects: &ObservedObjects, desired: &NetworkObjects) -> Vec<Change> {
    let mut changes = Vec::new();
    for mac in observed_objects.forwarding_entries.keys() {
        if !desired.forwarding_entries.contains_key(mac) {
            changes.push(Change::DeleteForwardingEntry(*mac));
        }
    }
    for address in observed_objects.neighbours.keys() {
        if !desired.neighbours.contains_key(address) {
            changes.push(Change::DeleteNeighbour(*address));
        }
    }
    changes
}

/// Returns the prefix length of a single address.
pub(crate) fn host_prefix_len(address: IpAddr) -> u8 {
    match Family::from_ip(address) {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}
