//! Selects the endpoints of a Service to which one node sends packets. Pure.
//!
//! The rules are those of kube-proxy (`pkg/proxy/topology.go`).

use akrobateo_core::Family;

use super::{Endpoint, LocalNode, Service, ServicePort};

impl LocalNode {
    /// Returns the endpoints to which this node sends packets of a family, sorted by address.
    ///
    /// Without ready endpoints, returns the endpoints that terminate but still serve. Hints count only if all ready
    /// endpoints have a hint, and one of the hints is for this node or its zone.
    #[must_use]
    pub fn select_endpoints<'a>(
        &self,
        service: &Service,
        port: &'a ServicePort,
        family: Family,
    ) -> Vec<&'a Endpoint> {
        let is_candidate = |endpoint: &&Endpoint| {
            Family::from_ip(endpoint.address.ip()) == family
                && (!service.is_traffic_policy_local || endpoint.node == Some(self.number))
        };
        let candidates: Vec<_> = port.endpoints.iter().filter(is_candidate).collect();
        let mut selected_endpoints: Vec<_> =
            candidates.iter().copied().filter(|endpoint| endpoint.is_ready).collect();
        if selected_endpoints.is_empty() {
            selected_endpoints
                .extend(candidates.iter().filter(|endpoint| endpoint.is_serving_while_terminating));
        } else if !service.is_traffic_policy_local {
            selected_endpoints = self.filter_by_hints(selected_endpoints);
        }
        selected_endpoints.sort_unstable();
        selected_endpoints.dedup_by_key(|endpoint| endpoint.address);
        selected_endpoints
    }

    /// Returns the ready endpoints with hints for this node. Without usable hints for nodes, returns the ready
    /// endpoints with hints for this node's zone. Without any usable hints, returns all ready endpoints.
    fn filter_by_hints<'a>(&self, ready_endpoints: Vec<&'a Endpoint>) -> Vec<&'a Endpoint> {
        let is_for_node = |endpoint: &&Endpoint| endpoint.hinted_nodes.contains(&self.name);
        if ready_endpoints.iter().all(|endpoint| !endpoint.hinted_nodes.is_empty())
            && ready_endpoints.iter().any(is_for_node)
        {
            return ready_endpoints.into_iter().filter(is_for_node).collect();
        }
        let is_for_zone = |endpoint: &&Endpoint| {
            self.zone.as_ref().is_some_and(|zone| endpoint.hinted_zones.contains(zone))
        };
        if ready_endpoints.iter().all(|endpoint| !endpoint.hinted_zones.is_empty())
            && ready_endpoints.iter().any(is_for_zone)
        {
            return ready_endpoints.into_iter().filter(is_for_zone).collect();
        }
        ready_endpoints
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::Protocol;
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::fixtures::{endpoint, local_node, service};

    /// Returns the last bytes of the addresses of the endpoints that node 1 selects.
    fn last_bytes_of_selected_addresses(service: &Service, endpoints: Vec<Endpoint>) -> Vec<u8> {
        let port = ServicePort { protocol: Protocol::Tcp, port: NonZeroU16::MIN, endpoints };
        let endpoints = local_node(1).select_endpoints(service, &port, Family::V4);
        endpoints
            .into_iter()
            .map(|endpoint| match endpoint.address.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            })
            .collect()
    }

    #[test]
    fn terminating_endpoint_is_used_only_without_ready_endpoints() {
        let terminating_endpoint =
            Endpoint { is_ready: false, is_serving_while_terminating: true, ..endpoint(10, 1) };
        let stopped_endpoint = Endpoint { is_ready: false, ..endpoint(11, 1) };
        let service = service();
        assert_eq!(
            last_bytes_of_selected_addresses(
                &service,
                vec![terminating_endpoint.clone(), stopped_endpoint.clone(), endpoint(12, 2)]
            ),
            [12]
        );
        assert_eq!(
            last_bytes_of_selected_addresses(&service, vec![terminating_endpoint, stopped_endpoint]),
            [10]
        );
    }

    #[test]
    fn traffic_policy_local_selects_endpoints_of_this_node() {
        let local_service = Service { is_traffic_policy_local: true, ..service() };
        let terminating_endpoint =
            Endpoint { is_ready: false, is_serving_while_terminating: true, ..endpoint(10, 1) };
        assert_eq!(
            last_bytes_of_selected_addresses(&local_service, vec![endpoint(11, 2), endpoint(12, 1)]),
            [12]
        );
        assert_eq!(
            last_bytes_of_selected_addresses(&local_service, vec![endpoint(11, 2), terminating_endpoint]),
            [10]
        );
        assert!(last_bytes_of_selected_addresses(&local_service, vec![endpoint(11, 2)]).is_empty());
    }

    #[test]
    fn hints_apply_if_every_endpoint_has_one_and_one_matches() {
        let endpoint_with_zone_hint =
            |number, zone: &str| Endpoint { hinted_zones: vec![zone.to_owned()], ..endpoint(number, 1) };
        let endpoint_with_node_hint = |number, node: &str| Endpoint {
            hinted_nodes: vec![node.to_owned()],
            ..endpoint_with_zone_hint(number, "zone1")
        };
        let service = service();
        assert_eq!(
            last_bytes_of_selected_addresses(
                &service,
                vec![endpoint_with_zone_hint(10, "zone1"), endpoint_with_zone_hint(11, "zone2")]
            ),
            [10]
        );
        assert_eq!(
            last_bytes_of_selected_addresses(
                &service,
                vec![endpoint_with_zone_hint(10, "zone2"), endpoint_with_zone_hint(11, "zone2")]
            ),
            [10, 11]
        );
        assert_eq!(
            last_bytes_of_selected_addresses(
                &service,
                vec![endpoint_with_zone_hint(10, "zone1"), endpoint(11, 1)]
            ),
            [10, 11]
        );
        assert_eq!(
            last_bytes_of_selected_addresses(
                &service,
                vec![endpoint_with_node_hint(10, "node1"), endpoint_with_node_hint(11, "node2")]
            ),
            [10]
        );
        assert_eq!(
            last_bytes_of_selected_addresses(
                &service,
                vec![endpoint_with_node_hint(10, "node2"), endpoint_with_node_hint(11, "node3")]
            ),
            [10, 11]
        );
        let local_service = Service { is_traffic_policy_local: true, ..service };
        assert_eq!(
            last_bytes_of_selected_addresses(
                &local_service,
                vec![endpoint_with_zone_hint(10, "zone1"), endpoint_with_zone_hint(11, "zone2")]
            ),
            [10, 11]
        );
    }
}
