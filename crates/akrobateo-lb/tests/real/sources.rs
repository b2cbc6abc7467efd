//! Who is let in: source ranges.

use std::io::{Error, ErrorKind};

use crate::harness::addr::{self, with_port};
use crate::harness::http;
use crate::harness::proxy::{PROBE_PORT, split_args};
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{Network, Proxy, isolated};

/// TCP and UDP port 80 in both families, with a backend behind each.
fn network_and_forwards() -> (Network, Vec<String>) {
    let network = Network::new();
    let targets = addr::BACKEND.map(|ip| with_port(ip, 80));
    for target in &targets {
        serve_tcp(&network.backend, target);
        serve_udp(&network.backend, target);
    }
    let forwards = targets
        .iter()
        .flat_map(|target| [format!("--forward=tcp/80={target}"), format!("--forward=udp/80={target}")]);
    let forwards = forwards.collect();
    (network, forwards)
}

fn let_in(network: &Network, client: &str, family: usize) -> bool {
    let to = with_port(addr::POD[family], 80);
    let tcp = connect_tcp(&network.client, client, &to, REPLY_TIMEOUT).is_ok();
    let udp = UdpClient::new(&network.client, client, &to).request(REPLY_TIMEOUT).is_ok();
    assert_eq!(tcp, udp, "{client}");
    tcp
}

/// Nothing comes back, not even a refusal.
fn kept_out(network: &Network, client: &str, family: usize) -> bool {
    let to = with_port(addr::POD[family], 80);
    let silent = |error: Error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    let tcp = connect_tcp(&network.client, client, &to, NO_REPLY_TIMEOUT).is_err_and(silent);
    let udp = UdpClient::new(&network.client, client, &to).request(NO_REPLY_TIMEOUT).is_err_and(silent);
    assert_eq!(tcp, udp, "{client}");
    tcp
}

#[test]
fn overlapping_and_adjacent_ranges_let_in_exactly_their_clients_in_both_families() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let ranges = split_args(
            "--source=192.0.2.0/25 --source=192.0.2.0/26 --source=192.0.2.128/26 \
             --source=2001:db8:1::/113 --source=2001:db8:1::/112 --source=2001:db8:1::8000/114",
        );
        // The second of IPv6 covers all clients: without it, the third client stays outside.
        let ranges: Vec<_> = ranges.into_iter().filter(|range| !range.ends_with("/112")).collect();
        let _proxy = Proxy::start_ready(&network.pod, &[forwards, ranges].concat());
        for family in 0..2 {
            assert!(let_in(&network, addr::CLIENT[family], family));
            assert!(let_in(&network, addr::CLIENT_2[family], family));
            assert!(kept_out(&network, addr::CLIENT_3[family], family));
        }
    });
}

#[test]
fn ranges_of_one_family_keep_the_other_out() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let _proxy = Proxy::start_ready(&network.pod, &[forwards, split_args("--source=0.0.0.0/0")].concat());
        assert!(let_in(&network, addr::CLIENT[0], 0));
        assert!(kept_out(&network, addr::CLIENT[1], 1));
    });
}

#[test]
fn the_probe_is_answered_whatever_the_ranges() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        let _proxy =
            Proxy::start_ready(&network.pod, &[forwards, split_args("--source=198.51.100.0/24")].concat());
        for ip in addr::POD {
            let probe = |path| network.node.run(|| http::status((ip, PROBE_PORT), path, REPLY_TIMEOUT));
            assert_eq!(probe("/readyz"), Some(200));
            assert_eq!(probe("/"), Some(404));
        }
        assert!(kept_out(&network, addr::CLIENT[0], 0));
    });
}

#[test]
fn ranges_up_to_the_last_address_and_from_the_first_let_in_exactly_their_clients() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        for (ranges, inside) in [
            ("--source=128.0.0.0/1 --source=::/2", true),
            ("--source=0.0.0.0/1 --source=255.255.255.255/32 --source=4000::/2 --source=8000::/1", false),
            ("--source=0.0.0.0/1 --source=128.0.0.0/1 --source=::/0", true),
            ("--source=0.0.0.0/32 --source=192.0.2.3/32 --source=::/128 --source=2001:db8:1::3/128", false),
        ] {
            let _proxy = Proxy::start_ready(&network.pod, &[forwards.clone(), split_args(ranges)].concat());
            for family in 0..2 {
                if inside {
                    assert!(let_in(&network, addr::CLIENT[family], family), "{ranges}");
                } else {
                    assert!(kept_out(&network, addr::CLIENT[family], family), "{ranges}");
                }
            }
        }
    });
}

#[test]
fn thousands_of_ranges_let_in_exactly_their_clients() {
    isolated(|| {
        let (network, forwards) = network_and_forwards();
        // Every other address, so that none become one; the clients of IPv4 have even addresses.
        let range = |number: u32| format!("--source=192.0.{}.{}/32", number / 128, number % 128 * 2);
        let ranges = (0..4_000).map(range).chain(split_args("--source=2001:db8:1::/127"));
        let _proxy =
            Proxy::start_ready(&network.pod, &forwards.into_iter().chain(ranges).collect::<Vec<_>>());
        assert!(let_in(&network, addr::CLIENT[0], 0));
        assert!(let_in(&network, addr::CLIENT_2[0], 0));
        assert!(kept_out(&network, addr::CLIENT[1], 1));
        network.client.ip("address add 192.0.2.131/24 dev eth0");
        assert!(kept_out(&network, "192.0.2.131", 0));
    });
}
