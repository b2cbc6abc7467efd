//! Forwarding sysctls that another program changes while a proxy runs.

use std::time::{Duration, Instant};

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::{PROBE_PORT, probe_status, split_args};
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{DEADLINE, Network, Proxy, eventually, http, isolated};

#[test]
fn ipv4_forwarding_is_switched_on_again_within_a_second() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        let proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        let mut shortest_repair_time = Duration::MAX;
        for sysctl in ["ipv4/ip_forward", "ipv4/conf/eth0/forwarding"] {
            // The kernel ignores a write that does not change the sysctl, so the test writes 1 before it writes 0.
            network.pod.set_sysctl(sysctl, "1");
            network.pod.set_sysctl(sysctl, "0");
            let start = Instant::now();
            let is_forwarding_on = || network.pod.read_sysctl("ipv4/conf/eth0/forwarding") == "1";
            eventually(sysctl, || is_forwarding_on().then_some(()));
            shortest_repair_time = shortest_repair_time.min(start.elapsed());
            connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80), REPLY_TIMEOUT)
                .unwrap();
        }
        // On a busy machine, one of the repairs may take longer.
        assert!(shortest_repair_time < Duration::from_secs(1), "{shortest_repair_time:?}");
        eventually("the proxy is ready", || (probe_status(&network.pod) == Some(200)).then_some(()));
        let count_log_lines = || proxy.log().matches("switched IPv4 forwarding on").count();
        eventually("the proxy logs each change", || (count_log_lines() == 3).then_some(()));
    });
}

#[test]
fn ipv4_forwarding_is_switched_on_for_a_new_interface() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        network.pod.ip("link add later type veth peer name later-peer\nlink set later up");
        let is_forwarding_on = || network.pod.read_sysctl("ipv4/conf/later/forwarding") == "1";
        eventually("IPv4 forwarding is on", || is_forwarding_on().then_some(()));
    });
}

#[test]
fn dual_stack_proxy_without_ipv6_forwarding_serves_ipv4_and_warns() {
    isolated(|| {
        let network = Network::new();
        network.pod.set_sysctl("ipv6/conf/all/forwarding", "0");
        for ip in addr::BACKEND {
            serve_tcp(&network.backend, &with_port(ip, 80));
        }
        let line = "--forward=tcp/80=10.96.3.7:80 --forward=tcp/80=[fd00:96::7]:80";
        let proxy = Proxy::start(&network.pod, &split_args(line), "-all,+net_admin");
        // If the status code is 300, the kubelet considers the pod ready, and emits an event with the response's text.
        eventually("the probe warns", || (probe_status(&network.pod) == Some(300)).then_some(()));
        let response = network.pod.run(|| http::get(("127.0.0.1", PROBE_PORT), "/readyz", DEADLINE)).unwrap();
        assert!(response.contains("only IPv4 is served: IPv6 forwarding is off"), "{response}");
        proxy.wait_for_log("only IPv4 is served: IPv6 forwarding is off");
        let connect = |family_index: usize, timeout| {
            let destination = with_port(addr::POD[family_index], 80);
            connect_tcp(&network.client, addr::CLIENT[family_index], &destination, timeout)
        };
        connect(0, REPLY_TIMEOUT).unwrap();
        connect(1, NO_REPLY_TIMEOUT).unwrap_err();
        network.pod.set_sysctl("ipv6/conf/all/forwarding", "1");
        eventually("the proxy is ready", || (probe_status(&network.pod) == Some(200)).then_some(()));
        connect(1, REPLY_TIMEOUT).unwrap();
    });
}

#[test]
fn proxy_is_not_ready_while_ipv6_forwarding_is_off() {
    isolated(|| {
        let network = Network::new();
        serve_udp(&network.backend, &with_port(addr::BACKEND[1], 80));
        let proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=udp/80=[fd00:96::7]:80"));
        network.pod.set_sysctl("ipv6/conf/all/forwarding", "0");
        proxy.wait_for_log("IPv6 forwarding is off");
        assert_eq!(probe_status(&network.pod), Some(503));
        // A new interface makes the proxy check again. The proxy must not log the same error again.
        network.pod.ip("link add new type veth peer name new-peer");
        std::thread::sleep(NO_REPLY_TIMEOUT);
        network.pod.set_sysctl("ipv6/conf/all/forwarding", "1");
        eventually("the proxy is ready", || (probe_status(&network.pod) == Some(200)).then_some(()));
        let client = UdpClient::new(&network.client, addr::CLIENT[1], &with_port(addr::POD[1], 80));
        client.request(REPLY_TIMEOUT).unwrap();
        assert_eq!(proxy.log().matches("IPv6 forwarding is off").count(), 1, "logged more than once");
    });
}
