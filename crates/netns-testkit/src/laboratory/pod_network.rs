//! The routes between the pods of different nodes, as commands of ip(8). Pure.

use std::fmt::Write;

use akrobateo_core::family::Family;

use super::addresses::{node_address, pod_range};
use super::options::{Options, PodNetwork, Underlay};

/// The name of the overlay's device, as in flannel.
pub(crate) const OVERLAY_DEVICE: &str = "flannel.1";
/// The MTU of pods in an overlay. The outer headers need 50 bytes with IPv4, and 70 bytes with IPv6.
const OVERLAY_MTU: u16 = 1430;

/// Returns the MTU of pods, or `None` if pods have the MTU of the nodes.
pub(crate) fn pod_mtu(options: &Options) -> Option<u16> {
    (options.pod_network == PodNetwork::Overlay).then_some(OVERLAY_MTU)
}

/// Returns the commands of ip(8) that connect the pods of node `node_number` with the pods of the other nodes. `uplink`
/// is the device that has the node's address.
pub(crate) fn ip_commands(options: &Options, node_number: usize, uplink: &str) -> String {
    let peers = (1..=options.node_count).filter(|peer| *peer != node_number);
    match options.pod_network {
        PodNetwork::HostRoutes => peers.map(|peer| host_routes(options, peer, uplink)).collect(),
        PodNetwork::Overlay => {
            overlay_device(options, node_number) + &peers.map(overlay_routes).collect::<String>()
        }
    }
}

/// Returns the commands of bridge(8) that add a forwarding entry for each other node to the overlay's device.
pub(crate) fn bridge_commands(options: &Options, node_number: usize) -> String {
    let peers = (1..=options.node_count).filter(|peer| *peer != node_number);
    let entry = |peer| {
        let address = node_address(outer_family(options), peer);
        format!("fdb append {} dev {OVERLAY_DEVICE} dst {address}\n", overlay_mac(peer))
    };
    peers.map(entry).collect()
}

fn host_routes(options: &Options, peer: usize, uplink: &str) -> String {
    let mut commands = String::new();
    for family in Family::ALL {
        let range = pod_range(family, peer);
        let gateway_family = if options.underlay == Underlay::Ipv6 { Family::V6 } else { family };
        let gateway = node_address(gateway_family, peer);
        let kind = if gateway_family == family { "" } else { "inet6" };
        writeln!(commands, "route add {range} via {kind} {gateway} dev {uplink}").unwrap();
    }
    commands
}

fn overlay_device(options: &Options, node_number: usize) -> String {
    let local = node_address(outer_family(options), node_number);
    format!(
        "link add {OVERLAY_DEVICE} address {} mtu {OVERLAY_MTU} type vxlan id 1 local {local} dstport 8472 nolearning\n\
         address add 10.244.{node_number}.0/32 dev {OVERLAY_DEVICE}\nlink set {OVERLAY_DEVICE} up\n",
        overlay_mac(node_number)
    )
}

fn overlay_routes(peer: usize) -> String {
    let mac = overlay_mac(peer);
    let mut commands = String::new();
    for (range, gateway) in [
        (pod_range(Family::V4, peer), format!("10.244.{peer}.0")),
        (pod_range(Family::V6, peer), format!("fe80::f:{peer}")),
    ] {
        writeln!(
            commands,
            "neighbour replace {gateway} lladdr {mac} dev {OVERLAY_DEVICE} nud permanent\n\
             route add {range} via {gateway} dev {OVERLAY_DEVICE} onlink"
        )
        .unwrap();
    }
    commands
}

fn outer_family(options: &Options) -> Family {
    if options.underlay == Underlay::Ipv6 { Family::V6 } else { Family::V4 }
}

fn overlay_mac(node_number: usize) -> String {
    format!("0a:00:00:00:00:{node_number:02x}")
}
