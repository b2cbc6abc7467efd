//! The protocol between the load's clients and the backend. Pure.
//!
//! The first byte of a request identifies the operation. A reply begins with the client's address as the backend sees
//! it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The length of a request in bytes.
pub(crate) const REQUEST_LENGTH: usize = 64;
/// The length of a reply in bytes.
pub(crate) const REPLY_LENGTH: usize = 256;

/// The operation that a request asks for. The first byte of the request identifies the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Operation {
    /// The backend sends a reply, and waits for more requests.
    Reply = b'r',
    /// The backend sends a reply, and closes the connection.
    ReplyAndClose = b'c',
    /// The backend reads all bytes.
    Upload = b'u',
    /// The backend sends bytes until the connection ends.
    Download = b'd',
    /// The backend sends a reply, keeps the connection open, and reads nothing.
    KeepOpen = b'h',
}

impl Operation {
    const ALL: [Self; 5] = [Self::Reply, Self::ReplyAndClose, Self::Upload, Self::Download, Self::KeepOpen];

    /// Encodes a request.
    pub(crate) fn encode_request(self) -> [u8; REQUEST_LENGTH] {
        let mut request = [b'.'; REQUEST_LENGTH];
        request[0] = self as u8;
        request
    }

    /// Parses a request.
    pub(crate) fn parse(request: &[u8]) -> Option<Self> {
        let first = *request.first()?;
        Self::ALL.into_iter().find(|&operation| operation as u8 == first)
    }
}

/// Encodes the reply to a client.
pub(crate) fn encode_reply(client: IpAddr) -> [u8; REPLY_LENGTH] {
    let mut reply = [b' '; REPLY_LENGTH];
    for (to, from) in reply.iter_mut().zip(client.to_string().bytes()) {
        *to = from;
    }
    reply
}

/// Parses a reply, and returns the client's address.
pub(crate) fn parse_reply(reply: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(reply).ok()?.trim().parse().ok()
}

/// The result of parsing the first bytes of a connection as a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderParseResult {
    /// The parser needs more bytes.
    Incomplete,
    /// The bytes are not a PROXY header with a client address.
    Invalid,
    /// The header is complete.
    Complete {
        /// The client's address.
        client: IpAddr,
        /// The header's length in bytes.
        length: usize,
    },
}

/// The first bytes of a header of version 2
/// (<https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>, section 2.2).
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of a header of version 1 (section 2.1).
const V1_SIGNATURE: &[u8] = b"PROXY ";
/// The maximum length of a header of version 1 in bytes, with the line end.
const V1_MAX_LENGTH: usize = 107;

/// Parses a PROXY header of version 1 or 2.
pub(crate) fn parse_proxy_header(bytes: &[u8]) -> HeaderParseResult {
    let may_start_with = |signature: &[u8]| bytes.iter().zip(signature).all(|(a, b)| a == b);
    if may_start_with(V2_SIGNATURE) {
        parse_version_2(bytes)
    } else if may_start_with(V1_SIGNATURE) {
        parse_version_1(bytes)
    } else {
        HeaderParseResult::Invalid
    }
}

fn parse_version_1(bytes: &[u8]) -> HeaderParseResult {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_MAX_LENGTH {
            HeaderParseResult::Incomplete
        } else {
            HeaderParseResult::Invalid
        };
    };
    let client =
        std::str::from_utf8(&bytes[..end]).ok().and_then(|line| line.split(' ').nth(2)?.parse().ok());
    client
        .map_or(HeaderParseResult::Invalid, |client| HeaderParseResult::Complete { client, length: end + 2 })
}

fn parse_version_2(bytes: &[u8]) -> HeaderParseResult {
    let Some(&[command, family, high, low]) = bytes.get(12..16).and_then(<[u8]>::first_chunk) else {
        return HeaderParseResult::Incomplete;
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if bytes.len() < length {
        return HeaderParseResult::Incomplete;
    }
    let addresses = &bytes[16..length];
    // Version 2 with the command PROXY, for TCP over IPv4 or IPv6.
    let client: Option<IpAddr> = match (command, family) {
        (0x21, 0x11) => addresses.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
        (0x21, 0x21) => addresses.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
        _ => None,
    };
    client.map_or(HeaderParseResult::Invalid, |client| HeaderParseResult::Complete { client, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_requests_and_replies_parse_to_the_same_values() {
        for operation in Operation::ALL {
            assert_eq!(Operation::parse(&operation.encode_request()), Some(operation));
        }
        assert_eq!(Operation::parse(b"x"), None);
        for ip in ["192.0.2.2", "2001:db8::2"] {
            let ip = ip.parse().unwrap();
            assert_eq!(parse_reply(&encode_reply(ip)), Some(ip));
        }
    }

    #[test]
    fn header_of_version_1_is_parsed_from_partial_reads() {
        let bytes = b"PROXY TCP4 192.0.2.2 192.0.2.1 40000 80\r\nrest";
        let client = "192.0.2.2".parse().unwrap();
        assert_eq!(
            parse_proxy_header(bytes),
            HeaderParseResult::Complete { client, length: bytes.len() - 4 }
        );
        for end in 0..bytes.len() - 5 {
            assert_eq!(parse_proxy_header(&bytes[..end]), HeaderParseResult::Incomplete, "{end}");
        }
        assert_eq!(parse_proxy_header(b"PROXY UNKNOWN\r\n"), HeaderParseResult::Invalid);
    }

    #[test]
    fn header_of_version_2_is_parsed_from_partial_reads() {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([0x21, 0x11, 0, 12, 192, 0, 2, 2, 192, 0, 2, 1, 0x9c, 0x40, 0, 80]);
        let client = "192.0.2.2".parse().unwrap();
        assert_eq!(parse_proxy_header(&bytes), HeaderParseResult::Complete { client, length: 28 });
        for end in 0..bytes.len() {
            assert_eq!(parse_proxy_header(&bytes[..end]), HeaderParseResult::Incomplete, "{end}");
        }
        bytes[12] = 0x20;
        assert_eq!(parse_proxy_header(&bytes), HeaderParseResult::Invalid);
    }

    #[test]
    fn parser_rejects_bytes_that_are_not_a_header() {
        assert_eq!(parse_proxy_header(b"GET"), HeaderParseResult::Invalid);
    }
}
