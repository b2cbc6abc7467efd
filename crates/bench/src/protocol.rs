//! What the load's client and its backend say to each other. Pure.
//!
//! A request's first byte is an order; an answer begins with the client's address as the backend knows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of a request.
pub(crate) const REQUEST: usize = 64;
/// Length of an answer.
pub(crate) const ANSWER: usize = 256;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// An answer; more requests follow.
    Answer = b'a',
    /// An answer, after which the backend closes.
    Last = b'l',
    /// Read all that comes.
    Up = b'u',
    /// Send until the connection ends.
    Down = b'd',
    /// An answer, and keep the connection.
    Hold = b'h',
}

impl Order {
    const ALL: [Self; 5] = [Self::Answer, Self::Last, Self::Up, Self::Down, Self::Hold];

    /// The request with this order.
    pub(crate) fn request(self) -> [u8; REQUEST] {
        let mut request = [b'.'; REQUEST];
        request[0] = self.letter();
        request
    }

    /// The order of a request.
    pub(crate) fn of(request: &[u8]) -> Option<Self> {
        let letter = request.first()?;
        Self::ALL.into_iter().find(|order| order.letter() == *letter)
    }

    const fn letter(self) -> u8 {
        self as u8
    }
}

/// The answer to a client at `seen`.
pub(crate) fn answer(seen: IpAddr) -> [u8; ANSWER] {
    let mut answer = [b' '; ANSWER];
    for (to, from) in answer.iter_mut().zip(seen.to_string().bytes()) {
        *to = from;
    }
    answer
}

/// The address in an answer.
pub(crate) fn seen(answer: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(answer).ok()?.trim().parse().ok()
}

/// What the beginning of a connection says in a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// More bytes are needed.
    Incomplete,
    /// No PROXY header, or none that names a client.
    Invalid,
    /// The client's address, and the length of the header.
    From(IpAddr, usize),
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V1: &[u8] = b"PROXY ";
const V1_LONGEST: usize = 107;

/// Reads a PROXY header of version 1 or 2.
pub(crate) fn header(bytes: &[u8]) -> Header {
    let begins = |magic: &[u8]| bytes.iter().zip(magic).all(|(a, b)| a == b);
    if begins(V2) {
        version_2(bytes)
    } else if begins(V1) {
        version_1(bytes)
    } else {
        Header::Invalid
    }
}

fn version_1(bytes: &[u8]) -> Header {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_LONGEST { Header::Incomplete } else { Header::Invalid };
    };
    let source =
        std::str::from_utf8(&bytes[..end]).ok().and_then(|line| line.split(' ').nth(2)?.parse().ok());
    source.map_or(Header::Invalid, |source| Header::From(source, end + 2))
}

fn version_2(bytes: &[u8]) -> Header {
    let Some(&[command, family, high, low]) = bytes.get(12..16).and_then(<[u8]>::first_chunk) else {
        return Header::Incomplete;
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if bytes.len() < length {
        return Header::Incomplete;
    }
    let addresses = &bytes[16..length];
    let source: Option<IpAddr> = match (command, family) {
        (0x21, 0x11) => addresses.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
        (0x21, 0x21) => addresses.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
        _ => None,
    };
    source.map_or(Header::Invalid, |source| Header::From(source, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_and_an_address_arrive_as_they_were_sent() {
        for order in Order::ALL {
            assert_eq!(Order::of(&order.request()), Some(order));
        }
        assert_eq!(Order::of(b"x"), None);
        for ip in ["192.0.2.2", "2001:db8::2"] {
            let ip = ip.parse().unwrap();
            assert_eq!(seen(&answer(ip)), Some(ip));
        }
    }

    #[test]
    fn a_header_of_version_1_is_read_in_pieces() {
        let bytes = b"PROXY TCP4 192.0.2.2 192.0.2.1 40000 80\r\nrest";
        let source = "192.0.2.2".parse().unwrap();
        assert_eq!(header(bytes), Header::From(source, bytes.len() - 4));
        for end in 0..bytes.len() - 5 {
            assert_eq!(header(&bytes[..end]), Header::Incomplete, "{end}");
        }
        assert_eq!(header(b"PROXY UNKNOWN\r\n"), Header::Invalid);
    }

    #[test]
    fn a_header_of_version_2_is_read_in_pieces() {
        let mut bytes = V2.to_vec();
        bytes.extend([0x21, 0x11, 0, 12, 192, 0, 2, 2, 192, 0, 2, 1, 0x9c, 0x40, 0, 80]);
        let source = "192.0.2.2".parse().unwrap();
        assert_eq!(header(&bytes), Header::From(source, 28));
        for end in 0..bytes.len() {
            assert_eq!(header(&bytes[..end]), Header::Incomplete, "{end}");
        }
        bytes[12] = 0x20;
        assert_eq!(header(&bytes), Header::Invalid);
    }

    #[test]
    fn what_is_no_header_is_found_out_at_once() {
        assert_eq!(header(b"GET"), Header::Invalid);
    }
}
