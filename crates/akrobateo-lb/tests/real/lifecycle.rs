//! The lifecycle of a proxy: restarts, signals, and changes of its table by other programs.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use akrobateo_core::ProxyArgs;
use akrobateo_lb::forwarding_config::ForwardingConfig;
use akrobateo_lb::table_manager::TableManager;
use netfilter::nft::client::Nftables;
use rustix::process::Signal;

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::{probe_status, split_args};
use crate::harness::traffic::{NO_REPLY_TIMEOUT, REPLY_TIMEOUT, connect_tcp, serve_tcp};
use crate::harness::{Network, Proxy, eventually, isolated};

const LIST_TABLE_COMMAND: &str = "-s list table inet akrobateo";

/// Sets the flag when the `SetOnDrop` is dropped, even after a failed assertion. Without the flag, a client thread
/// would never end.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn create_network_and_forwards() -> (Network, Vec<String>) {
    let network = Network::new();
    serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
    serve_tcp(&network.backend, &with_port(addr::BACKEND[1], 80));
    let forwards =
        split_args("--forward=tcp/80=10.96.3.7:80 --forward=tcp/80=[fd00:96::7]:80 --source=192.0.2.0/24");
    (network, forwards)
}

#[test]
fn restarts_under_traffic_keep_rules_and_connections() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let mut proxy = Proxy::start_and_wait(&network.pod, &forwards);
        let rules = network.pod.nft(LIST_TABLE_COMMAND);
        let destination = with_port(addr::POD[0], 80);
        let mut established_connection =
            connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
        let (is_stopped, connection_count) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                while !is_stopped.load(Ordering::Relaxed) {
                    connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT)
                        .unwrap()
                        .check_echo()
                        .unwrap();
                    connection_count.fetch_add(1, Ordering::Relaxed);
                }
            });
            let stop_on_drop_guard = SetOnDrop(&is_stopped);
            for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
                proxy.signal(signal);
                proxy.wait_for_exit();
                let connection_count_before = connection_count.load(Ordering::Relaxed);
                eventually("clients can connect while no proxy runs", || {
                    (connection_count.load(Ordering::Relaxed) > connection_count_before + 5
                        || client.is_finished())
                    .then_some(())
                });
                proxy = Proxy::start_and_wait(&network.pod, &forwards);
                established_connection.check_echo().unwrap();
                assert_eq!(network.pod.nft(LIST_TABLE_COMMAND), rules);
            }
            drop(stop_on_drop_guard);
            client.join().unwrap();
        });
    });
}

/// Replaces a table a hundred times while clients connect. A proxy replaces its table if the proxy starts with other
/// arguments.
fn replace_table_under_traffic() {
    let network = Network::new();
    serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
    network.pod.set_sysctl("ipv4/ip_forward", "1");
    let install = |second_forward: &str| {
        let forwards = ["tcp/80=10.96.3.7:80", second_forward].map(|forward| forward.parse().unwrap()).into();
        let sources = ["192.0.2.0/24", "198.51.100.0/24"].map(|source| source.parse().unwrap()).into();
        let config =
            ForwardingConfig::new(ProxyArgs { sources, probe_port: 1, ..ProxyArgs::new(forwards) }).unwrap();
        network.pod.run(|| TableManager::install(config).unwrap());
    };
    install("tcp/81=10.96.3.7:80");
    let destination = with_port(addr::POD[0], 80);
    let (is_stopped, connection_count) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let connect = || {
            while !is_stopped.load(Ordering::Relaxed) {
                connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
                connection_count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients = [scope.spawn(connect), scope.spawn(connect)];
        let stop_on_drop_guard = SetOnDrop(&is_stopped);
        for number in 0..100 {
            let connection_count_before = connection_count.load(Ordering::Relaxed);
            let has_any_client_ended = || clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
            eventually("clients connect", || {
                (connection_count.load(Ordering::Relaxed) > connection_count_before + 4
                    || has_any_client_ended())
                .then_some(())
            });
            install(["tcp/82=10.96.3.7:80", "tcp/83=10.96.3.7:80"][number % 2]);
        }
        drop(stop_on_drop_guard);
        for client in clients {
            client.join().unwrap();
        }
    });
}

/// A packet may be lost: for some microseconds, lookups in a new interval set may find nothing. The client then sends
/// the packet again.
#[test]
fn connections_succeed_during_a_hundred_table_replacements() {
    isolated(|| {
        replace_table_under_traffic();
    });
}

#[test]
fn pod_does_not_answer_a_packet_that_was_not_translated() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        // The proxy is killed first, so that it cannot restore the element.
        Proxy::start_and_wait(&network.pod, &forwards).kill();
        network.pod.nft("delete element inet akrobateo forward4 { tcp . 80 }");
        let error =
            connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80), NO_REPLY_TIMEOUT)
                .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn restart_does_not_replace_an_equal_table() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let proxy = Proxy::start_and_wait(&network.pod, &forwards);
        // After this connection, the counters are not zero. The comparison of the tables must ignore the counters.
        connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80), REPLY_TIMEOUT).unwrap();
        proxy.kill();
        let generation = || network.pod.run(|| Nftables::open().unwrap().generation().unwrap());
        let generation_before = generation();
        let _proxy = Proxy::start_and_wait(&network.pod, &forwards);
        assert_eq!(generation(), generation_before);
    });
}

#[test]
fn sigterm_ends_the_proxy_at_once_but_keeps_the_rules() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let mut proxy = Proxy::start_and_wait(&network.pod, &forwards);
        let rules = network.pod.nft(LIST_TABLE_COMMAND);
        let destination = with_port(addr::POD[0], 80);
        let mut established_connection =
            connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
        proxy.signal(Signal::TERM);
        let (exit_status, _) = proxy.wait_for_exit();
        assert!(exit_status.success() && !proxy.log().contains("draining"), "{exit_status}: {}", proxy.log());
        assert_eq!(probe_status(&network.pod), None, "the probe is still answered");
        assert_eq!(network.pod.nft(LIST_TABLE_COMMAND), rules);
        established_connection.check_echo().unwrap();
        connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn proxy_undoes_foreign_changes_of_its_table_within_a_second() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let proxy = Proxy::start_and_wait(&network.pod, &forwards);
        let rules = network.pod.nft(LIST_TABLE_COMMAND);
        let destination = with_port(addr::POD[0], 80);
        let mut established_connection =
            connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
        let mut shortest_repair_time = Duration::MAX;
        for change in [
            "flush ruleset",
            "flush chain inet akrobateo prerouting",
            "delete element inet akrobateo forward4 { tcp . 80 }",
            "delete element inet akrobateo source4 { 192.0.2.0/24 }",
            "add rule inet akrobateo input drop",
            "insert rule inet akrobateo prerouting counter accept",
            "add chain inet akrobateo input { policy drop ; }",
            "add chain inet akrobateo unknown { type filter hook forward priority 0 ; policy drop ; }",
            "add table inet akrobateo { flags dormant ; }",
            "add set inet akrobateo unknown { type ipv4_addr ; }",
        ] {
            network.pod.nft(change);
            let start = Instant::now();
            // nft fails while the table is missing.
            eventually(change, || {
                (network.pod.try_nft(LIST_TABLE_COMMAND).as_deref() == Ok(&rules)).then_some(())
            });
            shortest_repair_time = shortest_repair_time.min(start.elapsed());
            established_connection.check_echo().unwrap();
            connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
        }
        // On a busy machine, some of the repairs may take longer.
        assert!(shortest_repair_time < Duration::from_secs(1), "{shortest_repair_time:?}");
        proxy.wait_for_log("another program changed the rules");
    });
}

#[test]
fn proxy_is_not_ready_while_its_rules_are_missing() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let _proxy = Proxy::start_and_wait(&network.pod, &forwards);
        eventually("a probe finds the rules missing", || {
            network.pod.nft("flush ruleset");
            (probe_status(&network.pod) == Some(503)).then_some(())
        });
        eventually("the proxy is ready again", || (probe_status(&network.pod) == Some(200)).then_some(()));
    });
}

#[test]
fn proxy_does_not_change_the_table_of_another_program() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let proxy = Proxy::start_and_wait(&network.pod, &forwards);
        network.pod.nft("add table inet other");
        assert_eq!(probe_status(&network.pod), Some(200));
        proxy.kill();
        let proxy = Proxy::start_and_wait(&network.pod, &forwards);
        assert!(network.pod.nft("list tables").contains("inet other"));
        std::thread::sleep(NO_REPLY_TIMEOUT);
        assert!(!proxy.log().contains("another program"), "the proxy restored rules that were not changed");
    });
}
