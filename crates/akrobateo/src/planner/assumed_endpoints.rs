//! Guesses on which nodes the Services had endpoints before the operator started. No I/O.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use akrobateo_services::allocation::RecentEndpoints;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::published_nodes;
use akrobateo_services::spec::is_external_policy_local;
use k8s_openapi::api::core::v1::Service;

use crate::cache::Stores;
use crate::decide::{is_published_without_endpoint, publishes_all_nodes};

/// Returns an endpoint record for each published node on which a Service uses its ports. The operator must guess,
/// because it did not observe the endpoints before its start. If a Service had no endpoint before the restart, the
/// records contain all nodes on which the Service uses its ports. The caller then records the current endpoints, which
/// starts the retention of the nodes without an endpoint.
pub(super) fn assume_endpoints_before_start(
    stores: &Stores,
    nodes: &[NodeInfo],
    occupied_nodes: impl Fn(&ServiceKey) -> BTreeSet<String>,
    now: Instant,
) -> RecentEndpoints {
    let mut recent_endpoints = RecentEndpoints::default();
    let may_have_had_endpoint =
        |service: &&Arc<Service>| is_external_policy_local(service) && !publishes_all_nodes(service);
    for service in stores.services().iter().filter(may_have_had_endpoint) {
        let key = ServiceKey::from_service(service);
        let mut occupied_nodes = occupied_nodes(&key);
        let had_no_endpoint =
            is_published_without_endpoint(service) && stores.nodes_with_ready_endpoint(&key).is_empty();
        if !had_no_endpoint {
            let published_names = published_nodes(service, nodes);
            occupied_nodes.retain(|name| published_names.contains(name));
        }
        recent_endpoints.record(&key, service.metadata.uid.as_ref(), &occupied_nodes, now);
    }
    recent_endpoints
}
