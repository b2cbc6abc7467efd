//! Flows of datagrams: kept while they are used, and no more of them than are allowed.

use std::time::Duration;

use rustix::process::Signal;

use super::{Inside, ready};
use crate::harness::addr::{self, with_port};
use crate::harness::traffic::{NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, serve_udp};
use crate::harness::{Network, isolated};

const FORWARDS: [&str; 2] = ["udp/80=10.96.3.7:80", "udp/80=[fd00:96::7]:80"];

fn network() -> Network {
    let network = Network::new();
    for ip in addr::BACKEND {
        serve_udp(&network.backend, &with_port(ip, 80));
    }
    network
}

fn client(network: &Network, family: usize) -> UdpClient {
    UdpClient::new(&network.client, addr::CLIENT[family], &with_port(addr::POD[family], 80))
}

#[test]
fn a_flow_has_one_source_port_until_it_expires_and_others_have_others() {
    isolated(|| {
        let network = network();
        let inside = Inside::new(&network.pod, &FORWARDS, |settings| {
            settings.unanswered = Duration::from_secs(1);
            settings.answered = Duration::from_secs(1);
        });
        for family in 0..2 {
            let (one, two) = (client(&network, family), client(&network, family));
            let first = one.request(REPLY_TIMEOUT).unwrap();
            assert_eq!(first.peer.ip().to_string(), addr::POD[family]);
            assert_eq!(first.local.to_string(), with_port(addr::BACKEND[family], 80));
            assert_ne!(two.request(REPLY_TIMEOUT).unwrap().peer, first.peer);
            assert_eq!(one.request(REPLY_TIMEOUT).unwrap().peer, first.peer);
            inside.reaches("akrobateo_lb_open_connections", &[], 0);
            assert_ne!(one.request(REPLY_TIMEOUT).unwrap().peer, first.peer, "it was not forgotten");
            inside.reaches("akrobateo_lb_open_connections", &[], 0);
        }
        assert_eq!(inside.metric("akrobateo_lb_connections_total", &["udp", "IPv6"]), 3);
        assert_eq!(inside.metric("akrobateo_lb_bytes_total", &["udp", "IPv4", "\"in\""]), 4);
        assert!(inside.metric("akrobateo_lb_bytes_total", &["udp", "IPv4", "\"out\""]) > 4);
    });
}

#[test]
fn when_there_are_too_many_flows_the_unanswered_make_way_and_the_answered_stay() {
    isolated(|| {
        let network = network();
        let forwards = ["udp/80=10.96.3.7:80", "udp/81=10.96.3.8:9"];
        let inside = Inside::new(&network.pod, &forwards, |settings| {
            settings.workers = 1;
            settings.flows = 4;
        });
        let answered: Vec<_> = (0..2).map(|_| client(&network, 0)).collect();
        let peers: Vec<_> = answered.iter().map(|flow| flow.request(REPLY_TIMEOUT).unwrap().peer).collect();
        for _ in 0..20 {
            let nobody = UdpClient::new(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 81));
            nobody.send();
        }
        inside.reaches("akrobateo_lb_connections_total", &["port=\"81\""], 20);
        assert_eq!(inside.metric("akrobateo_lb_open_connections", &[]), 4);
        for (flow, peer) in answered.iter().zip(peers) {
            assert_eq!(flow.request(REPLY_TIMEOUT).unwrap().peer, peer);
        }
        let more: Vec<_> = (0..2).map(|_| client(&network, 0)).collect();
        for flow in &more {
            flow.request(REPLY_TIMEOUT).unwrap();
        }
        client(&network, 0).request(NO_REPLY_TIMEOUT).unwrap_err();
        assert_eq!(inside.metric("akrobateo_lb_dropped_datagrams_total", &["port=\"80\""]), 1);
    });
}

#[test]
fn a_target_that_is_away_is_counted_and_found_again() {
    isolated(|| {
        let network = Network::new();
        let inside = Inside::new(&network.pod, &FORWARDS, |_| {});
        let flow = client(&network, 0);
        flow.request(NO_REPLY_TIMEOUT).unwrap_err();
        inside.reaches("akrobateo_lb_dial_failures_total", &["udp", "IPv4", "refused"], 1);
        serve_udp(&network.backend, &with_port(addr::BACKEND[0], 80));
        flow.request(REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn sigterm_ends_it_when_the_flows_have_been_quiet_for_a_while() {
    isolated(|| {
        let network = network();
        let line = "--data-path=userspace --forward=udp/80=10.96.3.7:80";
        let mut proxy = ready(&network.pod, line);
        let flow = client(&network, 0);
        flow.request(REPLY_TIMEOUT).unwrap();
        proxy.signal(Signal::TERM);
        proxy.wait_for_log("draining");
        flow.request(REPLY_TIMEOUT).unwrap();
        client(&network, 0).request(NO_REPLY_TIMEOUT).unwrap_err();
        let (exit, after) = proxy.wait_for_exit();
        assert!(exit.success() && after > Duration::from_secs(1), "{exit} after {after:?}");
    });
}
