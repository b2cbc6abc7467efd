//! The metrics of the kernel data path, and its warnings about conntrack.

use crate::harness::addr::{self, with_port};
use crate::harness::http;
use crate::harness::proxy::{PROBE_PORT, split_args};
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{DEADLINE, Metrics, Namespace, Network, Proxy, conntrack, eventually, isolated};

const IN_LABEL: &str = ",direction=\"in\"";
const OUT_LABEL: &str = ",direction=\"out\"";

fn create_network_with_backends() -> Network {
    let network = Network::new();
    for ip in addr::BACKEND {
        serve_tcp(&network.backend, &with_port(ip, 80));
        serve_udp(&network.backend, &with_port(ip, 80));
    }
    network
}

/// Makes UDP flows of `pod` last longer than a test. On a busy machine, a test takes longer than the kernel's default
/// timeout of 30 seconds.
fn lengthen_udp_timeouts(pod: &Namespace) {
    for name in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        pod.set_sysctl(&format!("netfilter/{name}"), "3600");
    }
}

#[test]
fn packets_and_bytes_are_counted_by_port_family_and_direction() {
    isolated(|| {
        let network = create_network_with_backends();
        // Several ports have the same target, and their counters must not be mixed up.
        let forwards = "--forward=udp/53=10.96.3.7:80 --forward=udp/54=10.96.3.7:80 \
             --forward=tcp/53=10.96.3.7:80 --forward=udp/53=[fd00:96::7]:80";
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args(forwards));
        for (family_index, port, request_count) in [(0, 53, 3), (0, 54, 5), (1, 53, 7)] {
            let client = UdpClient::new(
                &network.client,
                addr::CLIENT[family_index],
                &with_port(addr::POD[family_index], port),
            );
            for _ in 0..request_count {
                client.request(REPLY_TIMEOUT).unwrap();
            }
        }
        connect_tcp(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 53), REPLY_TIMEOUT)
            .unwrap()
            .check_echo()
            .unwrap();
        let metrics = Metrics::scrape(&network.pod);
        // A request consists of an IP header, a UDP header and one byte.
        for (port, family_index, count, length) in
            [("udp/53", 0, 3, 29), ("udp/54", 0, 5, 29), ("udp/53", 1, 7, 49)]
        {
            assert_eq!(metrics.port_value("connections_total", port, family_index, ""), 1, "{port}");
            assert_eq!(metrics.port_value("packets_total", port, family_index, IN_LABEL), count, "{port}");
            assert_eq!(metrics.port_value("packets_total", port, family_index, OUT_LABEL), count, "{port}");
            assert_eq!(
                metrics.port_value("bytes_total", port, family_index, IN_LABEL),
                count * length,
                "{port}"
            );
            assert!(
                metrics.port_value("bytes_total", port, family_index, OUT_LABEL) > count * length,
                "{port}"
            );
        }
        assert_eq!(metrics.port_value("connections_total", "tcp/53", 0, ""), 1);
        assert!(metrics.port_value("packets_total", "tcp/53", 0, IN_LABEL) >= 4);
        assert!(metrics.port_value("bytes_total", "tcp/53", 0, OUT_LABEL) > 200);
        assert_eq!(metrics.count_series("refused_connections_total"), 0, "exists only with source ranges");
    });
}

#[test]
fn denied_connections_are_counted_by_port() {
    isolated(|| {
        let network = create_network_with_backends();
        let forwards = "--forward=tcp/80=10.96.3.7:80 --forward=udp/80=10.96.3.7:80 --forward=udp/81=10.96.3.7:80 \
             --forward=udp/80=[fd00:96::7]:80 --source=192.0.2.2/32";
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args(forwards));
        for (family_index, client, port) in
            [(0, addr::CLIENT_2, 80), (0, addr::CLIENT_2, 81), (1, addr::CLIENT, 80)]
        {
            let destination = with_port(addr::POD[family_index], port);
            UdpClient::new(&network.client, client[family_index], &destination)
                .request(NO_REPLY_TIMEOUT)
                .unwrap_err();
        }
        let destination = with_port(addr::POD[0], 80);
        connect_tcp(&network.client, addr::CLIENT_2[0], &destination, NO_REPLY_TIMEOUT).unwrap_err();
        UdpClient::new(&network.client, addr::CLIENT[0], &destination).request(REPLY_TIMEOUT).unwrap();
        let metrics = Metrics::scrape(&network.pod);
        for (port, family_index, expected_refused_count, connections) in
            [("udp/80", 0, 1, 1), ("udp/81", 0, 1, 0), ("udp/80", 1, 1, 0), ("tcp/80", 0, 1, 0)]
        {
            let refused_count = metrics.port_value("refused_connections_total", port, family_index, "");
            // On a busy machine the client may send its SYN again before the client's timeout.
            let is_syn_repeated = port == "tcp/80" && refused_count > expected_refused_count;
            assert!(refused_count == expected_refused_count || is_syn_repeated, "{port}: {refused_count}");
            assert_eq!(
                metrics.port_value("connections_total", port, family_index, ""),
                connections,
                "{port}"
            );
            assert_eq!(
                metrics.port_value("packets_total", port, family_index, IN_LABEL),
                connections,
                "{port}"
            );
        }
    });
}

#[test]
fn counters_survive_restarts_and_restored_rules_but_not_a_flush() {
    isolated(|| {
        let network = create_network_with_backends();
        let forwards = split_args("--forward=udp/80=10.96.3.7:80 --source=192.0.2.2/32");
        let proxy = Proxy::start_and_wait(&network.pod, &forwards);
        lengthen_udp_timeouts(&network.pod);
        let destination = with_port(addr::POD[0], 80);
        let client = UdpClient::new(&network.client, addr::CLIENT[0], &destination);
        client.request(REPLY_TIMEOUT).unwrap();
        UdpClient::new(&network.client, addr::CLIENT_2[0], &destination)
            .request(NO_REPLY_TIMEOUT)
            .unwrap_err();
        let read_counters = |metrics: &Metrics| {
            let value = |name, labels| metrics.port_value(name, "udp/80", 0, labels);
            [
                value("connections_total", ""),
                value("packets_total", IN_LABEL),
                value("refused_connections_total", ""),
            ]
        };
        assert_eq!(read_counters(&Metrics::scrape(&network.pod)), [1, 1, 1]);
        proxy.kill();
        // The kernel also counts packets while no proxy runs.
        client.request(REPLY_TIMEOUT).unwrap();
        let more_forwards = [forwards, split_args("--forward=udp/81=10.96.3.7:80")].concat();
        let _proxy = Proxy::start_and_wait(&network.pod, &more_forwards);
        client.request(REPLY_TIMEOUT).unwrap();
        let metrics = Metrics::scrape(&network.pod);
        assert_eq!(read_counters(&metrics), [1, 3, 1]);
        assert_eq!(metrics.port_value("packets_total", "udp/81", 0, IN_LABEL), 0);
        let count_restorations = || Metrics::scrape(&network.pod).get("rules_restored_total");
        assert_eq!(count_restorations(), 0);

        network.pod.nft("flush chain inet akrobateo prerouting");
        eventually("the rules are restored", || (count_restorations() == 1).then_some(()));
        assert_eq!(read_counters(&Metrics::scrape(&network.pod)), [1, 3, 1]);

        network.pod.nft("flush ruleset");
        eventually("the rules are restored", || (count_restorations() == 2).then_some(()));
        assert_eq!(read_counters(&Metrics::scrape(&network.pod)), [0, 0, 0]);
        client.request(REPLY_TIMEOUT).unwrap();
        assert_eq!(read_counters(&Metrics::scrape(&network.pod))[1], 1, "the flow has lost its mark");
    });
}

#[test]
fn clashes_are_counted_and_logged_if_all_source_ports_are_used() {
    isolated(|| {
        let network = create_network_with_backends();
        let proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=udp/80=10.96.3.7:80"));
        lengthen_udp_timeouts(&network.pod);
        assert_eq!(Metrics::scrape(&network.pod).get("conntrack_clashes_total"), 0);
        let destination = with_port(addr::POD[0], 80);
        // The kernel translates a source port below 512 to a port below 512. 511 flows are therefore enough to use up
        // all these ports.
        let client = |source: &str, port: u16| {
            UdpClient::bind(&network.client, &with_port(source, port), &destination)
        };
        for port in 1..512 {
            client(addr::CLIENT[0], port).request(REPLY_TIMEOUT).unwrap();
        }
        client(addr::CLIENT_2[0], 400).request(NO_REPLY_TIMEOUT).unwrap_err();
        let metrics = Metrics::scrape(&network.pod);
        assert_eq!(metrics.get("conntrack_clashes_total"), 1);
        assert_eq!(metrics.get("conntrack_full_total"), 0);
        proxy.wait_for_log("the source ports towards one target may be used up");
        // If the status code is 300, the kubelet considers the pod ready, and emits an event with the response's text.
        let response = network.pod.run(|| http::get(("127.0.0.1", PROBE_PORT), "/readyz", DEADLINE)).unwrap();
        assert!(response.starts_with("HTTP/1.1 300 "), "{response}");
        assert!(response.contains("the source ports towards one target may be used up"), "{response}");
    });
}

#[test]
fn drops_of_a_full_conntrack_table_are_counted_and_logged() {
    isolated(|| {
        let network = create_network_with_backends();
        let proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=udp/80=10.96.3.7:80"));
        let destination = with_port(addr::POD[0], 80);
        UdpClient::new(&network.client, addr::CLIENT[0], &destination).request(REPLY_TIMEOUT).unwrap();
        let metrics_before = Metrics::scrape(&network.pod);
        assert_eq!(metrics_before.get("conntrack_full_total"), 0);
        conntrack::fill_table(&network.pod, metrics_before.get("conntrack_limit"));
        UdpClient::new(&network.client, addr::CLIENT[0], &destination).request(NO_REPLY_TIMEOUT).unwrap_err();
        proxy.wait_for_log("the conntrack table is full");
        // Empties the table, because a scrape needs a free conntrack entry.
        conntrack::delete_all_entries(&network.pod);
        let metrics_after = Metrics::scrape(&network.pod);
        assert!(metrics_after.get("conntrack_full_total") > 0);
        assert_eq!(metrics_after.get("conntrack_clashes_total"), 0);
    });
}
