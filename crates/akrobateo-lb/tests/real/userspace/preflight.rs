//! Preconditions of the userspace path. If a precondition is missing, the proxy exits with a message of one line.

use super::{NO_CAPABILITIES, start_proxy};
use crate::harness::addr::{self, with_port};
use crate::harness::metrics::Metrics;
use crate::harness::proxy::split_args;
use crate::harness::traffic::{REPLY_TIMEOUT, connect_tcp, serve_tcp};
use crate::harness::{Network, Proxy, isolated};

/// Starts a proxy that must exit with an error. Returns the proxy's termination message.
fn start_failing_proxy(network: &Network, command_line: &str) -> String {
    let mut proxy = Proxy::start(&network.pod, &split_args(command_line), NO_CAPABILITIES);
    let (exit_status, _) = proxy.wait_for_exit();
    assert_eq!(exit_status.code(), Some(1), "{}", proxy.log());
    let message = proxy.termination_message();
    assert_eq!(message.lines().count(), 1, "{message}");
    proxy.wait_for_log(&message);
    message
}

#[test]
fn error_mentions_the_privileged_port_and_two_remedies() {
    isolated(|| {
        let network = Network::new();
        network.pod.set_sysctl("ipv4/ip_unprivileged_port_start", "1024");
        let command_line = "--data-path=userspace --forward=tcp/80=10.96.3.7:80";
        let message = start_failing_proxy(&network, command_line);
        assert!(
            message.contains("--forward tcp/80=10.96.3.7:80: not allowed to listen on port 80"),
            "{message}"
        );
        assert!(message.contains("net.ipv4.ip_unprivileged_port_start"), "{message}");
        assert!(message.contains("NET_BIND_SERVICE"), "{message}");
        // Each of the two remedies works.
        let proxy = Proxy::start_with_capabilities_and_wait(
            &network.pod,
            &split_args(command_line),
            "-all,+net_bind_service",
        );
        proxy.kill();
        network.pod.set_sysctl("ipv4/ip_unprivileged_port_start", "80");
        start_proxy(&network.pod, command_line);
    });
}

#[test]
fn error_mentions_the_port_that_is_in_use() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.pod, "0.0.0.0:80");
        let message = start_failing_proxy(&network, "--data-path=userspace --forward=tcp/80=10.96.3.7:80");
        assert!(message.contains("cannot listen on port 80") && message.contains("in use"), "{message}");
    });
}

#[test]
fn proxy_rejects_options_that_its_data_path_does_not_support() {
    isolated(|| {
        let network = Network::new();
        let forward = "--forward=tcp/80=10.96.3.7:80";
        for (command_line, expected) in [
            (
                format!("{forward} --proxy-protocol=v2"),
                "--proxy-protocol v2: this option needs --data-path userspace",
            ),
            (
                format!("{forward} --data-path=userspace --proxy-protocol=v2:81"),
                "81 is not a forwarded TCP port",
            ),
            ("--forward=sctp/80=10.96.3.7:80 --data-path=userspace".to_owned(), "forwards tcp and udp only"),
        ] {
            let message = start_failing_proxy(&network, &command_line);
            assert!(message.contains(expected), "{command_line}: {message}");
        }
    });
}

#[test]
fn userspace_path_works_without_nftables_rules_and_ip_forwarding() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        let _proxy = start_proxy(&network.pod, super::FORWARD_ARGS);
        let address = with_port(addr::POD[0], 80);
        let mut connection = connect_tcp(&network.client, addr::CLIENT[0], &address, REPLY_TIMEOUT).unwrap();
        connection.check_echo().unwrap();
        assert_eq!(connection.reply.source_address.ip().to_string(), addr::POD[0]);
        assert_eq!(Metrics::scrape(&network.pod).port_value("connections_total", "tcp/80", 0, ""), 1);
        assert_eq!(network.pod.nft("list ruleset"), "");
        assert_eq!(network.pod.read_sysctl("ipv4/ip_forward"), "0");
    });
}
