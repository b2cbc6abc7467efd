//! The DaemonSet that runs a Service's proxies. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::proxy_args::ENABLE_IPV6_FORWARDING;
use contract::{Protocol, ProxyArgs, labels, names, probe};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, HTTPGetAction, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::key::ServiceKey;

/// What all proxies have in common.
#[derive(Clone, Debug)]
pub(crate) struct ProxySettings {
    /// The namespace that they run in.
    pub(crate) namespace: String,
    /// The data plane's image.
    pub(crate) image: String,
}

/// The proxies of one Service. It has nothing in it that may change without forwarding being changed, for every
/// change of the template interrupts forwarding on each node.
pub(super) fn daemonset(settings: &ProxySettings, service: &Service, args: &ProxyArgs) -> DaemonSet {
    let ServiceKey { namespace, name } = ServiceKey::of(service);
    let labels = labels::of_proxy(&namespace, &name);
    let metadata = |labels| ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
    DaemonSet {
        metadata: ObjectMeta {
            name: Some(names::proxy(&namespace, &name)),
            namespace: Some(settings.namespace.clone()),
            ..metadata(labels.clone())
        },
        spec: Some(DaemonSetSpec {
            selector: LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(metadata(labels)),
                spec: Some(pod(&settings.image, args)),
            },
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

fn pod(image: &str, args: &ProxyArgs) -> PodSpec {
    let forwards_ipv6 = args.forwards.iter().any(|forward| forward.target.is_ipv6());
    PodSpec {
        // A proxy needs no API access, and no hint of what else runs in its namespace.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        init_containers: forwards_ipv6.then(|| vec![ipv6_forwarding(image)]),
        containers: vec![forwarder(image, args)],
        node_selector: Some(BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())])),
        // A node without its proxies is no use to clients: they go before what they forward to.
        priority_class_name: Some("system-node-critical".to_owned()),
        ..PodSpec::default()
    }
}

fn forwarder(image: &str, args: &ProxyArgs) -> Container {
    Container {
        name: "forward".to_owned(),
        args: Some(args.to_args()),
        ports: Some(host_ports(args)),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some(probe::READY_PATH.to_owned()),
                port: IntOrString::Int(args.probe_port.into()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(2),
            ..Probe::default()
        }),
        resources: Some(resources()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_ADMIN".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(true),
            // Kubernetes gives added capabilities to root only; root without any other is all that is needed.
            run_as_user: Some(0),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..SecurityContext::default()
        }),
        ..container(image)
    }
}

/// IPv6 forwarding is off in every new pod, and only a privileged container may switch it on.
fn ipv6_forwarding(image: &str) -> Container {
    Container {
        name: ENABLE_IPV6_FORWARDING.to_owned(),
        args: Some(vec![ENABLE_IPV6_FORWARDING.to_owned()]),
        resources: Some(resources()),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        ..container(image)
    }
}

fn container(image: &str) -> Container {
    Container {
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        ..Container::default()
    }
}

/// Each port and protocol once, whatever the number of address families.
fn host_ports(args: &ProxyArgs) -> Vec<ContainerPort> {
    let ports: BTreeSet<(Protocol, u16)> =
        args.forwards.iter().map(|forward| (forward.protocol, forward.port.get())).collect();
    let port = |(protocol, port): (Protocol, u16)| ContainerPort {
        container_port: port.into(),
        host_port: Some(port.into()),
        protocol: Some(protocol.as_str().to_uppercase()),
        ..ContainerPort::default()
    };
    ports.into_iter().map(port).collect()
}

fn resources() -> ResourceRequirements {
    let quantities = |quantities: &[(&str, &str)]| {
        let own = |&(name, quantity): &(&str, &str)| (name.to_owned(), Quantity(quantity.to_owned()));
        Some(quantities.iter().map(own).collect())
    };
    ResourceRequirements {
        requests: quantities(&[("cpu", "1m"), ("memory", "8Mi")]),
        limits: quantities(&[("memory", "64Mi")]),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{service, settings};
    use crate::decide::forwarding;

    fn made_for(service: &Service) -> DaemonSet {
        daemonset(&settings(), service, &forwarding::of(service).unwrap())
    }

    fn pod_of(daemonset: &DaemonSet) -> PodSpec {
        daemonset.spec.clone().and_then(|spec| spec.template.spec).unwrap()
    }

    #[test]
    fn one_container_holds_all_ports_each_once_per_protocol() {
        let service = service("dns").tcp(53).udp(53).tcp(80).cluster_ips(&["10.97.0.7", "fd97::7"]).build();
        let pod = pod_of(&made_for(&service));
        assert_eq!(pod.containers.len(), 1);
        let ports = pod.containers[0].ports.iter().flatten();
        let ports: Vec<_> = ports.map(|p| (p.host_port.unwrap(), p.protocol.clone().unwrap())).collect();
        assert_eq!(ports, [(53, "TCP".to_owned()), (80, "TCP".to_owned()), (53, "UDP".to_owned())]);
    }

    #[test]
    fn only_ipv6_needs_a_privileged_container() {
        let privileged = |service: &Service| {
            let pod = pod_of(&made_for(service));
            let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
            containers
                .filter(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)))
                .count()
        };
        assert_eq!(privileged(&service("web").tcp(80).build()), 0);
        assert_eq!(privileged(&service("web").tcp(80).cluster_ips(&["10.97.0.7", "fd97::7"]).build()), 1);
    }

    #[test]
    fn what_does_not_touch_forwarding_does_not_touch_the_pods() {
        let plain = made_for(&service("web").tcp(80).build());
        let edited =
            service("web").tcp(80).annotation("team", "shop").node_port(30080).selector("app", "new");
        assert_eq!(made_for(&edited.build()), plain);
        assert_ne!(made_for(&service("web").tcp(81).build()), plain);
    }
}
