//! Clusters for tests of the commands.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::cluster::Cluster;
use super::service_report::ServiceReport;
use crate::allocation::{HeldPorts, PortAllocations};
use crate::decide::ServiceState;
use crate::decide::decide;
use crate::decide::fixtures::{at, defaults, proxy_config};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// A cluster in which all `pods` are those of `default/web`, a minute after the beginning.
pub(super) fn cluster(services: Vec<Service>, nodes: &[Node], pods: Vec<Pod>) -> Cluster {
    let (defaults, settings, now) = (Arc::new(defaults()), proxy_config(), at(60));
    let nodes: Arc<Vec<_>> = Arc::new(nodes.iter().map(NodeInfo::from_node).collect());
    let services: Vec<_> = services.into_iter().map(Arc::new).collect();
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let landscape = PortAllocations::allocate(&services, &nodes, &defaults, |_| HeldPorts::default());
    let subject = |service: &Arc<Service>| {
        let key = ServiceKey::from_service(service);
        let observed = ServiceState {
            service: Some(service.clone()),
            admission: landscape.get(&key).cloned(),
            pods: if key.name == "web" { pods.clone() } else { Vec::new() },
            nodes: nodes.clone(),
            endpoint_nodes: BTreeSet::new(),
            ..ServiceState::default()
        };
        let decision = decide(&settings, &defaults, &observed, now);
        ServiceReport { key, observed, decision }
    };
    Cluster { subjects: services.iter().map(subject).collect(), nodes, defaults, now }
}
