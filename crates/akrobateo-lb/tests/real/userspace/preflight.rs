//! What a proxy needs: it gets it, or says in one sentence what is missing.

use super::{NOTHING, ready};
use crate::harness::addr::{self, with_port};
use crate::harness::metrics::Metrics;
use crate::harness::proxy::split_args;
use crate::harness::traffic::{REPLY_TIMEOUT, connect_tcp, serve_tcp};
use crate::harness::{Network, Proxy, isolated};

/// Starts a proxy that can't work; returns what it says.
fn refused(network: &Network, line: &str) -> String {
    let mut proxy = Proxy::start(&network.pod, &split_args(line), NOTHING);
    let (exit, _) = proxy.wait_for_exit();
    assert_eq!(exit.code(), Some(1), "{}", proxy.log());
    let reason = proxy.termination_message();
    assert_eq!(reason.lines().count(), 1, "{reason}");
    proxy.wait_for_log(&reason);
    reason
}

#[test]
fn a_port_that_may_not_be_listened_on_is_named_with_what_is_missing() {
    isolated(|| {
        let network = Network::new();
        network.pod.set_sysctl("ipv4/ip_unprivileged_port_start", "1024");
        let line = "--data-path=userspace --forward=tcp/80=10.96.3.7:80";
        let reason = refused(&network, line);
        assert!(
            reason.contains("--forward tcp/80=10.96.3.7:80: not allowed to listen on port 80"),
            "{reason}"
        );
        assert!(reason.contains("net.ipv4.ip_unprivileged_port_start"), "{reason}");
        assert!(reason.contains("NET_BIND_SERVICE"), "{reason}");
        // And with either of them it works.
        let proxy = Proxy::start_ready_with(&network.pod, &split_args(line), "-all,+net_bind_service");
        proxy.kill();
        network.pod.set_sysctl("ipv4/ip_unprivileged_port_start", "80");
        ready(&network.pod, line);
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.pod, "0.0.0.0:80");
        let reason = refused(&network, "--data-path=userspace --forward=tcp/80=10.96.3.7:80");
        assert!(reason.contains("cannot listen on port 80") && reason.contains("in use"), "{reason}");
    });
}

#[test]
fn what_only_the_other_path_can_do_is_refused() {
    isolated(|| {
        let network = Network::new();
        let forward = "--forward=tcp/80=10.96.3.7:80";
        for (line, named) in [
            (format!("{forward} --proxy-protocol=v2"), "--proxy-protocol v2: it needs --data-path userspace"),
            (
                format!("{forward} --data-path=userspace --proxy-protocol=v2:81"),
                "81 is not a forwarded TCP port",
            ),
            ("--forward=sctp/80=10.96.3.7:80 --data-path=userspace".to_owned(), "forwards tcp and udp only"),
        ] {
            let reason = refused(&network, &line);
            assert!(reason.contains(named), "{line}: {reason}");
        }
    });
}

#[test]
fn no_rule_of_nftables_and_no_forwarding_is_needed() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        let _proxy = ready(&network.pod, super::FORWARDS);
        let to = with_port(addr::POD[0], 80);
        let mut connection = connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        connection.check_echo().unwrap();
        assert_eq!(connection.reply.peer.ip().to_string(), addr::POD[0]);
        assert_eq!(Metrics::scrape(&network.pod).port_value("connections_total", "tcp/80", 0, ""), 1);
        assert_eq!(network.pod.nft("list ruleset"), "");
        assert_eq!(network.pod.read_sysctl("ipv4/ip_forward"), "0");
    });
}
