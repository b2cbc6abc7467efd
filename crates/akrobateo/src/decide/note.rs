//! A part of the condition's message. Pure.

use crate::reason::Reason;

/// A part of the condition's message, and the reason of its Warning event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) text: String,
    /// The reason of the Warning event; `None` if the user need not act.
    pub(super) warning_reason: Option<Reason>,
}

impl Note {
    /// Returns a note that requires no action of the user.
    pub(super) fn without_warning(text: &str) -> Self {
        Self { text: text.to_owned(), warning_reason: None }
    }
}
