//! The hostPorts of the node's pods. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use akrobateo_core::{Family, Frontend, labels};
use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use kube::ResourceExt;

use crate::plan::HostPortPod;

/// The labels and the namespace by which the agent recognizes proxies.
#[derive(Clone, Debug)]
pub(crate) struct ProxyLabels {
    /// The name of the operator's instance.
    pub(crate) instance: String,
    /// The namespace of all proxies; `None` if each proxy is in the namespace of its Service.
    pub(crate) namespace: Option<String>,
}

impl ProxyLabels {
    /// Returns the Service whose proxy this pod is; `None` if the pod is not a proxy.
    ///
    /// Users can set the labels of proxies on pods in their own namespaces. For this reason, the pod must also be in
    /// the namespace in which the operator creates the Service's proxies.
    fn proxied_service(&self, pod: &Pod) -> Option<ServiceKey> {
        let has_label = |name: &str, value: &str| pod.labels().get(name).is_some_and(|it| it == value);
        if !has_label(labels::APP_NAME, labels::PROXY_APP_NAME)
            || !has_label(labels::MANAGED_BY, &self.instance)
        {
            return None;
        }
        let key = ServiceKey::from_proxy_labels(pod)?;
        let namespace = pod.namespace().unwrap_or_default();
        let expected_namespace = self.namespace.as_ref().unwrap_or(&key.namespace);
        (namespace == *expected_namespace).then_some(key)
    }
}

/// Returns a pod and its hostPorts; `None` if the pod does not use a hostPort, or has ended.
pub(crate) fn host_port_pod(
    pod: &Pod,
    proxy_labels: &ProxyLabels,
    node_addresses: &[IpAddr],
) -> Option<HostPortPod> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let containers = pod.spec.iter().flat_map(|spec| {
        // An init container with the restart policy Always runs beside the other containers. All other init containers
        // have already ended.
        let sidecars = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always")))
    });
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let frontends: BTreeSet<_> = ports.flat_map(|port| frontends(port, node_addresses)).collect();
    (!frontends.is_empty()).then(|| HostPortPod {
        name: format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()),
        frontends,
        proxied_service: proxy_labels.proxied_service(pod),
        is_ready: is_ready(pod),
    })
}

/// Returns the ports of the node that lead to a container's port. A container's port with a hostIP outside the node's
/// addresses leads to no port of the node.
fn frontends(port: &ContainerPort, node_addresses: &[IpAddr]) -> Vec<Frontend> {
    let number = port.host_port.and_then(|port| u16::try_from(port).ok()).and_then(NonZeroU16::new);
    let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok();
    let (Some(number), Some(protocol)) = (number, protocol) else { return Vec::new() };
    let host_ip: Option<IpAddr> = port.host_ip.as_deref().and_then(|text| text.parse().ok());
    let families = match host_ip {
        None => Family::ALL.to_vec(),
        Some(address) if address.is_unspecified() || node_addresses.contains(&address) => {
            vec![Family::from_ip(address)]
        }
        Some(_) => Vec::new(),
    };
    families.into_iter().map(|family| Frontend { family, protocol, port: number }).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use akrobateo_services::fixtures::key;
    use serde_json::{Value, json};

    use super::*;

    fn pod(namespace: &str, labels: &Value, ports: &Value) -> Pod {
        let pod = json!({
            "metadata": { "name": "p", "namespace": namespace, "labels": labels },
            "spec": { "containers": [{ "name": "c", "ports": ports }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn proxy_labels(namespace: Option<&str>) -> ProxyLabels {
        ProxyLabels { instance: "akrobateo".to_owned(), namespace: namespace.map(str::to_owned) }
    }

    fn frontend_texts(pod: &Pod) -> Vec<String> {
        let host_port_pod = host_port_pod(pod, &proxy_labels(None), &["10.0.0.1".parse().unwrap()]);
        host_port_pod.iter().flat_map(|pod| &pod.frontends).map(ToString::to_string).collect()
    }

    #[test]
    fn host_ports_of_running_pods_are_found() {
        let ports = json!([
            { "containerPort": 1 },
            { "containerPort": 80, "hostPort": 80 },
            { "containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1" },
            { "containerPort": 54, "hostPort": 54, "hostIP": "0.0.0.0" },
            { "containerPort": 55, "hostPort": 55, "hostIP": "127.0.0.1" },
        ]);
        let mut running_pod = pod("shop", &json!({}), &ports);
        let expected = ["tcp/54 over IPv4", "tcp/80 over IPv4", "udp/53 over IPv4", "tcp/80 over IPv6"];
        assert_eq!(frontend_texts(&running_pod), expected);
        running_pod.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert!(frontend_texts(&running_pod).is_empty());
    }

    #[test]
    fn pod_outside_the_namespace_of_proxies_is_not_a_proxy() {
        let labels = json!({
            "app.kubernetes.io/name": "akrobateo-lb", "app.kubernetes.io/managed-by": "akrobateo",
            "akrobateo.io/service-name": "web", "akrobateo.io/service-namespace": "default",
        });
        let ports = json!([{ "containerPort": 80, "hostPort": 80 }]);
        let proxied_service = |namespace: &str, proxy_labels: &ProxyLabels| {
            host_port_pod(&pod(namespace, &labels, &ports), proxy_labels, &[]).unwrap().proxied_service
        };
        let one_namespace = proxy_labels(Some("akrobateo-proxies"));
        assert_eq!(proxied_service("akrobateo-proxies", &one_namespace), Some(key("web")));
        assert_eq!(proxied_service("default", &one_namespace), None);
        let service_namespace = proxy_labels(None);
        assert_eq!(proxied_service("default", &service_namespace), Some(key("web")));
        assert_eq!(proxied_service("shop", &service_namespace), None);
        let other_instance = ProxyLabels { instance: "other".to_owned(), ..service_namespace };
        assert_eq!(proxied_service("default", &other_instance), None);
    }
}
