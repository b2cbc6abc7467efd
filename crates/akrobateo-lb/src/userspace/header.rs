//! The PROXY protocol's header, by which a backend learns who the client is. Pure.
//!
//! Source: HAProxy's `doc/proxy-protocol.txt`, sections 2.1 (version 1) and 2.2 (version 2).

use std::net::SocketAddr;

use akrobateo_core::ProxyVersion;

/// How long a header can be: that of version 1, with its line end.
#[cfg(test)]
const LONGEST: usize = 107;

/// What every header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// TCP over IPv4, over IPv6, and what the header can't tell.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;

/// The header of a TCP connection that `client` made to `destination`; without addresses, as the specification
/// has it, if they are of different families.
pub(super) fn header(version: ProxyVersion, client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => text(client, destination).into_bytes(),
        ProxyVersion::V2 => binary(client, destination),
    }
}

fn text(client: SocketAddr, destination: SocketAddr) -> String {
    let family = match (client, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    let (from, to) = (client.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), destination.port())
}

fn binary(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (client, destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => (TCP4, [from.ip().octets(), to.ip().octets()].concat()),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => (TCP6, [from.ip().octets(), to.ip().octets()].concat()),
        _ => (UNSPECIFIED, Vec::new()),
    };
    let ports = [client.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let (ports, length): (&[u8], u16) = match family {
        TCP4 => (&ports, 12),
        TCP6 => (&ports, 36),
        _ => (&[], 0),
    };
    let head = [VERSION_AND_COMMAND, family];
    [&SIGNATURE[..], &head, &length.to_be_bytes(), &addresses, ports].concat()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ppp::{HeaderResult, v1, v2};
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_examples_of_the_specification_come_out() {
        let v1 = |client, to| header(ProxyVersion::V1, address(client), address(to));
        let longest_v4 = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        assert_eq!(v1("255.255.255.255:65535", "255.255.255.255:65535"), longest_v4);
        let usual = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
        assert_eq!(v1("192.168.0.1:56324", "192.168.0.11:443"), usual);
        let full = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                       ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(v1(full, full), longest.as_bytes());
        assert!(longest.len() <= LONGEST);
        assert_eq!(v1("192.0.2.1:1", "[fd00::1]:1"), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_laid_out_as_specified() {
        let bytes = header(ProxyVersion::V2, address("192.0.2.7:4660"), address("198.51.100.9:443"));
        let expected = [
            &[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a][..],
            &[0x21, 0x11, 0, 12],
            &[192, 0, 2, 7, 198, 51, 100, 9, 0x12, 0x34, 0x01, 0xbb],
        ];
        assert_eq!(bytes, expected.concat());
        let bytes = header(ProxyVersion::V2, address("[fd00::7]:1"), address("[fd00::9]:2"));
        assert_eq!((bytes.len(), &bytes[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
        let bytes = header(ProxyVersion::V2, address("192.0.2.7:1"), address("[fd00::9]:2"));
        assert_eq!(&bytes[12..], [0x21, 0x00, 0, 0]);
    }

    /// Two addresses of one family.
    fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let two =
            |ips: (IpAddr, IpAddr), ports: (u16, u16)| ((ips.0, ports.0).into(), (ips.1, ports.1).into());
        let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(one, two)| (IpAddr::from(one), IpAddr::from(two)));
        let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(one, two)| (IpAddr::from(one), IpAddr::from(two)));
        (prop_oneof![v4, v6], any::<(u16, u16)>()).prop_map(move |(ips, ports)| two(ips, ports))
    }

    /// What an independent reader makes of `bytes`: both addresses, and the length of the header.
    fn read(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, usize)> {
        match HeaderResult::parse(bytes) {
            HeaderResult::V1(header) => {
                let header = header.ok()?;
                let (from, to) = match header.addresses {
                    v1::Addresses::Tcp4(a) => (
                        SocketAddr::from((a.source_address, a.source_port)),
                        SocketAddr::from((a.destination_address, a.destination_port)),
                    ),
                    v1::Addresses::Tcp6(a) => (
                        SocketAddr::from((a.source_address, a.source_port)),
                        SocketAddr::from((a.destination_address, a.destination_port)),
                    ),
                    v1::Addresses::Unknown => return None,
                };
                Some((from, to, header.header.len()))
            }
            HeaderResult::V2(header) => {
                let header = header.ok()?;
                if (header.command, header.protocol) != (v2::Command::Proxy, v2::Protocol::Stream) {
                    return None;
                }
                let (from, to) = match header.addresses {
                    v2::Addresses::IPv4(a) => (
                        SocketAddr::from((a.source_address, a.source_port)),
                        SocketAddr::from((a.destination_address, a.destination_port)),
                    ),
                    v2::Addresses::IPv6(a) => (
                        SocketAddr::from((a.source_address, a.source_port)),
                        SocketAddr::from((a.destination_address, a.destination_port)),
                    ),
                    _ => return None,
                };
                Some((from, to, header.len()))
            }
        }
    }

    proptest! {
        #[test]
        fn an_independent_reader_finds_the_addresses_and_where_the_content_begins(
            (client, to) in pair(),
            content in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let header = header(version, client, to);
                prop_assert!(header.len() <= LONGEST);
                let len = header.len();
                prop_assert_eq!(read(&[header, content.clone()].concat()), Some((client, to, len)));
            }
        }
    }
}
