//! Clusters for tests of the commands. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::cluster::Cluster;
use super::service_report::ServiceReport;
use crate::allocation::{OccupiedPorts, PortAllocations};
use crate::decide::fixtures::{at, defaults, proxy_config};
use crate::decide::{ServiceState, decide};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// Returns a cluster one minute after its start. All `pods` belong to the Service `default/web`.
pub(super) fn cluster(services: Vec<Service>, nodes: &[Node], pods: Vec<Pod>) -> Cluster {
    let (defaults, proxies, now) = (Arc::new(defaults()), proxy_config(), at(60));
    let nodes: Arc<Vec<_>> = Arc::new(nodes.iter().map(NodeInfo::from_node).collect());
    let services: Vec<_> = services.into_iter().map(Arc::new).collect();
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let allocations = PortAllocations::allocate(&services, &nodes, &defaults, |_| OccupiedPorts::default());
    let report = |service: &Arc<Service>| {
        let key = ServiceKey::from_service(service);
        let state = ServiceState {
            service: Some(service.clone()),
            allocation_result: allocations.get(&key).cloned(),
            pods: if key.name == "web" { pods.clone() } else { Vec::new() },
            nodes: nodes.clone(),
            nodes_with_ready_endpoint: BTreeSet::new(),
            ..ServiceState::default()
        };
        let decision = decide(&proxies, &defaults, &state, now);
        ServiceReport { key, state, decision }
    };
    Cluster { reports: services.iter().map(report).collect(), nodes, defaults, now }
}
