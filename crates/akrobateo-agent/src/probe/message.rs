//! The messages of the probe. Pure.
//!
//! | bytes | content |
//! |---|---|
//! | 0-3 | the text `AkrP` |
//! | 4 | version 1 |
//! | 5 | kind: 1 request, 2 answer, 3 pause |
//! | 6 | path: 1 direct, 2 tunnel |
//! | 7 | flags: 1 small; sender's results: 2 direct works, 4 tunnel works, 8 direct undecided, 16 tunnel undecided |
//! | 8-15 | random number, which an answer repeats |
//! | 16-31 | the sender's node address; an IPv4 address as IPv4-mapped IPv6 address |
//! | 32- | zeros up to the size of the datagram |

use std::net::{IpAddr, Ipv6Addr};

use super::peer_path::{PathResult, PathResults, PeerPath};

/// The UDP port of the probe.
pub(super) const PROBE_PORT: u16 = 8479;
/// The length of a message without padding.
pub(super) const MIN_MESSAGE_LENGTH: usize = 32;

const MAGIC: &[u8; 4] = b"AkrP";
const VERSION: u8 = 1;
const SMALL_FLAG: u8 = 1;
/// The flags of each path. The first flag means that the path works. The second flag means that the probe has not
/// decided yet.
const PATH_FLAGS: [(PeerPath, u8, u8); 2] = [(PeerPath::Direct, 2, 8), (PeerPath::Tunnel, 4, 16)];

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// Asks for an answer.
    Request,
    /// Answers a request.
    Answer,
    /// The sender's agent stops, but its rules remain. Until the agent starts again, a missing answer does not mean
    /// that the path is lost.
    Pause,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: MessageKind,
    pub(super) path: PeerPath,
    /// True if the message does not fill the MTU.
    pub(super) is_small: bool,
    /// The results of the sender's own probes.
    pub(super) results: PathResults,
    /// The random number.
    pub(super) nonce: u64,
    /// The sender's node address.
    pub(super) sender: IpAddr,
}

impl Message {
    /// Returns the encoded message. A message that needs fewer than `length` bytes is padded with zeros.
    pub(super) fn encode(&self, length: usize) -> Vec<u8> {
        let kind = match self.kind {
            MessageKind::Request => 1,
            MessageKind::Answer => 2,
            MessageKind::Pause => 3,
        };
        let path = match self.path {
            PeerPath::Direct => 1,
            PeerPath::Tunnel => 2,
        };
        let mut flags = if self.is_small { SMALL_FLAG } else { 0 };
        for (path, works, undecided) in PATH_FLAGS {
            flags |= match self.results.get(path) {
                PathResult::Works => works,
                PathResult::Undecided => undecided,
                PathResult::Fails => 0,
            };
        }
        let sender = match self.sender {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut bytes = Vec::with_capacity(length.max(MIN_MESSAGE_LENGTH));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, kind, path, flags]);
        bytes.extend_from_slice(&self.nonce.to_be_bytes());
        bytes.extend_from_slice(&sender.octets());
        bytes.resize(length.max(MIN_MESSAGE_LENGTH), 0);
        bytes
    }

    /// Returns the message in a datagram, or `None` if the datagram is not a message of the probe.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(8)?;
        let [magic @ .., version, kind, path, flags] = head else { return None };
        if magic != MAGIC || *version != VERSION {
            return None;
        }
        let kind = match kind {
            1 => MessageKind::Request,
            2 => MessageKind::Answer,
            3 => MessageKind::Pause,
            _ => return None,
        };
        let path = match path {
            1 => PeerPath::Direct,
            2 => PeerPath::Tunnel,
            _ => return None,
        };
        let nonce = u64::from_be_bytes(*body.first_chunk()?);
        let sender = IpAddr::V6(Ipv6Addr::from(*body.get(8..)?.first_chunk::<16>()?)).to_canonical();
        let mut results = PathResults::new(PathResult::Fails);
        for (path, works, undecided) in PATH_FLAGS {
            if flags & works != 0 {
                results.set(path, PathResult::Works);
            } else if flags & undecided != 0 {
                results.set(path, PathResult::Undecided);
            }
        }
        Some(Self { kind, path, is_small: flags & SMALL_FLAG != 0, results, nonce, sender })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_message()(
            kind in prop::sample::select(&[MessageKind::Request, MessageKind::Answer, MessageKind::Pause][..]),
            path in prop::sample::select(&PeerPath::ALL[..]),
            results in prop::array::uniform2(prop::sample::select(
                &[PathResult::Works, PathResult::Undecided, PathResult::Fails][..],
            )),
            is_small: bool, nonce: u64, sender: IpAddr,
        ) -> Message {
            let mut all_results = PathResults::new(PathResult::Fails);
            PeerPath::ALL.into_iter().zip(results).for_each(|(path, result)| all_results.set(path, result));
            Message { kind, path, is_small, results: all_results, nonce, sender: sender.to_canonical() }
        }
    }

    proptest! {
        #[test]
        fn encoded_message_decodes_to_the_same_message(message in any_message(), length in 0..2000usize) {
            let bytes = message.encode(length);
            prop_assert_eq!(bytes.len(), length.max(MIN_MESSAGE_LENGTH));
            prop_assert_eq!(Message::decode(&bytes), Some(message));
            prop_assert_eq!(Message::decode(&bytes[..MIN_MESSAGE_LENGTH - 1]), None);
        }

        #[test]
        fn arbitrary_bytes_are_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&[&b"AkrP\x01"[..], &bytes].concat());
        }
    }
}
