//! A builder of the tests' Services: `service("web").tcp(80).udp(53)`. Pure.

use std::collections::BTreeMap;

use akrobateo_core::{Protocol, annotations};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::backend;
use crate::mode::TestMode;

/// A builder of a Service.
#[derive(Clone, Debug)]
pub struct ServiceBuilder {
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    ports: Vec<PortMapping>,
    spec: ServiceSpec,
    /// The expected ipMode without the annotation `akrobateo.io/ip-mode`; `None` if the ipMode is the mode's default.
    default_ip_mode: Option<&'static str>,
}

/// A port of a Service, and the backend's port behind it.
#[derive(Clone, Copy, Debug)]
pub struct PortMapping {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) target_port: u16,
    node_port: Option<u16>,
}

impl PortMapping {
    /// Returns the Service's port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// Returns a Service of type LoadBalancer that selects the test's backend. The Service has no ports yet, and has the
/// first address family of the cluster.
#[must_use]
pub fn service(name: &str) -> ServiceBuilder {
    ServiceBuilder {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ports: Vec::new(),
        default_ip_mode: None,
        spec: ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            selector: Some(backend::labels()),
            ..ServiceSpec::default()
        },
    }
}

impl ServiceBuilder {
    /// Adds a TCP port whose target is [`backend::PORT`].
    #[must_use]
    pub fn tcp(self, port: u16) -> Self {
        self.port(Protocol::Tcp, port, backend::PORT)
    }

    /// Adds a UDP port whose target is [`backend::PORT`].
    #[must_use]
    pub fn udp(self, port: u16) -> Self {
        self.port(Protocol::Udp, port, backend::PORT)
    }

    /// Adds a port whose target is the backend's port `target_port`. Replaces an existing port with the same number.
    #[must_use]
    pub fn port(mut self, protocol: Protocol, port: u16, target_port: u16) -> Self {
        self = self.without_port(protocol, port);
        self.ports.push(PortMapping { protocol, port, target_port, node_port: None });
        self
    }

    /// Removes a port.
    #[must_use]
    pub fn without_port(mut self, protocol: Protocol, port: u16) -> Self {
        self.ports.retain(|existing| (existing.protocol, existing.port) != (protocol, port));
        self
    }

    /// Sets the nodePort of the first port.
    #[must_use]
    pub fn node_port(mut self, node_port: u16) -> Self {
        if let Some(port) = self.ports.first_mut() {
            port.node_port = Some(node_port);
        }
        self
    }

    /// Sets the healthCheckNodePort, which only a Service with externalTrafficPolicy Local may have.
    #[must_use]
    pub fn health_check_node_port(mut self, port: u16) -> Self {
        self.spec.health_check_node_port = Some(port.into());
        self
    }

    /// Disables the allocation of nodePorts, which Akrobateo does not need.
    #[must_use]
    pub fn without_node_ports(mut self) -> Self {
        self.spec.allocate_load_balancer_node_ports = Some(false);
        self
    }

    /// Sets the address families, in this order: `["IPv4"]`, `["IPv6"]`, or both.
    #[must_use]
    pub fn families(mut self, families: &[&str]) -> Self {
        let family_policy = if families.len() == 1 { "SingleStack" } else { "RequireDualStack" };
        self.spec.ip_family_policy = Some(family_policy.to_owned());
        self.spec.ip_families = Some(families.iter().map(|&family| family.to_owned()).collect());
        self
    }

    /// Sets ipMode Proxy, so that kube-proxy does not answer on the published addresses.
    #[must_use]
    pub fn with_ip_mode_proxy(self) -> Self {
        self.annotation(annotations::IP_MODE, "Proxy")
    }

    /// Sets the expected ipMode in the status of a Service without the annotation `akrobateo.io/ip-mode`.
    #[must_use]
    pub fn expect_ip_mode(mut self, ip_mode: &'static str) -> Self {
        self.default_ip_mode = Some(ip_mode);
        self
    }

    /// Lets a DaemonSet of proxies forward the Service in each mode of the test.
    #[must_use]
    pub fn with_dedicated_mode(self) -> Self {
        self.annotation(annotations::WORKLOAD, "DaemonSet").expect_ip_mode("VIP")
    }

    /// Sets an annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a label to the selector.
    #[must_use]
    pub fn add_selector_label(mut self, name: &str, value: &str) -> Self {
        self.spec.selector.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes the selector. The test creates the `EndpointSlice`.
    #[must_use]
    pub fn without_selector(mut self) -> Self {
        self.spec.selector = None;
        self
    }

    /// Sets loadBalancerSourceRanges.
    #[must_use]
    pub fn source_ranges(mut self, ranges: &[String]) -> Self {
        self.spec.load_balancer_source_ranges = Some(ranges.to_vec());
        self
    }

    /// Sets loadBalancerClass.
    #[must_use]
    pub fn class(mut self, class: &str) -> Self {
        self.spec.load_balancer_class = Some(class.to_owned());
        self
    }

    /// Sets externalTrafficPolicy Local.
    #[must_use]
    pub fn traffic_policy_local(mut self) -> Self {
        self.spec.external_traffic_policy = Some("Local".to_owned());
        self
    }

    /// Sets internalTrafficPolicy Local.
    #[must_use]
    pub fn internal_traffic_policy_local(mut self) -> Self {
        self.spec.internal_traffic_policy = Some("Local".to_owned());
        self
    }

    /// Sets the session affinity by client address.
    #[must_use]
    pub fn session_affinity(mut self) -> Self {
        self.spec.session_affinity = Some("ClientIP".to_owned());
        self
    }

    /// Sets the deprecated field loadBalancerIP.
    #[must_use]
    pub fn load_balancer_ip(mut self, address: &str) -> Self {
        self.spec.load_balancer_ip = Some(address.to_owned());
        self
    }

    /// Selects the nodes with these names.
    #[must_use]
    pub fn on_nodes(self, nodes: &[&str]) -> Self {
        self.annotation(
            annotations::NODE_SELECTOR,
            &format!("kubernetes.io/hostname in ({})", nodes.join(",")),
        )
    }

    /// Sets the type ClusterIP.
    #[must_use]
    pub fn with_type_cluster_ip(mut self) -> Self {
        self.spec.type_ = Some("ClusterIP".to_owned());
        self
    }

    /// Sets the type NodePort.
    #[must_use]
    pub fn with_type_node_port(mut self) -> Self {
        self.spec.type_ = Some("NodePort".to_owned());
        self
    }

    /// Returns the Service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the Service's ports.
    #[must_use]
    pub fn ports(&self) -> &[PortMapping] {
        &self.ports
    }

    /// Returns the Service with the annotation that this mode needs. A Service that chooses its workload itself stays
    /// the same.
    pub(crate) fn in_mode(&self, mode: TestMode) -> Self {
        match mode {
            TestMode::Dedicated if !self.annotations.contains_key(annotations::WORKLOAD) => {
                self.clone().annotation(annotations::WORKLOAD, "DaemonSet")
            }
            TestMode::Dedicated | TestMode::Shared => self.clone(),
        }
    }

    /// Returns the ipMode that a test in this mode expects in the status.
    pub(crate) fn expected_ip_mode(&self, mode: TestMode) -> &str {
        let default_ip_mode = self.default_ip_mode.unwrap_or_else(|| mode.default_ip_mode());
        self.annotations.get(annotations::IP_MODE).map_or(default_ip_mode, String::as_str)
    }

    pub(crate) fn build(&self) -> Service {
        let ports = self.ports.iter().map(|port| ServicePort {
            name: Some(format!("{}-{}", port.protocol, port.port)),
            protocol: Some(port.protocol.api_name().to_owned()),
            port: port.port.into(),
            target_port: Some(IntOrString::Int(port.target_port.into())),
            node_port: port.node_port.map(Into::into),
            ..ServicePort::default()
        });
        Service {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels.clone()),
                annotations: Some(self.annotations.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceSpec { ports: Some(ports.collect()), ..self.spec.clone() }),
            status: None,
        }
    }
}
