//! The spec of proxy pods. Pure.
//!
//! The pod spec changes only together with the forwarding, because a change of the pod spec replaces all pods and
//! interrupts forwarding.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::data_path::USERSPACE_GRACE_PERIOD;
use akrobateo_core::proxy_args::{ENABLE_IPV6_FORWARDING_COMMAND, RESERVE_PORTS_COMMAND};
use akrobateo_core::{DataPath, Family, HostPort, Protocol, ProxyArgs, probe};
use akrobateo_services::node_info::UNREACHABLE_TAINT;
use akrobateo_services::spec::{
    LabelRequirement, LoadBalancerSpec, NodeSelection, ProxyWorkload, WorkloadSpec, tolerates,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, HTTPGetAction, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PodSecurityContext, PodSpec, Probe, ResourceRequirements,
    SeccompProfile, SecurityContext, Sysctl, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::host_ip::unspecified_host_ip;
use super::pod_status::NODE_NAME_FIELD;

/// Termination grace period of a proxy that forwards in the kernel, in seconds.
///
/// A proxy with a signal handler exits immediately on SIGTERM. A proxy that has not installed its signal handler yet
/// ends after the grace period. Other pods can use the hostPorts only after the proxy has ended.
const KERNEL_DATA_PATH_GRACE_SECONDS: i64 = 3;
/// Termination grace period of a proxy that forwards in userspace, in seconds.
const USERSPACE_DATA_PATH_GRACE_SECONDS: i64 = USERSPACE_GRACE_PERIOD.as_secs().cast_signed();

/// Memory limit of a proxy that forwards in the kernel. A proxy that forwards in the kernel uses much less memory than
/// the limit.
const KERNEL_DATA_PATH_MEMORY_LIMIT: &str = "64Mi";
/// Memory limit of a proxy that forwards in userspace. The limit includes the kernel's socket buffers: about 8 KiB for
/// each of at most 65,536 connections.
const USERSPACE_DATA_PATH_MEMORY_LIMIT: &str = "512Mi";

/// CPU request of a proxy that forwards in the kernel or reserves ports. The process itself only answers probes.
const KERNEL_DATA_PATH_CPU_REQUEST: &str = "1m";
/// CPU request of a proxy that forwards in userspace. On a busy node, the proxy gets ten times the CPU time of a proxy
/// that forwards in the kernel. The request is small enough for hundreds of proxies on a node.
const USERSPACE_DATA_PATH_CPU_REQUEST: &str = "10m";
/// The timeout of the readiness probe, in seconds. On a busy node, a proxy with a small CPU request may need more than
/// one second (the default timeout) for an answer, although the node still forwards.
const READINESS_TIMEOUT_SECONDS: i32 = 3;

/// The name of the container port of the metrics. The chart's `PodMonitor` uses this name.
const METRICS_PORT_NAME: &str = "metrics";

/// The time after which Kubernetes evicts a Deployment's pod from a lost node, in seconds.
const LOST_NODE_TOLERATION_SECONDS: i64 = 30;
/// The taint that Kubernetes sets on nodes that are not ready.
const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";

/// The role of a Service's proxy pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyRole {
    /// The pod forwards to the Service's cluster IPs.
    Forward,
    /// The pod only reserves the hostPorts. kube-proxy forwards and keeps the client's address.
    ReservePorts,
}

/// The nodes and the hostPorts of a Service's proxy pods.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodPlacement<'a> {
    pub(super) nodes: PodNodes<'a>,
    /// The only family for which the pods occupy their hostPorts; `None` for both families.
    pub(super) host_port_family: Option<Family>,
}

/// The selected nodes of a Service on which its proxy pods may run.
#[derive(Clone, Copy, Debug)]
pub(super) enum PodNodes<'a> {
    /// All selected nodes.
    AllSelected,
    /// Only the listed nodes. A new node does not get a pod before the allocation has decided about the node.
    OnlyListed(&'a BTreeSet<String>),
    /// All selected nodes except the listed nodes. A new node needs no change of the list.
    ExceptListed(&'a BTreeSet<String>),
}

impl<'a> PodNodes<'a> {
    /// Returns the placement on the owned nodes. `None` means that the Service owns its ports on all selected nodes.
    pub(super) const fn from_owned(owned_nodes: Option<&'a BTreeSet<String>>) -> Self {
        match owned_nodes {
            Some(nodes) => Self::OnlyListed(nodes),
            None => Self::AllSelected,
        }
    }
}

/// Returns the spec of a Service's proxy pods.
pub(super) fn build_pod_spec(
    image: &str,
    spec: &LoadBalancerSpec,
    placement: PodPlacement,
    role: ProxyRole,
) -> PodSpec {
    let args = &spec.proxy_args;
    let forwards_in_data_path = |data_path| role == ProxyRole::Forward && args.data_path == data_path;
    let forwards_in_userspace = forwards_in_data_path(DataPath::Userspace);
    let needs_ipv6_forwarding = forwards_in_data_path(DataPath::Kernel)
        && args.forwards.iter().any(|forward| forward.target.is_ipv6());
    PodSpec {
        // Proxies get neither access to the API nor environment variables for the Services of their namespace, because
        // they need neither.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        host_network: (role == ProxyRole::ReservePorts).then_some(true),
        init_containers: needs_ipv6_forwarding.then(|| vec![build_ipv6_forwarding_container(image)]),
        containers: vec![match role {
            ProxyRole::Forward => {
                build_forwarding_container(image, args, build_host_ports(spec, placement.host_port_family))
            }
            ProxyRole::ReservePorts => {
                build_port_reserving_container(image, build_host_ports(spec, placement.host_port_family))
            }
        }],
        node_selector: Some(BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())])),
        affinity: build_node_affinity(&spec.nodes, placement.nodes),
        tolerations: Some(build_tolerations(spec)).filter(|tolerations| !tolerations.is_empty()),
        priority_class_name: Some(spec.priority_class.clone()).filter(|name| !name.is_empty()),
        security_context: forwards_in_userspace.then(build_userspace_sysctls),
        termination_grace_period_seconds: Some(if forwards_in_userspace {
            USERSPACE_DATA_PATH_GRACE_SECONDS
        } else {
            KERNEL_DATA_PATH_GRACE_SECONDS
        }),
        ..PodSpec::default()
    }
}

/// Returns the affinity for the nodes on which the pods may run.
fn build_node_affinity(selection: &NodeSelection, nodes: PodNodes) -> Option<Affinity> {
    let expressions: Vec<_> =
        selection.requirements.iter().map(LabelRequirement::to_node_selector_requirement).collect();
    let expressions = (!expressions.is_empty()).then_some(expressions);
    // Kubernetes allows exactly one value in a field requirement.
    let name_field = |operator: &str, name: &String| NodeSelectorRequirement {
        key: NODE_NAME_FIELD.to_owned(),
        operator: operator.to_owned(),
        values: Some(vec![name.clone()]),
    };
    let term = |fields| NodeSelectorTerm { match_expressions: expressions.clone(), match_fields: fields };
    let node_selector_terms: Vec<_> = match nodes {
        // A node must match one of the terms.
        PodNodes::OnlyListed(names) => {
            names.iter().map(|name| term(Some(vec![name_field("In", name)]))).collect()
        }
        PodNodes::ExceptListed(names) if !names.is_empty() => {
            vec![term(Some(names.iter().map(|name| name_field("NotIn", name)).collect()))]
        }
        PodNodes::ExceptListed(_) | PodNodes::AllSelected => expressions.iter().map(|_| term(None)).collect(),
    };
    if node_selector_terms.is_empty() {
        return None;
    }
    Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector { node_selector_terms }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    })
}

/// Returns the tolerations of the pods.
///
/// The default of Kubernetes keeps a Deployment's pod on a lost node for five minutes. Five minutes are too long for a
/// proxy. The pods of a DaemonSet stay until the node is removed.
fn build_tolerations(spec: &LoadBalancerSpec) -> Vec<Toleration> {
    let mut tolerations = spec.nodes.tolerations.clone();
    if matches!(spec.workload, WorkloadSpec::Dedicated(ProxyWorkload::Deployment { .. })) {
        for key in [NOT_READY_TAINT, UNREACHABLE_TAINT] {
            let (key, effect) = (key.to_owned(), "NoExecute".to_owned());
            let taint = Taint { key: key.clone(), effect: effect.clone(), ..Taint::default() };
            if !tolerates(&spec.nodes.tolerations, &taint) {
                tolerations.push(Toleration {
                    key: Some(key),
                    operator: Some("Exists".to_owned()),
                    effect: Some(effect),
                    toleration_seconds: Some(LOST_NODE_TOLERATION_SECONDS),
                    value: None,
                });
            }
        }
    }
    tolerations
}

fn build_forwarding_container(image: &str, args: &ProxyArgs, host_ports: Vec<ContainerPort>) -> Container {
    let (cpu, memory) = match args.data_path {
        DataPath::Kernel => (KERNEL_DATA_PATH_CPU_REQUEST, KERNEL_DATA_PATH_MEMORY_LIMIT),
        DataPath::Userspace => (USERSPACE_DATA_PATH_CPU_REQUEST, USERSPACE_DATA_PATH_MEMORY_LIMIT),
    };
    Container {
        name: "forward".to_owned(),
        args: Some(args.to_args()),
        ports: Some(host_ports.into_iter().chain([build_metrics_port(args.probe_port)]).collect()),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            timeout_seconds: Some(READINESS_TIMEOUT_SECONDS),
            ..build_http_probe(probe::READY_PATH, args.probe_port)
        }),
        // A proxy on a busy node answers probes late but still forwards. Kubernetes restarts the proxy only after a
        // minute without an answer, because a restart interrupts connections in userspace.
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(10),
            failure_threshold: Some(6),
            ..build_http_probe(probe::HEALTH_PATH, args.probe_port)
        }),
        security_context: Some(match args.data_path {
            DataPath::Kernel => SecurityContext {
                capabilities: Some(Capabilities {
                    add: Some(vec!["NET_ADMIN".to_owned()]),
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                // In Kubernetes, only root gets added capabilities. In this container, root has no other capability.
                run_as_user: Some(0),
                ..build_restricted_security_context()
            },
            DataPath::Userspace => build_unprivileged_security_context(),
        }),
        ..build_base_container(image, cpu, memory)
    }
}

fn build_http_probe(path: &str, port: u16) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// Returns the container that only reserves the ports. A probe would need a port of the host, so the container has no
/// probes.
fn build_port_reserving_container(image: &str, host_ports: Vec<ContainerPort>) -> Container {
    Container {
        name: RESERVE_PORTS_COMMAND.to_owned(),
        args: Some(vec![RESERVE_PORTS_COMMAND.to_owned()]),
        ports: Some(host_ports),
        security_context: Some(build_unprivileged_security_context()),
        ..build_base_container(image, KERNEL_DATA_PATH_CPU_REQUEST, KERNEL_DATA_PATH_MEMORY_LIMIT)
    }
}

/// Returns the sysctls of proxies that forward in userspace. The two sysctls are safe: the kubelet allows them by
/// default (<https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>).
fn build_userspace_sysctls() -> PodSecurityContext {
    let sysctl = |name: &str, value: &str| Sysctl { name: name.to_owned(), value: value.to_owned() };
    PodSecurityContext {
        sysctls: Some(vec![
            sysctl("net.ipv4.ip_unprivileged_port_start", "0"),
            // All connections to the Service come from the pod's address, so each connection to a port of the Service
            // needs a different source port. The configured port range is more than twice as large as the default
            // range.
            sysctl("net.ipv4.ip_local_port_range", "1024 65535"),
        ]),
        ..PodSecurityContext::default()
    }
}

/// Returns the security context of a container that runs as an ordinary user and has no capabilities.
fn build_unprivileged_security_context() -> SecurityContext {
    SecurityContext {
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        run_as_non_root: Some(true),
        run_as_user: Some(65_532),
        ..build_restricted_security_context()
    }
}

/// Returns the init container that enables IPv6 forwarding. New pods do not forward IPv6, and only a privileged
/// container may enable the forwarding.
fn build_ipv6_forwarding_container(image: &str) -> Container {
    Container {
        name: ENABLE_IPV6_FORWARDING_COMMAND.to_owned(),
        args: Some(vec![ENABLE_IPV6_FORWARDING_COMMAND.to_owned()]),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        ..build_base_container(image, KERNEL_DATA_PATH_CPU_REQUEST, KERNEL_DATA_PATH_MEMORY_LIMIT)
    }
}

/// Returns the common part of the security contexts of all containers that are not privileged.
fn build_restricted_security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

fn build_base_container(image: &str, cpu: &str, memory: &str) -> Container {
    let build_quantities = |quantities: &[(&str, &str)]| {
        let build_entry = |&(name, quantity): &(&str, &str)| (name.to_owned(), Quantity(quantity.to_owned()));
        Some(quantities.iter().map(build_entry).collect())
    };
    Container {
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        resources: Some(ResourceRequirements {
            requests: build_quantities(&[("cpu", cpu), ("memory", "8Mi")]),
            limits: build_quantities(&[("memory", memory)]),
            ..ResourceRequirements::default()
        }),
        ..Container::default()
    }
}

/// Returns the container ports with a hostPort. Each hostPort is in the result once, even if the proxy forwards the
/// port for two address families.
fn build_host_ports(spec: &LoadBalancerSpec, family: Option<Family>) -> Vec<ContainerPort> {
    let container_port = |HostPort { protocol, port }| ContainerPort {
        container_port: port.into(),
        host_port: Some(port.into()),
        host_ip: family.map(|family| unspecified_host_ip(family).to_owned()),
        protocol: Some(protocol.api_name().to_owned()),
        ..ContainerPort::default()
    };
    spec.host_ports().into_iter().map(container_port).collect()
}

/// Returns the container port of the metrics. Prometheus finds only ports that the pod declares. The port is no
/// hostPort.
fn build_metrics_port(probe_port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(METRICS_PORT_NAME.to_owned()),
        container_port: probe_port.into(),
        protocol: Some(Protocol::Tcp.api_name().to_owned()),
        ..ContainerPort::default()
    }
}
