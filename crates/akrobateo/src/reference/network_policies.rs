//! Tests of the `NetworkPolicies` in deploy/. The tests evaluate the rules themselves, because the network plugin of
//! the test cluster does not enforce `NetworkPolicies`. `charts/check` compares the chart with deploy/.

use std::collections::BTreeMap;
use std::sync::Arc;

use akrobateo_core::probe::PREFERRED_PROBE_PORT;
use akrobateo_core::{annotations, labels};
use akrobateo_services::allocation::{NothingObserved, PortAllocations};
use clap::Parser;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::document::read_file;
use crate::decide::fixtures::{ServiceBuilder, at, defaults, key, proxy_config, service};
use crate::decide::{ProxyDecision, ServiceState, Workload, decide};
use crate::settings::OperatorConfig;

/// A namespace whose pods may not use the restricted port.
const TENANT_NAMESPACE: &str = "shop";
/// The namespace of Prometheus in the manifests.
const MONITORING_NAMESPACE: &str = "monitoring";
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

fn read_policy(file: &str) -> NetworkPolicySpec {
    let policy: NetworkPolicy = serde_saphyr::from_str(&read_file(file)).unwrap();
    policy.spec.unwrap()
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let has_labels =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    has_labels
        && selector.match_expressions.iter().flatten().all(|expression| {
            assert_eq!(expression.operator, "DoesNotExist");
            !labels.contains_key(&expression.key)
        })
}

/// Returns true if a pod of a namespace may connect to a port of the selected pods.
fn allows(policy: &NetworkPolicySpec, namespace: &str, protocol: &str, port: u16) -> bool {
    let namespace_labels = [("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())].into();
    let is_peer = |peer: &NetworkPolicyPeer| {
        let selector = peer.namespace_selector.as_ref();
        selector.is_some_and(|selector| selects(selector, &namespace_labels))
    };
    let is_port = |range: &NetworkPolicyPort| {
        let Some(IntOrString::Int(first_port)) = range.port else { panic!("no number: {range:?}") };
        let last_port = range.end_port.unwrap_or(first_port);
        range.protocol.as_deref() == Some(protocol) && (first_port..=last_port).contains(&i32::from(port))
    };
    policy.ingress.iter().flatten().any(|rule| {
        rule.from.as_ref().is_none_or(|peers| peers.iter().any(is_peer))
            && rule.ports.iter().flatten().any(is_port)
    })
}

/// Returns the ranges of ports to which pods of a namespace may not connect: protocol, first and last port.
fn denied_ports(policy: &NetworkPolicySpec, namespace: &str) -> Vec<(&'static str, u16, u16)> {
    let mut ranges: Vec<(&'static str, u16, u16)> = Vec::new();
    for (protocol, port) in
        PROTOCOLS.into_iter().flat_map(|protocol| (1..=u16::MAX).map(move |port| (protocol, port)))
    {
        if allows(policy, namespace, protocol, port) {
            continue;
        }
        match ranges.last_mut() {
            Some((last_protocol, _, last)) if *last_protocol == protocol && *last == port - 1 => *last = port,
            _ => ranges.push((protocol, port, port)),
        }
    }
    ranges
}

/// Returns the labels of the pods that forward for a Service.
fn proxy_pod_labels(service: ServiceBuilder) -> BTreeMap<String, String> {
    let service = Arc::new(service.annotation(annotations::IP_MODE, "Proxy").build());
    let (services, nodes) = ([service.clone()], []);
    let allocations = PortAllocations::default().update(&services, &nodes, &defaults(), &NothingObserved);
    let allocation_result = allocations.get(&key("web")).cloned();
    let state = ServiceState { service: Some(service), allocation_result, ..ServiceState::default() };
    let ProxyDecision::RunWorkload(Workload::DaemonSet(daemonset)) =
        decide(&proxy_config(), &state, at(0)).proxy
    else {
        panic!("no DaemonSet")
    };
    daemonset.spec.unwrap().template.metadata.unwrap().labels.unwrap()
}

#[test]
fn operator_policy_allows_only_prometheus_on_the_http_port() {
    let policy = read_policy("deploy/network-policy.yaml");
    let http_port = OperatorConfig::try_parse_from(["akrobateo"]).unwrap().http_address.port();
    assert_eq!(policy.policy_types.as_deref(), Some(["Ingress".to_owned()].as_slice()));
    let all_ports = PROTOCOLS.map(|protocol| (protocol, 1, u16::MAX));
    assert_eq!(denied_ports(&policy, TENANT_NAMESPACE), all_ports);
    let [_, udp, sctp] = all_ports;
    let other_ports = [("TCP", 1, http_port - 1), ("TCP", http_port + 1, u16::MAX), udp, sctp];
    assert_eq!(denied_ports(&policy, MONITORING_NAMESPACE), other_ports);
}

/// If the policy denied another port, the clients of a Service could not connect.
#[test]
fn proxy_policy_denies_tenants_only_the_probe_port() {
    let policy = read_policy("deploy/proxy-network-policy/network-policy.yaml");
    assert_eq!(policy.policy_types.as_deref(), Some(["Ingress".to_owned()].as_slice()));
    assert_eq!(
        denied_ports(&policy, TENANT_NAMESPACE),
        [("TCP", PREFERRED_PROBE_PORT, PREFERRED_PROBE_PORT)]
    );
    assert_eq!(denied_ports(&policy, MONITORING_NAMESPACE), []);
}

#[test]
fn proxy_policy_does_not_select_services_with_the_probe_port() {
    let policy = read_policy("deploy/proxy-network-policy/network-policy.yaml");
    let selector = policy.pod_selector.unwrap();
    assert!(selects(&selector, &proxy_pod_labels(service("web").tcp(80).udp(PREFERRED_PROBE_PORT))));
    let other_labels = proxy_pod_labels(service("web").tcp(PREFERRED_PROBE_PORT));
    assert_eq!(other_labels.get(labels::PROBE_PORT).map(String::as_str), Some("10289"));
    assert!(!selects(&selector, &other_labels));
}
