//! Netlink attributes, written into and read from bytes (linux/netlink.h, struct nlattr). Pure.

/// Set in the type of an attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;
/// The bits of the type that are the type itself (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 4;

/// Rounds up to netlink's alignment of 4 bytes.
pub(crate) const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// Appends attributes to a message under construction.
///
/// An attribute ends at 64 KiB: whoever writes long lists splits them over several messages.
#[derive(Debug)]
pub struct Attrs<'a>(pub(crate) &'a mut Vec<u8>);

impl Attrs<'_> {
    /// Appends `value` as it is.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.framed(kind, |attrs| attrs.0.extend_from_slice(value));
    }

    /// Appends a number in network byte order, as netfilter wants them.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends a text, closed with a zero byte.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.framed(kind, |attrs| {
            attrs.0.extend_from_slice(value.as_bytes());
            attrs.0.push(0);
        });
    }

    /// Appends the attributes that `inner` writes as one attribute.
    pub fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Attrs<'_>)) {
        self.framed(kind | NESTED, inner);
    }

    fn framed(&mut self, kind: u16, inner: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; HEADER_LEN]);
        inner(self);
        let len = self.0.len() - start;
        debug_assert!(u16::try_from(len).is_ok(), "attribute {kind} has {len} bytes");
        // Cut short, it is malformed, and the kernel refuses it.
        let len = u16::try_from(len).unwrap_or(0);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0[start + 2..start + HEADER_LEN].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(align(self.0.len()), 0);
    }
}

/// One attribute that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// The type, without its flag bits.
    pub kind: u16,
    /// The value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The attributes in `bytes`, up to the first that is malformed.
    pub fn all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & TYPE_MASK;
            let value = rest.get(HEADER_LEN..len)?;
            rest = rest.get(align(len)..).unwrap_or_default();
            Some(Self { kind, value })
        })
    }

    /// The value of the first attribute of type `kind` in `bytes`.
    #[must_use]
    pub fn find(bytes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        Self::all(bytes).find(|attr| attr.kind == kind).map(|attr| attr.value)
    }

    /// The number in network byte order of type `kind` in `bytes`.
    #[must_use]
    pub fn find_be32(bytes: &'a [u8], kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(Self::find(bytes, kind)?.try_into().ok()?))
    }

    /// The text of type `kind` in `bytes`, without its closing zero byte.
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
        fn attributes_read_back_as_written(
            list in prop::collection::vec((0..TYPE_MASK, prop::collection::vec(any::<u8>(), 0..40)), 0..10),
        ) {
            let mut bytes = Vec::new();
            Attrs(&mut bytes).nested(7, |inner| {
                for (kind, value) in &list {
                    inner.bytes(*kind, value);
                }
            });
            let inner = Attr::find(&bytes, 7).unwrap();
            let read: Vec<_> = Attr::all(inner).map(|attr| (attr.kind, attr.value.to_vec())).collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn reading_ends_whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Attr::all(&bytes).count() <= bytes.len() / HEADER_LEN);
        }
    }
}
