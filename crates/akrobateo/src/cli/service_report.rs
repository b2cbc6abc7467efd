//! What is known of one Service, and what is said of it in every answer. Pure.

use std::collections::BTreeSet;

use akrobateo_core::HostPort;
use k8s_openapi::api::core::v1::Service;

use crate::allocation::Admission;
use crate::decide::ServiceState;
use crate::decide::{Decision, has_ready_pod, published_addresses, runs_on};
use crate::key::ServiceKey;
use crate::node_info::NodeInfo;

/// A Service, or what was made for one that is gone.
pub(super) struct ServiceReport {
    pub(super) key: ServiceKey,
    pub(super) observed: ServiceState,
    pub(super) decision: Decision,
}

impl ServiceReport {
    pub(super) fn service(&self) -> Option<&Service> {
        self.observed.service.as_deref()
    }

    /// Whether anybody would look for it here: a Service of type LoadBalancer, or proxies that are left of one.
    pub(super) fn is_of_interest(&self) -> bool {
        let spec = self.service().and_then(|service| service.spec.as_ref());
        spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
            || !self.observed.workloads.is_empty()
    }

    /// The Service's ports as in its spec: `80/TCP`.
    pub(super) fn ports(&self) -> Vec<String> {
        let spec = self.service().and_then(|service| service.spec.as_ref());
        let ports = spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.map(|port| format!("{}/{}", port.port, port.protocol.as_deref().unwrap_or("TCP"))).collect()
    }

    /// The addresses that the Service's status has.
    pub(super) fn addresses(&self) -> Vec<String> {
        let ingress = self.service().map(published_addresses).unwrap_or_default();
        let name = |entry: &k8s_openapi::api::core::v1::LoadBalancerIngress| {
            entry.ip.clone().or_else(|| entry.hostname.clone())
        };
        ingress.iter().filter_map(name).collect()
    }

    /// The nodes that have, or are to have, its proxies; of a refused Service those where the last good ones run.
    pub(super) fn holds(&self) -> (BTreeSet<HostPort>, Vec<&NodeInfo>) {
        let nodes = self.observed.nodes.iter();
        match &self.observed.admission {
            None => (BTreeSet::new(), Vec::new()),
            Some(Admission::Rejected(_)) => {
                let ports = self.observed.workloads.iter().flat_map(crate::decide::Workload::host_ports);
                (ports.collect(), nodes.filter(|node| self.has_pod(node)).collect())
            }
            Some(Admission::Accepted(wish, verdict)) => {
                (wish.host_ports(), nodes.filter(|node| verdict.allows(wish, node)).collect())
            }
        }
    }

    /// How many proxies there should be.
    pub(super) fn wanted(&self) -> usize {
        let nodes = self.holds().1.len();
        match &self.observed.admission {
            Some(Admission::Accepted(wish, _)) => wish.proxy_count(nodes),
            _ => nodes,
        }
    }

    /// How many nodes have a proxy that answers.
    pub(super) fn ready(&self) -> usize {
        self.observed.nodes.iter().filter(|node| self.is_ready_on(node)).count()
    }

    pub(super) fn is_ready_on(&self, node: &NodeInfo) -> bool {
        has_ready_pod(&self.observed.pods, &node.name)
    }

    pub(super) fn has_pod(&self, node: &NodeInfo) -> bool {
        self.observed.pods.iter().any(|pod| runs_on(pod, &node.name))
    }
}
