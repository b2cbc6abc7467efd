//! A part of the condition's message. Pure.

use akrobateo_core::Family;

use crate::reason::Reason;

/// The maximum number of elements that a message lists. A Service with hundreds of ports may have hundreds of
/// conflicts.
const MAX_LISTED_ITEMS: usize = 3;

/// A part of the condition's message, and the reason of its Warning event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) text: String,
    /// The reason of the Warning event; `None` if the user need not act.
    pub(super) warning_reason: Option<Reason>,
}

impl Note {
    /// Returns a note that requires no action of the user.
    pub(super) fn without_warning(text: impl Into<String>) -> Self {
        Self { text: text.into(), warning_reason: None }
    }
}

/// Joins the first elements, and adds the number of the remaining elements.
pub(super) fn join_first_items(elements: &[impl ToString]) -> String {
    let listed_items = elements.iter().take(MAX_LISTED_ITEMS).map(ToString::to_string);
    let remaining_count = match elements.len().saturating_sub(MAX_LISTED_ITEMS) {
        0 => None,
        count => Some(format!("and {count} more")),
    };
    listed_items.chain(remaining_count).collect::<Vec<_>>().join(", ")
}

/// Joins the names of address families.
pub(super) fn join_families(families: &[Family], separator: &str) -> String {
    families.iter().map(|family| family.as_str()).collect::<Vec<_>>().join(separator)
}
