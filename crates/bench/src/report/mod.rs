//! What is shown of the results: for people and for programs. Pure.

pub(crate) mod document;
pub(crate) mod json;
pub(crate) mod markdown;
