//! Netlink messages, written into and read from bytes (linux/netlink.h, struct nlmsghdr). Pure.

use super::attr::{Attrs, align};

/// `NLM_F_REQUEST`: set in everything that is sent to the kernel.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: answer also when there is no error.
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: what is being listed changed meanwhile.
pub const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`: list all.
pub const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`: create if missing.
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: add at the end.
pub const APPEND: u16 = 0x800;

/// `NLMSG_ERROR`: an acknowledgement, whose error number may be 0.
pub const ERROR: u16 = 0x2;
/// `NLMSG_DONE`: the end of a list.
pub const DONE: u16 = 0x3;

const HEADER_LEN: usize = 16;

/// Messages for the kernel, numbered from 1, in one buffer, so that they go out as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    bytes: Vec<u8>,
    last: u32,
    awaited: u32,
}

impl Messages {
    /// Appends a message with the protocol's own fixed `header` and the attributes that `body` writes.
    pub fn push(&mut self, kind: u16, flags: u16, header: &[u8], body: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.bytes.len();
        self.last += 1;
        if flags & (ACK | DUMP) != 0 {
            self.awaited = self.last;
        }
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.last.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.bytes.resize(align(self.bytes.len()), 0);
        body(&mut Attrs(&mut self.bytes));
        // Cut short, it is malformed, and the kernel refuses it.
        let len = u32::try_from(self.bytes.len() - start).unwrap_or(0);
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// A single message.
    pub fn one(kind: u16, flags: u16, header: &[u8], body: impl FnOnce(&mut Attrs<'_>)) -> Self {
        let mut messages = Self::default();
        messages.push(kind, flags, header, body);
        messages
    }

    /// What goes to the kernel.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of the last message that the kernel answers even if nothing is wrong.
    #[must_use]
    pub fn awaited(&self) -> u32 {
        self.awaited
    }
}

/// One message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is, in the terms of the protocol.
    pub kind: u16,
    /// The flags of the netlink header.
    pub flags: u16,
    /// The number of the message that it answers.
    pub seq: u32,
    /// All after the netlink header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages in `bytes`, up to the first that is malformed.
    pub fn all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let len = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
            let payload = rest.get(HEADER_LEN..len)?;
            let message = Self {
                kind: u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?),
                flags: u16::from_ne_bytes(*rest.get(6..)?.first_chunk()?),
                seq: u32::from_ne_bytes(*rest.get(8..)?.first_chunk()?),
                payload,
            };
            rest = rest.get(align(len)..).unwrap_or_default();
            Some(message)
        })
    }

    /// All after the protocol's own header of `len` bytes: the attributes.
    #[must_use]
    pub fn attrs(&self, len: usize) -> &'a [u8] {
        self.payload.get(align(len)..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_read_back_as_written(
            list in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..50)), 0..10),
        ) {
            let mut messages = Messages::default();
            for (kind, value) in &list {
                messages.push(*kind, ACK, &[1, 2, 3, 4], |attrs| attrs.bytes(5, value));
            }
            let read: Vec<_> = Message::all(messages.bytes()).collect();
            prop_assert_eq!(read.len(), list.len());
            for (number, (message, (kind, value))) in (1..).zip(read.iter().zip(&list)) {
                prop_assert_eq!((message.kind, message.flags, message.seq), (*kind, ACK | REQUEST, number));
                prop_assert_eq!(crate::netlink::Attr::find(message.attrs(4), 5), Some(&value[..]));
            }
        }

        #[test]
        fn reading_ends_whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Message::all(&bytes).count() <= bytes.len() / HEADER_LEN);
        }
    }
}
