//! The pod behind a test's Services: an echo server. Does I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::{Failure, Namespace, ensure, eventually};

/// The port that Services' ports lead to unless they say otherwise.
pub const PORT: u16 = 8080;
/// Another one.
pub const OTHER_PORT: u16 = 8081;
/// The first of the fifty ports for Services with as many.
pub const FIRST_OF_FIFTY: u16 = 9000;

const NAME: &str = "backend";
const IMAGE: &str = concat!("ghcr.io/akrobateo/echo:", env!("CARGO_PKG_VERSION"));

/// The labels that Services select by.
pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), NAME.to_owned())])
}

impl Namespace {
    /// Starts the backend on a node of the scheduler's choice, and waits until it serves.
    pub async fn backend(&self) -> Result<(), Failure> {
        self.start(None).await
    }

    /// Starts the backend on this node, and waits until it serves.
    pub async fn backend_on(&self, node: &str) -> Result<(), Failure> {
        self.start(Some(node.to_owned())).await
    }

    /// Starts a pod that holds a TCP port of a node as its hostPort, and is no proxy.
    pub async fn hold_port(&self, name: &str, node: &str, port: u16) -> Result<(), Failure> {
        let mut holder = pod(Some(node.to_owned()));
        holder.metadata.name = Some(name.to_owned());
        holder.metadata.labels = None;
        for container in holder.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
            let held = ContainerPort {
                container_port: PORT.into(),
                host_port: Some(port.into()),
                ..ContainerPort::default()
            };
            container.ports = Some(vec![held]);
        }
        let api: Api<Pod> = Api::namespaced(self.client(), self.name());
        api.create(&PostParams::default(), &holder).await?;
        eventually("the pod holds its port", async || {
            let pod = api.get(name).await?;
            ensure(is_ready(&pod), || format!("{:?}", pod.status))
        })
        .await
    }

    /// Deletes such a pod.
    pub async fn let_port_go(&self, name: &str) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(self.client(), self.name());
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn start(&self, node: Option<String>) -> Result<(), Failure> {
        let api: Api<Pod> = Api::namespaced(self.client(), self.name());
        api.create(&PostParams::default(), &pod(node)).await?;
        eventually("the backend is ready", async || {
            let pod = api.get(NAME).await?;
            ensure(is_ready(&pod), || format!("{:?}", pod.status))
        })
        .await
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn pod(node: Option<String>) -> Pod {
    let ports =
        [PORT.to_string(), OTHER_PORT.to_string(), format!("{FIRST_OF_FIFTY}-{}", FIRST_OF_FIFTY + 49)];
    // A second label, for a Service whose selector grows.
    let labels = labels().into_iter().chain([("tier".to_owned(), "web".to_owned())]).collect();
    Pod {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(PodSpec {
            node_name: node,
            automount_service_account_token: Some(false),
            containers: vec![Container {
                name: "echo".to_owned(),
                image: Some(IMAGE.to_owned()),
                image_pull_policy: Some("IfNotPresent".to_owned()),
                args: Some(ports.into()),
                env: Some(vec![node_name()]),
                readiness_probe: Some(Probe {
                    tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(PORT.into()), host: None }),
                    period_seconds: Some(1),
                    ..Probe::default()
                }),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn node_name() -> EnvVar {
    let field = ObjectFieldSelector { field_path: "spec.nodeName".to_owned(), api_version: None };
    EnvVar {
        name: "NODE_NAME".to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}
