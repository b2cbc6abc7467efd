//! Netlink messages: writes them into bytes and parses them (linux/netlink.h, struct nlmsghdr). Pure.

use super::attr::{Attrs, align};

/// Flag: set in each message to the kernel.
pub const NLM_F_REQUEST: u16 = 0x1;
/// Flag: the kernel acknowledges the message even if no error occurs.
pub const NLM_F_ACK: u16 = 0x4;
/// Flag: the dumped objects changed during the dump.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// Flag: the kernel lists all objects.
pub const NLM_F_DUMP: u16 = 0x300;
/// Flag: the kernel returns an error if the object exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Flag: the kernel creates the object if it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;
/// Flag: the kernel adds the object at the end of a list.
pub const NLM_F_APPEND: u16 = 0x800;

/// Message type: an error, or an acknowledgement if its error number is 0.
pub const NLMSG_ERROR: u16 = 0x2;
/// Message type: the end of a dump.
pub const NLMSG_DONE: u16 = 0x3;

/// The length of struct `nlmsghdr`.
const HEADER_LENGTH: usize = 16;

/// Messages to the kernel in one buffer, which is sent as a whole. The sequence numbers of the messages start at 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    bytes: Vec<u8>,
    last_seq: u32,
    awaited_seq: u32,
    /// The position of the last message in `bytes`.
    last_message_offset: usize,
}

impl Messages {
    /// Creates a buffer with a single message; see [`Self::push`].
    pub fn single(kind: u16, flags: u16, header: &[u8], write_attrs: impl FnOnce(&mut Attrs<'_>)) -> Self {
        let mut messages = Self::default();
        messages.push(kind, flags, header, write_attrs);
        messages
    }

    /// Appends a message: first the fixed `header` of its netlink protocol, then the attributes from `write_attrs`.
    pub fn push(&mut self, kind: u16, flags: u16, header: &[u8], write_attrs: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.bytes.len();
        self.last_message_offset = start;
        self.last_seq += 1;
        if flags & (NLM_F_ACK | NLM_F_DUMP) != 0 {
            self.awaited_seq = self.last_seq;
        }
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.last_seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.bytes.resize(align(self.bytes.len()), 0);
        write_attrs(&mut Attrs(&mut self.bytes));
        // The kernel rejects a message of length 0.
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(0);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Requests an acknowledgement of the last message.
    pub fn request_acknowledgement_of_last(&mut self) {
        if let Some(flags) =
            self.bytes.get_mut(self.last_message_offset + 6..).and_then(<[u8]>::first_chunk_mut)
        {
            *flags = (u16::from_ne_bytes(*flags) | NLM_F_ACK).to_ne_bytes();
            self.awaited_seq = self.last_seq;
        }
    }

    /// Returns the bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the sequence number of the last message with an [`NLM_F_ACK`] or [`NLM_F_DUMP`] flag. Returns 0 if no
    /// message has such a flag.
    #[must_use]
    pub fn awaited_seq(&self) -> u32 {
        self.awaited_seq
    }
}

/// A parsed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The message type, a number that the netlink protocol defines.
    pub kind: u16,
    /// The flags of the netlink header.
    pub flags: u16,
    /// The sequence number of the request that this message answers.
    pub seq: u32,
    /// The port ID of the socket that this message answers, or whose request caused this notification.
    pub port_id: u32,
    /// The bytes after the netlink header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses the messages in `bytes`, up to the first malformed message.
    pub fn parse_all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut remaining_bytes = bytes;
        std::iter::from_fn(move || {
            let length = usize::try_from(u32::from_ne_bytes(*remaining_bytes.first_chunk()?)).ok()?;
            let payload = remaining_bytes.get(HEADER_LENGTH..length)?;
            let message = Self {
                kind: u16::from_ne_bytes(*remaining_bytes.get(4..)?.first_chunk()?),
                flags: u16::from_ne_bytes(*remaining_bytes.get(6..)?.first_chunk()?),
                seq: u32::from_ne_bytes(*remaining_bytes.get(8..)?.first_chunk()?),
                port_id: u32::from_ne_bytes(*remaining_bytes.get(12..)?.first_chunk()?),
                payload,
            };
            remaining_bytes = remaining_bytes.get(align(length)..).unwrap_or_default();
            Some(message)
        })
    }

    /// Returns the attributes: the bytes after the protocol's fixed header of `header_length` bytes.
    #[must_use]
    pub fn attrs(&self, header_length: usize) -> &'a [u8] {
        self.payload.get(align(header_length)..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Attr;

    proptest! {
        #[test]
        fn written_messages_parse_to_the_same_messages(
            written_messages in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..50)), 0..10),
        ) {
            let mut messages = Messages::default();
            for (kind, value) in &written_messages {
                messages.push(*kind, NLM_F_ACK, &[1, 2, 3, 4], |attrs| attrs.push_bytes(5, value));
            }
            let parsed_messages: Vec<_> = Message::parse_all(messages.bytes()).collect();
            prop_assert_eq!(parsed_messages.len(), written_messages.len());
            for (seq, (message, (kind, value))) in (1..).zip(parsed_messages.iter().zip(&written_messages)) {
                prop_assert_eq!((message.kind, message.flags, message.seq), (*kind, NLM_F_ACK | NLM_F_REQUEST, seq));
                prop_assert_eq!(Attr::find(message.attrs(4), 5), Some(&value[..]));
            }
        }

        #[test]
        fn only_the_last_message_requests_an_acknowledgement(count in 1..5_u32) {
            let mut messages = Messages::default();
            (0..count).for_each(|_| messages.push(7, 0, &[1, 2, 3, 4], |_| ()));
            messages.request_acknowledgement_of_last();
            prop_assert_eq!(messages.awaited_seq(), count);
            for message in Message::parse_all(messages.bytes()) {
                let ack_flag = if message.seq == count { NLM_F_ACK } else { 0 };
                prop_assert_eq!(message.flags, ack_flag | NLM_F_REQUEST);
            }
        }

        #[test]
        fn message_parser_terminates_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Message::parse_all(&bytes).count() <= bytes.len() / HEADER_LENGTH);
        }
    }
}
