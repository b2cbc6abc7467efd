//! Values of flags that are names in Kubernetes. Pure.

use std::str::FromStr;

use crate::decide::Placement;

/// `--lb-namespace`.
#[derive(Clone, Debug)]
pub(crate) struct LbNamespace(pub(crate) Placement);

impl FromStr for LbNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let placement = match text {
            "@service" => Placement::ServiceNamespace,
            _ => Placement::Shared(namespace(text).map_err(|error| format!("{error}; or it is @service"))?),
        };
        Ok(Self(placement))
    }
}

pub(super) fn namespace_or_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { namespace(text) }
}

/// A namespace's name is an RFC 1123 label.
fn namespace(text: &str) -> Result<String, String> {
    let error = "a namespace's name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends \
                 with a hyphen";
    if akrobateo_core::dns1123::is_label(text) { Ok(text.to_owned()) } else { Err(error.to_owned()) }
}

pub(super) fn image(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        Err("an image is named as in a pod, for example ghcr.io/akrobateo/akrobateo-lb:0.1.0".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
