//! Reads two annotations of a Service: the data path of the proxies, and the PROXY protocol towards the backends. Pure.

use std::collections::BTreeSet;

use akrobateo_core::proxy_protocol::ParseProxyProtocolError;
use akrobateo_core::{DataPath, Forward, HostPort, Protocol, ProxyProtocol, annotations};
use k8s_openapi::api::core::v1::Service;

use super::annotation::annotation_or_default;
use super::error::SpecError;

/// Returns the data path and the PROXY protocol settings. Only the data path `userspace` supports the PROXY protocol.
pub(super) fn read_data_path_and_proxy_protocol(
    service: &Service,
    forwards: &[Forward],
) -> Result<(DataPath, Option<ProxyProtocol>), SpecError> {
    let proxy_protocol = read_proxy_protocol(service, forwards)?;
    let data_path = if proxy_protocol.is_some() {
        let parse = |text: &str| match parse_data_path(text)? {
            DataPath::Userspace => Ok(DataPath::Userspace),
            DataPath::Kernel => Err("the kernel does not support the PROXY protocol"),
        };
        annotation_or_default(service, annotations::DATA_PATH, &DataPath::Userspace, "userspace", parse)?
    } else {
        annotation_or_default(
            service,
            annotations::DATA_PATH,
            &DataPath::Kernel,
            "kernel, userspace",
            parse_data_path,
        )?
    };
    let sctp_forward = forwards.iter().find(|forward| forward.protocol == Protocol::Sctp);
    match sctp_forward.filter(|_| data_path == DataPath::Userspace) {
        Some(&Forward { protocol, port, .. }) => Err(SpecError::UnsupportedSpec(format!(
            "port {}: proxies in userspace forward only TCP and UDP; remove the port, or the annotations {} and {}",
            HostPort { protocol, port: port.get() },
            annotations::DATA_PATH,
            annotations::PROXY_PROTOCOL
        ))),
        None => Ok((data_path, proxy_protocol)),
    }
}

fn parse_data_path(text: &str) -> Result<DataPath, &'static str> {
    text.parse().map_err(|_| "unknown data path")
}

fn read_proxy_protocol(service: &Service, forwards: &[Forward]) -> Result<Option<ProxyProtocol>, SpecError> {
    let tcp_forwards = forwards.iter().filter(|forward| forward.protocol == Protocol::Tcp);
    let tcp_ports: BTreeSet<_> = tcp_forwards.map(|forward| forward.port).collect();
    let parse = |text: &str| {
        let proxy_protocol: ProxyProtocol = text.parse().map_err(|error| match error {
            ParseProxyProtocolError::UnknownVersion(_) => "unknown version".to_owned(),
            ParseProxyProtocolError::InvalidPort { port, .. } => format!("{port:?} is not a port number"),
        })?;
        if tcp_ports.is_empty() {
            return Err("the Service has no TCP port".to_owned());
        }
        let unknown_port = proxy_protocol.listed_ports().find(|port| !tcp_ports.contains(port));
        match unknown_port {
            Some(port) => Err(format!("{port} is not a TCP port of the Service")),
            None => Ok(Some(proxy_protocol)),
        }
    };
    annotation_or_default(
        service,
        annotations::PROXY_PROTOCOL,
        &None,
        "v1 or v2, for all TCP ports of the Service or only for listed ports, for example v2:443,8443",
        parse,
    )
}
