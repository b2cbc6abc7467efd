//! Limits the number of endpoints in the configuration of a node. Pure.
//!
//! Each endpoint of a port needs about 3 KB of memory in the agent, and an element of a map in the kernel. Any tenant can
//! create Services with 1,000 ports and thousands of endpoints, and the agent must still serve the other Services.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::config::{Endpoint, Service};
use crate::marks::NodeNumber;

/// The maximum number of endpoints of all ports of a Service.
pub(super) const MAX_ENDPOINTS_OF_SERVICE: usize = 10_000;
/// The maximum number of endpoints of all ports of all Services.
pub(super) const MAX_ENDPOINTS_OF_NODE: usize = 50_000;

/// Returns the number of endpoints of all ports of all Services.
pub(super) fn count_endpoints(services: &[Service]) -> usize {
    services.iter().map(count_endpoints_of_service).sum()
}

fn count_endpoints_of_service(service: &Service) -> usize {
    service.ports.iter().map(|port| port.endpoints.len()).sum()
}

/// Removes endpoints of the Services with the most endpoints, until the node has at most [`MAX_ENDPOINTS_OF_NODE`].
/// Returns the maximum number of endpoints of each Service.
pub(super) fn limit_services(services: &mut [Service], own_number: NodeNumber) -> usize {
    let mut counts: Vec<_> = services.iter().map(count_endpoints_of_service).collect();
    counts.sort_unstable();
    let maximum = fair_maximum(&counts, MAX_ENDPOINTS_OF_NODE).min(MAX_ENDPOINTS_OF_SERVICE);
    for service in services {
        limit_service(service, maximum, own_number);
    }
    maximum
}

/// Removes endpoints of a Service until its ports have at most `max_count` endpoints in all, but at least one each.
pub(super) fn limit_service(service: &mut Service, max_count: usize, own_number: NodeNumber) {
    if count_endpoints_of_service(service) > max_count {
        let max_count_of_port = (max_count / service.ports.len().max(1)).max(1);
        for port in &mut service.ports {
            port.endpoints =
                limit_endpoints(std::mem::take(&mut port.endpoints), max_count_of_port, own_number);
        }
    }
}

/// Returns the largest maximum with which the sum of the counts is at most `limit`. The counts must be sorted.
fn fair_maximum(counts: &[usize], limit: usize) -> usize {
    let mut free = limit;
    for (index, count) in counts.iter().enumerate() {
        let share = free / (counts.len() - index);
        if *count > share {
            return share;
        }
        free -= count;
    }
    limit
}

/// Returns at most `max_count` of the endpoints, sorted. Prefers the endpoints on this node, because only this node
/// serves them with externalTrafficPolicy Local, and because other nodes send packets to them. Then prefers ready
/// endpoints. A change of one endpoint changes at most one other endpoint in the result.
fn limit_endpoints(mut endpoints: Vec<Endpoint>, max_count: usize, own_number: NodeNumber) -> Vec<Endpoint> {
    if endpoints.len() > max_count {
        let hash = |endpoint: &Endpoint| {
            let mut hasher = DefaultHasher::new();
            endpoint.address.hash(&mut hasher);
            hasher.finish()
        };
        endpoints.sort_by_cached_key(|it| (it.node != Some(own_number), !it.is_ready, hash(it)));
        endpoints.truncate(max_count);
        endpoints.sort();
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use akrobateo_core::Protocol;

    use super::*;
    use crate::config::ServicePort;
    use crate::config::fixtures::{endpoint, service};

    #[test]
    fn endpoints_on_this_node_and_ready_endpoints_remain_within_the_limit() {
        let endpoint = |last_byte: u8, node: NodeNumber, is_ready| Endpoint {
            node: Some(node),
            is_ready,
            ..crate::config::fixtures::endpoint(last_byte, 0)
        };
        let other_endpoints = (1..=40).map(|byte| endpoint(byte, 2, byte % 2 == 0));
        let all: Vec<_> = other_endpoints.chain([endpoint(50, 1, false)]).collect();
        let limited = limit_endpoints(all.clone(), 11, 1);
        assert_eq!(limited.len(), 11);
        assert!(limited.is_sorted() && limited.contains(&all[40]));
        assert_eq!(limited.iter().filter(|it| it.is_ready).count(), 10);
        // When an endpoint disappears, the others remain.
        let without_first = all.iter().filter(|it| **it != limited[0]).cloned().collect();
        let limited_without_first = limit_endpoints(without_first, 11, 1);
        assert_eq!(limited.iter().filter(|it| limited_without_first.contains(it)).count(), 10);
        assert_eq!(limit_endpoints(all.clone(), 41, 1), all);
    }

    #[test]
    fn only_the_largest_services_lose_endpoints() {
        assert_eq!(fair_maximum(&[1, 2, 3], 6), 6);
        assert_eq!(fair_maximum(&[1, 10, 10], 11), 5);
        assert_eq!(fair_maximum(&[4, 4, 4], 6), 2);
        assert_eq!(fair_maximum(&[], 6), 6);
        let service_with_endpoints = |count: usize| {
            let port = NonZeroU16::new(80).unwrap();
            let endpoints = vec![endpoint(10, 1); count];
            Service { ports: vec![ServicePort { protocol: Protocol::Tcp, port, endpoints }], ..service() }
        };
        let mut services = vec![service_with_endpoints(9_000); 8];
        services.push(service_with_endpoints(100));
        let maximum = limit_services(&mut services, 1);
        assert_eq!(maximum, (MAX_ENDPOINTS_OF_NODE - 100) / 8);
        assert_eq!(services.last().map(count_endpoints_of_service), Some(100));
        assert!(count_endpoints(&services) <= MAX_ENDPOINTS_OF_NODE);
        assert_eq!(limit_services(&mut services[..1], 1), MAX_ENDPOINTS_OF_SERVICE);
    }
}
