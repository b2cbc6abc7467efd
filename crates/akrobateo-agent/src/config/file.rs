//! The JSON form of a configuration, and its validation. Pure.
//!
//! If the Kubernetes API has a similar field, names and values are the same as in the API. The repository's
//! `examples/node-agent` has a complete example.

mod output;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;

use akrobateo_core::{Family, Protocol};
use ipnet::IpNet;
use links::MacAddress;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Endpoint, LocalNode, NodeConfig, Peer, Service, ServicePort};
use crate::marks::{MAX_NODE_NUMBER, Marks, NodeNumber};
use crate::probe::PeerPath;

/// The highest timeout of a sessionAffinity, in seconds, as in the Kubernetes API.
const MAX_AFFINITY_SECONDS: u32 = 86_400;
/// The default MTU of the uplink.
const DEFAULT_MTU: u32 = 1500;
/// The allowed values of the MTU of the uplink: from the smallest MTU of IPv6 to the longest packet.
const MTU_RANGE: RangeInclusive<u32> = 1280..=65_535;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigJson {
    node: NodeJson,
    #[serde(default)]
    pod_ranges: Vec<IpNet>,
    #[serde(default)]
    peers: Vec<PeerJson>,
    #[serde(default)]
    services: Vec<ServiceJson>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeJson {
    number: NodeNumber,
    #[serde(default)]
    name: String,
    zone: Option<String>,
    addresses: Vec<IpAddr>,
    uplink: String,
    #[serde(default = "default_mtu")]
    uplink_mtu: u32,
    #[serde(default)]
    probe_addresses: Vec<IpAddr>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PeerJson {
    number: NodeNumber,
    addresses: Vec<IpAddr>,
    mac: String,
    #[serde(default)]
    probe_addresses: Vec<IpAddr>,
    #[serde(default, rename = "ways")]
    paths: BTreeMap<String, PathJson>,
    #[serde(default)]
    is_silent: bool,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum PathJson {
    Direct,
    Tunnel,
    Masquerade,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq, Serialize)]
enum TrafficPolicyJson {
    #[default]
    Cluster,
    Local,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum ClientAddressJson {
    #[default]
    Keep,
    Masquerade,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceJson {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    ip_families: Vec<String>,
    #[serde(default)]
    external_traffic_policy: TrafficPolicyJson,
    #[serde(default)]
    client_address: ClientAddressJson,
    session_affinity_seconds: Option<u32>,
    load_balancer_source_ranges: Option<Vec<IpNet>>,
    ports: Vec<PortJson>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortJson {
    protocol: String,
    port: NonZeroU16,
    #[serde(default)]
    endpoints: Vec<EndpointJson>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the API has the same fields")]
struct EndpointJson {
    address: SocketAddr,
    node: Option<NodeNumber>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_conflict: bool,
    #[serde(default = "is_ready_by_default")]
    ready: bool,
    #[serde(default)]
    serving: bool,
    #[serde(default)]
    terminating: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    for_zones: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    for_nodes: Vec<String>,
}

const fn default_mtu() -> u32 {
    DEFAULT_MTU
}

const fn is_ready_by_default() -> bool {
    true
}

impl NodeConfig {
    /// Parses and validates the JSON form.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        let file: ConfigJson = serde_json::from_slice(json)?;
        let config = Self {
            node: file.node.into_node()?,
            pod_ranges: file.pod_ranges,
            probes_tunnel: false,
            recognizes_clients: false,
            peers: file.peers.into_iter().map(PeerJson::into_peer).collect::<Result<_, _>>()?,
            services: file.services.into_iter().map(ServiceJson::into_service).collect::<Result<_, _>>()?,
        };
        config.check_duplicates()?;
        Ok(config)
    }

    fn check_duplicates(&self) -> Result<(), ConfigError> {
        let mut numbers = BTreeSet::from([self.node.number]);
        for peer in &self.peers {
            if !numbers.insert(peer.number) {
                let number = peer.number;
                return Err(duplicate_error(
                    &format!("peer {number}"),
                    "another node",
                    format!("number {number}"),
                ));
            }
        }
        let mut services_by_frontend = BTreeMap::new();
        for service in &self.services {
            for port in &service.ports {
                for family in &service.families {
                    let frontend = (*family, port.protocol, port.port);
                    if let Some(other) = services_by_frontend.insert(frontend, &service.name) {
                        let property = format!("port {}/{} of {family}", port.port, port.protocol.api_name());
                        return Err(duplicate_error(
                            &format!("Service {other}"),
                            &format!("Service {}", service.name),
                            property,
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

impl NodeJson {
    fn into_node(self) -> Result<LocalNode, ConfigError> {
        check_node_number(self.number)?;
        for address in &self.addresses {
            if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
                return Err(value_error("node.addresses", address, "addresses that clients can reach"));
            }
        }
        if self.uplink.is_empty() || self.uplink.len() > 15 {
            return Err(value_error(
                "node.uplink",
                &self.uplink,
                "the name of a network interface, 1 to 15 bytes",
            ));
        }
        if !MTU_RANGE.contains(&self.uplink_mtu) {
            return Err(value_error("node.uplinkMtu", self.uplink_mtu, "a number from 1280 to 65535"));
        }
        Ok(LocalNode {
            number: self.number,
            name: self.name,
            zone: self.zone,
            addresses: self.addresses,
            uplink: self.uplink,
            uplink_mtu: self.uplink_mtu,
            probe_addresses: self.probe_addresses,
            has_egress_hook: true,
            marks: Marks::default(),
        })
    }
}

impl PeerJson {
    fn into_peer(self) -> Result<Peer, ConfigError> {
        check_node_number(self.number)?;
        let mac: MacAddress = self
            .mac
            .parse()
            .map_err(|_| value_error("peers.mac", &self.mac, "a MAC address: six hexadecimal bytes"))?;
        let mut paths = BTreeMap::new();
        for (name, path) in &self.paths {
            let family = parse_family("peers.ways", name)?;
            match path {
                PathJson::Direct => _ = paths.insert(family, PeerPath::Direct),
                PathJson::Tunnel => _ = paths.insert(family, PeerPath::Tunnel),
                PathJson::Masquerade => {}
            }
        }
        Ok(Peer {
            number: self.number,
            addresses: self.addresses,
            mac,
            probe_addresses: self.probe_addresses,
            last_paths: paths.clone(),
            paths,
            is_silent: self.is_silent,
        })
    }
}

impl ServiceJson {
    fn into_service(self) -> Result<Service, ConfigError> {
        let affinity_seconds = match self.session_affinity_seconds {
            None => None,
            Some(seconds) => Some(
                NonZeroU32::new(seconds).filter(|seconds| seconds.get() <= MAX_AFFINITY_SECONDS).ok_or_else(
                    || value_error("services.sessionAffinitySeconds", seconds, "a number from 1 to 86400"),
                )?,
            ),
        };
        Ok(Service {
            families: self
                .ip_families
                .iter()
                .map(|name| parse_family("services.ipFamilies", name))
                .collect::<Result<_, _>>()?,
            is_traffic_policy_local: self.external_traffic_policy == TrafficPolicyJson::Local,
            keeps_client_address: self.client_address == ClientAddressJson::Keep,
            affinity_seconds,
            source_ranges: self.load_balancer_source_ranges,
            ports: self.ports.into_iter().map(PortJson::into_port).collect::<Result<_, _>>()?,
            name: self.name,
            uid: self.uid,
        })
    }
}

impl PortJson {
    fn into_port(self) -> Result<ServicePort, ConfigError> {
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.api_name() == self.protocol)
            .ok_or_else(|| value_error("services.ports.protocol", &self.protocol, "TCP, UDP or SCTP"))?;
        let endpoints = self.endpoints.into_iter().map(EndpointJson::into_endpoint).collect();
        Ok(ServicePort { protocol, port: self.port, endpoints })
    }
}

impl EndpointJson {
    fn into_endpoint(self) -> Endpoint {
        Endpoint {
            address: self.address,
            node: self.node,
            has_node_conflict: self.node_conflict,
            is_ready: self.ready && !self.terminating,
            is_serving_while_terminating: self.serving && self.terminating,
            hinted_zones: self.for_zones,
            hinted_nodes: self.for_nodes,
        }
    }
}

fn check_node_number(number: NodeNumber) -> Result<(), ConfigError> {
    if (1..=MAX_NODE_NUMBER).contains(&number) {
        return Ok(());
    }
    Err(value_error("the number of a node", number, "a number from 1 to 16383"))
}

fn parse_family(field: &str, name: &str) -> Result<Family, ConfigError> {
    Family::from_name(name).ok_or_else(|| value_error(field, name, "IPv4 or IPv6"))
}

fn value_error(field: &str, value: impl Display, expected: &'static str) -> ConfigError {
    ConfigError::Value { field: field.to_owned(), value: value.to_string(), expected }
}

fn duplicate_error(first: &str, second: &str, property: String) -> ConfigError {
    ConfigError::Duplicate { first: first.to_owned(), second: second.to_owned(), property }
}
