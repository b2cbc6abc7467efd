//! The life of a proxy: restarts, signals, and others who meddle with its table.

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

const LIST: &str = "-s list table inet akrobateo";

/// Sets its flag when it goes out of scope.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn network_and_forwards() -> (Network, Vec<String>) {
    let network = Network::new();
    serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
    serve_tcp(&network.backend, &with_port(addr::BACKEND[1], 80));
    let forwards =
        split_args("--forward=tcp/80=10.96.3.7:80 --forward=tcp/80=[fd00:96::7]:80 --source=192.0.2.0/24");
    (network, forwards)
}

#[test]
fn restarts_under_traffic_neither_double_rules_nor_break_or_fail_a_connection() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let mut proxy = Proxy::start_ready(&network.pod, &forwards);
        let rules = network.pod.nft(LIST);
        let to = with_port(addr::POD[0], 80);
        let mut established = connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        let (stop, made) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT)
                        .unwrap()
                        .check_echo()
                        .unwrap();
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
            // Also when an assertion fails, or the client would never end.
            let stop = Stop(&stop);
            for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
                proxy.signal(signal);
                proxy.wait_for_exit();
                let before = made.load(Ordering::Relaxed);
                eventually("connections are made without a proxy", || {
                    (made.load(Ordering::Relaxed) > before + 5 || client.is_finished()).then_some(())
                });
                proxy = Proxy::start_ready(&network.pod, &forwards);
                established.check_echo().unwrap();
                assert_eq!(network.pod.nft(LIST), rules);
            }
            drop(stop);
            client.join().unwrap();
        });
    });
}

/// Replaces a table a hundred times while clients connect, as proxies that start with other arguments do it.
fn replace_under_traffic() {
    let network = Network::new();
    serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
    network.pod.set_sysctl("ipv4/ip_forward", "1");
    let install = |more: &str| {
        let forwards = ["tcp/80=10.96.3.7:80", more].map(|forward| forward.parse().unwrap()).into();
        let sources = ["192.0.2.0/24", "198.51.100.0/24"].map(|source| source.parse().unwrap()).into();
        let plan =
            ForwardingConfig::new(ProxyArgs { sources, probe_port: 1, ..ProxyArgs::new(forwards) }).unwrap();
        network.pod.run(|| TableManager::install(plan).unwrap());
    };
    install("tcp/81=10.96.3.7:80");
    let to = with_port(addr::POD[0], 80);
    let (stop, made) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let connect = || {
            while !stop.load(Ordering::Relaxed) {
                connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
                made.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients = [scope.spawn(connect), scope.spawn(connect)];
        let stop = Stop(&stop);
        for number in 0..100 {
            let before = made.load(Ordering::Relaxed);
            let ended = || clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
            eventually("connections are made", || {
                (made.load(Ordering::Relaxed) > before + 4 || ended()).then_some(())
            });
            install(["tcp/82=10.96.3.7:80", "tcp/83=10.96.3.7:80"][number % 2]);
        }
        drop(stop);
        for client in clients {
            client.join().unwrap();
        }
    });
}

/// A packet may be lost and come again: for some microseconds after a replacement, the kernel may find nothing in
/// a new set of ranges.
#[test]
fn a_hundred_replacements_under_traffic_fail_no_connection() {
    isolated(|| {
        replace_under_traffic();
    });
}

#[test]
fn what_misses_the_translation_is_not_answered_by_the_pod() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        // Without a proxy, so that nobody puts the element back.
        Proxy::start_ready(&network.pod, &forwards).kill();
        network.pod.nft("delete element inet akrobateo forward4 { tcp . 80 }");
        let error =
            connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80), NO_REPLY_TIMEOUT)
                .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_restart_leaves_rules_alone_that_are_as_planned() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        Proxy::start_ready(&network.pod, &forwards).kill();
        let generation = || network.pod.run(|| Nftables::open().unwrap().generation().unwrap());
        let before = generation();
        let _proxy = Proxy::start_ready(&network.pod, &forwards);
        assert_eq!(generation(), before);
    });
}

#[test]
fn sigterm_ends_it_at_once_with_success_and_leaves_the_rules() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let mut proxy = Proxy::start_ready(&network.pod, &forwards);
        let rules = network.pod.nft(LIST);
        let to = with_port(addr::POD[0], 80);
        let mut established = connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        proxy.signal(Signal::TERM);
        let (exit, after) = proxy.wait_for_exit();
        assert!(exit.success() && after < Duration::from_secs(1), "{exit} after {after:?}");
        assert_eq!(probe_status(&network.pod), None, "still says that it is ready");
        assert_eq!(network.pod.nft(LIST), rules);
        established.check_echo().unwrap();
        connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn whatever_others_do_to_the_table_is_undone_within_a_second() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let proxy = Proxy::start_ready(&network.pod, &forwards);
        let rules = network.pod.nft(LIST);
        let to = with_port(addr::POD[0], 80);
        let mut established = connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        for meddling in [
            "flush ruleset",
            "flush chain inet akrobateo prerouting",
            "delete element inet akrobateo forward4 { tcp . 80 }",
            "delete element inet akrobateo source4 { 192.0.2.0/24 }",
            "add rule inet akrobateo input drop",
            "insert rule inet akrobateo prerouting counter accept",
            "add chain inet akrobateo input { policy drop ; }",
            "add chain inet akrobateo more { type filter hook forward priority 0 ; policy drop ; }",
            "add table inet akrobateo { flags dormant ; }",
            "add set inet akrobateo more { type ipv4_addr ; }",
        ] {
            network.pod.nft(meddling);
            let start = Instant::now();
            // A table that is missing at the moment makes nft fail.
            eventually(meddling, || (network.pod.try_nft(LIST).as_deref() == Ok(&rules)).then_some(()));
            let took = start.elapsed();
            assert!(took < Duration::from_secs(1), "{meddling}: {took:?}");
            established.check_echo().unwrap();
            connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        }
        proxy.wait_for_log("changed by somebody else");
    });
}

#[test]
fn it_is_not_ready_while_its_rules_are_missing() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let _proxy = Proxy::start_ready(&network.pod, &forwards);
        eventually("a probe comes before the rules are back", || {
            network.pod.nft("flush ruleset");
            (probe_status(&network.pod) == Some(503)).then_some(())
        });
        eventually("it is ready again", || (probe_status(&network.pod) == Some(200)).then_some(()));
    });
}

#[test]
fn rules_of_others_stay_and_leave_it_ready() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let proxy = Proxy::start_ready(&network.pod, &forwards);
        network.pod.nft("add table inet other");
        assert_eq!(probe_status(&network.pod), Some(200));
        proxy.kill();
        let proxy = Proxy::start_ready(&network.pod, &forwards);
        assert!(network.pod.nft("list tables").contains("inet other"));
        std::thread::sleep(NO_REPLY_TIMEOUT);
        assert!(!proxy.log().contains("somebody else"), "it put back what nobody changed");
    });
}
