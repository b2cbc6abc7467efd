//! Parses PROXY protocol headers with an independent library, for tests. Pure.

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};

/// A PROXY protocol header of a proxied TCP connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedHeader {
    pub(super) client: SocketAddr,
    pub(super) destination: SocketAddr,
    /// Length of the header in bytes. The client's bytes follow the header.
    pub(super) length: usize,
}

/// Parses the header at the start of `bytes`. Returns `None` if the header is incomplete, invalid or without addresses.
pub(super) fn parse_header(bytes: &[u8]) -> Option<ParsedHeader> {
    let (client, destination, length): (SocketAddr, SocketAddr, usize) = match HeaderResult::parse(bytes) {
        HeaderResult::V1(header) => {
            let header = header.ok()?;
            let (client, destination) = match header.addresses {
                v1::Addresses::Tcp4(tcp) => (
                    (tcp.source_address, tcp.source_port).into(),
                    (tcp.destination_address, tcp.destination_port).into(),
                ),
                v1::Addresses::Tcp6(tcp) => (
                    (tcp.source_address, tcp.source_port).into(),
                    (tcp.destination_address, tcp.destination_port).into(),
                ),
                v1::Addresses::Unknown => return None,
            };
            (client, destination, header.header.len())
        }
        HeaderResult::V2(header) => {
            let header = header.ok()?;
            if (header.command, header.protocol) != (v2::Command::Proxy, v2::Protocol::Stream) {
                return None;
            }
            let (client, destination) = match header.addresses {
                v2::Addresses::IPv4(ip) => (
                    (ip.source_address, ip.source_port).into(),
                    (ip.destination_address, ip.destination_port).into(),
                ),
                v2::Addresses::IPv6(ip) => (
                    (ip.source_address, ip.source_port).into(),
                    (ip.destination_address, ip.destination_port).into(),
                ),
                _ => return None,
            };
            (client, destination, header.len())
        }
    };
    Some(ParsedHeader { client, destination, length })
}
