//! Source ranges in the kernel data path: allowed and denied clients.

use std::io::{Error, ErrorKind};

use crate::harness::addr::{self, with_port};
use crate::harness::http;
use crate::harness::proxy::{PROBE_PORT, split_args};
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{Network, Proxy, isolated};

/// Returns a network with backends for TCP and UDP port 80 in both families, and the proxy's arguments.
fn create_network_and_forwards() -> (Network, Vec<String>) {
    let network = Network::new();
    let targets = addr::BACKEND.map(|ip| with_port(ip, 80));
    for target in &targets {
        serve_tcp(&network.backend, target);
        serve_udp(&network.backend, target);
    }
    let forwards =
        |target: &String| [format!("--forward=tcp/80={target}"), format!("--forward=udp/80={target}")];
    (network, targets.iter().flat_map(forwards).collect())
}

/// Returns true if the client reaches the backend over TCP and UDP.
fn is_allowed(network: &Network, client: &str, family_index: usize) -> bool {
    let destination = with_port(addr::POD[family_index], 80);
    let is_tcp_allowed = connect_tcp(&network.client, client, &destination, REPLY_TIMEOUT).is_ok();
    let is_udp_allowed = UdpClient::new(&network.client, client, &destination).request(REPLY_TIMEOUT).is_ok();
    assert_eq!(is_tcp_allowed, is_udp_allowed, "{client}");
    is_tcp_allowed
}

/// Returns true if the client gets neither a reply nor an error.
fn is_denied(network: &Network, client: &str, family_index: usize) -> bool {
    let destination = with_port(addr::POD[family_index], 80);
    let is_timeout = |error: Error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    let is_tcp_denied =
        connect_tcp(&network.client, client, &destination, NO_REPLY_TIMEOUT).is_err_and(is_timeout);
    let is_udp_denied = UdpClient::new(&network.client, client, &destination)
        .request(NO_REPLY_TIMEOUT)
        .is_err_and(is_timeout);
    assert_eq!(is_tcp_denied, is_udp_denied, "{client}");
    is_tcp_denied
}

#[test]
fn overlapping_and_adjacent_ranges_allow_only_their_clients() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let ranges = split_args(
            "--source=192.0.2.0/25 --source=192.0.2.0/26 --source=192.0.2.128/26 \
             --source=2001:db8:1::/113 --source=2001:db8:1::/114 --source=2001:db8:1::8000/114",
        );
        let _proxy = Proxy::start_and_wait(&network.pod, &[forwards, ranges].concat());
        for family_index in 0..2 {
            assert!(is_allowed(&network, addr::CLIENT[family_index], family_index));
            assert!(is_allowed(&network, addr::CLIENT_2[family_index], family_index));
            assert!(is_denied(&network, addr::CLIENT_3[family_index], family_index));
        }
    });
}

#[test]
fn ranges_of_one_family_deny_the_other_family() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let _proxy =
            Proxy::start_and_wait(&network.pod, &[forwards, split_args("--source=0.0.0.0/0")].concat());
        assert!(is_allowed(&network, addr::CLIENT[0], 0));
        assert!(is_denied(&network, addr::CLIENT[1], 1));
    });
}

#[test]
fn source_ranges_do_not_apply_to_the_probe() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        let _proxy =
            Proxy::start_and_wait(&network.pod, &[forwards, split_args("--source=198.51.100.0/24")].concat());
        for ip in addr::POD {
            let status = |path| network.node.run(|| http::status((ip, PROBE_PORT), path, REPLY_TIMEOUT));
            assert_eq!(status("/readyz"), Some(200));
            assert_eq!(status("/"), Some(404));
        }
        assert!(is_denied(&network, addr::CLIENT[0], 0));
    });
}

#[test]
fn ranges_at_the_ends_of_the_address_space_allow_only_their_clients() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        for (ranges, is_client_in_range) in [
            ("--source=128.0.0.0/1 --source=::/2", true),
            ("--source=0.0.0.0/1 --source=255.255.255.255/32 --source=4000::/2 --source=8000::/1", false),
            ("--source=0.0.0.0/1 --source=128.0.0.0/1 --source=::/0", true),
            ("--source=0.0.0.0/32 --source=192.0.2.3/32 --source=::/128 --source=2001:db8:1::3/128", false),
        ] {
            let _proxy =
                Proxy::start_and_wait(&network.pod, &[forwards.clone(), split_args(ranges)].concat());
            for family_index in 0..2 {
                if is_client_in_range {
                    assert!(is_allowed(&network, addr::CLIENT[family_index], family_index), "{ranges}");
                } else {
                    assert!(is_denied(&network, addr::CLIENT[family_index], family_index), "{ranges}");
                }
            }
        }
    });
}

#[test]
fn thousands_of_ranges_allow_only_their_clients() {
    isolated(|| {
        let (network, forwards) = create_network_and_forwards();
        // Each range is one even IPv4 address, so that no two ranges are merged. The last byte of each client's address
        // is even.
        let format_range = |number: u32| format!("--source=192.0.{}.{}/32", number / 128, number % 128 * 2);
        let ranges = (0..4_000).map(format_range).chain(split_args("--source=2001:db8:1::/127"));
        let _proxy =
            Proxy::start_and_wait(&network.pod, &forwards.into_iter().chain(ranges).collect::<Vec<_>>());
        assert!(is_allowed(&network, addr::CLIENT[0], 0));
        assert!(is_allowed(&network, addr::CLIENT_2[0], 0));
        assert!(is_denied(&network, addr::CLIENT[1], 1));
        network.client.ip("address add 192.0.2.131/24 dev eth0");
        assert!(is_denied(&network, "192.0.2.131", 0));
    });
}
