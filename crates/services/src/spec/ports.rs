//! Reads the ports and source ranges of a Service's proxies from the Service's spec. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Forward, Protocol, ProxyArgs, probe};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::error::SpecError;

/// Returns the arguments of the Service's proxies. The arguments are sorted, so the order of the Service's ports does
/// not matter.
pub(super) fn read_proxy_args(service: &Service, max_ports: u16) -> Result<ProxyArgs, SpecError> {
    let spec = service.spec.as_ref().ok_or_else(|| "the Service has no spec".to_owned());
    spec.and_then(|spec| build_proxy_args(spec, max_ports)).map_err(SpecError::UnsupportedSpec)
}

fn build_proxy_args(spec: &ServiceSpec, max_ports: u16) -> Result<ProxyArgs, String> {
    let addresses = read_cluster_ips(spec)?;
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.len() > usize::from(max_ports) {
        let count = ports.len();
        return Err(format!(
            "the Service has {count} ports; expected at most {max_ports} (the operator's --max-ports); split the Service"
        ));
    }
    let mut forwards = Vec::new();
    for port in ports {
        let (protocol, port) = protocol_and_number(port)?;
        let target = |&address| SocketAddr::new(address, port.get());
        forwards.extend(addresses.iter().map(target).map(|target| Forward { protocol, port, target }));
    }
    if forwards.is_empty() {
        return Err("the Service has no ports; expected at least one".to_owned());
    }
    forwards.sort();
    let tcp_forwards = forwards.iter().filter(|forward| forward.protocol == Protocol::Tcp);
    let tcp_ports: Vec<u16> = tcp_forwards.map(|forward| forward.port.get()).collect();
    let probe_port = probe::choose_probe_port(&tcp_ports).ok_or_else(|| {
        "the Service has all TCP ports from 1024 to 10290; remove one of them, because the probe needs a port".to_owned()
    })?;
    Ok(ProxyArgs { sources: read_source_ranges(spec)?, probe_port, ..ProxyArgs::new(forwards) })
}

fn read_cluster_ips(spec: &ServiceSpec) -> Result<Vec<IpAddr>, String> {
    let parse =
        |text: &String| text.parse().map_err(|_| format!("clusterIPs: {text:?} is not an IP address"));
    spec.cluster_ips.iter().flatten().map(parse).collect()
}

fn protocol_and_number(port: &ServicePort) -> Result<(Protocol, NonZeroU16), String> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = protocol.parse().map_err(|error| format!("ports: {error}"))?;
    let number = u16::try_from(port.port).ok().and_then(NonZeroU16::new);
    let error = || format!("ports: {} is not a port number; expected 1 to 65535", port.port);
    Ok((protocol, number.ok_or_else(error)?))
}

/// Returns the source ranges. Like the API server, the function accepts spaces around a range, and host bits in the
/// address of a range.
fn read_source_ranges(spec: &ServiceSpec) -> Result<Vec<IpNet>, String> {
    let error = |text: &str| {
        format!(
            "loadBalancerSourceRanges: {text:?} is not a range; expected ADDRESS/PREFIX, for example 10.0.0.0/8"
        )
    };
    let parse = |text: &String| match text.trim().parse::<IpNet>() {
        Ok(range) => Ok(range.trunc()),
        Err(_) => Err(error(text)),
    };
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let mut ranges = ranges.map(parse).collect::<Result<Vec<_>, _>>()?;
    ranges.sort();
    ranges.dedup();
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ServiceBuilder, service};

    fn read_proxy_args(service: &Service) -> Result<ProxyArgs, SpecError> {
        super::read_proxy_args(service, 1000)
    }

    #[test]
    fn forwards_contain_every_port_of_every_cluster_ip_in_a_stable_order() {
        let service_with_udp_first =
            service("dns").udp(53).tcp(53).cluster_ips(&["10.97.0.7", "fd97::7"]).build();
        let service_with_tcp_first =
            service("dns").tcp(53).udp(53).cluster_ips(&["10.97.0.7", "fd97::7"]).build();
        let args = read_proxy_args(&service_with_udp_first).unwrap();
        assert_eq!(args, read_proxy_args(&service_with_tcp_first).unwrap());
        assert_eq!(
            args.to_args(),
            [
                "--forward=tcp/53=10.97.0.7:53",
                "--forward=tcp/53=[fd97::7]:53",
                "--forward=udp/53=10.97.0.7:53",
                "--forward=udp/53=[fd97::7]:53",
                "--probe-port=10290",
            ]
        );
    }

    #[test]
    fn probe_port_changes_only_if_the_service_has_that_tcp_port() {
        assert_eq!(
            read_proxy_args(&service("web").udp(probe::PREFERRED_PROBE_PORT).build()).unwrap().probe_port,
            10_290
        );
        assert_eq!(
            read_proxy_args(&service("web").tcp(probe::PREFERRED_PROBE_PORT).build()).unwrap().probe_port,
            10_289
        );
    }

    #[test]
    fn spaces_host_bits_and_duplicates_are_removed_from_source_ranges() {
        let service =
            service("web").tcp(80).source_ranges(&["10.0.0.1/8", " 10.0.0.0/8 ", "fd00::/8"]).build();
        let ranges: Vec<_> =
            read_proxy_args(&service).unwrap().sources.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.0.0.0/8", "fd00::/8"]);
    }

    #[test]
    fn service_with_more_ports_than_allowed_is_rejected() {
        let service_with_ports = |ports: u16| (1..=ports).fold(service("many"), ServiceBuilder::tcp).build();
        assert_eq!(read_proxy_args(&service_with_ports(1000)).unwrap().forwards.len(), 1000);
        let error = read_proxy_args(&service_with_ports(1001)).unwrap_err().to_string();
        assert!(error.contains("1001 ports") && error.contains("at most 1000"), "{error}");
        assert!(super::read_proxy_args(&service_with_ports(3), 2).is_err());
    }

    #[test]
    fn error_mentions_the_invalid_source_range() {
        let service = service("web").tcp(80).source_ranges(&["anywhere"]).build();
        assert!(read_proxy_args(&service).unwrap_err().to_string().contains("\"anywhere\""));
    }
}
