//! The backend of the tests' Services: the ports, the labels and the pod of the echo server. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The default target port of a test's Service.
pub const PORT: u16 = 8080;
/// A second target port.
pub const SECOND_PORT: u16 = 8081;
/// The first of fifty more target ports.
pub const FIRST_OF_FIFTY_PORTS: u16 = 9000;

const NAME: &str = "backend";
const IMAGE: &str = concat!("ghcr.io/akrobateo/echo:", env!("CARGO_PKG_VERSION"));

/// Returns the labels that the Services of the tests select.
pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), NAME.to_owned())])
}

/// Returns the pod of the echo server. The scheduler chooses the node if `node` is `None`.
pub(crate) fn backend_pod(node: Option<&str>) -> Pod {
    let ports = [
        PORT.to_string(),
        SECOND_PORT.to_string(),
        format!("{FIRST_OF_FIFTY_PORTS}-{}", FIRST_OF_FIFTY_PORTS + 49),
    ];
    // The second label is for a test that adds a label to the Service's selector.
    let labels = labels().into_iter().chain([("tier".to_owned(), "web".to_owned())]).collect();
    Pod {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(PodSpec {
            node_name: node.map(str::to_owned),
            automount_service_account_token: Some(false),
            containers: vec![Container {
                name: "echo".to_owned(),
                image: Some(IMAGE.to_owned()),
                image_pull_policy: Some("IfNotPresent".to_owned()),
                args: Some(ports.into()),
                env: Some(vec![node_name_variable()]),
                readiness_probe: Some(tcp_probe(PORT)),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// Returns a pod that is not a proxy. The pod holds a TCP port of a node as its hostPort.
pub(crate) fn host_port_pod(name: &str, node: &str, port: u16) -> Pod {
    let mut pod = backend_pod(Some(node));
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.labels = None;
    // With a lower priority, the scheduler would evict the pod and give its port to a proxy.
    if let Some(spec) = &mut pod.spec {
        spec.priority_class_name = Some("system-node-critical".to_owned());
    }
    for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        container.ports = Some(vec![ContainerPort {
            container_port: PORT.into(),
            host_port: Some(port.into()),
            ..ContainerPort::default()
        }]);
    }
    pod
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
