//! The pods that run a Service's proxies. Pure. Nothing in them may change without forwarding being changed, for every
//! change of the template interrupts forwarding on each node.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::proxy_args::{ENABLE_IPV6_FORWARDING, RESERVE};
use akrobateo_core::{DataPath, ProxyArgs, probe};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, HTTPGetAction, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecurityContext, Sysctl,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::spec::{HostPort, LoadBalancerSpec, NodeChoice, Requirement};

/// For the end of a proxy in the kernel, in seconds. It ends at once when told, unless it was told before it could
/// listen; and until it has ended nobody else gets its ports.
const GRACE: i64 = 3;
/// For the end of one in userspace, whose connections end with it: as long as pods have by default.
const DRAIN: i64 = 30;

/// At most for a proxy in the kernel, far above its need.
const MEMORY: &str = "64Mi";
/// At most in userspace, where the kernel's memory for sockets counts too: some 8 KiB for each of at most 65,536
/// connections.
const SOCKETS_MEMORY: &str = "512Mi";

/// How packets get through a proxy pod's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyRole {
    /// The pod forwards to the Service's cluster IPs.
    Forward,
    /// The pod only keeps the ports from others; kube-proxy answers, and keeps the client's address.
    ReservePorts,
}

/// The pods for a wish, off the nodes where others own its ports.
pub(super) fn spec(
    image: &str,
    wish: &LoadBalancerSpec,
    excluded_nodes: &BTreeSet<String>,
    path: ProxyRole,
) -> PodSpec {
    let args = &wish.proxy;
    let by = |data_path| path == ProxyRole::Forward && args.data_path == data_path;
    let (kernel, userspace) = (by(DataPath::Kernel), by(DataPath::Userspace));
    let routes_ipv6 = kernel && args.forwards.iter().any(|forward| forward.target.is_ipv6());
    PodSpec {
        // A proxy needs no API access, and no hint of what else runs in its namespace.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        host_network: (path == ProxyRole::ReservePorts).then_some(true),
        init_containers: routes_ipv6.then(|| vec![ipv6_forwarding(image)]),
        containers: vec![match path {
            ProxyRole::Forward => forwarder(image, args, host_ports(wish)),
            ProxyRole::ReservePorts => reserver(image, host_ports(wish)),
        }],
        node_selector: Some(BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())])),
        affinity: affinity(&wish.nodes, excluded_nodes),
        tolerations: (!wish.nodes.tolerations.is_empty()).then(|| wish.nodes.tolerations.clone()),
        priority_class_name: Some(wish.priority_class.clone()),
        security_context: userspace.then(unprivileged_ports),
        termination_grace_period_seconds: Some(if userspace { DRAIN } else { GRACE }),
        ..PodSpec::default()
    }
}

fn affinity(nodes: &NodeChoice, excluded_nodes: &BTreeSet<String>) -> Option<Affinity> {
    let expressions: Vec<_> = nodes.requirements.iter().map(Requirement::to_node_selector).collect();
    // A field's requirement takes one value only.
    let fields: Vec<_> = excluded_nodes
        .iter()
        .map(|name| NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(vec![name.clone()]),
        })
        .collect();
    if expressions.is_empty() && fields.is_empty() {
        return None;
    }
    let some = |list: Vec<_>| (!list.is_empty()).then_some(list);
    let term = NodeSelectorTerm { match_expressions: some(expressions), match_fields: some(fields) };
    Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    })
}

fn forwarder(image: &str, args: &ProxyArgs, ports: Vec<ContainerPort>) -> Container {
    let memory = match args.data_path {
        DataPath::Kernel => MEMORY,
        DataPath::Userspace => SOCKETS_MEMORY,
    };
    Container {
        name: "forward".to_owned(),
        args: Some(args.to_args()),
        ports: Some(ports),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some(probe::READY_PATH.to_owned()),
                port: IntOrString::Int(args.probe_port.into()),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(2),
            ..Probe::default()
        }),
        security_context: Some(match args.data_path {
            DataPath::Kernel => SecurityContext {
                capabilities: Some(Capabilities {
                    add: Some(vec!["NET_ADMIN".to_owned()]),
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                // Kubernetes gives added capabilities to root only; root without any other is all that is needed.
                run_as_user: Some(0),
                ..confined()
            },
            DataPath::Userspace => without_rights(),
        }),
        ..container(image, memory)
    }
}

fn reserver(image: &str, ports: Vec<ContainerPort>) -> Container {
    Container {
        name: RESERVE.to_owned(),
        args: Some(vec![RESERVE.to_owned()]),
        ports: Some(ports),
        security_context: Some(without_rights()),
        ..container(image, MEMORY)
    }
}

/// Both are among the sysctls that every kubelet takes for safe
/// (<https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>).
fn unprivileged_ports() -> PodSecurityContext {
    let sysctl = |name: &str, value: &str| Sysctl { name: name.to_owned(), value: value.to_owned() };
    PodSecurityContext {
        sysctls: Some(vec![
            sysctl("net.ipv4.ip_unprivileged_port_start", "0"),
            // Of connections to the Service, which all have the pod's address: more than twice the default.
            sysctl("net.ipv4.ip_local_port_range", "1024 65535"),
        ]),
        ..PodSecurityContext::default()
    }
}

fn without_rights() -> SecurityContext {
    SecurityContext {
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        run_as_non_root: Some(true),
        run_as_user: Some(65_532),
        ..confined()
    }
}

/// IPv6 forwarding is off in every new pod, and only a privileged container may switch it on.
fn ipv6_forwarding(image: &str) -> Container {
    Container {
        name: ENABLE_IPV6_FORWARDING.to_owned(),
        args: Some(vec![ENABLE_IPV6_FORWARDING.to_owned()]),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        ..container(image, MEMORY)
    }
}

fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

fn container(image: &str, memory: &str) -> Container {
    let quantities = |quantities: &[(&str, &str)]| {
        let own = |&(name, quantity): &(&str, &str)| (name.to_owned(), Quantity(quantity.to_owned()));
        Some(quantities.iter().map(own).collect())
    };
    Container {
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        resources: Some(ResourceRequirements {
            requests: quantities(&[("cpu", "1m"), ("memory", "8Mi")]),
            limits: quantities(&[("memory", memory)]),
            ..ResourceRequirements::default()
        }),
        ..Container::default()
    }
}

/// Each port and protocol once, whatever the number of address families.
fn host_ports(wish: &LoadBalancerSpec) -> Vec<ContainerPort> {
    let port = |(protocol, port): HostPort| ContainerPort {
        container_port: port.into(),
        host_port: Some(port.into()),
        protocol: Some(protocol.as_str().to_uppercase()),
        ..ContainerPort::default()
    };
    wish.host_ports().into_iter().map(port).collect()
}
