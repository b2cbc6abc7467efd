//! Services as tests write them: `service("web").tcp(80).udp(53)`. Pure.

use std::collections::BTreeMap;

use akrobateo_core::{Protocol, annotations};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::backend;

/// A Service in the making.
#[derive(Clone, Debug)]
pub struct ServiceBuilder {
    name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    ports: Vec<PortMapping>,
    spec: ServiceSpec,
    default_ip_mode: &'static str,
}

/// One port of a Service.
#[derive(Clone, Copy, Debug)]
pub struct PortMapping {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) target: u16,
    node_port: Option<u16>,
}

impl PortMapping {
    /// The port on which clients arrive.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// A Service of type LoadBalancer for the test's backend, of the cluster's first address family, still without ports.
#[must_use]
pub fn service(name: &str) -> ServiceBuilder {
    ServiceBuilder {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ports: Vec::new(),
        default_ip_mode: "VIP",
        spec: ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            selector: Some(backend::labels()),
            ..ServiceSpec::default()
        },
    }
}

impl ServiceBuilder {
    /// A TCP port, served by the backend's first port.
    #[must_use]
    pub fn tcp(self, port: u16) -> Self {
        self.port(Protocol::Tcp, port, backend::PORT)
    }

    /// A UDP port, served by the backend's first port.
    #[must_use]
    pub fn udp(self, port: u16) -> Self {
        self.port(Protocol::Udp, port, backend::PORT)
    }

    /// A port, served by the backend's port `target`. A port that is there already is changed.
    #[must_use]
    pub fn port(mut self, protocol: Protocol, port: u16, target: u16) -> Self {
        self.ports.retain(|other| (other.protocol, other.port) != (protocol, port));
        self.ports.push(PortMapping { protocol, port, target, node_port: None });
        self
    }

    /// Takes a port away.
    #[must_use]
    pub fn without(mut self, protocol: Protocol, port: u16) -> Self {
        self.ports.retain(|other| (other.protocol, other.port) != (protocol, port));
        self
    }

    /// The same nodePort for the first port as for nothing else.
    #[must_use]
    pub fn node_port(mut self, node_port: u16) -> Self {
        if let Some(port) = self.ports.first_mut() {
            port.node_port = Some(node_port);
        }
        self
    }

    /// Without nodePorts, which a load balancer like ours does not need.
    #[must_use]
    pub fn without_node_ports(mut self) -> Self {
        self.spec.allocate_load_balancer_node_ports = Some(false);
        self
    }

    /// Of exactly these families, in this order: `["IPv4"]`, `["IPv6"]`, or both.
    #[must_use]
    pub fn families(mut self, families: &[&str]) -> Self {
        let policy = if families.len() == 1 { "SingleStack" } else { "RequireDualStack" };
        self.spec.ip_family_policy = Some(policy.to_owned());
        self.spec.ip_families = Some(families.iter().map(|&family| family.to_owned()).collect());
        self
    }

    /// With ipMode Proxy, so that nobody but the proxies answers.
    #[must_use]
    pub fn proxy_mode(self) -> Self {
        self.annotation(annotations::IP_MODE, "Proxy")
    }

    /// Of the ipMode that the operator chooses where, without an annotation, that is expected to be this one.
    #[must_use]
    pub fn published_as(mut self, ip_mode: &'static str) -> Self {
        self.default_ip_mode = ip_mode;
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a further label in the selector.
    #[must_use]
    pub fn selecting(mut self, name: &str, value: &str) -> Self {
        self.spec.selector.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        self
    }

    /// For clients in these ranges only.
    #[must_use]
    pub fn source_ranges(mut self, ranges: &[String]) -> Self {
        self.spec.load_balancer_source_ranges = Some(ranges.to_vec());
        self
    }

    /// Of a class of load balancers.
    #[must_use]
    pub fn class(mut self, class: &str) -> Self {
        self.spec.load_balancer_class = Some(class.to_owned());
        self
    }

    /// With externalTrafficPolicy Local.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.spec.external_traffic_policy = Some("Local".to_owned());
        self
    }

    /// On the nodes with these names only.
    #[must_use]
    pub fn on(self, nodes: &[&str]) -> Self {
        self.annotation(
            annotations::NODE_SELECTOR,
            &format!("kubernetes.io/hostname in ({})", nodes.join(",")),
        )
    }

    /// Of type ClusterIP.
    #[must_use]
    pub fn cluster_ip(mut self) -> Self {
        self.spec.type_ = Some("ClusterIP".to_owned());
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its ports.
    #[must_use]
    pub fn ports(&self) -> &[PortMapping] {
        &self.ports
    }

    /// The ipMode that its status must have.
    pub(crate) fn ip_mode(&self) -> &str {
        self.annotations.get(annotations::IP_MODE).map_or(self.default_ip_mode, String::as_str)
    }

    pub(crate) fn build(&self) -> Service {
        let ports = self.ports.iter().map(|port| ServicePort {
            name: Some(format!("{}-{}", port.protocol, port.port)),
            protocol: Some(port.protocol.api_name().to_owned()),
            port: port.port.into(),
            target_port: Some(IntOrString::Int(port.target.into())),
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
