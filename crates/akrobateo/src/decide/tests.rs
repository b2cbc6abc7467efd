//! Decisions and the writes that follow from them, for a whole Service.

mod drift;

use std::sync::Arc;

use akrobateo_core::annotations;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Service};

use super::fixtures::{ServiceBuilder, at, defaults, key, node, pod, service, settings};
use super::*;
use crate::allocation::{HeldPorts, PortAllocations};
use crate::key::ServiceKey;
use crate::reason::Reason;

/// The Service `default/web` among others.
fn among(service: Service, others: Vec<Service>, pods: Vec<Pod>, nodes: &[Node]) -> ServiceState {
    let services: Vec<_> = std::iter::once(service.clone()).chain(others).map(Arc::new).collect();
    let nodes: Vec<_> = nodes.iter().map(NodeInfo::of).collect();
    let landscape = PortAllocations::allocate(&services, &nodes, &defaults(), |_| HeldPorts::default());
    ServiceState {
        case: landscape.case(&ServiceKey::of(&service)).cloned(),
        service: Some(Arc::new(service)),
        pods: pods.into_iter().map(Arc::new).collect(),
        nodes: Arc::new(nodes),
        ..ServiceState::default()
    }
}

/// The Service with a ready proxy on its only node.
fn observed(service: Service) -> ServiceState {
    let node = node("n1").internal("10.0.0.1").build();
    among(service, Vec::new(), vec![pod("p").on("n1").ready().build()], &[node])
}

fn decision(observed: &ServiceState) -> Decision {
    decide(&settings(), &defaults(), observed, at(1000))
}

fn changes(observed: &ServiceState) -> Vec<Action> {
    difference(observed, &decision(observed), at(1000))
}

/// What the changes make of the observed state, as far as the next decision depends on it.
fn after(mut observed: ServiceState) -> ServiceState {
    for change in changes(&observed) {
        match change {
            Action::Apply(workload) => {
                observed.workloads.retain(|other| !other.same_identity(&workload));
                observed.workloads.push(workload);
            }
            Action::Delete(workload) | Action::Recreate(workload) => {
                observed.workloads.retain(|other| !other.same_identity(&workload));
            }
            Action::PatchStatus { addresses, condition, .. } => {
                let mut service = observed.service.as_deref().cloned().unwrap();
                let status = service.status.get_or_insert_default();
                status.load_balancer.get_or_insert_default().ingress = Some(addresses);
                status.conditions = condition.map(|condition| vec![condition]);
                observed.service = Some(Arc::new(service));
            }
            Action::EmitEvent { .. } => (),
        }
    }
    observed
}

fn reasons(changes: &[Action]) -> Vec<Reason> {
    let reason = |change: &Action| match change {
        Action::EmitEvent { reason, .. } => Some(*reason),
        _ => None,
    };
    changes.iter().filter_map(reason).collect()
}

fn exposure(observed: &ServiceState) -> Exposure {
    decision(observed).status.unwrap().exposure.unwrap()
}

fn pod_spec(observed: &ServiceState) -> PodSpec {
    let Proxy::Present(workload) = decision(observed).proxy else { panic!("no proxy") };
    let template = match workload {
        Workload::DaemonSet(daemonset) => daemonset.spec.unwrap().template,
        Workload::Deployment(deployment) => deployment.spec.unwrap().template,
    };
    template.spec.unwrap()
}

fn web() -> ServiceBuilder {
    service("web").tcp(80)
}

#[test]
fn a_new_service_gets_its_proxies_before_its_addresses() {
    let changes = changes(&observed(web().build()));
    let order: Vec<_> = changes
        .iter()
        .filter(|change| !matches!(change, Action::EmitEvent { .. }))
        .map(|change| matches!(change, Action::Apply(_)))
        .collect();
    assert_eq!(order, [true, false], "{changes:?}");
    assert_eq!(reasons(&changes), [Reason::EnsuringLoadBalancer, Reason::EnsuredLoadBalancer]);
}

#[test]
fn nothing_is_written_when_nothing_differs() {
    for service in [web(), web().annotation(annotations::WORKLOAD, "Deployment"), web().local()] {
        assert_eq!(changes(&after(observed(service.build()))), []);
    }
}

#[test]
fn what_was_made_for_a_service_that_is_gone_or_no_longer_ours_is_removed() {
    let made = after(observed(web().build()));
    for now in [None, Some(web().kind("ClusterIP").build())] {
        let observed = ServiceState { service: now.map(Arc::new), case: None, ..made.clone() };
        assert!(matches!(&changes(&observed)[0], Action::Delete(_)));
    }
}

#[test]
fn only_a_status_that_is_ours_is_cleared() {
    let given_up = |manager| {
        changes(&observed(web().class("example.com/lb").published("10.0.0.1", "VIP", manager).build()))
    };
    let cleared =
        Action::PatchStatus { uid: "uid-of-web".to_owned(), addresses: Vec::new(), condition: None };
    assert_eq!(given_up("akrobateo"), [cleared]);
    assert_eq!(given_up("somebody-else"), []);
}

#[test]
fn a_refused_service_keeps_its_last_good_proxies_and_its_addresses_stay_true() {
    let good = after(observed(web().build()));
    let bad = web().annotation(annotations::IP_MODE, "vip").published("10.0.0.9", "Proxy", "akrobateo");
    let refused = ServiceState { workloads: good.workloads, ..observed(bad.build()) };
    let decision = decision(&refused);
    assert_eq!(decision.proxy, Proxy::Unchanged);
    let status = decision.status.unwrap();
    assert_eq!(status.addresses[0].ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.addresses[0].ip_mode.as_deref(), Some("Proxy"));
    let exposure = status.exposure.unwrap();
    assert_eq!(exposure.reason, Reason::InvalidAnnotation);
    assert_eq!(reasons(&changes(&refused)), [Reason::InvalidAnnotation]);
    assert_eq!(changes(&after(refused)), []);
}

#[test]
fn a_reserved_port_is_refused_and_named() {
    let nodes = [node("n1").internal("10.0.0.1").build()].map(|node| NodeInfo::of(&node));
    let ssh = Arc::new(service("web").tcp(22).build());
    let strict = ServiceDefaults { reserved_ports: "22".parse().unwrap(), ..defaults() };
    let landscape = PortAllocations::allocate(&[ssh], &nodes, &strict, |_| HeldPorts::default());
    let Some(Admission::Rejected(refusal)) = landscape.case(&key("web")) else { panic!("not refused") };
    assert_eq!(refusal.reason(), Reason::PortReserved);
    assert!(refusal.to_string().contains("22/TCP"), "{refusal}");
}

#[test]
fn a_service_whose_port_is_owned_on_every_node_has_no_proxy_and_says_whose_it_is() {
    let nodes = [node("n1").internal("10.0.0.1").build()];
    let older = service("older").tcp(80).created(1).build();
    let observed = among(web().created(2).build(), vec![older], Vec::new(), &nodes);
    assert_eq!(decision(&observed).proxy, Proxy::Absent);
    let exposure = exposure(&observed);
    assert_eq!(exposure.reason, Reason::PortConflict);
    assert_eq!(exposure.message, "port 80/TCP on node n1 belongs to Service default/older");
    assert_eq!(reasons(&changes(&observed)), [Reason::PortConflict]);
}

#[test]
fn where_only_some_nodes_are_taken_the_proxies_keep_off_those() {
    let nodes = ["n1", "n2"].map(|name| node(name).internal("10.0.0.1").label("name", name).build());
    let older = service("older").tcp(80).created(1).annotation(annotations::NODE_SELECTOR, "name=n1").build();
    let observed = among(web().created(2).build(), vec![older], Vec::new(), &nodes);
    let affinity = pod_spec(&observed).affinity.unwrap().node_affinity.unwrap();
    let terms = affinity.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
    let fields = terms[0].match_fields.as_ref().unwrap();
    assert_eq!((fields[0].operator.as_str(), &fields[0].values), ("NotIn", &Some(vec!["n1".to_owned()])));
    assert!(exposure(&observed).message.contains("default/older"));
}

#[test]
fn another_workload_for_the_same_service_gives_way_first() {
    let mut observed = after(observed(web().build()));
    let switched =
        web().annotation(annotations::WORKLOAD, "Deployment").annotation(annotations::REPLICAS, "3");
    observed.case = super::tests::observed(switched.build()).case;
    let changes = changes(&observed);
    assert!(matches!(&changes[0], Action::Delete(Workload::DaemonSet(_))), "{changes:?}");
    let Action::Apply(Workload::Deployment(deployment)) = &changes[1] else { panic!("{changes:?}") };
    assert_eq!(deployment.spec.as_ref().unwrap().replicas, Some(3));
}

#[test]
fn with_policy_local_only_nodes_with_an_endpoint_are_published_and_kube_proxy_answers() {
    let nodes = [node("n1").internal("10.0.0.1").build(), node("n2").internal("10.0.0.2").build()];
    let pods = vec![pod("a").on("n1").ready().build(), pod("b").on("n2").ready().build()];
    let mut observed = among(web().local().build(), Vec::new(), pods, &nodes);
    observed.endpoint_nodes.insert("n2".to_owned());
    let addresses = decision(&observed).status.unwrap().addresses;
    assert_eq!(addresses.len(), 1);
    assert_eq!(addresses[0].ip.as_deref(), Some("10.0.0.2"));
    let pod = pod_spec(&observed);
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(pod.containers[0].args, Some(vec!["reserve".to_owned()]));
}

#[test]
fn where_the_clients_address_cannot_be_kept_a_warning_says_why() {
    let proxied = observed(web().local().annotation(annotations::IP_MODE, "Proxy").build());
    let mut proxied = proxied;
    proxied.endpoint_nodes.insert("n1".to_owned());
    assert_eq!(pod_spec(&proxied).host_network, None);
    let exposure = exposure(&proxied);
    assert!(exposure.reason.is_exposed());
    assert_eq!(exposure.warning, Some(Reason::ClientAddressNotKept));
    assert!(exposure.message.contains("ipMode Proxy"), "{}", exposure.message);
}

#[test]
fn one_container_holds_all_ports_each_once_per_protocol() {
    let dns = service("dns").tcp(53).udp(53).tcp(80).cluster_ips(&["10.97.0.7", "fd97::7"]).build();
    let pod = pod_spec(&observed(dns));
    assert_eq!(pod.containers.len(), 1);
    let ports = pod.containers[0].ports.iter().flatten();
    let ports: Vec<_> = ports.map(|p| (p.host_port.unwrap(), p.protocol.clone().unwrap())).collect();
    assert_eq!(ports, [(53, "TCP".to_owned()), (80, "TCP".to_owned()), (53, "UDP".to_owned())]);
}

#[test]
fn only_ipv6_needs_a_privileged_container() {
    let privileged = |service: Service| {
        let pod = pod_spec(&observed(service));
        let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
        containers.filter(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true))).count()
    };
    assert_eq!(privileged(web().build()), 0);
    assert_eq!(privileged(web().cluster_ips(&["10.97.0.7", "fd97::7"]).build()), 1);
}

#[test]
fn what_does_not_touch_forwarding_does_not_touch_the_pods() {
    let plain = pod_spec(&observed(web().build()));
    let edited = web().annotation("team", "shop").node_port(30080).selector("app", "new");
    assert_eq!(pod_spec(&observed(edited.build())), plain);
    assert_ne!(pod_spec(&observed(service("web").tcp(81).build())), plain);
}

#[test]
fn every_annotation_with_a_bad_value_is_refused_with_the_value_and_what_is_allowed() {
    for (name, value, allowed) in [
        (annotations::NODE_SELECTOR, "a b", "label selector"),
        (annotations::TOLERATIONS, "[{key: x, operator: Maybe}]", "list of a pod's tolerations"),
        (annotations::WORKLOAD, "StatefulSet", "DaemonSet, Deployment"),
        (annotations::REPLICAS, "0", "a number from 1"),
        (annotations::REPLICAS, "many", "a number from 1"),
        (annotations::ADDRESS_TYPES, "Hostname", "ExternalIP"),
        (annotations::ADDRESS_TYPES, "", "ExternalIP"),
        (annotations::IP_MODE, "proxy", "VIP, Proxy"),
        (annotations::PROXY_PROTOCOL, "v3", "v1 or v2"),
        (annotations::PROXY_PROTOCOL, "v2:443", "some of the Service's TCP ports"),
        (annotations::PROXY_PROTOCOL, "v2:", "v1 or v2"),
        (annotations::DATA_PATH, "ebpf", "kernel, userspace"),
        (annotations::PRIORITY_CLASS, "Very High", "PriorityClass"),
    ] {
        let exposure = exposure(&observed(web().annotation(name, value).build()));
        assert_eq!(exposure.reason, Reason::InvalidAnnotation, "{name}={value}");
        for part in [name, value, allowed] {
            assert!(exposure.message.contains(part), "{part}: {}", exposure.message);
        }
    }
}

#[test]
fn a_service_without_an_address_says_what_its_nodes_lack() {
    let ready = |node: Node, web: ServiceBuilder| {
        among(web.build(), Vec::new(), vec![pod("p").on("n1").ready().build()], &[node])
    };
    let n1 = || node("n1").internal("10.0.0.1");
    let external = web().annotation(annotations::ADDRESS_TYPES, "ExternalIP");
    let (excluded, taint) =
        ("node.kubernetes.io/exclude-from-external-load-balancers", "ToBeDeletedByClusterAutoscaler");
    for (observed, reason, parts) in [
        (
            ready(n1().build(), external),
            Reason::NoAddresses,
            ["node n1", "no IPv4 address of type ExternalIP"],
        ),
        (ready(n1().build(), web().families(&["IPv6"])), Reason::NoAddresses, ["node n1", "no IPv6 address"]),
        (
            ready(n1().annotation(annotations::NODE_ADDRESS, "x").build(), web()),
            Reason::NoAddresses,
            ["n1", "annotation"],
        ),
        (ready(n1().label(excluded, "").build(), web()), Reason::NoAddresses, ["node n1", excluded]),
        (ready(n1().taint(taint).build(), web()), Reason::NoAddresses, ["node n1", taint]),
        (ready(n1().build(), web().local()), Reason::NoEndpoints, ["Local", "no node has a ready endpoint"]),
    ] {
        let exposure = exposure(&observed);
        assert_eq!(exposure.reason, reason, "{}", exposure.message);
        assert!(parts.iter().all(|part| exposure.message.contains(part)), "{}", exposure.message);
        assert_eq!(exposure.warning, Some(reason));
    }
}

#[test]
fn the_proxy_protocol_is_spoken_in_userspace_without_any_right_and_kube_proxy_is_kept_out() {
    let dual = || web().udp(53).cluster_ips(&["10.97.0.7", "fd97::7"]);
    let observed = observed(dual().annotation(annotations::PROXY_PROTOCOL, "v2:80").build());
    let pod = pod_spec(&observed);
    let args = pod.containers[0].args.clone().unwrap();
    assert!(
        args.ends_with(&["--data-path=userspace".to_owned(), "--proxy-protocol=v2:80".to_owned()]),
        "{args:?}"
    );
    assert_eq!(pod.init_containers, None);
    let rights = pod.containers[0].security_context.clone().unwrap();
    assert_eq!((rights.run_as_non_root, rights.capabilities.unwrap().add), (Some(true), None));
    let published = decision(&observed).status.unwrap().addresses;
    assert!(published.iter().all(|ingress| ingress.ip_mode.as_deref() == Some("Proxy")), "{published:?}");
    let local = super::tests::observed(web().local().annotation(annotations::PROXY_PROTOCOL, "v1").build());
    assert_eq!((pod_spec(&local).host_network, exposure(&local).warning), (None, Some(Reason::NoEndpoints)));
}

#[test]
fn what_contradicts_the_proxy_protocol_is_refused() {
    let spoken = || web().annotation(annotations::PROXY_PROTOCOL, "v2");
    for (contradicting, reason, parts) in [
        (
            spoken().annotation(annotations::DATA_PATH, "kernel"),
            Reason::InvalidAnnotation,
            ["kernel", "PROXY protocol"],
        ),
        (spoken().annotation(annotations::IP_MODE, "VIP"), Reason::InvalidAnnotation, ["VIP", "Proxy, for"]),
        (
            service("web").udp(53).annotation(annotations::PROXY_PROTOCOL, "v2"),
            Reason::InvalidAnnotation,
            ["v2", "TCP"],
        ),
        (spoken().sctp(90), Reason::UnsupportedSpec, ["90/SCTP", "TCP and UDP only"]),
    ] {
        let exposure = exposure(&observed(contradicting.build()));
        assert_eq!(exposure.reason, reason, "{}", exposure.message);
        assert!(parts.iter().all(|part| exposure.message.contains(part)), "{}", exposure.message);
    }
}

#[test]
fn a_change_of_the_data_path_is_announced() {
    let mut observed = after(observed(web().build()));
    let spoken = web().annotation(annotations::PROXY_PROTOCOL, "v2");
    observed.case = super::tests::observed(spoken.build()).case;
    let there = changes(&observed);
    let note = there.iter().find_map(|change| match change {
        Action::EmitEvent { reason: Reason::DataPathChanged, note } => Some(note.clone()),
        _ => None,
    });
    assert!(note.is_some_and(|note| note.contains("--proxy-protocol=v2")), "{there:?}");
    let mut userspace = after(observed);
    userspace.case = super::tests::observed(web().build()).case;
    assert!(reasons(&changes(&userspace)).contains(&Reason::DataPathChanged));
}

/// A proxy is replaced whenever its pod template changes, and each replacement interrupts forwarding: a new version of
/// the operator must not do that to every proxy there is. Who means to changes the file with the template.
#[test]
fn the_workload_is_to_the_letter_what_earlier_versions_made() {
    let dual = web().udp(53).cluster_ips(&["10.97.0.7", "fd97::7"]).sources(&["10.0.0.0/8"]);
    let made = |service: ServiceBuilder| {
        let Proxy::Present(workload) = decision(&observed(service.build())).proxy else { panic!("no proxy") };
        match workload {
            Workload::DaemonSet(daemonset) => serde_json::to_value(daemonset).unwrap(),
            Workload::Deployment(deployment) => serde_json::to_value(deployment).unwrap(),
        }
    };
    let now = serde_json::json!({
        "forwarding": made(dual),
        "reserving": made(web().local()),
        "userspace": made(web().udp(53).annotation(annotations::PROXY_PROTOCOL, "v2:80")),
        "deployment": made(web().annotation(annotations::WORKLOAD, "Deployment")),
    });
    let before: serde_json::Value = serde_json::from_str(include_str!("golden/workloads.json")).unwrap();
    assert!(now == before, "{}", serde_json::to_string_pretty(&now).unwrap());
}
