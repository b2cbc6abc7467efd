//! What a proxy counts, and what it says when it runs out of something.

use crate::harness::network::{at, with_port};
use crate::harness::proxy::{PROBE_PORT, args};
use crate::harness::traffic::{Datagrams, IMPATIENCE, PATIENCE, http_get, serve_tcp, serve_udp, tcp};
use crate::harness::{DEADLINE, Metrics, Network, Proxy, conntrack, eventually, isolated};

const IN: &str = ",direction=\"in\"";
const OUT: &str = ",direction=\"out\"";

fn network() -> Network {
    let network = Network::new();
    for ip in at::BACKEND {
        serve_tcp(&network.backend, &with_port(ip, 80));
        serve_udp(&network.backend, &with_port(ip, 80));
    }
    network
}

#[test]
fn packets_and_bytes_are_counted_by_port_family_and_direction() {
    isolated(|| {
        let network = network();
        // Several ports with one target, which must not be mixed up.
        let forwards = "--forward=udp/53=10.96.3.7:80 --forward=udp/54=10.96.3.7:80 \
             --forward=tcp/53=10.96.3.7:80 --forward=udp/53=[fd00:96::7]:80";
        let _proxy = Proxy::ready(&network.pod, &args(forwards));
        for (family, port, times) in [(0, 53, 3), (0, 54, 5), (1, 53, 7)] {
            let udp = Datagrams::new(&network.client, at::CLIENT[family], &with_port(at::POD[family], port));
            for _ in 0..times {
                udp.ask(PATIENCE).unwrap();
            }
        }
        tcp(&network.client, at::CLIENT[0], &with_port(at::POD[0], 53), PATIENCE).unwrap().echoes().unwrap();
        let metrics = Metrics::of(&network.pod);
        // A question of one byte, under a UDP header and an IP header.
        for (port, family, times, len) in [("udp/53", 0, 3, 29), ("udp/54", 0, 5, 29), ("udp/53", 1, 7, 49)] {
            assert_eq!(metrics.port("connections_total", port, family, ""), 1, "{port}");
            assert_eq!(metrics.port("packets_total", port, family, IN), times, "{port}");
            assert_eq!(metrics.port("packets_total", port, family, OUT), times, "{port}");
            assert_eq!(metrics.port("bytes_total", port, family, IN), times * len, "{port}");
            assert!(metrics.port("bytes_total", port, family, OUT) > times * len, "{port}");
        }
        assert_eq!(metrics.port("connections_total", "tcp/53", 0, ""), 1);
        assert!(metrics.port("packets_total", "tcp/53", 0, IN) >= 4);
        assert!(metrics.port("bytes_total", "tcp/53", 0, OUT) > 200);
        assert_eq!(metrics.count("refused_connections_total"), 0, "nobody is refused without ranges");
    });
}

#[test]
fn refused_connections_are_counted_by_port() {
    isolated(|| {
        let network = network();
        let line = "--forward=tcp/80=10.96.3.7:80 --forward=udp/80=10.96.3.7:80 --forward=udp/81=10.96.3.7:80 \
             --forward=udp/80=[fd00:96::7]:80 --source=192.0.2.2/32";
        let _proxy = Proxy::ready(&network.pod, &args(line));
        for (family, client, port) in [(0, at::CLIENT_2, 80), (0, at::CLIENT_2, 81), (1, at::CLIENT, 80)] {
            let to = with_port(at::POD[family], port);
            Datagrams::new(&network.client, client[family], &to).ask(IMPATIENCE).unwrap_err();
        }
        let to = with_port(at::POD[0], 80);
        tcp(&network.client, at::CLIENT_2[0], &to, IMPATIENCE).unwrap_err();
        Datagrams::new(&network.client, at::CLIENT[0], &to).ask(PATIENCE).unwrap();
        let metrics = Metrics::of(&network.pod);
        for (port, family, refused, connections) in
            [("udp/80", 0, 1, 1), ("udp/81", 0, 1, 0), ("udp/80", 1, 1, 0), ("tcp/80", 0, 1, 0)]
        {
            assert_eq!(metrics.port("refused_connections_total", port, family, ""), refused, "{port}");
            assert_eq!(metrics.port("connections_total", port, family, ""), connections, "{port}");
            assert_eq!(metrics.port("packets_total", port, family, IN), connections, "{port}");
        }
    });
}

#[test]
fn counters_go_on_after_a_restart_and_after_meddling_and_begin_anew_after_a_flush() {
    isolated(|| {
        let network = network();
        let forwards = args("--forward=udp/80=10.96.3.7:80 --source=192.0.2.2/32");
        let proxy = Proxy::ready(&network.pod, &forwards);
        let to = with_port(at::POD[0], 80);
        let udp = Datagrams::new(&network.client, at::CLIENT[0], &to);
        udp.ask(PATIENCE).unwrap();
        Datagrams::new(&network.client, at::CLIENT_2[0], &to).ask(IMPATIENCE).unwrap_err();
        let figures = |metrics: &Metrics| {
            let port = |name, more| metrics.port(name, "udp/80", 0, more);
            [port("connections_total", ""), port("packets_total", IN), port("refused_connections_total", "")]
        };
        assert_eq!(figures(&Metrics::of(&network.pod)), [1, 1, 1]);
        proxy.kill();
        // Counted while no proxy runs.
        udp.ask(PATIENCE).unwrap();
        let more = [forwards, args("--forward=udp/81=10.96.3.7:80")].concat();
        let _proxy = Proxy::ready(&network.pod, &more);
        udp.ask(PATIENCE).unwrap();
        let metrics = Metrics::of(&network.pod);
        assert_eq!(figures(&metrics), [1, 3, 1]);
        assert_eq!(metrics.port("packets_total", "udp/81", 0, IN), 0);
        let restored = || Metrics::of(&network.pod).get("rules_restored_total");
        assert_eq!(restored(), 0);

        network.pod.nft("flush chain inet akrobateo prerouting");
        eventually("the rules are back", || (restored() == 1).then_some(()));
        assert_eq!(figures(&Metrics::of(&network.pod)), [1, 3, 1]);

        network.pod.nft("flush ruleset");
        eventually("the rules are back", || (restored() == 2).then_some(()));
        assert_eq!(figures(&Metrics::of(&network.pod)), [0, 0, 0]);
        udp.ask(PATIENCE).unwrap();
        assert_eq!(figures(&Metrics::of(&network.pod))[1], 1, "a flow keeps its mark");
    });
}

#[test]
fn used_up_source_ports_are_counted_and_logged() {
    isolated(|| {
        let network = network();
        let proxy = Proxy::ready(&network.pod, &args("--forward=udp/80=10.96.3.7:80"));
        assert_eq!(Metrics::of(&network.pod).get("conntrack_clashes_total"), 0);
        let to = with_port(at::POD[0], 80);
        // A client's port below 512 becomes one below 512: far fewer to use up than 64,512.
        let flow = |from: &str, port: u16| Datagrams::bound(&network.client, &with_port(from, port), &to);
        for port in 1..512 {
            flow(at::CLIENT[0], port).ask(PATIENCE).unwrap();
        }
        flow(at::CLIENT_2[0], 400).ask(IMPATIENCE).unwrap_err();
        let metrics = Metrics::of(&network.pod);
        assert_eq!(metrics.get("conntrack_clashes_total"), 1);
        assert_eq!(metrics.get("conntrack_full_total"), 0);
        proxy.logs("source ports may be used up");
        // For the kubelet that is ready, and an event on the pod.
        let probed = network.pod.run(|| http_get("127.0.0.1", PROBE_PORT, "/readyz", DEADLINE)).unwrap();
        assert!(probed.starts_with("HTTP/1.1 300 "), "{probed}");
        assert!(probed.contains("source ports may be used up"), "{probed}");
    });
}

#[test]
fn a_full_connection_table_is_counted_and_logged() {
    isolated(|| {
        let network = network();
        let proxy = Proxy::ready(&network.pod, &args("--forward=udp/80=10.96.3.7:80"));
        let to = with_port(at::POD[0], 80);
        Datagrams::new(&network.client, at::CLIENT[0], &to).ask(PATIENCE).unwrap();
        let before = Metrics::of(&network.pod);
        assert_eq!(before.get("conntrack_full_total"), 0);
        conntrack::fill(&network.pod, before.get("conntrack_limit"));
        Datagrams::new(&network.client, at::CLIENT[0], &to).ask(IMPATIENCE).unwrap_err();
        proxy.logs("the connection table is full");
        // Until then the probe's own connections, which are tracked too, have no room either.
        conntrack::flush(&network.pod);
        let after = Metrics::of(&network.pod);
        assert!(after.get("conntrack_full_total") > 0);
        assert_eq!(after.get("conntrack_clashes_total"), 0);
    });
}
