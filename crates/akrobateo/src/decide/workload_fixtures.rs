//! Builders of workloads and of their pods for tests. Pure.

use std::collections::BTreeSet;

use akrobateo_services::spec::{LoadBalancerSpec, ProxyWorkload, parse_tolerations};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};

use super::fixtures::{defaults, pod, proxy_config, service};
use super::pod::{PodNodes, PodPlacement, ProxyRole};
use super::proxy_config::ProxyConfig;
use super::workload::{DeploymentScale, Workload};

/// Returns the DaemonSet of a Service with these annotations. The proxies run on `owned_nodes`, or on all selected
/// nodes if `owned_nodes` is `None`.
pub(crate) fn daemonset(
    service_annotations: &[(&str, &str)],
    owned_nodes: Option<&BTreeSet<String>>,
) -> Workload {
    let service = service_annotations
        .iter()
        .fold(service("web").tcp(80), |web, (key, value)| web.annotation(key, value));
    let service = service.build();
    let mut defaults = defaults();
    if let Some((_, tolerations)) =
        service_annotations.iter().find(|(key, _)| *key == akrobateo_core::annotations::TOLERATIONS)
    {
        defaults.bounds.tolerations = parse_tolerations(tolerations).unwrap();
    }
    let spec = LoadBalancerSpec::from_service(&service, &defaults).unwrap();
    let placement = PodPlacement { nodes: PodNodes::from_owned(owned_nodes), host_port_family: None };
    let (kind, scale) = (ProxyWorkload::DaemonSet, DeploymentScale::default());
    Workload::new(&proxy_config(), &service, &spec, kind, placement, ProxyRole::Forward, scale)
}

/// Returns the DaemonSet of a Service whose proxies have this image. The DaemonSet counts as observed by the DaemonSet
/// controller.
pub(crate) fn daemonset_with_image(image: &str) -> Workload {
    let service = service("web").tcp(80).build();
    let spec = LoadBalancerSpec::from_service(&service, &defaults()).unwrap();
    let config = ProxyConfig { image: image.to_owned(), ..proxy_config() };
    let placement = PodPlacement { nodes: PodNodes::AllSelected, host_port_family: None };
    let (kind, scale) = (ProxyWorkload::DaemonSet, DeploymentScale::default());
    Workload::new(&config, &service, &spec, kind, placement, ProxyRole::Forward, scale)
}

/// Returns a pod from this template on a node. The pod is not ready.
pub(crate) fn pod_from_template(template: &PodTemplateSpec, node: &str) -> Pod {
    let mut template_pod = pod(node).on(node).build();
    let pod_spec = PodSpec { node_name: Some(node.to_owned()), ..template.spec.clone().unwrap() };
    template_pod.metadata.annotations = template.metadata.as_ref().unwrap().annotations.clone();
    template_pod.spec = Some(pod_spec);
    template_pod
}

/// Returns a ready pod from this template on a node.
pub(crate) fn ready_pod_from_template(template: &PodTemplateSpec, node: &str) -> Pod {
    Pod { status: pod(node).ready().build().status, ..pod_from_template(template, node) }
}
