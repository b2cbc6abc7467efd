//! The nodes that all Services name for the addresses of their endpoints. Pure.
//!
//! Some sets of the table have only the address of an endpoint as the key. Every tenant can write any node for any
//! address into an `EndpointSlice`. The agent therefore keeps the client's address only if all Services name the same
//! node. Otherwise a tenant could change the path of packets of another tenant's Service.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use akrobateo_services::key::ServiceKey;
use akrobateo_services::parsed_services::ParsedServices;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::config;

/// The nodes of all endpoints of the eligible Services.
///
/// The endpoints of all eligible Services count, regardless of their settings and ports. All nodes therefore find the
/// same conflicts, although each node serves other Services.
#[derive(Debug, Default)]
pub(super) struct EndpointNodes {
    slices: BTreeMap<ServiceKey, Vec<Arc<EndpointSlice>>>,
    /// The number of endpoints for each pair of an address and the name of a node.
    endpoint_counts: BTreeMap<(IpAddr, Option<String>), usize>,
    /// The addresses whose endpoints name different nodes, or of which only some name a node.
    conflicts: BTreeSet<IpAddr>,
}

impl EndpointNodes {
    /// Returns true if the endpoints with this address name different nodes, or if only some of them name a node.
    pub(super) fn has_conflict(&self, address: IpAddr) -> bool {
        self.conflicts.contains(&address)
    }

    /// Records the slices of all eligible Services. The caller must configure all Services again.
    pub(super) fn record_all(
        &mut self,
        services: &ParsedServices,
        endpoint_slices: &dyn Fn(&ServiceKey) -> Vec<Arc<EndpointSlice>>,
    ) {
        let recorded_keys = self.slices.keys();
        let removed_keys: Vec<_> = recorded_keys.filter(|key| !is_eligible(services, key)).cloned().collect();
        for key in &removed_keys {
            self.replace_slices(key, &[]);
        }
        for parsed in services.iter().filter(|parsed| parsed.spec.is_some()) {
            self.replace_slices(&parsed.key, &endpoint_slices(&parsed.key));
        }
    }

    /// Records the slices of one Service, and changes the endpoints with the same addresses in `configured_services`.
    /// Returns true if such an endpoint has changed.
    pub(super) fn update(
        &mut self,
        services: &ParsedServices,
        configured_services: &mut [config::Service],
        key: &ServiceKey,
        slices: &[Arc<EndpointSlice>],
    ) -> bool {
        let addresses = self.replace_slices(key, if is_eligible(services, key) { slices } else { &[] });
        if addresses.is_empty() {
            return false;
        }
        let mut has_changed = false;
        let ports = configured_services.iter_mut().flat_map(|service| &mut service.ports);
        for endpoint in ports.flat_map(|port| &mut port.endpoints) {
            let address = endpoint.address.ip();
            if addresses.contains(&address) {
                endpoint.has_node_conflict = self.has_conflict(address);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Replaces the slices of a Service. Returns the addresses for which a conflict has begun or ended.
    fn replace_slices(&mut self, key: &ServiceKey, slices: &[Arc<EndpointSlice>]) -> BTreeSet<IpAddr> {
        let previous_slices = if slices.is_empty() {
            self.slices.remove(key)
        } else {
            self.slices.insert(key.clone(), slices.to_vec())
        };
        let previous_slices = previous_slices.unwrap_or_default();
        let mut addresses = BTreeSet::new();
        // A Service may have thousands of endpoints, and usually only one slice has changed.
        for (address, node) in endpoints_of_new_slices(&previous_slices, slices) {
            *self.endpoint_counts.entry((address, node.map(str::to_owned))).or_default() += 1;
            addresses.insert(address);
        }
        for (address, node) in endpoints_of_new_slices(slices, &previous_slices) {
            self.remove_endpoint((address, node.map(str::to_owned)));
            addresses.insert(address);
        }
        addresses.retain(|address| self.update_conflict(*address));
        addresses
    }

    fn remove_endpoint(&mut self, address_and_node: (IpAddr, Option<String>)) {
        if let Entry::Occupied(mut count) = self.endpoint_counts.entry(address_and_node) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Checks an address again. Returns true if a conflict has begun or ended.
    fn update_conflict(&mut self, address: IpAddr) -> bool {
        // `None` is the first of the nodes in the order of the map.
        let nodes_from_address = self.endpoint_counts.range((address, None)..);
        let nodes = nodes_from_address.take_while(|((counted_address, _), _)| *counted_address == address);
        if nodes.count() > 1 { self.conflicts.insert(address) } else { self.conflicts.remove(&address) }
    }
}

fn is_eligible(services: &ParsedServices, key: &ServiceKey) -> bool {
    services.get(key).is_some_and(|parsed| parsed.spec.is_some())
}

/// Returns the addresses and nodes of the endpoints in the slices that the previous slices do not contain.
fn endpoints_of_new_slices<'a>(
    previous_slices: &[Arc<EndpointSlice>],
    slices: &'a [Arc<EndpointSlice>],
) -> impl Iterator<Item = (IpAddr, Option<&'a str>)> {
    let is_new = |slice: &&Arc<EndpointSlice>| !previous_slices.iter().any(|it| Arc::ptr_eq(it, slice));
    slices.iter().filter(is_new).flat_map(|slice| addresses_and_nodes(slice))
}

/// Returns the address of each endpoint in a slice, and the name of the endpoint's node.
fn addresses_and_nodes(slice: &EndpointSlice) -> impl Iterator<Item = (IpAddr, Option<&str>)> {
    let endpoints = slice.endpoints.iter().flatten();
    endpoints.filter_map(|endpoint| Some((first_address(endpoint)?, endpoint.node_name.as_deref())))
}

/// Returns the first address of an endpoint; `None` if the first address is not an IP address. Further addresses have no
/// meaning (<https://kubernetes.io/docs/reference/kubernetes-api/>, `EndpointSlice`).
pub(super) fn first_address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}
