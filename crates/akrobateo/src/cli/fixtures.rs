//! Clusters for tests of the commands.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::cluster::Cluster;
use super::subject::Subject;
use crate::decide::fixtures::{at, defaults, settings};
use crate::decide::{Holding, Landscape, NodeFacts, decide};
use crate::key::ServiceKey;
use crate::observe::Observed;

/// A cluster in which all `pods` are those of `default/web`, a minute after the beginning.
pub(super) fn cluster(services: Vec<Service>, nodes: &[Node], pods: Vec<Pod>) -> Cluster {
    let (defaults, settings, now) = (Arc::new(defaults()), settings(), at(60));
    let nodes: Arc<Vec<_>> = Arc::new(nodes.iter().map(NodeFacts::of).collect());
    let services: Vec<_> = services.into_iter().map(Arc::new).collect();
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    let landscape = Landscape::survey(&services, &nodes, &defaults, |_| Holding::default());
    let subject = |service: &Arc<Service>| {
        let key = ServiceKey::of(service);
        let observed = Observed {
            service: Some(service.clone()),
            case: landscape.case(&key).cloned(),
            pods: if key.name == "web" { pods.clone() } else { Vec::new() },
            nodes: nodes.clone(),
            endpoint_nodes: BTreeSet::new(),
            ..Observed::default()
        };
        let decision = decide(&settings, &defaults, &observed, now);
        Subject { key, observed, decision }
    };
    Cluster { subjects: services.iter().map(subject).collect(), nodes, defaults, now }
}
