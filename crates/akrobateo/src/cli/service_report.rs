//! The state of one Service with the operator's decision, and the facts that all commands show. Pure.

use std::collections::BTreeSet;

use akrobateo_core::HostPort;
use akrobateo_services::allocation::AllocationResult;
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::published::published_addresses;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};

use crate::decide::{Decision, ServiceState, Workload, has_ready_pod, runs_on};

/// A Service, or the remaining proxies of a deleted Service. The report includes the operator's decision.
pub(super) struct ServiceReport {
    pub(super) key: ServiceKey,
    pub(super) state: ServiceState,
    pub(super) decision: Decision,
}

impl ServiceReport {
    /// Returns the Service, or `None` if the Service was deleted.
    pub(super) fn service(&self) -> Option<&Service> {
        self.state.service.as_deref()
    }

    /// Returns the spec of the Service.
    pub(super) fn service_spec(&self) -> Option<&ServiceSpec> {
        self.service().and_then(|service| service.spec.as_ref())
    }

    /// Returns true if the Service has type LoadBalancer, or if workloads of its proxies still exist.
    pub(super) fn is_listed(&self) -> bool {
        let service_type = self.service_spec().and_then(|spec| spec.type_.as_deref());
        service_type == Some("LoadBalancer") || !self.state.workloads.is_empty()
    }

    /// Returns the ports of the Service's spec in the form `80/TCP`.
    pub(super) fn port_names(&self) -> Vec<String> {
        let ports = self.service_spec().into_iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.map(|port| format!("{}/{}", port.port, port.protocol.as_deref().unwrap_or("TCP"))).collect()
    }

    /// Returns the addresses and host names in the Service's status.
    pub(super) fn addresses(&self) -> Vec<String> {
        let ingress = self.service().map(published_addresses).unwrap_or_default();
        let address = |entry: &LoadBalancerIngress| entry.ip.clone().or_else(|| entry.hostname.clone());
        ingress.iter().filter_map(address).collect()
    }

    /// Returns the ports that the proxies use on their nodes. A rejected Service keeps the ports of its previous
    /// proxies.
    pub(super) fn host_ports(&self) -> BTreeSet<HostPort> {
        match &self.state.allocation_result {
            None => BTreeSet::new(),
            Some(AllocationResult::Rejected(_)) => {
                self.state.workloads.iter().flat_map(Workload::host_ports).collect()
            }
            Some(AllocationResult::Accepted(spec, _)) => spec.host_ports(),
        }
    }

    /// Returns the nodes that should have a proxy. The proxies of a rejected Service stay on their nodes.
    pub(super) fn proxy_nodes(&self) -> Vec<&NodeInfo> {
        let nodes = self.state.nodes.iter();
        match &self.state.allocation_result {
            None => Vec::new(),
            Some(AllocationResult::Rejected(_)) => nodes.filter(|node| self.has_pod_on(node)).collect(),
            Some(AllocationResult::Accepted(spec, allocation)) => {
                nodes.filter(|node| allocation.allows(spec, node)).collect()
            }
        }
    }

    /// Returns the number of proxies that should run.
    pub(super) fn desired_proxy_count(&self) -> usize {
        let nodes = self.proxy_nodes().len();
        match &self.state.allocation_result {
            Some(AllocationResult::Accepted(spec, _)) => spec.proxy_count(nodes),
            _ => nodes,
        }
    }

    /// Returns the number of nodes with a ready proxy.
    pub(super) fn ready_proxy_count(&self) -> usize {
        self.state.nodes.iter().filter(|node| self.has_ready_proxy_on(node)).count()
    }

    pub(super) fn has_ready_proxy_on(&self, node: &NodeInfo) -> bool {
        has_ready_pod(&self.state.pods, &node.name)
    }

    pub(super) fn has_pod_on(&self, node: &NodeInfo) -> bool {
        self.state.pods.iter().any(|pod| runs_on(pod, &node.name))
    }
}
