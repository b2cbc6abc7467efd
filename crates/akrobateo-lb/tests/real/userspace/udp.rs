//! UDP sessions: source ports, expiry, the session limit, and draining.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::scale::raise_descriptor_limit;
use super::{EmbeddedProxy, fetch_metrics, start_proxy, sum_metric};
use crate::harness::addr::{self, with_port};
use crate::harness::traffic::{NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, serve_udp};
use crate::harness::{Network, eventually, isolated};

const FORWARDS: [&str; 2] = ["udp/80=10.96.3.7:80", "udp/80=[fd00:96::7]:80"];

/// Returns a network whose backend answers datagrams on port 80.
fn network_with_backend() -> Network {
    let network = Network::new();
    for ip in addr::BACKEND {
        serve_udp(&network.backend, &with_port(ip, 80));
    }
    network
}

/// Returns a client that sends to port 80 of the pod from its own source port.
fn new_client(network: &Network, family: usize) -> UdpClient {
    UdpClient::new(&network.client, addr::CLIENT[family], &with_port(addr::POD[family], 80))
}

#[test]
fn session_keeps_its_source_port_until_it_expires() {
    isolated(|| {
        let network = network_with_backend();
        let proxy = EmbeddedProxy::new(&network.pod, &FORWARDS, |settings| {
            settings.udp_timeout = Duration::from_secs(1);
            settings.udp_stream_timeout = Duration::from_secs(1);
        });
        for family in 0..2 {
            let (client, other_client) = (new_client(&network, family), new_client(&network, family));
            let first = client.request(REPLY_TIMEOUT).unwrap();
            assert_eq!(first.peer.ip().to_string(), addr::POD[family]);
            assert_eq!(first.local_address.to_string(), with_port(addr::BACKEND[family], 80));
            assert_ne!(other_client.request(REPLY_TIMEOUT).unwrap().peer, first.peer);
            assert_eq!(client.request(REPLY_TIMEOUT).unwrap().peer, first.peer);
            proxy.wait_for_metric("akrobateo_lb_open_connections", &[], 0);
            assert_ne!(
                client.request(REPLY_TIMEOUT).unwrap().peer,
                first.peer,
                "the session has not expired"
            );
            proxy.wait_for_metric("akrobateo_lb_open_connections", &[], 0);
        }
        assert_eq!(proxy.metric("akrobateo_lb_connections_total", &["udp", "IPv6"]), 3);
        assert_eq!(proxy.metric("akrobateo_lb_bytes_total", &["udp", "IPv4", "\"in\""]), 4);
        assert!(proxy.metric("akrobateo_lb_bytes_total", &["udp", "IPv4", "\"out\""]) > 4);
    });
}

#[test]
fn session_limit_evicts_sessions_that_are_not_assured_first() {
    isolated(|| {
        let network = network_with_backend();
        let forwards = ["udp/80=10.96.3.7:80", "udp/81=10.96.3.8:9"];
        let proxy = EmbeddedProxy::new(&network.pod, &forwards, |settings| {
            settings.workers = 1;
            settings.udp_sessions = 4;
        });
        let assured_clients: Vec<_> = (0..2).map(|_| new_client(&network, 0)).collect();
        let request = |client: &UdpClient| client.request(REPLY_TIMEOUT).unwrap().peer;
        let peers: Vec<_> = assured_clients.iter().map(request).collect();
        assert_eq!(assured_clients.iter().map(request).collect::<Vec<_>>(), peers);
        for _ in 0..20 {
            let unanswered_client =
                UdpClient::new(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 81));
            unanswered_client.send();
        }
        proxy.wait_for_metric("akrobateo_lb_connections_total", &["port=\"81\""], 20);
        assert_eq!(proxy.metric("akrobateo_lb_open_connections", &[]), 4);
        // A client that was answered once makes way too.
        for _ in 0..20 {
            request(&new_client(&network, 0));
        }
        assert_eq!(assured_clients.iter().map(request).collect::<Vec<_>>(), peers);
        // If all sessions are assured, the one that has been silent longest makes way.
        let new_clients: Vec<_> = (0..3).map(|_| new_client(&network, 0)).collect();
        for client in &new_clients {
            assert_eq!(request(client), request(client));
        }
        assert_eq!(request(&assured_clients[1]), peers[1]);
        assert_ne!(request(&assured_clients[0]), peers[0]);
        assert_eq!(proxy.metric("akrobateo_lb_dropped_datagrams_total", &[]), 0);
    });
}

#[test]
fn client_with_all_sessions_shuts_no_other_client_out() {
    isolated(|| {
        raise_descriptor_limit();
        let network = network_with_backend();
        let proxy = start_proxy(&network.pod, "--data-path=userspace --forward=udp/80=10.96.3.7:80");
        let early_client = UdpClient::new(&network.client, addr::CLIENT_3[0], &with_port(addr::POD[0], 80));
        let early_peer = early_client.request(REPLY_TIMEOUT).unwrap().peer;
        assert_eq!(early_client.request(REPLY_TIMEOUT).unwrap().peer, early_peer);
        for port in 10_000..10_000 + 16_384 {
            let from = with_port(addr::CLIENT[0], port);
            let client = UdpClient::bind(&network.client, &from, &with_port(addr::POD[0], 80));
            client.request(REPLY_TIMEOUT).unwrap();
            if port % 2 == 0 {
                client.request(REPLY_TIMEOUT).unwrap();
            }
        }
        let new_client = UdpClient::new(&network.client, addr::CLIENT_2[0], &with_port(addr::POD[0], 80));
        new_client.request(REPLY_TIMEOUT).unwrap();
        assert_eq!(early_client.request(REPLY_TIMEOUT).unwrap().peer, early_peer);
        let open = sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_open_connections", &[]);
        assert!(open < 16_384 / 3, "one client has {open} sessions");
        drop(proxy);
    });
}

#[test]
fn session_recovers_when_its_target_is_back() {
    isolated(|| {
        let network = Network::new();
        let proxy = EmbeddedProxy::new(&network.pod, &FORWARDS, |_| {});
        let client = new_client(&network, 0);
        client.request(NO_REPLY_TIMEOUT).unwrap_err();
        proxy.wait_for_metric("akrobateo_lb_dial_failures_total", &["udp", "IPv4", "refused"], 1);
        serve_udp(&network.backend, &with_port(addr::BACKEND[0], 80));
        client.request(REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn draining_proxy_serves_new_clients_until_the_earlier_sessions_are_silent() {
    isolated(|| {
        let network = network_with_backend();
        let command_line = "--data-path=userspace --forward=udp/80=10.96.3.7:80";
        let mut proxy = start_proxy(&network.pod, command_line);
        let client = new_client(&network, 0);
        // The proxy measures the silence from the last datagram, or from its start if there was none. So the test lets
        // the proxy run longer than this silence before it starts the drain.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            client.request(REPLY_TIMEOUT).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        proxy.signal(Signal::TERM);
        proxy.wait_for_log("draining");
        client.request(REPLY_TIMEOUT).unwrap();
        let start = Instant::now();
        // New clients are served, and do not prolong the drain.
        let mut served = 0;
        while !proxy.log().contains("closing") {
            assert!(start.elapsed() < Duration::from_secs(12), "new clients prolong the drain");
            served += u32::from(new_client(&network, 0).request(NO_REPLY_TIMEOUT).is_ok());
        }
        assert!(start.elapsed() > Duration::from_secs(2) && served > 3, "{served} in {:?}", start.elapsed());
        // A worker begins to close a moment after the log line.
        eventually("new clients are refused", || new_client(&network, 0).request(NO_REPLY_TIMEOUT).err());
        let (exit, elapsed) = proxy.wait_for_exit();
        assert!(exit.success(), "{exit} after {elapsed:?}");
    });
}
