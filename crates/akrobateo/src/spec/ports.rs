//! What a Service's proxies forward, from its spec. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Forward, Protocol, ProxyArgs, probe};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::SpecError;

/// Most ports of a Service: each is a rule or three of the node's portmap plugin, which makes them one by one before the
/// pod starts, and an argument; beyond this pods would fail without saying why.
const MAX_PORTS: usize = 1000;

/// The arguments of the Service's proxies, sorted, so that the order of its ports changes nothing.
pub(super) fn of(service: &Service) -> Result<ProxyArgs, SpecError> {
    let Some(spec) = &service.spec else {
        return Err(SpecError::UnsupportedSpec("the Service has no spec".to_owned()));
    };
    let addresses = cluster_ips(spec)?;
    let ports = spec.ports.as_ref().map_or(0, Vec::len);
    if ports > MAX_PORTS {
        let error =
            format!("the Service has {ports} ports; at most {MAX_PORTS} can be held on a node: split it");
        return Err(SpecError::UnsupportedSpec(error));
    }
    let mut forwards = Vec::new();
    for port in spec.ports.iter().flatten() {
        let (protocol, number) = protocol_and_port(port)?;
        forwards.extend(addresses.iter().map(|&address| Forward {
            protocol,
            port: number,
            target: SocketAddr::new(address, number.get()),
        }));
    }
    if forwards.is_empty() {
        return Err(SpecError::UnsupportedSpec("the Service has no ports".to_owned()));
    }
    forwards.sort();
    let tcp: Vec<u16> =
        forwards.iter().filter(|f| f.protocol == Protocol::Tcp).map(|f| f.port.get()).collect();
    let probe_port = probe::port(&tcp)
        .ok_or_else(|| SpecError::UnsupportedSpec("no port is left for the proxies' own probe".to_owned()))?;
    Ok(ProxyArgs { sources: sources(spec)?, probe_port, ..ProxyArgs::new(forwards) })
}

fn cluster_ips(spec: &ServiceSpec) -> Result<Vec<IpAddr>, SpecError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| SpecError::UnsupportedSpec(format!("cluster IP {text:?} is not an address")))
    };
    spec.cluster_ips.iter().flatten().map(parse).collect()
}

fn protocol_and_port(port: &ServicePort) -> Result<(Protocol, NonZeroU16), SpecError> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = protocol.parse().map_err(|error| SpecError::UnsupportedSpec(format!("{error}")))?;
    let number = u16::try_from(port.port).ok().and_then(NonZeroU16::new);
    let number = number
        .ok_or_else(|| SpecError::UnsupportedSpec(format!("port {} is not from 1 to 65535", port.port)))?;
    Ok((protocol, number))
}

/// The API server lets spaces around ranges, and addresses within them, through.
fn sources(spec: &ServiceSpec) -> Result<Vec<IpNet>, SpecError> {
    let parse = |text: &String| {
        let range: Result<IpNet, _> = text.trim().parse();
        range.map(|range| range.trunc()).map_err(|_| {
            SpecError::UnsupportedSpec(format!(
                "loadBalancerSourceRanges: {text:?} is not of the form 10.0.0.0/8"
            ))
        })
    };
    let mut ranges =
        spec.load_balancer_source_ranges.iter().flatten().map(parse).collect::<Result<Vec<_>, _>>()?;
    ranges.sort();
    ranges.dedup();
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{ServiceBuilder, service};

    #[test]
    fn every_port_is_forwarded_to_every_cluster_ip_in_a_stable_order() {
        let one = service("dns").udp(53).tcp(53).cluster_ips(&["10.97.0.7", "fd97::7"]).build();
        let other = service("dns").tcp(53).udp(53).cluster_ips(&["10.97.0.7", "fd97::7"]).build();
        let args = of(&one).unwrap();
        assert_eq!(args, of(&other).unwrap());
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
    fn the_probe_gives_way_to_a_tcp_port_only() {
        assert_eq!(of(&service("web").udp(probe::PREFERRED_PORT).build()).unwrap().probe_port, 10_290);
        assert_eq!(of(&service("web").tcp(probe::PREFERRED_PORT).build()).unwrap().probe_port, 10_289);
    }

    #[test]
    fn source_ranges_are_normalised() {
        let service = service("web").tcp(80).sources(&["10.0.0.1/8", " 10.0.0.0/8 ", "fd00::/8"]).build();
        let ranges: Vec<_> = of(&service).unwrap().sources.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.0.0.0/8", "fd00::/8"]);
    }

    #[test]
    fn a_thousand_ports_are_forwarded_and_more_are_refused_with_the_limit() {
        let with = |ports: u16| (1..=ports).fold(service("many"), ServiceBuilder::tcp).build();
        assert_eq!(of(&with(1000)).unwrap().forwards.len(), 1000);
        let refusal = of(&with(1001)).unwrap_err().to_string();
        assert!(refusal.contains("1001 ports") && refusal.contains("at most 1000"), "{refusal}");
    }

    #[test]
    fn a_range_that_is_none_is_named() {
        let service = service("web").tcp(80).sources(&["everybody"]).build();
        assert!(of(&service).unwrap_err().to_string().contains("\"everybody\""));
    }
}
