//! Parsers for the values of flags. Pure.

use std::net::SocketAddr;

use akrobateo_core::dns1123;
use akrobateo_services::settings::parse_namespace;

use crate::decide::ProxyNamespace;

/// The maximum length of an operator's name. The names of proxies contain this name and the Service's name, and both
/// names must fit into the maximum length.
const MAX_INSTANCE_LENGTH: usize = 20;

/// Parses `--lb-namespace`.
pub(super) fn parse_proxy_namespace(text: &str) -> Result<ProxyNamespace, String> {
    match text {
        "@service" => Ok(ProxyNamespace::ServiceNamespace),
        _ => match parse_namespace(text) {
            Ok(namespace) => Ok(ProxyNamespace::SharedNamespace(namespace)),
            Err(expected) => Err(format!("{expected}, or @service")),
        },
    }
}

/// Parses `--instance`, the name of this operator. The names of proxies begin with this name, and a label has this
/// name as its value.
pub(super) fn parse_instance(text: &str) -> Result<String, String> {
    let expected = "expected 1 to 20 lower-case letters, digits and hyphens, without a hyphen at either end, for \
                    example akrobateo";
    let is_valid = dns1123::is_label(text) && text.len() <= MAX_INSTANCE_LENGTH;
    if is_valid { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}

/// Parses `--lb-image`. The container runtime checks the image reference in detail.
pub(super) fn parse_image(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        Err("expected an image as in a pod, for example ghcr.io/akrobateo/akrobateo-lb:0.1.0".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Parses `--http-address`.
pub(super) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    let expected = |_| "expected an IP address and a port, for example [::]:8080 or 0.0.0.0:8080".to_owned();
    text.parse().map_err(expected)
}
