//! Tells what a Service asks for and does not get, although it has addresses. Pure.

use std::fmt::Write as _;

use akrobateo_core::Family;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use kube::ResourceExt;

use super::note::Note;
use super::pod::ProxyRole;
use super::service_state::ServiceState;
use super::status_owner::foreign_manager;
use super::traffic_policy::{client_address_note, internal_policy_note};
use crate::reason::Reason;
use crate::spec::{IpMode, LoadBalancerSpec};

/// Annotations that ask other implementations for an address.
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
/// Most names or numbers in a list.
const MAX_LISTED_ITEMS: usize = 3;

/// Returns the notes on an accepted Service that is about to have these addresses.
pub(super) fn notes(
    instance: &str,
    state: &ServiceState,
    service: &Service,
    spec: &LoadBalancerSpec,
    role: ProxyRole,
    addresses: &[LoadBalancerIngress],
) -> Vec<Note> {
    let service_spec = service.spec.as_ref();
    let notes = [
        client_address_note(spec, &state.nodes, role),
        service_spec.and_then(|service_spec| node_ports_note(service_spec, spec)),
        service_spec.and_then(|service_spec| session_affinity_note(service_spec, role)),
        internal_policy_note(spec, &state.nodes),
        source_ranges_note(spec),
        (!addresses.is_empty()).then(|| missing_family_note(spec, addresses)).flatten(),
        ignored_requests_note(service),
        addresses.is_empty().then(|| foreign_status_note(instance, service)).flatten(),
    ];
    notes.into_iter().flatten().chain(node_annotation_note(state, spec)).collect()
}

/// Returns a warning if clients outside the source ranges can use a nodePort.
fn node_ports_note(service_spec: &ServiceSpec, spec: &LoadBalancerSpec) -> Option<Note> {
    if spec.proxy_args.sources.is_empty() {
        return None;
    }
    let ports = service_spec.ports.iter().flatten().filter_map(|port| port.node_port);
    let ports: Vec<_> = ports.filter(|port| *port > 0).map(|port| port.to_string()).collect();
    (!ports.is_empty()).then(|| Note {
        text: format!(
            "loadBalancerSourceRanges do not apply to the nodePorts of the Service ({}), which every client can reach \
             at the addresses of the nodes; set allocateLoadBalancerNodePorts to false and remove the nodePorts",
            list(&ports)
        ),
        warning: Some(Reason::NodePortsOpen),
    })
}

fn session_affinity_note(service_spec: &ServiceSpec, role: ProxyRole) -> Option<Note> {
    let is_asked_for = service_spec.session_affinity.as_deref() == Some("ClientIP");
    (is_asked_for && role == ProxyRole::Forward).then(|| Note {
        text: "sessionAffinity is ClientIP, but the Service sees the address of a proxy, so all clients of a node \
               reach one backend; remove sessionAffinity, or use ipMode VIP with the InternalIPs of the nodes"
            .to_owned(),
        warning: Some(Reason::SessionAffinityNotKept),
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
        Note::without_warning(&format!(
            "loadBalancerSourceRanges has no range of {families}, so {effect}; add a range of {families} for its clients"
        ))
    })
}

/// Returns a note on the families that the Service has, but none of its published nodes.
fn missing_family_note(spec: &LoadBalancerSpec, addresses: &[LoadBalancerIngress]) -> Option<Note> {
    let published = addresses.iter().filter_map(|ingress| ingress.ip.as_deref()?.parse().ok());
    let published: Vec<_> = published.map(Family::from_ip).collect();
    let missing: Vec<_> = spec.published_families().filter(|family| !published.contains(family)).collect();
    (!missing.is_empty()).then(|| {
        let families = join_families(&missing, " or ");
        Note::without_warning(&format!(
            "no node has an {families} address to publish; add one to the nodes, or set the annotation {} on them",
            akrobateo_core::annotations::NODE_ADDRESS
        ))
    })
}

/// Returns a note on requests for an address, which other implementations understand.
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
        Note::without_warning(&format!(
            "requests for an address have no effect ({}), because only addresses of nodes are published; choose nodes \
             with the annotation {}",
            list(&requests),
            akrobateo_core::annotations::NODE_SELECTOR
        ))
    })
}

/// Returns a note on addresses that another field manager wrote and that stay.
pub(super) fn foreign_status_note(instance: &str, service: &Service) -> Option<Note> {
    let (manager, addresses) = foreign_manager(instance, service)?;
    Some(Note::without_warning(&format!(
        "the status lists {}, which the field manager {manager} wrote; they stay there because Akrobateo publishes none; \
         remove them, or give the Service a loadBalancerClass of one implementation",
        list(&addresses)
    )))
}

/// Returns the error in the annotation of the first node that the Service selects, and how many others have one.
fn node_annotation_note(state: &ServiceState, spec: &LoadBalancerSpec) -> Option<Note> {
    let selected = state.nodes.iter().filter(|node| spec.nodes.matches(node));
    let mut errors = selected.filter_map(|node| node.address_error.as_ref());
    let mut text = errors.next()?.to_string();
    match errors.count() {
        0 => (),
        others => _ = write!(text, " (and {others} more nodes)"),
    }
    Some(Note { text, warning: None })
}

fn join_families(families: &[Family], separator: &str) -> String {
    families.iter().map(|family| family.as_str()).collect::<Vec<_>>().join(separator)
}

/// Joins the first elements.
fn list(elements: &[String]) -> String {
    let mut text = elements.iter().take(MAX_LISTED_ITEMS).cloned().collect::<Vec<_>>().join(", ");
    if elements.len() > MAX_LISTED_ITEMS {
        let _ = write!(text, " and {} more", elements.len() - MAX_LISTED_ITEMS);
    }
    text
}
