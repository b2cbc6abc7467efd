//! What a proxy needs: it gets it, or says in one sentence what is missing.

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::{run_to_exit, split_args};
use crate::harness::traffic::{REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp};
use crate::harness::{Network, Proxy, isolated};

/// Starts a proxy that can't work; returns what it says, in the log as in the termination message.
fn refused(network: &Network, line: &str, capabilities: &str, code: i32) -> String {
    let mut proxy = Proxy::start(&network.pod, &split_args(line), capabilities);
    let (exit, _) = proxy.wait_for_exit();
    assert_eq!(exit.code(), Some(code), "{}", proxy.log());
    let reason = proxy.termination_message();
    proxy.wait_for_log(reason.lines().next().unwrap());
    reason
}

const NET_ADMIN: &str = "-all,+net_admin";

#[test]
fn ipv4_forwarding_is_switched_on_where_it_is_off_with_proc_read_only() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        assert_eq!(network.pod.read_sysctl("ipv4/conf/eth0/forwarding"), "0");
        let proxy = Proxy::start_ready(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        proxy.wait_for_log("switched IPv4 forwarding on interface=\"eth0\"");
        assert_eq!(network.pod.read_sysctl("ipv4/conf/eth0/forwarding"), "1");
        connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80), REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn ipv6_forwarding_off_is_refused_until_a_privileged_container_has_switched_it_on() {
    isolated(|| {
        let network = Network::new();
        network.pod.set_sysctl("ipv6/conf/all/forwarding", "0");
        serve_udp(&network.backend, &with_port(addr::BACKEND[1], 80));
        let line = "--forward=udp/80=[fd00:96::7]:80";
        let reason = refused(&network, line, NET_ADMIN, 1);
        assert!(reason.contains("IPv6 forwarding is off"), "{reason}");
        assert!(reason.contains("akrobateo-lb enable-ipv6-forwarding"), "{reason}");
        let reason = refused(&network, "enable-ipv6-forwarding", NET_ADMIN, 1);
        assert!(reason.contains("must be privileged"), "{reason}");

        assert!(run_to_exit(&network.pod, &["enable-ipv6-forwarding"]).status.success());
        assert_eq!(network.pod.read_sysctl("ipv6/conf/all/forwarding"), "1");
        let _proxy = Proxy::start_ready(&network.pod, &split_args(line));
        let udp = UdpClient::new(&network.client, addr::CLIENT[1], &with_port(addr::POD[1], 80));
        udp.request(REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn switching_on_ipv6_forwarding_needs_no_privilege_where_it_is_on() {
    isolated(|| {
        let network = Network::new();
        let mut proxy = Proxy::start(&network.pod, &split_args("enable-ipv6-forwarding"), "-all");
        assert!(proxy.wait_for_exit().0.success(), "{}", proxy.log());
    });
}

#[test]
fn without_net_admin_it_says_so() {
    isolated(|| {
        let network = Network::new();
        let line = "--forward=tcp/80=10.96.3.7:80";
        let reason = refused(&network, line, "-all", 1);
        assert!(reason.contains("IPv4 forwarding is off") && reason.contains("NET_ADMIN"), "{reason}");
        network.pod.set_sysctl("ipv4/ip_forward", "1");
        let reason = refused(&network, line, "-all", 1);
        assert!(reason.contains("the container needs the capability NET_ADMIN"), "{reason}");
        assert_eq!(reason.lines().count(), 1, "{reason}");
    });
}

#[test]
fn bad_arguments_are_named() {
    isolated(|| {
        let network = Network::new();
        let good = "--forward=tcp/80=10.96.3.7:80";
        for (line, code, named) in [
            ("--forward=tcp/80=web", 2, "\"web\" is not an IP address"),
            (&format!("{good} --source=10.0.0.0/33"), 2, "--source 10.0.0.0/33: "),
            (&format!("{good} --forward=tcp/80=10.96.3.8:80"), 1, "a port has one target"),
            (&format!("{good} --probe-port=80"), 1, "--probe-port 80"),
            ("", 2, "--forward is missing"),
        ] {
            let reason = refused(&network, line, NET_ADMIN, code);
            assert!(reason.contains(named), "{line}: {reason}");
        }
    });
}

#[test]
fn a_probe_port_that_is_taken_is_named() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.pod, "0.0.0.0:9999");
        let reason = refused(&network, "--forward=tcp/80=10.96.3.7:80 --probe-port=9999", NET_ADMIN, 1);
        assert!(reason.contains("--probe-port 9999: cannot listen"), "{reason}");
    });
}
