//! Unreachable targets: clients see a reset, metrics count the failure, and the proxy recovers.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::limits::max_log_lines;
use super::{
    EmbeddedProxy, FORWARD_ARGS, accept, assert_reset, close_with_reset, connect, fetch_metrics, read_to_end,
    start_proxy, sum_metric,
};
use crate::harness::addr::{self, with_port};
use crate::harness::proxy::probe_status;
use crate::harness::{Network, eventually, isolated};

const DIAL_FAILURES_METRIC: &str = "akrobateo_lb_dial_failures_total";

#[test]
fn proxy_resets_clients_only_while_the_backend_is_down() {
    isolated(|| {
        let network = Network::new();
        let proxy = start_proxy(&network.pod, FORWARD_ARGS);
        let start = Instant::now();
        for round in 1..=20 {
            assert_reset(&network, 0);
            assert_eq!(
                sum_metric(&fetch_metrics(&network.pod), DIAL_FAILURES_METRIC, &["IPv4", "refused"]),
                round
            );
        }
        proxy.wait_for_log("cannot reach the target target=10.96.3.7:80 reason=\"refused\"");
        assert!(proxy.log().matches("cannot reach").count() <= max_log_lines(start), "{}", proxy.log());
        assert_eq!(probe_status(&network.pod), Some(200), "the proxy is not ready");

        let listener = network.backend.run(|| TcpListener::bind(with_port(addr::BACKEND[0], 80)).unwrap());
        let mut client = connect(&network, 0);
        let backend = accept(&listener);
        client.write_all(b"again").unwrap();
        drop(client);
        assert_eq!(read_to_end(&backend).unwrap(), b"again");
        drop((backend, listener));
        assert_reset(&network, 0);
    });
}

#[test]
fn connect_timeout_resets_the_client_of_a_silent_target() {
    isolated(|| {
        let network = Network::new();
        network.backend.nft("add table inet silent");
        network.backend.nft("add chain inet silent input { type filter hook input priority 0 ; }");
        network.backend.nft("add rule inet silent input tcp dport 80 drop");
        let forwards = ["tcp/80=10.96.3.7:80", "tcp/80=[fd00:96::7]:80"];
        let proxy = EmbeddedProxy::new(&network.pod, &forwards, |settings| {
            settings.connect_timeout = Duration::from_millis(300);
        });
        for (family_index, label) in ["IPv4", "IPv6"].into_iter().enumerate() {
            assert_reset(&network, family_index);
            proxy.wait_for_metric(DIAL_FAILURES_METRIC, &[label, "timed_out"], 1);
        }
        proxy.wait_for_metric("akrobateo_lb_open_connections", &[], 0);
    });
}

#[test]
fn metric_counts_a_target_without_a_route_as_unreachable() {
    isolated(|| {
        let network = Network::new();
        let _proxy = start_proxy(&network.pod, FORWARD_ARGS);
        network.pod.ip("route add unreachable 10.96.3.7/32");
        assert_reset(&network, 0);
        assert_eq!(
            sum_metric(&fetch_metrics(&network.pod), DIAL_FAILURES_METRIC, &["IPv4", "unreachable"]),
            1
        );
    });
}

#[test]
fn connection_of_a_vanished_client_is_closed() {
    isolated(|| {
        let network = Network::new();
        let listener = network.backend.run(|| TcpListener::bind(with_port(addr::BACKEND[0], 80)).unwrap());
        let _proxy = start_proxy(&network.pod, FORWARD_ARGS);
        for _ in 0..50 {
            close_with_reset(connect(&network, 0));
        }
        eventually("all connections are closed", || {
            let text = fetch_metrics(&network.pod);
            let are_all_closed = sum_metric(&text, "akrobateo_lb_connections_total", &["IPv4"]) == 50
                && sum_metric(&text, "akrobateo_lb_open_connections", &["IPv4"]) == 0;
            are_all_closed.then_some(())
        });
        drop(listener);
    });
}
