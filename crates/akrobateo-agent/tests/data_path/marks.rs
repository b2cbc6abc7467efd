//! The marks of packets, which exist only inside a node.

use std::process::Command;

use akrobateo_agent::tunnel;
use netns_testkit::isolated;
use netns_testkit::laboratory::Options;

use crate::cluster::{ADDRESS_KEEPING_MODES, Cluster, PORT, pod, service};

/// Adds two counters to a node. The counter `seen` counts the packets that leave through the uplink or the tunnel's
/// device. The counter `marked` counts only packets with a mark of the agent.
fn add_packet_counters(cluster: &Cluster, node: usize) {
    let node = cluster.laboratory.node(node);
    let devices = format!("{{ {}, {} }}", node.uplink, tunnel::DEVICE);
    node.namespace.load_nft(&format!(
        "table netdev other {{\n  counter seen {{ }}\n  counter marked {{ }}\n  \
         chain egress {{ type filter hook egress devices = {devices} priority 10;\n    \
         meta l4proto {{ tcp, udp }} counter name seen \
         meta mark and 0xfff00000 == 0x6b700000 counter name marked\n  }}\n}}\n"
    ));
}

fn has_counted(cluster: &Cluster, node: usize, counter: &str) -> bool {
    let list = ["list", "counter", "netdev", "other", counter];
    let text = cluster.laboratory.node(node).namespace.run_program(Command::new("nft").args(list), "");
    !text.contains("packets 0 ")
}

#[test]
fn packets_leave_the_node_without_a_mark_of_the_agent() {
    isolated(|| {
        for mode in ADDRESS_KEEPING_MODES {
            let cluster = Cluster::start(&Options::default(), mode, |laboratory| {
                vec![service(PORT, &pod(laboratory, 2, 1))]
            });
            (1..=3).for_each(|node| add_packet_counters(&cluster, node));
            cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
            for node in [1, 2] {
                assert!(has_counted(&cluster, node, "seen"), "{mode:?} node {node}");
                assert!(!has_counted(&cluster, node, "marked"), "{mode:?} node {node}");
            }
        }
    });
}
