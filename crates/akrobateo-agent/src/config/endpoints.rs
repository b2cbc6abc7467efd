//! The endpoints of a Service to which one node sends packets. Pure.
//!
//! The rules are those of kube-proxy (`pkg/proxy/topology.go`).

use akrobateo_core::Family;

use super::{Endpoint, LocalNode, Service, ServicePort};

impl LocalNode {
    /// Returns the endpoints of a family to which this node sends packets, sorted by address.
    ///
    /// If no endpoint is ready, endpoints that terminate but still serve are used. Hints count only if all ready endpoints
    /// have them, and at least one of them is for this node.
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
        let mut selected: Vec<_> = candidates.iter().copied().filter(|endpoint| endpoint.is_ready).collect();
        if selected.is_empty() {
            selected.extend(candidates.iter().filter(|endpoint| endpoint.is_serving_while_terminating));
        } else if !service.is_traffic_policy_local {
            selected = self.follow_hints(selected);
        }
        selected.sort_unstable();
        selected.dedup_by_key(|endpoint| endpoint.address);
        selected
    }

    /// Returns the ready endpoints whose hints name this node, or else its zone, or else all ready endpoints.
    fn follow_hints<'a>(&self, ready: Vec<&'a Endpoint>) -> Vec<&'a Endpoint> {
        let for_node = |endpoint: &&Endpoint| endpoint.hinted_nodes.contains(&self.name);
        if ready.iter().all(|endpoint| !endpoint.hinted_nodes.is_empty()) && ready.iter().any(for_node) {
            return ready.into_iter().filter(for_node).collect();
        }
        let for_zone = |endpoint: &&Endpoint| {
            self.zone.as_ref().is_some_and(|zone| endpoint.hinted_zones.contains(zone))
        };
        if ready.iter().all(|endpoint| !endpoint.hinted_zones.is_empty()) && ready.iter().any(for_zone) {
            return ready.into_iter().filter(for_zone).collect();
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::Protocol;
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::fixtures::{endpoint, local_node, service};

    fn selected(service: &Service, endpoints: Vec<Endpoint>) -> Vec<u8> {
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
    fn terminating_endpoint_serves_only_if_no_endpoint_is_ready() {
        let terminating = Endpoint { is_ready: false, is_serving_while_terminating: true, ..endpoint(10, 1) };
        let stopped = Endpoint { is_ready: false, ..endpoint(11, 1) };
        let service = service();
        assert_eq!(selected(&service, vec![terminating.clone(), stopped.clone(), endpoint(12, 2)]), [12]);
        assert_eq!(selected(&service, vec![terminating, stopped]), [10]);
    }

    #[test]
    fn traffic_policy_local_selects_endpoints_of_this_node() {
        let local = Service { is_traffic_policy_local: true, ..service() };
        let terminating = Endpoint { is_ready: false, is_serving_while_terminating: true, ..endpoint(10, 1) };
        assert_eq!(selected(&local, vec![endpoint(11, 2), endpoint(12, 1)]), [12]);
        assert_eq!(selected(&local, vec![endpoint(11, 2), terminating]), [10]);
        assert!(selected(&local, vec![endpoint(11, 2)]).is_empty());
    }

    #[test]
    fn hints_count_if_all_ready_endpoints_have_them_and_one_is_for_this_node() {
        let for_zone =
            |number, zone: &str| Endpoint { hinted_zones: vec![zone.to_owned()], ..endpoint(number, 1) };
        let for_node = |number, node: &str| Endpoint {
            hinted_nodes: vec![node.to_owned()],
            ..for_zone(number, "zone1")
        };
        let service = service();
        assert_eq!(selected(&service, vec![for_zone(10, "zone1"), for_zone(11, "zone2")]), [10]);
        assert_eq!(selected(&service, vec![for_zone(10, "zone2"), for_zone(11, "zone2")]), [10, 11]);
        assert_eq!(selected(&service, vec![for_zone(10, "zone1"), endpoint(11, 1)]), [10, 11]);
        assert_eq!(selected(&service, vec![for_node(10, "node1"), for_node(11, "node2")]), [10]);
        assert_eq!(selected(&service, vec![for_node(10, "node2"), for_node(11, "node3")]), [10, 11]);
        let local = Service { is_traffic_policy_local: true, ..service };
        assert_eq!(selected(&local, vec![for_zone(10, "zone1"), for_zone(11, "zone2")]), [10, 11]);
    }
}
