//! A part of the condition's message. Pure.

use crate::reason::Reason;

/// A part of the condition's message that does not depend on whether the Service has addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) text: String,
    /// The reason of a Warning event, if the user has to do something.
    pub(super) warning: Option<Reason>,
}

impl Note {
    /// Returns a note about which the user need not do anything.
    pub(super) fn without_warning(text: &str) -> Self {
        Self { text: text.to_owned(), warning: None }
    }
}
