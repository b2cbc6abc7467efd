//! Tests of the probe with real packets, in the laboratory.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod agents;
mod rules;

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use akrobateo_agent::probe::{ForwardingMode, MasqueradeReason, PROBE_PORT, PeerPath};
use akrobateo_core::protocol::Protocol;
use netns_testkit::laboratory::addresses::client_address;
use netns_testkit::laboratory::{
    Filter, KubeProxy, Options, PodMasquerade, PodNetwork, Underlay, Uplink, ask,
};
use netns_testkit::{DEADLINE, isolated};

use crate::agents::Agents;

const DIRECT: ForwardingMode = ForwardingMode::Keep(PeerPath::Direct);
const TUNNEL: ForwardingMode = ForwardingMode::Keep(PeerPath::Tunnel);
/// A time that is longer than the documented time after which the agents do not use a broken path any more.
const MAX_LOSS_DETECTION_TIME: Duration = Duration::from_secs(5);

const fn masquerade(reason: MasqueradeReason) -> ForwardingMode {
    ForwardingMode::Masquerade(reason)
}

/// Waits until all nodes except `excepted_node` have `mode` towards each other, and until the modes from and to
/// `excepted_node` are `mode_of_other_node`. Returns the longest wait for one mode.
fn wait_for_modes(
    agents: &Agents,
    mode: ForwardingMode,
    excepted_node: usize,
    mode_of_other_node: ForwardingMode,
) -> Duration {
    let mut longest_wait = Duration::ZERO;
    for node in 1..=3 {
        for peer in (1..=3).filter(|peer| *peer != node) {
            let expected = if [node, peer].contains(&excepted_node) { mode_of_other_node } else { mode };
            longest_wait = longest_wait.max(agents.wait_for_mode(node, peer, expected));
        }
    }
    longest_wait
}

/// Sends requests through node 1 to the pod of a peer. Returns true if the pod has seen the client's address.
fn pod_sees_client_address(agents: &Agents, peer: usize) -> bool {
    agents.apply_modes();
    let mut seen_results = Vec::new();
    for family in agents.families {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let to = (agents.laboratory.node(1).address(*family), rules::service_port(peer));
            let answer = agents.laboratory.client.run(|| ask(protocol, to.into(), DEADLINE));
            let answer = answer.unwrap_or_else(|error| panic!("{protocol} {family} to peer {peer}: {error}"));
            assert_eq!(answer.backend, format!("n{peer}p1"));
            seen_results.push(answer.client.ip() == client_address(*family));
        }
    }
    assert!(
        seen_results.iter().all(|has_seen_client| *has_seen_client == seen_results[0]),
        "{seen_results:?}"
    );
    seen_results[0]
}

#[test]
fn all_peers_use_the_direct_path_on_a_plain_segment() {
    isolated(|| {
        let options = Options::default();
        for options in [
            options.clone(),
            Options {
                kube_proxy: KubeProxy::Nftables,
                pod_masquerade: PodMasquerade::Flannel,
                ..options.clone()
            },
            Options { reverse_path_filter: 1, pod_masquerade: PodMasquerade::OutsideNode, ..options.clone() },
            Options { reverse_path_filter: 2, ..options.clone() },
            Options { uplink: Uplink::Bridge, filters_bridged_packets: false, ..options.clone() },
            Options { underlay: Underlay::Ipv6, ..options },
        ] {
            let agents = Agents::start_all(&options);
            wait_for_modes(&agents, DIRECT, 0, DIRECT);
            assert!(
                pod_sees_client_address(&agents, 2) && pod_sees_client_address(&agents, 3),
                "{options:?}"
            );
        }
    });
}

#[test]
fn peers_in_an_overlay_use_the_tunnel() {
    isolated(|| {
        for underlay in [Underlay::DualStack, Underlay::Ipv6] {
            let options = Options { pod_network: PodNetwork::Overlay, underlay, ..Options::default() };
            let agents = Agents::start_all(&options);
            wait_for_modes(&agents, TUNNEL, 0, TUNNEL);
            assert!(pod_sees_client_address(&agents, 2));
        }
    });
}

#[test]
fn modes_follow_filters_of_addresses_and_macs() {
    isolated(|| {
        for filter in [Filter::OwnAddressOnly(2), Filter::GatewayMac(2), Filter::OwnSourceAddressOnly(2)] {
            let agents = Agents::start_all(&Options::default());
            wait_for_modes(&agents, DIRECT, 0, DIRECT);
            agents.laboratory.set_filters(&[filter]);
            let changed_at = Instant::now();
            wait_for_modes(&agents, DIRECT, 2, TUNNEL);
            eprintln!("{filter:?}: tunnel after {:?}", changed_at.elapsed());
            assert!(pod_sees_client_address(&agents, 2) && pod_sees_client_address(&agents, 3), "{filter:?}");
            // A path that was lost once is used again only after it has worked for 5 seconds.
            agents.laboratory.set_filters(&[]);
            let changed_at = Instant::now();
            wait_for_modes(&agents, DIRECT, 2, DIRECT);
            eprintln!("no filter: direct after {:?}", changed_at.elapsed());
            assert!(pod_sees_client_address(&agents, 2));
        }
    });
}

#[test]
fn filter_of_foreign_macs_does_not_break_the_direct_path() {
    isolated(|| {
        let agents = Agents::start_all(&Options::default());
        agents.laboratory.set_filters(&[1, 2, 3].map(Filter::OwnMacOnly));
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        assert!(pod_sees_client_address(&agents, 2) && pod_sees_client_address(&agents, 3));
    });
}

#[test]
fn smaller_mtu_of_the_network_leads_to_masquerade() {
    isolated(|| {
        let agents = Agents::start_all(&Options::default());
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        agents.laboratory.set_filters(&[Filter::MaxPacketLen(1400), Filter::DropIcmpErrors]);
        let changed_at = Instant::now();
        let full_size_lost = masquerade(MasqueradeReason::FullSizeLost);
        wait_for_modes(&agents, full_size_lost, 0, full_size_lost);
        eprintln!("smaller MTU: masquerade after {:?}", changed_at.elapsed());
        assert!(!pod_sees_client_address(&agents, 2));
    });
}

#[test]
fn filter_in_one_direction_leads_to_masquerade_on_both_nodes() {
    isolated(|| {
        let agents = Agents::start_all(&Options::default());
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        agents.laboratory.set_filters(&[Filter::OneWay { from_node: 1, to_node: 2 }]);
        let changed_at = Instant::now();
        for (node, peer) in [(1, 2), (2, 1)] {
            agents.wait_for_mode(node, peer, masquerade(MasqueradeReason::NoAnswer));
        }
        eprintln!("filter in one direction: masquerade after {:?}", changed_at.elapsed());
        assert_eq!(agents.mode(1, 3, agents.families[0]), Some(DIRECT));
        agents.laboratory.set_filters(&[]);
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
    });
}

#[test]
fn path_is_used_only_if_probes_of_both_nodes_are_answered() {
    isolated(|| {
        let agents = Agents::start_all(&Options::default());
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        // A firewall on node 1 drops requests, but node 1 still receives answers to its own requests.
        agents.laboratory.node(1).namespace.load_nft(&format!(
            "table inet firewall {{ chain input {{ type filter hook input priority 0; udp dport {PROBE_PORT} drop\n }}\n}}\n"
        ));
        agents.wait_for_mode(2, 1, masquerade(MasqueradeReason::NoAnswer));
        agents.wait_for_mode(1, 2, masquerade(MasqueradeReason::OneWay));
        assert_eq!(agents.mode(2, 3, agents.families[0]), Some(DIRECT));
    });
}

#[test]
fn peer_without_agent_is_masqueraded_until_its_agent_starts() {
    isolated(|| {
        let mut agents = Agents::new(&Options::default());
        agents.start(1);
        agents.start(3);
        agents.wait_for_mode(1, 3, DIRECT);
        agents.wait_for_mode(1, 2, masquerade(MasqueradeReason::NoAnswer));
        agents.start(2);
        let started_at = Instant::now();
        agents.wait_for_mode(1, 2, DIRECT);
        eprintln!("new agent: direct after {:?}", started_at.elapsed());
        assert!(pod_sees_client_address(&agents, 2));
    });
}

#[test]
fn direct_path_to_a_lost_peer_is_used_again_after_its_return() {
    isolated(|| {
        let mut agents = Agents::start_all(&Options::default());
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        agents.laboratory.disconnect(2);
        let loss_time = agents.wait_for_mode(1, 2, masquerade(MasqueradeReason::NoAnswer));
        agents.laboratory.reconnect(2);
        let return_time = agents.wait_for_mode(1, 2, DIRECT);
        eprintln!(
            "disconnected: masquerade after {loss_time:?}; connected again: direct after {return_time:?}"
        );
        agents.wait_for_mode(2, 1, DIRECT);
        agents.stop(2);
        let loss_time = agents.wait_for_mode(1, 2, masquerade(MasqueradeReason::NoAnswer));
        eprintln!("agent killed: masquerade after {loss_time:?}");
    });
}

#[test]
fn announced_restart_of_an_agent_does_not_change_modes() {
    isolated(|| {
        let mut agents = Agents::start_all(&Options::default());
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        agents.apply_modes();
        agents.pause(2);
        let stopped_at = Instant::now();
        while stopped_at.elapsed() < MAX_LOSS_DETECTION_TIME + Duration::from_secs(1) {
            assert_eq!(agents.mode(1, 2, agents.families[0]), Some(DIRECT));
            assert!(pod_sees_client_address(&agents, 2));
        }
        agents.start(2);
        agents.wait_for_mode(2, 1, DIRECT);
        assert_eq!(agents.mode(1, 2, agents.families[0]), Some(DIRECT));
        // Without an announcement, missing answers change the mode.
        agents.stop(2);
        agents.wait_for_mode(1, 2, masquerade(MasqueradeReason::NoAnswer));
    });
}

#[test]
fn conntrack_entries_that_are_older_than_the_rules_do_not_delay_the_probe() {
    isolated(|| {
        let mut agents = Agents::new(&Options::default());
        for node in &agents.laboratory.nodes {
            node.namespace.nft("delete table inet akrobateo");
        }
        (1..=3).for_each(|node| agents.start(node));
        agents.wait_for_mode(1, 2, masquerade(MasqueradeReason::NoAnswer));
        for node in &agents.laboratory.nodes {
            node.namespace.nft("delete table netdev akrobateo");
            node.namespace.load_nft(&rules::render_tables(&agents.laboratory, node));
        }
        let rules_loaded_at = Instant::now();
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        eprintln!("rules loaded: direct after {:?}", rules_loaded_at.elapsed());
    });
}

#[test]
fn client_with_a_foreign_mac_is_not_answered() {
    isolated(|| {
        let agents = Agents::start_all(&Options::default());
        wait_for_modes(&agents, DIRECT, 0, DIRECT);
        // The client imitates the request of a node from the foreign address, but the client's MAC address does not
        // belong to a node.
        let foreign_address = akrobateo_agent::probe::foreign_address(agents.families[0]);
        let client = &agents.laboratory.client;
        client.ip(&format!("address add {foreign_address}/32 dev eth0"));
        let pod: IpAddr = agents.laboratory.pod(2, 1).addresses[0];
        let mut request = b"AkrP\x01\x01\x01\x01nonce...\0\0\0\0\0\0\0\0\0\0\xff\xff".to_vec();
        request.extend_from_slice(&[10, 99, 0, 11]);
        let is_answered = |source: IpAddr, to: IpAddr| {
            client.run(|| {
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                socket.connect((to, PROBE_PORT)).unwrap();
                socket.send(&request).unwrap();
                socket.recv(&mut [0; 2000]).is_ok()
            })
        };
        assert!(!is_answered(foreign_address, pod));
        // The same request is answered if it comes from a node's MAC address.
        let mac = &agents.laboratory.node(1).mac;
        agents.laboratory.disconnect(1);
        client.ip(&format!("link set eth0 address {mac}"));
        assert!(is_answered(foreign_address, pod));
    });
}
