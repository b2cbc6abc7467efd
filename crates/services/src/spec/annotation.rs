//! Reads one annotation of a Service, with a default. Pure.

use std::fmt::Display;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::error::SpecError;

/// The maximum length of an annotation's value in a message, in characters.
const MAX_EXCERPT_CHARS: usize = 200;

/// Returns the annotation's parsed value, or the default if the Service does not have the annotation.
///
/// The error quotes the value and the parser's reason, and lists the `allowed_values` values.
pub(super) fn annotation_or_default<T: Clone, E: Display>(
    service: &Service,
    name: &'static str,
    default: &T,
    allowed_values: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, SpecError> {
    let Some(value) = service.annotations().get(name) else { return Ok(default.clone()) };
    parse(value).map_err(|reason| invalid_annotation(name, value, &reason.to_string(), allowed_values))
}

/// Returns the error about an annotation with an invalid value.
pub(super) fn invalid_annotation(
    name: &'static str,
    value: &str,
    reason: &str,
    allowed_values: &str,
) -> SpecError {
    SpecError::InvalidAnnotation {
        name,
        value: excerpt(value),
        reason: excerpt(reason),
        allowed_values: allowed_values.to_owned(),
    }
}

/// Returns the first characters of a text, because a message must not be too long.
fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(MAX_EXCERPT_CHARS).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}
