//! The marks of packets, which exist only inside a node.

use std::process::Command;

use akrobateo_agent::tunnel;
use netns_testkit::laboratory::{Options, PodNetwork};
use netns_testkit::{eventually, isolated};

use crate::agent::{endpoint_sees_client_address, start_all_agents};
use crate::cluster::{ADDRESS_KEEPING_MODES, Cluster, SERVICE_PORT, pod_endpoints, service};

/// Rules that change the marks of packets like the rules of Calico: Calico clears its bits, and then sets the bit for
/// accepted packets (<https://github.com/projectcalico/calico/blob/master/felix/rules/static.go>).
const CALICO_RULES: &str = "table inet calico {
  chain prerouting { type filter hook prerouting priority raw; meta mark set meta mark and 0xffe0ffff; }
  chain forward { type filter hook forward priority filter;
    meta mark set meta mark and 0xffe1ffff meta mark set meta mark or 0x10000; }
  chain output { type filter hook output priority filter;
    meta mark set meta mark and 0xffe0ffff meta mark set meta mark or 0x10000; }
}";

/// Adds two counters to a node. The counter `seen` counts the packets that leave through the uplink or the tunnel's
/// device. The counter `marked` counts only packets with a mark of the agent.
fn add_packet_counters(cluster: &Cluster, node: usize) {
    let node = cluster.laboratory.node(node);
    let devices = format!("{{ {}, {} }}", node.uplink, tunnel::TUNNEL_DEVICE);
    node.namespace.load_nft(&format!(
        "table netdev other {{\n  counter seen {{ }}\n  counter marked {{ }}\n  \
         chain egress {{ type filter hook egress devices = {devices} priority 10;\n    \
         meta l4proto {{ tcp, udp }} counter name seen \
         meta mark and 0xff000000 == 0x6b000000 counter name marked\n  }}\n}}\n"
    ));
}

fn has_counted_packets(cluster: &Cluster, node: usize, counter: &str) -> bool {
    let list = ["list", "counter", "netdev", "other", counter];
    let text = cluster.laboratory.node(node).namespace.run_program(Command::new("nft").args(list), "");
    !text.contains("packets 0 ")
}

#[test]
fn packets_leave_the_node_without_a_mark_of_the_agent() {
    isolated(|| {
        for mode in ADDRESS_KEEPING_MODES {
            let cluster = Cluster::start(&Options::default(), mode, |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            (1..=3).for_each(|node| add_packet_counters(&cluster, node));
            cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
            for node in [1, 2] {
                assert!(has_counted_packets(&cluster, node, "seen"), "{mode:?} node {node}");
                assert!(!has_counted_packets(&cluster, node, "marked"), "{mode:?} node {node}");
            }
        }
    });
}

#[test]
fn paths_keep_the_client_address_although_calico_changes_marks() {
    isolated(|| {
        for mode in ADDRESS_KEEPING_MODES {
            let cluster = Cluster::start(&Options::default(), mode, |laboratory| {
                vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
            });
            cluster.laboratory.nodes.iter().for_each(|node| node.namespace.load_nft(CALICO_RULES));
            assert!(endpoint_sees_client_address(&cluster), "{mode:?}");
        }
    });
}

#[test]
fn probes_find_a_path_although_calico_changes_marks() {
    isolated(|| {
        for pod_network in [PodNetwork::HostRoutes, PodNetwork::Overlay] {
            let options = Options { pod_network, ..Options::default() };
            let (cluster, _agents) = start_all_agents(&options, true, |cluster| {
                cluster.laboratory.nodes.iter().for_each(|node| node.namespace.load_nft(CALICO_RULES));
            });
            eventually("the endpoint sees the client", || {
                endpoint_sees_client_address(&cluster).then_some(())
            });
        }
    });
}
