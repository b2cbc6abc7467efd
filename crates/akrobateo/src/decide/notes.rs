//! Finds the settings of an accepted Service whose effect is missing or unexpected. The condition reports these
//! settings. Pure.

use std::fmt::Write as _;

use akrobateo_core::Family;
use akrobateo_core::annotations::{ANNOTATIONS, NODE_SELECTOR};
use akrobateo_services::spec::{IpMode, LoadBalancerSpec};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use kube::ResourceExt;

use super::note::{Note, join_families, join_first_items};
use super::pod::ProxyRole;
use super::service_state::ServiceState;
use super::status_owner::find_other_address_owner;
use super::traffic_policy::{client_address_note, internal_policy_note, may_use_vip};
use crate::reason::Reason;

/// The prefix of the annotations of Akrobateo.
const ANNOTATION_PREFIX: &str = "akrobateo.io/";

/// The annotations of other implementations that request an address.
const ADDRESS_ANNOTATIONS: [&str; 9] = [
    "metallb.io/loadBalancerIPs",
    "metallb.io/address-pool",
    "metallb.universe.tf/loadBalancerIPs",
    "metallb.universe.tf/address-pool",
    "kube-vip.io/loadbalancerIPs",
    "lbipam.cilium.io/ips",
    "io.cilium/lb-ipam-ips",
    "service.beta.kubernetes.io/azure-load-balancer-ipv4",
    "networking.gke.io/load-balancer-ip-addresses",
];

/// Returns the notes about an accepted Service. `role` is the role of the Service's proxies; `None` if the node agents
/// forward. `addresses` are the desired addresses in the Service's status.
pub(super) fn find_notes(
    operator_instance: &str,
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    role: Option<ProxyRole>,
    addresses: &[LoadBalancerIngress],
) -> Vec<Note> {
    let service_spec = service.spec.as_ref();
    let notes = [
        role.and_then(|role| client_address_note(state, spec, role)),
        service_spec.and_then(|service_spec| node_ports_note(service_spec, spec)),
        service_spec
            .zip(role)
            .and_then(|(service_spec, role)| session_affinity_note(state, service_spec, spec, role)),
        (!state.nodes_with_ready_endpoint.is_empty())
            .then(|| internal_policy_note(spec, &state.nodes))
            .flatten(),
        source_ranges_note(spec),
        (!addresses.is_empty()).then(|| missing_family_note(spec, addresses)).flatten(),
        ignored_requests_note(service),
        unknown_annotations_note(service),
        addresses.is_empty().then(|| other_addresses_note(operator_instance, service)).flatten(),
    ];
    notes.into_iter().flatten().chain(node_annotation_note(state, spec)).collect()
}

/// Returns a warning if clients outside the source ranges can use a nodePort.
fn node_ports_note(service_spec: &ServiceSpec, spec: &LoadBalancerSpec) -> Option<Note> {
    if spec.proxy_args.sources.is_empty() {
        return None;
    }
    let node_ports = service_spec.ports.iter().flatten().filter_map(|port| port.node_port);
    let node_ports: Vec<_> = node_ports.filter(|port| *port > 0).map(|port| port.to_string()).collect();
    (!node_ports.is_empty()).then(|| Note {
        text: format!(
            "loadBalancerSourceRanges do not restrict the nodePorts of the Service ({}): every client can reach them at \
             the addresses of the nodes; set allocateLoadBalancerNodePorts to false and remove the nodePorts",
            join_first_items(&node_ports)
        ),
        warning_reason: Some(Reason::NodePortsOpen),
    })
}

/// Returns a warning if kube-proxy cannot distinguish the clients of a Service with session affinity.
fn session_affinity_note(
    state: &ServiceState,
    service_spec: &ServiceSpec,
    spec: &LoadBalancerSpec,
    role: ProxyRole,
) -> Option<Note> {
    let is_affinity_requested = service_spec.session_affinity.as_deref() == Some("ClientIP");
    // If VIP is dangerous, only the proxies can forward, so the note does not recommend VIP.
    let other_fix =
        if may_use_vip(state, spec) { ", or use ipMode VIP with the InternalIPs of the nodes" } else { "" };
    (is_affinity_requested && role == ProxyRole::Forward).then(|| Note {
        text: format!(
            "sessionAffinity is ClientIP, but kube-proxy sees a proxy's address instead of the client's address, so all \
             clients of one node reach the same backend; remove sessionAffinity{other_fix}"
        ),
        warning_reason: Some(Reason::SessionAffinityNotKept),
    })
}

fn source_ranges_note(spec: &LoadBalancerSpec) -> Option<Note> {
    let families = spec.families.iter().copied().filter(|family| !spec.has_source_range(*family));
    let families: Vec<_> = families.collect();
    (!families.is_empty()).then(|| {
        let families = join_families(&families, " and ");
        let effect = match spec.ip_mode {
            IpMode::Vip => format!("no {families} address is published"),
            IpMode::Proxy => format!("every {families} client is denied"),
        };
        Note::without_warning(format!(
            "loadBalancerSourceRanges has no range of {families}, so {effect}; add a range of {families} for its clients"
        ))
    })
}

/// Returns a note about the address families of the Service for which no node has an address to publish.
fn missing_family_note(spec: &LoadBalancerSpec, addresses: &[LoadBalancerIngress]) -> Option<Note> {
    let published_families = addresses.iter().filter_map(|ingress| ingress.ip.as_deref()?.parse().ok());
    let published_families: Vec<_> = published_families.map(Family::from_ip).collect();
    let missing_families: Vec<_> =
        spec.published_families().filter(|family| !published_families.contains(family)).collect();
    (!missing_families.is_empty()).then(|| {
        let families = join_families(&missing_families, " or ");
        Note::without_warning(format!(
            "no node has an {families} address to publish; add an address to the nodes, or set the annotation {} on the \
             nodes",
            akrobateo_core::annotations::NODE_ADDRESS
        ))
    })
}

/// Returns a note about requests for certain addresses, which only other implementations support.
fn ignored_requests_note(service: &Service) -> Option<Note> {
    let load_balancer_ip = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    let load_balancer_ip = load_balancer_ip.filter(|ip| !ip.is_empty());
    let names = ADDRESS_ANNOTATIONS.iter().filter(|name| service.annotations().contains_key(**name));
    let requests: Vec<_> = load_balancer_ip
        .map(|ip| format!("loadBalancerIP {ip}"))
        .into_iter()
        .chain(names.map(|name| format!("annotation {name}")))
        .collect();
    (!requests.is_empty()).then(|| {
        Note::without_warning(format!(
            "requests for an address have no effect ({}), because only addresses of nodes are published; choose nodes \
             with the annotation {}",
            join_first_items(&requests),
            NODE_SELECTOR
        ))
    })
}

/// Returns a warning about annotations with the prefix of Akrobateo that Services cannot have. Usually their names have
/// a typing error.
fn unknown_annotations_note(service: &Service) -> Option<Note> {
    let known_names: Vec<_> =
        ANNOTATIONS.iter().filter(|annotation| annotation.kind == "Service").map(|it| it.name).collect();
    let has_own_prefix = |name: &&String| name.starts_with(ANNOTATION_PREFIX);
    let names = service.annotations().keys().filter(has_own_prefix);
    let unknown_names: Vec<_> = names.filter(|name| !known_names.contains(&name.as_str())).cloned().collect();
    let allowed_names: Vec<_> =
        known_names.iter().filter_map(|name| name.strip_prefix(ANNOTATION_PREFIX)).collect();
    (!unknown_names.is_empty()).then(|| Note {
        text: format!(
            "Akrobateo does not know the annotation {}, so it has no effect; expected {ANNOTATION_PREFIX} and one of: {}",
            join_first_items(&unknown_names),
            allowed_names.join(", ")
        ),
        warning_reason: Some(Reason::UnknownAnnotation),
    })
}

/// Returns a note about the addresses that another field manager wrote. These addresses stay in the status.
pub(super) fn other_addresses_note(operator_instance: &str, service: &Service) -> Option<Note> {
    let (manager, addresses) = find_other_address_owner(operator_instance, service)?;
    Some(Note::without_warning(format!(
        "the status lists {}, which the field manager {manager} wrote; these addresses stay, because \
        Akrobateo itself does not publish addresses; remove them from the status, or give the Service a \
        loadBalancerClass that only one implementation serves",
        join_first_items(&addresses)
    )))
}

/// Returns the first error in an annotation of a selected node, with the number of other nodes that have an error.
fn node_annotation_note(state: &ServiceState, spec: &LoadBalancerSpec) -> Option<Note> {
    let selected_nodes = state.nodes.iter().filter(|node| spec.nodes.matches(node));
    let mut errors = selected_nodes.filter_map(|node| node.address_error.as_ref());
    let mut text = errors.next()?.to_string();
    match errors.count() {
        0 => (),
        other_count => _ = write!(text, " (and {other_count} more nodes)"),
    }
    Some(Note { text, warning_reason: None })
}
