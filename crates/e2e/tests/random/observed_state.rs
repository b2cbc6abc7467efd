//! The observed state of the cluster: the Services, and the ports of nodes that agents and workloads use for the
//! Services. Does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use akrobateo_core::annotations::WORKLOAD;
use akrobateo_core::{Family, Frontend, Protocol, labels};
use e2e::{Failure, Namespace, PROXIES_NAMESPACE, exposed_condition};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ContainerPort, Node, NodeSelectorRequirement, PodSpec, Service};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};

use crate::model::ServiceId;

/// A port of the node with this index.
pub(crate) type PortOnNode = (usize, Frontend);

/// The state of the cluster that the properties check.
#[derive(Clone, Default)]
pub(crate) struct ObservedState {
    /// The ports that each Service uses on nodes. Workloads use ports on the nodes that they select. Agents use ports
    /// on the nodes that are published.
    pub(crate) ports_by_service: BTreeMap<ServiceId, BTreeSet<PortOnNode>>,
    pub(crate) services: BTreeMap<ServiceId, Service>,
}

impl ObservedState {
    /// Reads the state from the cluster. Reads the workloads before the Services, so a Service is at least as new as
    /// its workload.
    pub(crate) async fn read(tenants: &[Namespace; 2], node_names: &[String]) -> Result<Self, Failure> {
        let client = tenants[0].cluster().client.clone();
        let all_nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
        let nodes: Vec<_> = node_names
            .iter()
            .filter_map(|name| all_nodes.iter().find(|node| node.name_any() == *name))
            .collect();
        let mut observed_state = Self::default();
        let params = ListParams::default();
        let daemonsets =
            Api::<DaemonSet>::namespaced(client.clone(), PROXIES_NAMESPACE).list(&params).await?;
        for daemonset in daemonsets {
            let spec = daemonset.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            observed_state.add_workload_ports(tenants, &daemonset, spec, &nodes);
        }
        let deployments =
            Api::<Deployment>::namespaced(client.clone(), PROXIES_NAMESPACE).list(&params).await?;
        for deployment in deployments {
            let spec = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
            observed_state.add_workload_ports(tenants, &deployment, spec, &nodes);
        }
        for (tenant_index, namespace) in tenants.iter().enumerate() {
            let services = Api::<Service>::namespaced(client.clone(), namespace.name());
            for service in services.list(&params).await? {
                if let Some(service_index) = parse_service_index(&service.name_any()) {
                    let id = ServiceId { tenant_index, service_index };
                    observed_state.add_published_ports(id, &service, &nodes);
                    observed_state.services.insert(id, service);
                }
            }
        }
        Ok(observed_state)
    }

    fn add_workload_ports<K: Resource>(
        &mut self,
        tenants: &[Namespace; 2],
        workload: &K,
        spec: Option<&PodSpec>,
        nodes: &[&Node],
    ) {
        let (labels, Some(spec)) = (workload.labels(), spec) else { return };
        let namespace = labels.get(labels::SERVICE_NAMESPACE);
        let tenant_index =
            tenants.iter().position(|tenant| namespace.is_some_and(|name| name == tenant.name()));
        let service_index = labels.get(labels::SERVICE_NAME).and_then(|name| parse_service_index(name));
        let (Some(tenant_index), Some(service_index), None) =
            (tenant_index, service_index, &workload.meta().deletion_timestamp)
        else {
            return;
        };
        let selected_nodes = nodes.iter().enumerate().filter(|(_, node)| node_affinity_selects(spec, node));
        let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
        let frontends: BTreeSet<_> = ports.flat_map(host_port_frontends).collect();
        let ports_on_nodes =
            selected_nodes.flat_map(|(node, _)| frontends.iter().map(move |port| (node, *port)));
        self.ports_by_service
            .entry(ServiceId { tenant_index, service_index })
            .or_default()
            .extend(ports_on_nodes);
    }

    /// Adds the ports of a Service that the agents forward. The agents use the ports on each node with a published
    /// address. Ignores rejected Services, because their agents may use earlier ports. Ignores Services without
    /// endpoints, because the operator publishes these Services even if they do not own their ports.
    fn add_published_ports(&mut self, id: ServiceId, service: &Service, nodes: &[&Node]) {
        let is_exposed = exposed_condition(service)
            .is_some_and(|condition| ["Exposed", "PartlyExposed"].contains(&condition.reason.as_str()));
        if service.annotations().contains_key(WORKLOAD) || !is_exposed {
            return;
        }
        let ports: Vec<_> = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).collect();
        for address in published_addresses(service) {
            let Some(node) = nodes.iter().position(|node| has_address(node, address)) else { continue };
            let family = Family::from_ip(address);
            let frontends = ports.iter().filter_map(|port| {
                let number = u16::try_from(port.port).ok()?.try_into().ok()?;
                let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
                Some((node, Frontend { family, protocol, port: number }))
            });
            self.ports_by_service.entry(id).or_default().extend(frontends);
        }
    }

    /// Returns the ports that a Service uses.
    pub(crate) fn ports_of_service(&self, id: ServiceId) -> BTreeSet<PortOnNode> {
        self.ports_by_service.get(&id).cloned().unwrap_or_default()
    }
}

fn published_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

fn has_address(node: &Node, address: IpAddr) -> bool {
    let mut addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.any(|node_address| node_address.address.parse() == Ok(address))
}

fn parse_service_index(name: &str) -> Option<usize> {
    name.strip_prefix("random-")?.parse().ok()
}

/// Returns the ports that a hostPort uses. An unspecified address as the hostIP limits the hostPort to one family.
fn host_port_frontends(port: &ContainerPort) -> Vec<Frontend> {
    let families = match port.host_ip.as_deref() {
        Some("::") => vec![Family::V6],
        Some("::ffff:0.0.0.0") => vec![Family::V4],
        _ => Family::ALL.to_vec(),
    };
    let port_number = port.host_port.and_then(|port| u16::try_from(port).ok()?.try_into().ok());
    let protocol = port.protocol.as_deref().unwrap_or("TCP").parse::<Protocol>().ok();
    let Some((port, protocol)) = port_number.zip(protocol) else { return Vec::new() };
    families.into_iter().map(|family| Frontend { family, protocol, port }).collect()
}

/// Returns true if the node affinity of a pod selects a node.
fn node_affinity_selects(spec: &PodSpec, node: &Node) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required_selector =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let is_met = |requirement: &NodeSelectorRequirement, value: Option<&String>| {
        let is_listed =
            value.is_some_and(|value| requirement.values.iter().flatten().any(|listed| listed == value));
        match requirement.operator.as_str() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    };
    let name = node.name_any();
    required_selector.is_none_or(|selector| {
        selector.node_selector_terms.iter().any(|term| {
            let mut labels = term.match_expressions.iter().flatten();
            let mut fields = term.match_fields.iter().flatten();
            labels.all(|requirement| is_met(requirement, node.labels().get(&requirement.key)))
                && fields.all(|requirement| is_met(requirement, Some(&name)))
        })
    })
}
