//! The PROXY protocol header, which tells a backend the client's address. Pure.
//!
//! Source: HAProxy's `doc/proxy-protocol.txt`, sections 2.1 (version 1) and 2.2 (version 2).

use std::net::SocketAddr;

use akrobateo_core::ProxyVersion;

/// First bytes of every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The byte for version 2 and the command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// The byte for TCP over IPv4.
const TCP_OVER_IPV4: u8 = 0x11;
/// The byte for TCP over IPv6.
const TCP_OVER_IPV6: u8 = 0x21;
/// The byte for a header without addresses.
const UNSPECIFIED_PROTOCOL: u8 = 0x00;

/// Returns the header of a TCP connection from `client` to `destination`. If the two address families differ, the
/// header has no addresses, as the specification requires.
pub(super) fn encode_header(version: ProxyVersion, client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => encode_v1_header(client, destination).into_bytes(),
        ProxyVersion::V2 => encode_v2_header(client, destination),
    }
}

fn encode_v1_header(client: SocketAddr, destination: SocketAddr) -> String {
    let family = match (client, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    let (client_ip, destination_ip) = (client.ip(), destination.ip());
    format!("PROXY {family} {client_ip} {destination_ip} {} {}\r\n", client.port(), destination.port())
}

fn encode_v2_header(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (family, ips) = match (client, destination) {
        (SocketAddr::V4(client), SocketAddr::V4(destination)) => {
            (TCP_OVER_IPV4, [client.ip().octets(), destination.ip().octets()].concat())
        }
        (SocketAddr::V6(client), SocketAddr::V6(destination)) => {
            (TCP_OVER_IPV6, [client.ip().octets(), destination.ip().octets()].concat())
        }
        _ => (UNSPECIFIED_PROTOCOL, Vec::new()),
    };
    let ports = [client.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let (ports, length): (&[u8], u16) = match family {
        TCP_OVER_IPV4 => (&ports, 12),
        TCP_OVER_IPV6 => (&ports, 36),
        _ => (&[], 0),
    };
    let start = [VERSION_AND_COMMAND, family];
    [&SIGNATURE[..], &start, &length.to_be_bytes(), &ips, ports].concat()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::header_parser::{ParsedHeader, parse_header};
    use super::*;

    /// Length of the longest header of version 1, with its line end.
    const MAX_V1_HEADER_LENGTH: usize = 107;

    fn parse_address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_header_matches_the_examples_of_the_specification() {
        let header = |client, destination| {
            encode_header(ProxyVersion::V1, parse_address(client), parse_address(destination))
        };
        let longest_ipv4_header = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        assert_eq!(header("255.255.255.255:65535", "255.255.255.255:65535"), longest_ipv4_header);
        let usual_ipv4_header = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
        assert_eq!(header("192.168.0.1:56324", "192.168.0.11:443"), usual_ipv4_header);
        let longest_address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let longest_ipv6_header = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                          ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(header(longest_address, longest_address), longest_ipv6_header.as_bytes());
        assert!(longest_ipv6_header.len() <= MAX_V1_HEADER_LENGTH);
        assert_eq!(header("192.0.2.1:1", "[fd00::1]:1"), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_header_has_the_specified_layout() {
        let header = |client, destination| {
            encode_header(ProxyVersion::V2, parse_address(client), parse_address(destination))
        };
        let expected = [
            &[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a][..],
            &[0x21, 0x11, 0, 12],
            &[192, 0, 2, 7, 198, 51, 100, 9, 0x12, 0x34, 0x01, 0xbb],
        ];
        assert_eq!(header("192.0.2.7:4660", "198.51.100.9:443"), expected.concat());
        let v6 = header("[fd00::7]:1", "[fd00::9]:2");
        assert_eq!((v6.len(), &v6[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
        let header_of_mixed_families = header("192.0.2.7:1", "[fd00::9]:2");
        assert_eq!(&header_of_mixed_families[12..], [0x21, 0x00, 0, 0]);
    }

    /// Generates two addresses of one family.
    fn any_address_pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<[[u8; 4]; 2]>().prop_map(|ips| ips.map(IpAddr::from));
        let v6 = any::<[[u8; 16]; 2]>().prop_map(|ips| ips.map(IpAddr::from));
        (prop_oneof![v4, v6], any::<[u16; 2]>()).prop_map(|([client, destination], ports)| {
            ((client, ports[0]).into(), (destination, ports[1]).into())
        })
    }

    proptest! {
        #[test]
        fn independent_parser_finds_the_addresses_and_the_header_length(
            (client, destination) in any_address_pair(),
            content in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let header = encode_header(version, client, destination);
                prop_assert!(header.len() <= MAX_V1_HEADER_LENGTH);
                let expected = ParsedHeader { client, destination, length: header.len() };
                prop_assert_eq!(parse_header(&[header, content.clone()].concat()), Some(expected));
            }
        }
    }
}
