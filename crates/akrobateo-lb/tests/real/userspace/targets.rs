//! Targets that are away: clients learn it, it is counted, and it is over when they are back.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use super::{FORWARDS, Inside, accept, break_off, connect, is_reset, metric, metrics, ready, rest};
use crate::harness::addr::{self, with_port};
use crate::harness::proxy::probe_status;
use crate::harness::{Network, eventually, isolated};

const FAILURES: &str = "akrobateo_lb_dial_failures_total";

#[test]
fn a_backend_that_is_away_is_a_reset_for_the_client_and_works_as_soon_as_it_is_back() {
    isolated(|| {
        let network = Network::new();
        let proxy = ready(&network.pod, FORWARDS);
        for round in 1..=20 {
            is_reset(&network, 0);
            assert_eq!(metric(&metrics(&network.pod), FAILURES, &["IPv4", "refused"]), round);
        }
        proxy.wait_for_log("cannot reach the target target=10.96.3.7:80 reason=\"refused\"");
        // Each worker may say it once.
        let workers = std::thread::available_parallelism().unwrap().get();
        assert!(proxy.log().matches("cannot reach").count() <= workers, "{}", proxy.log());
        assert_eq!(probe_status(&network.pod), Some(200), "the proxy itself works");

        let listener = network.backend.run(|| TcpListener::bind(with_port(addr::BACKEND[0], 80)).unwrap());
        let mut client = connect(&network, 0);
        let backend = accept(&listener);
        client.write_all(b"again").unwrap();
        drop(client);
        assert_eq!(rest(&backend).unwrap(), b"again");
        drop((backend, listener));
        is_reset(&network, 0);
    });
}

#[test]
fn a_target_that_does_not_answer_in_time_is_given_up() {
    isolated(|| {
        let network = Network::new();
        network.backend.nft("add table inet silent");
        network.backend.nft("add chain inet silent input { type filter hook input priority 0 ; }");
        network.backend.nft("add rule inet silent input tcp dport 80 drop");
        let forwards = ["tcp/80=10.96.3.7:80", "tcp/80=[fd00:96::7]:80"];
        let inside =
            Inside::new(&network.pod, &forwards, |settings| settings.dial = Duration::from_millis(300));
        for (family, label) in ["IPv4", "IPv6"].into_iter().enumerate() {
            is_reset(&network, family);
            inside.reaches(FAILURES, &[label, "timed_out"], 1);
        }
        inside.reaches("akrobateo_lb_open_connections", &[], 0);
    });
}

#[test]
fn a_target_without_a_way_there_is_counted_as_such() {
    isolated(|| {
        let network = Network::new();
        let _proxy = ready(&network.pod, FORWARDS);
        network.pod.ip("route add unreachable 10.96.3.7/32");
        is_reset(&network, 0);
        assert_eq!(metric(&metrics(&network.pod), FAILURES, &["IPv4", "unreachable"]), 1);
    });
}

#[test]
fn a_client_that_is_gone_before_the_target_answers_leaves_nothing_behind() {
    isolated(|| {
        let network = Network::new();
        let listener = network.backend.run(|| TcpListener::bind(with_port(addr::BACKEND[0], 80)).unwrap());
        let _proxy = ready(&network.pod, FORWARDS);
        for _ in 0..50 {
            break_off(connect(&network, 0));
        }
        eventually("all are over", || {
            let text = metrics(&network.pod);
            let done = metric(&text, "akrobateo_lb_connections_total", &["IPv4"]) == 50
                && metric(&text, "akrobateo_lb_open_connections", &["IPv4"]) == 0;
            done.then_some(())
        });
        drop(listener);
    });
}
