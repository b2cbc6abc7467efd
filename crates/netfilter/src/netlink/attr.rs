//! Netlink attributes: writes them into bytes and parses them (linux/netlink.h, struct nlattr). Pure.

/// Flag: set in the type of an attribute that contains attributes.
const NLA_F_NESTED: u16 = 1 << 15;
/// The bits of the type field without its flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// The length of struct `nlattr`.
const HEADER_LENGTH: usize = 4;

/// Rounds up to netlink's alignment of 4 bytes.
pub(crate) const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Appends attributes to a message.
///
/// An attribute has at most 64 KiB. The caller must split longer lists over several messages.
#[derive(Debug)]
pub struct Attrs<'a>(pub(crate) &'a mut Vec<u8>);

impl Attrs<'_> {
    /// Appends an attribute with these bytes.
    pub fn push_bytes(&mut self, kind: u16, value: &[u8]) {
        self.push_attribute(kind, |attrs| attrs.0.extend_from_slice(value));
    }

    /// Appends an attribute whose value is a number of one byte.
    pub fn push_u8(&mut self, kind: u16, value: u8) {
        self.push_bytes(kind, &[value]);
    }

    /// Appends an attribute whose value is a number of 64 bits in network byte order.
    pub fn push_be64(&mut self, kind: u16, value: u64) {
        self.push_bytes(kind, &value.to_be_bytes());
    }

    /// Appends an attribute whose value is a number of 32 bits in network byte order.
    pub fn push_be32(&mut self, kind: u16, value: u32) {
        self.push_bytes(kind, &value.to_be_bytes());
    }

    /// Appends an attribute whose value is a text with a trailing zero byte.
    pub fn push_text(&mut self, kind: u16, value: &str) {
        self.push_attribute(kind, |attrs| {
            attrs.0.extend_from_slice(value.as_bytes());
            attrs.0.push(0);
        });
    }

    /// Appends an attribute that contains other attributes. `write` appends these nested attributes.
    pub fn push_nested(&mut self, kind: u16, write: impl FnOnce(&mut Attrs<'_>)) {
        self.push_attribute(kind | NLA_F_NESTED, write);
    }

    /// Returns the total number of bytes in the buffer.
    pub(crate) fn buffer_length(&self) -> usize {
        self.0.len()
    }

    fn push_attribute(&mut self, kind: u16, write_value: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; HEADER_LENGTH]);
        write_value(self);
        let length = self.0.len() - start;
        debug_assert!(u16::try_from(length).is_ok(), "attribute {kind} has {length} bytes");
        // The kernel rejects an attribute of length 0.
        let length = u16::try_from(length).unwrap_or(0);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + HEADER_LENGTH].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(align(self.0.len()), 0);
    }
}

/// A parsed attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// The type, without its flags.
    pub kind: u16,
    /// The value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// Parses the attributes in `bytes`, up to the first malformed attribute.
    pub fn parse_all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut remaining_bytes = bytes;
        std::iter::from_fn(move || {
            let length = usize::from(u16::from_ne_bytes(*remaining_bytes.first_chunk()?));
            let kind = u16::from_ne_bytes(*remaining_bytes.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
            let value = remaining_bytes.get(HEADER_LENGTH..length)?;
            remaining_bytes = remaining_bytes.get(align(length)..).unwrap_or_default();
            Some(Self { kind, value })
        })
    }

    /// Returns the value of the first attribute of type `kind` in `bytes`.
    #[must_use]
    pub fn find(bytes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        Self::parse_all(bytes).find(|attr| attr.kind == kind).map(|attr| attr.value)
    }

    /// Returns the first attribute of type `kind` in `bytes` as a number in network byte order.
    #[must_use]
    pub fn find_be32(bytes: &'a [u8], kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(Self::find(bytes, kind)?.try_into().ok()?))
    }

    /// Returns the first attribute of type `kind` in `bytes` as a number in network byte order.
    #[must_use]
    pub fn find_be64(bytes: &'a [u8], kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(Self::find(bytes, kind)?.try_into().ok()?))
    }

    /// Returns the first attribute of type `kind` in `bytes` as a number of one byte.
    #[must_use]
    pub fn find_u8(bytes: &'a [u8], kind: u16) -> Option<u8> {
        Self::find(bytes, kind)?.first().copied()
    }

    /// Returns the first attribute of type `kind` in `bytes` as a text, without its trailing zero byte.
    #[must_use]
    pub fn find_text(bytes: &'a [u8], kind: u16) -> Option<&'a str> {
        std::str::from_utf8(Self::find(bytes, kind)?).ok().map(|text| text.trim_end_matches('\0'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_attributes_parse_to_the_same_attributes(
            written in prop::collection::vec((0..NLA_TYPE_MASK, prop::collection::vec(any::<u8>(), 0..40)), 0..10),
        ) {
            let mut bytes = Vec::new();
            Attrs(&mut bytes).push_nested(7, |attrs| {
                for (kind, value) in &written {
                    attrs.push_bytes(*kind, value);
                }
            });
            let nested_bytes = Attr::find(&bytes, 7).unwrap();
            let parsed_attrs: Vec<_> =
                Attr::parse_all(nested_bytes).map(|attr| (attr.kind, attr.value.to_vec())).collect();
            prop_assert_eq!(parsed_attrs, written);
        }

        #[test]
        fn attribute_parser_terminates_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Attr::parse_all(&bytes).count() <= bytes.len() / HEADER_LENGTH);
        }
    }
}
