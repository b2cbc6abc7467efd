//! Converts a configuration into its JSON form. Pure.

use super::{
    ClientAddressJson, ConfigJson, EndpointJson, NodeJson, PathJson, PeerJson, PortJson, ServiceJson,
    TrafficPolicyJson,
};
use crate::config::{Endpoint, LocalNode, NodeConfig, Peer, Service, ServicePort};
use crate::probe::PeerPath;

impl NodeConfig {
    /// Returns the JSON form. [`NodeConfig::from_json`] returns a configuration that leads to the same rules.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&ConfigJson {
            node: NodeJson::from(&self.node),
            pod_ranges: self.pod_ranges.clone(),
            peers: self.peers.iter().map(PeerJson::from).collect(),
            services: self.services.iter().map(ServiceJson::from).collect(),
        })
    }
}

impl From<&LocalNode> for NodeJson {
    fn from(node: &LocalNode) -> Self {
        Self {
            number: node.number,
            name: node.name.clone(),
            zone: node.zone.clone(),
            addresses: node.addresses.clone(),
            uplink: node.uplink.clone(),
            uplink_mtu: node.uplink_mtu,
            probe_addresses: node.probe_addresses.clone(),
        }
    }
}

impl From<&Peer> for PeerJson {
    fn from(peer: &Peer) -> Self {
        let path = |path: &PeerPath| match path {
            PeerPath::Direct => PathJson::Direct,
            PeerPath::Tunnel => PathJson::Tunnel,
        };
        Self {
            number: peer.number,
            addresses: peer.addresses.clone(),
            mac: peer.mac.to_string(),
            probe_addresses: peer.probe_addresses.clone(),
            is_silent: peer.is_silent,
            paths: peer.paths.iter().map(|(family, it)| (family.to_string(), path(it))).collect(),
        }
    }
}

impl From<&Service> for ServiceJson {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            uid: service.uid.clone(),
            ip_families: service.families.iter().map(ToString::to_string).collect(),
            external_traffic_policy: if service.is_traffic_policy_local {
                TrafficPolicyJson::Local
            } else {
                TrafficPolicyJson::Cluster
            },
            client_address: if service.keeps_client_address {
                ClientAddressJson::Keep
            } else {
                ClientAddressJson::Masquerade
            },
            session_affinity_seconds: service.affinity_seconds.map(Into::into),
            load_balancer_source_ranges: service.source_ranges.clone(),
            ports: service.ports.iter().map(PortJson::from).collect(),
        }
    }
}

impl From<&ServicePort> for PortJson {
    fn from(port: &ServicePort) -> Self {
        Self {
            protocol: port.protocol.api_name().to_owned(),
            port: port.port,
            endpoints: port.endpoints.iter().map(EndpointJson::from).collect(),
        }
    }
}

impl From<&Endpoint> for EndpointJson {
    fn from(endpoint: &Endpoint) -> Self {
        // An endpoint that terminates can be ready too (`publishNotReadyAddresses`). For the rules it is ready.
        let is_terminating = endpoint.is_serving_while_terminating && !endpoint.is_ready;
        Self {
            address: endpoint.address,
            node: endpoint.node,
            node_conflict: endpoint.has_node_conflict,
            ready: endpoint.is_ready,
            serving: is_terminating,
            terminating: is_terminating,
            for_zones: endpoint.hinted_zones.clone(),
            for_nodes: endpoint.hinted_nodes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use akrobateo_core::{Family, Protocol};

    use super::*;
    use crate::config::fixtures::{config, endpoint, service};

    #[test]
    fn configuration_is_read_as_it_was_written() {
        let terminating_endpoint =
            Endpoint { is_ready: false, is_serving_while_terminating: true, ..endpoint(12, 1) };
        let hinted_endpoint = Endpoint {
            node: None,
            has_node_conflict: true,
            hinted_zones: vec!["a".to_owned()],
            hinted_nodes: vec!["n1".to_owned()],
            ..endpoint(11, 2)
        };
        let ports = vec![ServicePort {
            protocol: Protocol::Udp,
            port: NonZeroU16::new(53).unwrap(),
            endpoints: vec![endpoint(10, 1), hinted_endpoint, terminating_endpoint],
        }];
        let service_with_source_ranges = Service {
            name: "default/restricted".to_owned(),
            uid: Some("8c3a6ef2".to_owned()),
            families: vec![Family::V6],
            is_traffic_policy_local: true,
            affinity_seconds: NonZeroU32::new(60),
            source_ranges: Some(vec!["fd00::/8".parse().unwrap()]),
            ports,
            ..service()
        };
        let service_of_other_nodes =
            Service { families: Vec::new(), keeps_client_address: false, ..service() };
        let mut config =
            NodeConfig { services: vec![service_with_source_ranges, service_of_other_nodes], ..config() };
        config.node.zone = Some("a".to_owned());
        config.peers[0].set_paths([(Family::V4, PeerPath::Direct), (Family::V6, PeerPath::Tunnel)].into());
        let json = config.to_json().unwrap();
        assert_eq!(NodeConfig::from_json(&json).unwrap(), config);
    }
}
