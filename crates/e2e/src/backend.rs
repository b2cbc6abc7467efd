//! The pods of the echo server: the backend of the tests' Services, and other pods that use ports of a node. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, Lifecycle, LifecycleHandler, ObjectFieldSelector, Pod,
    PodSpec, Probe, ResourceRequirements, SecurityContext, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The default target port of a test's Service.
pub const PORT: u16 = 8080;
/// A second target port.
pub const SECOND_PORT: u16 = 8081;
/// The first of 50 additional target ports.
pub const FIRST_OF_FIFTY_PORTS: u16 = 9000;

const BACKEND_NAME: &str = "backend";
const ECHO_IMAGE: &str = concat!("ghcr.io/akrobateo/echo:", env!("CARGO_PKG_VERSION"));

/// Returns the labels that the Services of the tests select.
pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), BACKEND_NAME.to_owned())])
}

/// A builder of a pod that runs the echo server.
#[derive(Clone, Debug)]
pub struct EchoPod {
    name: String,
    labels: BTreeMap<String, String>,
    node: Option<String>,
    is_in_host_network: bool,
    container: Container,
}

/// Returns the backend of the tests' Services. The scheduler chooses the node of the pod.
#[must_use]
pub fn backend_pod() -> EchoPod {
    // The second label is for a test that adds a label to the Service's selector.
    echo_pod(BACKEND_NAME).label("app", BACKEND_NAME).label("tier", "web")
}

/// Returns a pod of the echo server without labels, so that no Service selects the pod.
#[must_use]
pub fn echo_pod(name: &str) -> EchoPod {
    let ports = [
        PORT.to_string(),
        SECOND_PORT.to_string(),
        format!("{FIRST_OF_FIFTY_PORTS}-{}", FIRST_OF_FIFTY_PORTS + 49),
    ];
    let container = Container {
        name: "echo".to_owned(),
        image: Some(ECHO_IMAGE.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(ports.into()),
        env: Some(vec![node_name_variable()]),
        readiness_probe: Some(tcp_probe(PORT)),
        ..Container::default()
    };
    EchoPod {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        node: None,
        is_in_host_network: false,
        container,
    }
}

impl EchoPod {
    /// Sets the pod's name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Runs the pod on this node.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Gives the pod this hostPort. The node forwards the hostPort to [`PORT`] of the pod.
    #[must_use]
    pub fn host_port(mut self, port: u16) -> Self {
        self.container.ports = Some(vec![ContainerPort {
            container_port: PORT.into(),
            host_port: Some(port.into()),
            ..ContainerPort::default()
        }]);
        self
    }

    /// Runs the pod in its node's network. The pod serves only this port, and declares the port in its spec.
    #[must_use]
    pub fn in_host_network(mut self, port: u16) -> Self {
        self.is_in_host_network = true;
        self.container.args = Some(vec![port.to_string()]);
        self.container.ports =
            Some(vec![ContainerPort { container_port: port.into(), ..ContainerPort::default() }]);
        self.container.readiness_probe = Some(tcp_probe(port));
        self
    }

    /// Removes the ports from the spec, so that only the sockets of the node show that the pod uses its port.
    #[must_use]
    pub fn without_declared_ports(mut self) -> Self {
        self.container.ports = None;
        self
    }

    /// Runs the pod in its node's network. The pod serves only this port of a loopback address, and does not declare
    /// the port in its spec.
    #[must_use]
    pub fn on_loopback(mut self, address: &str, port: u16) -> Self {
        self.is_in_host_network = true;
        self.container.args = Some(vec!["listen".to_owned(), address.to_owned(), port.to_string()]);
        let action = TCPSocketAction { port: IntOrString::Int(port.into()), host: Some(address.to_owned()) };
        self.container.readiness_probe = Some(Probe { tcp_socket: Some(action), ..tcp_probe(port) });
        // Only root may bind a port below 1024.
        self.container.security_context =
            Some(SecurityContext { run_as_user: Some(0), ..SecurityContext::default() });
        self
    }

    /// Makes the pod serve for this time after the start of its termination.
    #[must_use]
    pub fn shutdown_delay(mut self, seconds: i64) -> Self {
        let sleep = LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() };
        self.container.lifecycle = Some(Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() });
        self
    }

    /// Requests processor time, for example `500m`. On a busy machine, a pod without a request gets almost no processor
    /// time while other pods start.
    #[must_use]
    pub fn cpu_request(mut self, quantity: &str) -> Self {
        let requests = BTreeMap::from([("cpu".to_owned(), Quantity(quantity.to_owned()))]);
        self.container.resources =
            Some(ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() });
        self
    }

    pub(crate) fn build(&self) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                node_name: self.node.clone(),
                host_network: self.is_in_host_network.then_some(true),
                automount_service_account_token: Some(false),
                containers: vec![self.container.clone()],
                ..PodSpec::default()
            }),
            status: None,
        }
    }
}

/// Returns a readiness probe that connects to this TCP port each second.
pub(crate) fn tcp_probe(port: u16) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port.into()), host: None }),
        period_seconds: Some(1),
        ..Probe::default()
    }
}

fn node_name_variable() -> EnvVar {
    let field_selector = ObjectFieldSelector { field_path: "spec.nodeName".to_owned(), api_version: None };
    EnvVar {
        name: "NODE_NAME".to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field_selector), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}
