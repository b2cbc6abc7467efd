//! The messages of the probe. Pure.
//!
//! | bytes | content |
//! |---|---|
//! | 0-3 | the text `AkrP` |
//! | 4 | version 1 |
//! | 5 | kind: 1 request, 2 answer, 3 pause |
//! | 6 | way: 1 direct, 2 tunnel |
//! | 7 | flags: 1 small; results of the sender: 2 direct works, 4 tunnel works, 8 direct undecided, 16 tunnel undecided
//! |
//! | 8-15 | random number, which an answer repeats |
//! | 16-31 | the sender's node address; an IPv4 address as IPv4-mapped IPv6 address |
//! | 32- | zeros up to the size of the datagram |

use std::net::{IpAddr, Ipv6Addr};

use super::way::{Results, Way, WayResult};

/// The UDP port of the probe.
pub(super) const PORT: u16 = 8479;
/// The length of a message without padding.
pub(super) const MIN_LEN: usize = 32;

const MAGIC: &[u8; 4] = b"AkrP";
const VERSION: u8 = 1;
const SMALL_FLAG: u8 = 1;
/// The flags of each way. The first flag means that the way works. The second flag means that the probe has not decided
/// yet.
const WAY_FLAGS: [(Way, u8, u8); 2] = [(Way::Direct, 2, 8), (Way::Tunnel, 4, 16)];

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// Asks for an answer.
    Request,
    /// Answers a request.
    Answer,
    /// The sender's agent stops, but its rules remain. Until the agent starts again, a missing answer does not mean
    /// that the way is lost.
    Pause,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: MessageKind,
    pub(super) way: Way,
    /// True if the message does not fill the MTU.
    pub(super) is_small: bool,
    /// The results of the sender's own probes.
    pub(super) results: Results,
    /// The random number.
    pub(super) nonce: u64,
    /// The sender's node address.
    pub(super) sender: IpAddr,
}

impl Message {
    /// Returns the encoded message. A message that needs fewer than `len` bytes is padded with zeros.
    pub(super) fn encode(&self, len: usize) -> Vec<u8> {
        let kind = match self.kind {
            MessageKind::Request => 1,
            MessageKind::Answer => 2,
            MessageKind::Pause => 3,
        };
        let way = match self.way {
            Way::Direct => 1,
            Way::Tunnel => 2,
        };
        let mut flags = if self.is_small { SMALL_FLAG } else { 0 };
        for (way, works, undecided) in WAY_FLAGS {
            flags |= match self.results.get(way) {
                WayResult::Works => works,
                WayResult::Undecided => undecided,
                WayResult::Fails => 0,
            };
        }
        let sender = match self.sender {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut bytes = Vec::with_capacity(len.max(MIN_LEN));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, kind, way, flags]);
        bytes.extend_from_slice(&self.nonce.to_be_bytes());
        bytes.extend_from_slice(&sender.octets());
        bytes.resize(len.max(MIN_LEN), 0);
        bytes
    }

    /// Returns the message in a datagram, or `None` if the datagram is not a message of the probe.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(8)?;
        let [magic @ .., version, kind, way, flags] = head else { return None };
        if magic != MAGIC || *version != VERSION {
            return None;
        }
        let kind = match kind {
            1 => MessageKind::Request,
            2 => MessageKind::Answer,
            3 => MessageKind::Pause,
            _ => return None,
        };
        let way = match way {
            1 => Way::Direct,
            2 => Way::Tunnel,
            _ => return None,
        };
        let nonce = u64::from_be_bytes(*body.first_chunk()?);
        let sender = IpAddr::V6(Ipv6Addr::from(*body.get(8..)?.first_chunk::<16>()?)).to_canonical();
        let mut results = Results::new(WayResult::Fails);
        for (way, works, undecided) in WAY_FLAGS {
            if flags & works != 0 {
                results.set(way, WayResult::Works);
            } else if flags & undecided != 0 {
                results.set(way, WayResult::Undecided);
            }
        }
        Some(Self { kind, way, is_small: flags & SMALL_FLAG != 0, results, nonce, sender })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_message()(
            kind in prop::sample::select(&[MessageKind::Request, MessageKind::Answer, MessageKind::Pause][..]),
            way in prop::sample::select(&Way::ALL[..]),
            results in prop::array::uniform2(prop::sample::select(
                &[WayResult::Works, WayResult::Undecided, WayResult::Fails][..],
            )),
            is_small: bool, nonce: u64, sender: IpAddr,
        ) -> Message {
            let mut all_results = Results::new(WayResult::Fails);
            Way::ALL.into_iter().zip(results).for_each(|(way, result)| all_results.set(way, result));
            Message { kind, way, is_small, results: all_results, nonce, sender: sender.to_canonical() }
        }
    }

    proptest! {
        #[test]
        fn encoded_message_decodes_to_the_same_message(message in any_message(), len in 0..2000usize) {
            let bytes = message.encode(len);
            prop_assert_eq!(bytes.len(), len.max(MIN_LEN));
            prop_assert_eq!(Message::decode(&bytes), Some(message));
            prop_assert_eq!(Message::decode(&bytes[..MIN_LEN - 1]), None);
        }

        #[test]
        fn arbitrary_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&[&b"AkrP\x01"[..], &bytes].concat());
        }
    }
}
