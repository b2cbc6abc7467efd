//! Encodes and decodes the comments of rules and elements, as the library libnftnl does. Pure.

use super::abi::user_data::TYPE_COMMENT;
use super::model::Name;
use crate::netlink::Attrs;

/// Appends a comment as user data: a type, a length and the text with a trailing zero byte.
pub(super) fn encode_comment(attrs: &mut Attrs<'_>, kind: u16, comment: &str) {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    attrs.push_bytes(kind, &[&[TYPE_COMMENT, length], comment.as_bytes(), &[0]].concat());
}

/// Decodes the user data of a rule or an element. Returns `None` if the user data contain anything else than one comment.
pub(super) fn decode_comment(user_data: &[u8]) -> Option<Name> {
    let [TYPE_COMMENT, length, text @ ..] = user_data else { return None };
    let text = text.strip_suffix(&[0]).filter(|text| text.len() + 1 == usize::from(*length))?;
    Some(std::str::from_utf8(text).ok()?.to_owned().into())
}
