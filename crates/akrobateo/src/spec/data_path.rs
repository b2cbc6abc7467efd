//! Whether a Service's proxies forward in the kernel or in userspace, and what they tell its backends. Pure.

use std::collections::BTreeSet;

use akrobateo_core::{DataPath, Forward, Protocol, ProxyProtocol, annotations};
use k8s_openapi::api::core::v1::Service;

use super::SpecError;
use super::annotation_values::choice;

/// The path, and the PROXY protocol, which only userspace speaks.
pub(super) fn of(
    service: &Service,
    forwards: &[Forward],
) -> Result<(DataPath, Option<ProxyProtocol>), SpecError> {
    let tcp: BTreeSet<_> =
        forwards.iter().filter(|f| f.protocol == Protocol::Tcp).map(|forward| forward.port).collect();
    let allowed = "v1 or v2, for all TCP ports or some of the Service's TCP ports, for example v2:443,8443";
    let protocol = |text: &str| {
        let protocol: ProxyProtocol = text.parse().ok()?;
        (!tcp.is_empty() && protocol.listed_ports().all(|port| tcp.contains(&port))).then_some(Some(protocol))
    };
    let protocol = choice(service, annotations::PROXY_PROTOCOL, &None, allowed, protocol)?;
    let path = if protocol.is_some() {
        let allowed = "userspace, which the PROXY protocol needs";
        let userspace = |text: &str| text.parse().ok().filter(|path| *path == DataPath::Userspace);
        choice(service, annotations::DATA_PATH, &DataPath::Userspace, allowed, userspace)?
    } else {
        choice(service, annotations::DATA_PATH, &DataPath::Kernel, "kernel, userspace", |text| {
            text.parse().ok()
        })?
    };
    let sctp = forwards.iter().find(|forward| forward.protocol == Protocol::Sctp);
    match sctp.filter(|_| path == DataPath::Userspace) {
        Some(forward) => Err(SpecError::UnsupportedSpec(format!(
            "port {}/SCTP: in userspace (annotations {} and {}) there are TCP and UDP only",
            forward.port,
            annotations::DATA_PATH,
            annotations::PROXY_PROTOCOL
        ))),
        None => Ok((path, protocol)),
    }
}
