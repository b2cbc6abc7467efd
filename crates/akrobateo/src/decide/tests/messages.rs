//! Tests of the condition's messages. Each message says what is wrong, what was expected, and what to do.

use super::*;

#[test]
fn error_mentions_the_reserved_port() {
    let nodes = [node("n1").internal_ip("10.0.0.1").build()].map(|node| NodeInfo::from_node(&node));
    let service = Arc::new(service("web").tcp(22).build());
    let defaults = ServiceDefaults { reserved_ports: "22".parse().unwrap(), ..defaults() };
    let allocations = PortAllocations::default().update(&[service], &nodes, &defaults, &NothingObserved);
    let Some(AllocationResult::Rejected(error)) = allocations.get(&key("web")) else {
        panic!("not rejected")
    };
    assert_eq!(Reason::from(error), Reason::PortReserved);
    assert!(error.to_string().contains("22/TCP"), "{error}");
}

#[test]
fn invalid_annotation_error_mentions_value_reason_and_allowed_values() {
    for (name, value, reason, allowed_values) in [
        (annotations::NODE_SELECTOR, "a b", "\"a b\" is not a label key", "label selector"),
        (annotations::NODE_SELECTOR, "a in (b", "parentheses", "label selector"),
        (
            annotations::TOLERATIONS,
            "[{key: x, operator: Maybe}]",
            "toleration 1: operator",
            "list of tolerations",
        ),
        (annotations::WORKLOAD, "StatefulSet", "unknown kind", "DaemonSet, Deployment"),
        (annotations::REPLICAS, "0", "out of range", "a number from 1"),
        (annotations::REPLICAS, "many", "not a number", "a number from 1"),
        (annotations::ADDRESS_TYPES, "Hostname", "unknown address type \"Hostname\"", "ExternalIP"),
        (annotations::ADDRESS_TYPES, "", "unknown address type", "ExternalIP"),
        (annotations::IP_MODE, "proxy", "unknown ipMode", "VIP, Proxy"),
        (annotations::PROXY_PROTOCOL, "v3", "unknown version", "v1 or v2"),
        (annotations::PROXY_PROTOCOL, "v2:443", "443 is not a TCP port of the Service", "v1 or v2"),
        (annotations::PROXY_PROTOCOL, "v2:", "\"\" is not a port number", "v1 or v2"),
        (annotations::DATA_PATH, "ebpf", "unknown data path", "kernel, userspace"),
        (
            annotations::PRIORITY_CLASS,
            "system-node-critical",
            "not an allowed PriorityClass",
            "akrobateo-proxy, by the operator's --priority-class and --allowed-priority-classes",
        ),
        (
            annotations::TOLERATIONS,
            "[{operator: Exists}]",
            "toleration 1 is not allowed",
            "none, by the operator's --tolerations and --allowed-tolerations",
        ),
    ] {
        let exposure = exposure(&observe(web().annotation(name, value).build()));
        assert_eq!(exposure.reason, Reason::InvalidAnnotation, "{name}={value}");
        let message_start = format!("annotation {name} is {value:?}: ");
        let reason_and_allowed_values =
            exposure.message.strip_prefix(&message_start).unwrap_or_else(|| panic!("{}", exposure.message));
        let (actual_reason, actual_allowed_values) =
            reason_and_allowed_values.split_once("; allowed: ").unwrap();
        assert!(actual_reason.contains(reason), "{actual_reason}");
        assert!(actual_allowed_values.contains(allowed_values), "{actual_allowed_values}");
    }
}

#[test]
fn condition_explains_why_the_status_is_empty() {
    let observe_with_ready_proxy = |node: Node, web: ServiceBuilder| {
        observe_with_other_services(web.build(), Vec::new(), vec![pod("p").on("n1").ready().build()], &[node])
    };
    let n1 = || node("n1").internal_ip("10.0.0.1");
    let service_with_external_ips = web().annotation(annotations::ADDRESS_TYPES, "ExternalIP");
    let (exclude_label, taint) =
        ("node.kubernetes.io/exclude-from-external-load-balancers", "ToBeDeletedByClusterAutoscaler");
    for (state, reason, parts) in [
        (
            observe_with_ready_proxy(n1().build(), service_with_external_ips),
            Reason::NoAddresses,
            vec!["node n1", "no IPv4 address of type ExternalIP"],
        ),
        (
            observe_with_ready_proxy(n1().build(), web().families(&["IPv6"])),
            Reason::NoAddresses,
            vec!["node n1", "no IPv6 address"],
        ),
        (
            observe_with_ready_proxy(n1().label(exclude_label, "").build(), web()),
            Reason::NoAddresses,
            vec!["node n1", exclude_label, "--ignore-exclude-label"],
        ),
        (
            observe_with_ready_proxy(n1().taint(taint).build(), web()),
            Reason::NoAddresses,
            vec!["node n1", taint],
        ),
    ] {
        let exposure = exposure(&state);
        assert_eq!(exposure.reason, reason, "{}", exposure.message);
        assert!(parts.iter().all(|part| exposure.message.contains(part)), "{}", exposure.message);
        assert_eq!(exposure.warnings[0].0, reason);
    }
}

#[test]
fn settings_that_contradict_the_proxy_protocol_are_rejected() {
    let service_with_proxy_protocol = || web().annotation(annotations::PROXY_PROTOCOL, "v2");
    for (service, reason, parts) in [
        (
            service_with_proxy_protocol().annotation(annotations::DATA_PATH, "kernel"),
            Reason::InvalidAnnotation,
            ["kernel", "PROXY protocol"],
        ),
        (
            service_with_proxy_protocol().annotation(annotations::IP_MODE, "VIP"),
            Reason::InvalidAnnotation,
            ["VIP", "allowed: Proxy"],
        ),
        (
            service("web").udp(53).annotation(annotations::PROXY_PROTOCOL, "v2"),
            Reason::InvalidAnnotation,
            ["v2", "TCP"],
        ),
        (service_with_proxy_protocol().sctp(90), Reason::UnsupportedSpec, ["90/SCTP", "only TCP and UDP"]),
    ] {
        let exposure = exposure(&observe(service.build()));
        assert_eq!(exposure.reason, reason, "{}", exposure.message);
        assert!(parts.iter().all(|part| exposure.message.contains(part)), "{}", exposure.message);
    }
}

#[test]
fn annotation_with_ip_mode_vip_is_rejected_if_vip_is_dangerous() {
    let vip_danger = "kube-proxy runs in IPVS mode (ConfigMap kube-system/kube-proxy, key config.conf)";
    let defaults = ServiceDefaults { vip_danger: Some(vip_danger.to_owned()), ..defaults() };
    let allocation_result = |service: ServiceBuilder| {
        let services = [Arc::new(service.build())];
        let allocations = PortAllocations::default().update(&services, &[], &defaults, &NothingObserved);
        allocations.get(&key("web")).cloned().unwrap()
    };
    let AllocationResult::Rejected(error) = allocation_result(web().annotation(annotations::IP_MODE, "VIP"))
    else {
        panic!("not rejected")
    };
    let message = error.to_string();
    assert!(message.contains(vip_danger) && message.ends_with("allowed: Proxy"), "{message}");
    for service in [web(), web().annotation(annotations::IP_MODE, "Proxy")] {
        let AllocationResult::Accepted(spec, _) = allocation_result(service) else { panic!("rejected") };
        assert_eq!(spec.ip_mode, akrobateo_services::spec::IpMode::Proxy);
    }
}
