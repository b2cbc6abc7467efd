//! The settings of a Service that the agent serves, without its endpoints. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use akrobateo_core::{Family, Frontend, Protocol};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::spec::{ClientAddress, LoadBalancerSpec};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::endpoint_limits::{MAX_ENDPOINTS_OF_SERVICE, limit_service};
use super::endpoint_nodes::EndpointNodes;
use super::endpoints::endpoints;
use super::node::NodeNumbers;
use crate::config::{self, ServicePort};
use crate::marks::NodeNumber;

/// The default timeout of sessionAffinity `ClientIP`, in seconds. Kubernetes has the same default.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// The settings of several Services, by key.
pub(super) type Templates = BTreeMap<ServiceKey, Arc<ServiceTemplate>>;

/// The settings of a Service that the agent serves.
#[derive(Clone, Debug)]
pub(super) struct ServiceTemplate {
    pub(super) key: ServiceKey,
    /// The UID of the Service. Another Service with the same name has another UID.
    pub(super) uid: Option<String>,
    families: Vec<Family>,
    is_traffic_policy_local: bool,
    keeps_client_address: bool,
    affinity_seconds: Option<NonZeroU32>,
    source_ranges: Option<Vec<IpNet>>,
    ports: Vec<PortTemplate>,
    /// The spec with these settings; `None` if the template lacks some frontends of the spec.
    source: Option<Arc<LoadBalancerSpec>>,
}

#[derive(Clone, Debug)]
struct PortTemplate {
    /// The name, which is also the name of the port in the `EndpointSlices`.
    name: String,
    protocol: Protocol,
    port: NonZeroU16,
}

impl PortTemplate {
    const fn frontend(&self, family: Family) -> Frontend {
        Frontend { family, protocol: self.protocol, port: self.port }
    }
}

impl ServiceTemplate {
    /// Returns the settings of a Service with this spec.
    pub(super) fn new(service: &Service, spec: &Arc<LoadBalancerSpec>) -> Self {
        Self {
            key: ServiceKey::from_service(service),
            uid: service.uid(),
            families: spec.families.clone(),
            is_traffic_policy_local: spec.is_external_traffic_policy_local,
            // With externalTrafficPolicy Local, all endpoints are on this node, so they can always see the client's
            // address.
            keeps_client_address: spec.client_address == ClientAddress::Keep
                || spec.is_external_traffic_policy_local,
            affinity_seconds: service.spec.as_ref().and_then(affinity_seconds),
            source_ranges: Some(spec.proxy_args.sources.clone()).filter(|ranges| !ranges.is_empty()),
            ports: port_templates(service).collect(),
            source: Some(spec.clone()),
        }
    }

    /// Returns true if the template has exactly the settings of this spec. Each change of a Service's settings creates a
    /// new spec.
    pub(super) fn is_from(&self, spec: &Arc<LoadBalancerSpec>) -> bool {
        self.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, spec))
    }

    /// Returns the families, protocols and ports to which clients connect.
    pub(super) fn frontends(&self) -> BTreeSet<Frontend> {
        let frontends_of_port = |port: &PortTemplate| {
            self.families.iter().map(|family| port.frontend(*family)).collect::<Vec<_>>()
        };
        self.ports.iter().flat_map(frontends_of_port).collect()
    }

    /// Returns the settings with only these frontends; `None` if no frontend remains. Omits the families without a
    /// frontend, and then each port that lacks one of the remaining families.
    pub(super) fn retain_frontends(mut self, is_retained: impl Fn(Frontend) -> bool) -> Option<Self> {
        self.source = None;
        let Self { families, ports, .. } = &mut self;
        families.retain(|family| ports.iter().any(|port| is_retained(port.frontend(*family))));
        ports.retain(|port| families.iter().all(|family| is_retained(port.frontend(*family))));
        (!families.is_empty() && !ports.is_empty()).then_some(self)
    }

    /// Returns the settings with the present names of the Service's ports, because the `EndpointSlices` have these names.
    /// A port that the Service does not have any more keeps its name.
    pub(super) fn with_port_names(self: &Arc<Self>, service: &Service) -> Arc<Self> {
        let mut renamed = self.clone();
        for present in port_templates(service) {
            let is_renamed = |port: &PortTemplate| {
                (port.protocol, port.port) == (present.protocol, present.port) && port.name != present.name
            };
            if let Some(index) = self.ports.iter().position(is_renamed) {
                let template = Arc::make_mut(&mut renamed);
                template.ports[index].name = present.name;
                template.source = None;
            }
        }
        renamed
    }

    /// Returns the settings of this Service in an earlier configuration.
    ///
    /// A configuration does not contain the names of the ports. A port with a changed number has the name of the present
    /// port at the same place in the list. If the number of ports has changed, such a port is omitted.
    pub(super) fn with_settings_of(&self, service: &config::Service) -> Self {
        let has_same_count = service.ports.len() == self.ports.len();
        let port_template = |(index, port): (usize, &ServicePort)| {
            let is_same = |it: &&PortTemplate| (it.protocol, it.port) == (port.protocol, port.port);
            let at_same_place = || self.ports.get(index).filter(|_| has_same_count);
            let name = self.ports.iter().find(is_same).or_else(at_same_place)?.name.clone();
            Some(PortTemplate { name, protocol: port.protocol, port: port.port })
        };
        Self {
            key: self.key.clone(),
            uid: self.uid.clone(),
            families: service.families.clone(),
            is_traffic_policy_local: service.is_traffic_policy_local,
            keeps_client_address: service.keeps_client_address,
            affinity_seconds: service.affinity_seconds,
            source_ranges: service.source_ranges.clone(),
            ports: service.ports.iter().enumerate().filter_map(port_template).collect(),
            source: None,
        }
    }

    /// Returns true if endpoints on other nodes see the client's address. For this, an agent must run on each of these
    /// nodes.
    pub(super) const fn needs_other_agents(&self) -> bool {
        self.keeps_client_address && !self.is_traffic_policy_local
    }

    /// Returns the Service for a node that does not serve it. The result has only the endpoints on this node. The
    /// result has no families, so the Service has no frontend on this node.
    ///
    /// Returns `None` if the endpoints are on other nodes. The result does not depend on the Service's settings, because
    /// a node that serves the Service may have other settings for some milliseconds.
    pub(super) fn to_service_of_other_nodes(
        &self,
        slices: &[Arc<EndpointSlice>],
        node_numbers: &NodeNumbers,
        endpoint_nodes: &EndpointNodes,
        own_number: NodeNumber,
    ) -> Option<config::Service> {
        let mut service = self.to_service(slices, node_numbers, endpoint_nodes, own_number);
        service.families.clear();
        service.affinity_seconds = None;
        service.source_ranges = None;
        for port in &mut service.ports {
            port.endpoints.retain(|endpoint| endpoint.node == Some(own_number));
        }
        service.ports.iter().any(|port| !port.endpoints.is_empty()).then_some(service)
    }

    /// Returns the Service with its endpoints. The ports have at most [`MAX_ENDPOINTS_OF_SERVICE`] endpoints in all.
    pub(super) fn to_service(
        &self,
        slices: &[Arc<EndpointSlice>],
        node_numbers: &NodeNumbers,
        endpoint_nodes: &EndpointNodes,
        own_number: NodeNumber,
    ) -> config::Service {
        let ports = self.ports.iter().map(|port| ServicePort {
            protocol: port.protocol,
            port: port.port,
            endpoints: endpoints(slices, &port.name, port.protocol, node_numbers, endpoint_nodes),
        });
        let mut service = config::Service {
            name: self.key.to_string(),
            uid: self.uid.clone(),
            families: self.families.clone(),
            is_traffic_policy_local: self.is_traffic_policy_local,
            keeps_client_address: self.keeps_client_address,
            affinity_seconds: self.affinity_seconds,
            source_ranges: self.source_ranges.clone(),
            ports: ports.collect(),
        };
        limit_service(&mut service, MAX_ENDPOINTS_OF_SERVICE, own_number);
        service
    }
}

/// Returns the ports of a Service that have valid values.
fn port_templates(service: &Service) -> impl Iterator<Item = PortTemplate> {
    service.spec.iter().flat_map(|it| it.ports.iter().flatten()).filter_map(|port| {
        Some(PortTemplate {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").parse().ok()?,
            port: u16::try_from(port.port).ok().and_then(NonZeroU16::new)?,
        })
    })
}

fn affinity_seconds(spec: &ServiceSpec) -> Option<NonZeroU32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| u32::try_from(config.timeout_seconds?).ok());
    NonZeroU32::new(seconds.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_AFFINITY_SECONDS))
}

#[cfg(test)]
mod tests {
    use akrobateo_services::fixtures::{ServiceBuilder, defaults, service};
    use serde_json::json;

    use super::*;

    fn template(service: &Service) -> ServiceTemplate {
        let spec = LoadBalancerSpec::from_service(service, &defaults()).unwrap();
        ServiceTemplate::new(service, &Arc::new(spec))
    }

    #[test]
    fn service_has_the_settings_of_its_spec() {
        let builder =
            service("web").tcp(80).udp(53).families(&["IPv6", "IPv4"]).source_ranges(&["10.0.0.0/8"]);
        let mut service_object = builder.build();
        let spec = service_object.spec.as_mut().unwrap();
        spec.session_affinity = Some("ClientIP".to_owned());
        let slice = json!({
            "addressType": "IPv4", "ports": [{ "port": 8080 }],
            "endpoints": [{ "addresses": ["10.1.0.1"], "nodeName": "n1" }],
        });
        let slices = [Arc::new(serde_json::from_value(slice).unwrap())];
        let template = template(&service_object);
        assert_eq!(template.frontends().len(), 4);
        let service =
            template.to_service(&slices, &[("n1".to_owned(), 1)].into(), &EndpointNodes::default(), 1);
        assert_eq!(
            (service.name.as_str(), &service.families[..]),
            ("default/web", &[Family::V6, Family::V4][..])
        );
        assert_eq!(service.affinity_seconds, NonZeroU32::new(DEFAULT_AFFINITY_SECONDS));
        assert_eq!(service.source_ranges.unwrap()[0].to_string(), "10.0.0.0/8");
        let endpoint_counts: Vec<_> = service.ports.iter().map(|port| port.endpoints.len()).collect();
        assert_eq!(endpoint_counts, [1, 0]);
        assert!(service.keeps_client_address && !service.is_traffic_policy_local);
    }

    #[test]
    fn service_with_many_ports_has_a_limited_number_of_endpoints() {
        let service_object = (1..=100).fold(service("web"), ServiceBuilder::tcp).build();
        let endpoint =
            |index: usize| json!({ "addresses": [format!("10.1.{}.{}", index / 250, index % 250)] });
        let slice = json!({
            "addressType": "IPv4", "ports": [{ "port": 8080 }],
            "endpoints": (0..1_000).map(endpoint).collect::<Vec<_>>(),
        });
        let slices = [Arc::new(serde_json::from_value(slice).unwrap())];
        let service =
            template(&service_object).to_service(&slices, &NodeNumbers::new(), &EndpointNodes::default(), 1);
        assert!(service.ports.iter().all(|port| port.endpoints.len() == MAX_ENDPOINTS_OF_SERVICE / 100));
    }

    #[test]
    fn annotation_masquerades_clients_only_with_traffic_policy_cluster() {
        let annotation = akrobateo_core::annotations::CLIENT_ADDRESS;
        let masqueraded_service = || service("web").tcp(80).annotation(annotation, "masquerade");
        assert!(!template(&masqueraded_service().build()).keeps_client_address);
        assert!(template(&masqueraded_service().traffic_policy_local().build()).keeps_client_address);
    }
}
