//! UDP sessions: source ports, expiry, the session limit, and draining.

use std::time::{Duration, Instant};

use super::EmbeddedProxy;
use super::drain::LONGER_THAN_ANY_TEST;
use crate::harness::addr::{self, with_port};
use crate::harness::traffic::{NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, serve_udp};
use crate::harness::{Network, eventually, isolated};

const FORWARDS: [&str; 2] = ["udp/80=10.96.3.7:80", "udp/80=[fd00:96::7]:80"];

/// Returns a network whose backend answers datagrams on port 80.
fn create_network_with_backend() -> Network {
    let network = Network::new();
    for ip in addr::BACKEND {
        serve_udp(&network.backend, &with_port(ip, 80));
    }
    network
}

/// Returns a client that sends to port 80 of the pod from its own source port.
fn new_client(network: &Network, family_index: usize) -> UdpClient {
    UdpClient::new(&network.client, addr::CLIENT[family_index], &with_port(addr::POD[family_index], 80))
}

#[test]
fn session_keeps_its_source_port() {
    isolated(|| {
        let network = create_network_with_backend();
        let proxy = EmbeddedProxy::new(&network.pod, &FORWARDS, |settings| {
            settings.udp_timeout = LONGER_THAN_ANY_TEST;
        });
        for family_index in 0..2 {
            let (client, other_client) =
                (new_client(&network, family_index), new_client(&network, family_index));
            let first_reply = client.request(REPLY_TIMEOUT).unwrap();
            assert_eq!(first_reply.source_address.ip().to_string(), addr::POD[family_index]);
            assert_eq!(
                first_reply.destination_address.to_string(),
                with_port(addr::BACKEND[family_index], 80)
            );
            assert_ne!(
                other_client.request(REPLY_TIMEOUT).unwrap().source_address,
                first_reply.source_address
            );
            assert_eq!(client.request(REPLY_TIMEOUT).unwrap().source_address, first_reply.source_address);
        }
        assert_eq!(proxy.sum_metric("akrobateo_lb_connections_total", &["udp", "IPv6"]), 2);
        assert_eq!(proxy.sum_metric("akrobateo_lb_bytes_total", &["udp", "IPv4", "\"in\""]), 3);
        assert!(proxy.sum_metric("akrobateo_lb_bytes_total", &["udp", "IPv4", "\"out\""]) > 3);
    });
}

#[test]
fn expired_session_loses_its_source_port() {
    isolated(|| {
        let network = create_network_with_backend();
        let proxy = EmbeddedProxy::new(&network.pod, &FORWARDS, |settings| {
            settings.udp_timeout = Duration::from_secs(2);
            settings.udp_stream_timeout = LONGER_THAN_ANY_TEST;
        });
        for family_index in 0..2 {
            let client = new_client(&network, family_index);
            let first_source_address = client.request(REPLY_TIMEOUT).unwrap().source_address;
            proxy.wait_for_metric("akrobateo_lb_open_connections", &[], 0);
            assert_ne!(client.request(REPLY_TIMEOUT).unwrap().source_address, first_source_address);
            proxy.wait_for_metric("akrobateo_lb_open_connections", &[], 0);
        }
    });
}

#[test]
fn session_limit_evicts_unassured_sessions_first() {
    isolated(|| {
        let network = create_network_with_backend();
        let forwards = ["udp/80=10.96.3.7:80", "udp/81=10.96.3.8:9"];
        let proxy = EmbeddedProxy::new(&network.pod, &forwards, |settings| {
            settings.worker_count = 1;
            settings.max_udp_sessions = 4;
        });
        let assured_clients: Vec<_> = (0..2).map(|_| new_client(&network, 0)).collect();
        let request = |client: &UdpClient| client.request(REPLY_TIMEOUT).unwrap().source_address;
        let source_addresses: Vec<_> = assured_clients.iter().map(request).collect();
        assert_eq!(assured_clients.iter().map(request).collect::<Vec<_>>(), source_addresses);
        for _ in 0..20 {
            let unanswered_client =
                UdpClient::new(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 81));
            unanswered_client.send();
        }
        proxy.wait_for_metric("akrobateo_lb_connections_total", &["port=\"81\""], 20);
        assert_eq!(proxy.sum_metric("akrobateo_lb_open_connections", &[]), 4);
        // A session whose client was answered only once is evicted too.
        for _ in 0..20 {
            request(&new_client(&network, 0));
        }
        assert_eq!(assured_clients.iter().map(request).collect::<Vec<_>>(), source_addresses);
        // If all sessions are assured, the session that has been silent longest is evicted.
        let new_clients: Vec<_> = (0..3).map(|_| new_client(&network, 0)).collect();
        for client in &new_clients {
            assert_eq!(request(client), request(client));
        }
        assert_eq!(request(&assured_clients[1]), source_addresses[1]);
        assert_ne!(request(&assured_clients[0]), source_addresses[0]);
        assert_eq!(proxy.sum_metric("akrobateo_lb_dropped_datagrams_total", &[]), 0);
    });
}

#[test]
fn session_limit_of_one_source_leaves_sessions_for_other_clients() {
    isolated(|| {
        let network = create_network_with_backend();
        let proxy = EmbeddedProxy::new(&network.pod, &FORWARDS, |settings| {
            settings.max_udp_sessions = 400;
            settings.max_udp_sessions_per_source = 100;
            settings.udp_timeout = LONGER_THAN_ANY_TEST;
            settings.udp_stream_timeout = LONGER_THAN_ANY_TEST;
        });
        let pod_port = with_port(addr::POD[0], 80);
        let early_client = UdpClient::new(&network.client, addr::CLIENT_3[0], &pod_port);
        let early_source_address = early_client.request(REPLY_TIMEOUT).unwrap().source_address;
        assert_eq!(early_client.request(REPLY_TIMEOUT).unwrap().source_address, early_source_address);
        for port in 10_000..10_500 {
            let client = UdpClient::bind(&network.client, &with_port(addr::CLIENT[0], port), &pod_port);
            client.request(REPLY_TIMEOUT).unwrap();
            if port % 2 == 0 {
                client.request(REPLY_TIMEOUT).unwrap();
            }
        }
        let late_client = UdpClient::new(&network.client, addr::CLIENT_2[0], &pod_port);
        late_client.request(REPLY_TIMEOUT).unwrap();
        assert_eq!(early_client.request(REPLY_TIMEOUT).unwrap().source_address, early_source_address);
        let open_sessions = proxy.sum_metric("akrobateo_lb_open_connections", &[]);
        assert!(open_sessions <= 102, "one client has {open_sessions} sessions");
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
        let network = create_network_with_backend();
        let proxy = EmbeddedProxy::new(&network.pod, &FORWARDS, |settings| {
            settings.drain_timeout = LONGER_THAN_ANY_TEST;
            settings.drain_udp_idle_timeout = Duration::from_secs(3);
        });
        let client = new_client(&network, 0);
        // The proxy measures the silence from the last datagram. Before the first datagram, the proxy measures the
        // silence from the start of the proxy. The test therefore lets the proxy run longer than this silence before it
        // starts the drain.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            client.request(REPLY_TIMEOUT).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let start = Instant::now();
        let drain_thread = proxy.start_drain();
        client.request(REPLY_TIMEOUT).unwrap();
        // New clients are served, and do not prolong the drain.
        let mut served_count = 0;
        eventually("the proxy ends although new clients are served", || {
            served_count += u32::from(new_client(&network, 0).request(NO_REPLY_TIMEOUT).is_ok());
            drain_thread.is_finished().then_some(())
        });
        assert!(start.elapsed() > Duration::from_secs(3), "{:?}", start.elapsed());
        assert!(served_count > 0, "the draining proxy did not serve new clients");
        drain_thread.join().unwrap();
        new_client(&network, 0).request(NO_REPLY_TIMEOUT).unwrap_err();
    });
}
