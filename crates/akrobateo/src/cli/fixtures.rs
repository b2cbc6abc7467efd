//! Clusters for tests of the commands. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_services::allocation::{NothingObserved, PortAllocations};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::ServiceDefaults;
use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::cluster::Cluster;
use super::service_report::ServiceReport;
use crate::decide::fixtures::{INSTANCE, at, defaults, proxy_config};
use crate::decide::{AgentStates, ServiceState, decide, with_reported_conflicts};

/// Returns a cluster one minute after its start. All `pods` belong to the Service `default/web`.
pub(super) fn cluster(services: Vec<Service>, nodes: &[Node], pods: Vec<Pod>) -> Cluster {
    cluster_with_defaults(defaults(), services, nodes, pods)
}

/// Returns a cluster whose operator has these defaults.
pub(super) fn cluster_with_defaults(
    defaults: ServiceDefaults,
    services: Vec<Service>,
    nodes: &[Node],
    pods: Vec<Pod>,
) -> Cluster {
    let (defaults, proxies, now) = (Arc::new(defaults), proxy_config(), at(60));
    let nodes: Arc<Vec<_>> = Arc::new(nodes.iter().map(NodeInfo::from_node).collect());
    let services: Vec<_> = services.into_iter().map(Arc::new).collect();
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let allocations = PortAllocations::default().update(&services, &nodes, &defaults, &NothingObserved);
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
        let decision = with_reported_conflicts(decide(&proxies, &state, now), Some(service));
        ServiceReport { key, state, decision }
    };
    let service_reports = services.iter().map(report).collect();
    Cluster {
        operator_instance: INSTANCE.to_owned(),
        service_reports,
        nodes,
        agents: AgentStates::new(),
        defaults,
        now,
    }
}
