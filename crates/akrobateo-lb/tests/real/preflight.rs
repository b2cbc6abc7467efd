//! The requirements of a proxy at its start, and the error messages about missing requirements.

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::{run_on_old_kernel, run_to_exit, split_args};
use crate::harness::traffic::{REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp};
use crate::harness::{Network, Proxy, isolated};

/// Starts a proxy that must fail with this exit code. Returns the proxy's termination message, which is also in the
/// proxy's log.
fn start_failing_proxy(network: &Network, command_line: &str, capabilities: &str, exit_code: i32) -> String {
    let mut proxy = Proxy::start(&network.pod, &split_args(command_line), capabilities);
    let (exit_status, _) = proxy.wait_for_exit();
    assert_eq!(exit_status.code(), Some(exit_code), "{}", proxy.log());
    let message = proxy.termination_message();
    proxy.wait_for_log(message.lines().next().unwrap());
    message
}

const ONLY_NET_ADMIN: &str = "-all,+net_admin";

#[test]
fn proxy_enables_ipv4_forwarding_with_a_read_only_proc() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        assert_eq!(network.pod.read_sysctl("ipv4/conf/eth0/forwarding"), "0");
        let proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        proxy.wait_for_log("switched IPv4 forwarding on interface=\"eth0\"");
        assert_eq!(network.pod.read_sysctl("ipv4/conf/eth0/forwarding"), "1");
        connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80), REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn ipv6_proxy_fails_until_a_privileged_container_enables_forwarding() {
    isolated(|| {
        let network = Network::new();
        network.pod.set_sysctl("ipv6/conf/all/forwarding", "0");
        serve_udp(&network.backend, &with_port(addr::BACKEND[1], 80));
        let command_line = "--forward=udp/80=[fd00:96::7]:80";
        let message = start_failing_proxy(&network, command_line, ONLY_NET_ADMIN, 1);
        assert!(message.contains("IPv6 forwarding is off"), "{message}");
        assert!(message.contains("akrobateo-lb enable-ipv6-forwarding"), "{message}");
        // The command exits without an error, because a failed init container would prevent a dual-stack proxy from
        // serving IPv4.
        let message = start_failing_proxy(&network, "enable-ipv6-forwarding", ONLY_NET_ADMIN, 0);
        assert!(message.contains("must be privileged"), "{message}");

        assert!(run_to_exit(&network.pod, &["enable-ipv6-forwarding"]).status.success());
        assert_eq!(network.pod.read_sysctl("ipv6/conf/all/forwarding"), "1");
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args(command_line));
        let client = UdpClient::new(&network.client, addr::CLIENT[1], &with_port(addr::POD[1], 80));
        client.request(REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn enable_ipv6_forwarding_succeeds_without_privilege_if_forwarding_is_on() {
    isolated(|| {
        let network = Network::new();
        let mut proxy = Proxy::start(&network.pod, &split_args("enable-ipv6-forwarding"), "-all");
        assert!(proxy.wait_for_exit().0.success(), "{}", proxy.log());
    });
}

#[test]
fn error_mentions_the_missing_capability_net_admin() {
    isolated(|| {
        let network = Network::new();
        let command_line = "--forward=tcp/80=10.96.3.7:80";
        let message = start_failing_proxy(&network, command_line, "-all", 1);
        assert!(message.contains("IPv4 forwarding is off") && message.contains("NET_ADMIN"), "{message}");
        network.pod.set_sysctl("ipv4/ip_forward", "1");
        let message = start_failing_proxy(&network, command_line, "-all", 1);
        assert!(message.contains("the container needs the capability NET_ADMIN"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    });
}

#[test]
fn error_says_which_argument_is_invalid() {
    isolated(|| {
        let network = Network::new();
        let valid_forward = "--forward=tcp/80=10.96.3.7:80";
        for (command_line, exit_code, expected) in [
            ("--forward=tcp/80=web", 2, "\"web\" is not a target"),
            (&format!("{valid_forward} --source=10.0.0.0/33"), 2, "--source 10.0.0.0/33: "),
            (&format!("{valid_forward} --forward=tcp/80=10.96.3.8:80"), 1, "a port has one target"),
            (&format!("{valid_forward} --probe-port=80"), 1, "--probe-port 80"),
            ("", 2, "--forward is missing"),
        ] {
            let message = start_failing_proxy(&network, command_line, ONLY_NET_ADMIN, exit_code);
            assert!(message.contains(expected), "{command_line}: {message}");
        }
    });
}

#[test]
fn error_mentions_the_probe_port_that_is_in_use() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.pod, "0.0.0.0:9999");
        let message = start_failing_proxy(
            &network,
            "--forward=tcp/80=10.96.3.7:80 --probe-port=9999",
            ONLY_NET_ADMIN,
            1,
        );
        assert!(message.contains("--probe-port 9999: cannot listen"), "{message}");
    });
}

#[test]
fn proxy_lists_the_features_that_an_old_kernel_lacks() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.pod, "0.0.0.0:9999");
        let mut args = vec!["--forward=tcp/80=10.96.3.7:80", "--probe-port=9999"];
        let log = |args: &[&str]| {
            String::from_utf8_lossy(&run_on_old_kernel(&network.pod, args).stderr).into_owned()
        };
        let kernel_log = log(&args);
        for feature in
            ["the kernel data path needs Linux 5.2 or newer", "the metrics of each port need Linux 5.7"]
        {
            assert!(kernel_log.contains(feature), "{kernel_log}");
        }
        args.push("--data-path=userspace");
        let userspace_log = log(&args);
        for feature in ["the userspace data path needs Linux 4.11", "a drain without resets needs Linux 5.7"]
        {
            assert!(userspace_log.contains(feature), "{userspace_log}");
        }
        let current_log = run_to_exit(&network.pod, &args).stderr;
        assert!(!String::from_utf8_lossy(&current_log).contains("this node runs Linux"));
    });
}
