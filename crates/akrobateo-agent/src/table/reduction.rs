//! Reduces two configurations to the Services that affect the difference of their tables. Pure.
//!
//! A node may have thousands of endpoints. If only some Services change, the tables of the other Services need not be
//! built and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::endpoint_chains::EndpointChain;
use super::services::endpoint_chains;
use crate::config::{NodeConfig, Service};

/// Returns both configurations without the Services that do not affect the difference. The tables of the reduced
/// configurations have the same differences as the tables of the whole configurations. Returns `None` if the change
/// concerns all Services.
#[must_use]
pub fn reduce(old: &NodeConfig, new: &NodeConfig) -> Option<(NodeConfig, NodeConfig)> {
    // Some sets and base chains exist only if a Service keeps the client's address. The content of these objects
    // depends on all Services.
    if !has_equal_nodes(old, new) || old.keeps_client_addresses() != new.keeps_client_addresses() {
        return None;
    }
    let ChangedServices { unchanged, old: changed_old, new: changed } = ChangedServices::find(old, new)?;
    let changed_services = changed_old.iter().chain(&changed);
    let mut names: BTreeSet<_> = changed_services.map(|service| &*service.name).collect();
    let mut shared_objects = SharedObjects::new(new, &changed_old, &changed);
    let needed_services = unchanged.into_iter().filter(|service| shared_objects.need_service(service));
    names.extend(needed_services.map(|service| &*service.name));
    let reduce = |config: &NodeConfig| NodeConfig {
        node: config.node.clone(),
        pod_ranges: config.pod_ranges.clone(),
        peers: config.peers.clone(),
        probes_tunnel: config.probes_tunnel,
        recognizes_clients: config.recognizes_clients,
        services: { config.services.iter() }.filter(|it| names.contains(&*it.name)).cloned().collect(),
    };
    Some((reduce(old), reduce(new)))
}

fn has_equal_nodes(config: &NodeConfig, other: &NodeConfig) -> bool {
    let NodeConfig { node, pod_ranges, peers, probes_tunnel, recognizes_clients, services: _ } = config;
    *node == other.node
        && *pod_ranges == other.pod_ranges
        && *peers == other.peers
        && *probes_tunnel == other.probes_tunnel
        && *recognizes_clients == other.recognizes_clients
}

/// The Services of two configurations, by the difference between the configurations.
struct ChangedServices<'a> {
    /// The Services that are equal in both configurations.
    unchanged: Vec<&'a Service>,
    /// The changed Services of the old configuration, including the Services that no longer exist.
    old: Vec<&'a Service>,
    /// The changed Services of the new configuration, including the new Services.
    new: Vec<&'a Service>,
}

impl<'a> ChangedServices<'a> {
    /// Returns `None` if two Services of one configuration have the same name.
    fn find(old: &'a NodeConfig, new: &'a NodeConfig) -> Option<Self> {
        let pairs = || old.services.iter().zip(&new.services);
        let have_same_names = old.services.len() == new.services.len()
            && pairs().all(|(old_service, new_service)| old_service.name == new_service.name);
        if have_same_names {
            // Usually only endpoints have changed. Then no look-up by name is necessary.
            let (unchanged, changed): (Vec<_>, Vec<_>) = pairs().partition(|(old, new)| old == new);
            let (old, new) = changed.into_iter().unzip();
            return Some(Self { unchanged: unchanged.into_iter().map(|(_, new)| new).collect(), old, new });
        }
        let (old_services, new_services) = (services_by_name(old)?, services_by_name(new)?);
        let is_unchanged = |service: &&Service| old_services.get(&*service.name) == Some(service);
        let (unchanged, changed): (Vec<&Service>, Vec<&Service>) =
            new.services.iter().partition(is_unchanged);
        let has_changed = |service: &&Service| new_services.get(&*service.name) != Some(service);
        Some(Self { unchanged, old: old.services.iter().filter(has_changed).collect(), new: changed })
    }
}

/// Returns the Services by their names, or `None` if two Services have the same name.
fn services_by_name(config: &NodeConfig) -> Option<BTreeMap<&str, &Service>> {
    let services: BTreeMap<_, _> = config.services.iter().map(|service| (&*service.name, service)).collect();
    (services.len() == config.services.len()).then_some(services)
}

/// The parts of the tables that a changed Service shares with unchanged Services. Without these unchanged Services, the
/// comparison would treat the shared parts as new or lost.
#[derive(Debug)]
struct SharedObjects<'a> {
    config: &'a NodeConfig,
    /// The addresses of the changed Services' endpoints, sorted. The comparison needs all Services with these
    /// endpoints.
    addresses: Vec<IpAddr>,
    /// The chains that only the old or only the new Services use. For each chain, the comparison needs one Service.
    chains: BTreeSet<EndpointChain>,
    /// The properties that decide which sets and base chains exist. For each property, the comparison needs one
    /// Service.
    known_properties: BTreeSet<(bool, Option<u32>)>,
}

impl<'a> SharedObjects<'a> {
    fn new(config: &'a NodeConfig, old: &[&Service], new: &[&Service]) -> Self {
        let chains = |services: &[&Service]| -> BTreeSet<_> {
            services.iter().flat_map(|service| endpoint_chains(config, service)).collect()
        };
        let (old_chains, new_chains) = (chains(old), chains(new));
        let mut addresses: Vec<_> = old.iter().chain(new).copied().flat_map(endpoint_addresses).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self {
            config,
            addresses,
            chains: old_chains.symmetric_difference(&new_chains).copied().collect(),
            known_properties: BTreeSet::new(),
        }
    }

    /// Returns true if the reduced configurations need the unchanged Service.
    fn need_service(&mut self, service: &Service) -> bool {
        let timeout = service.affinity_seconds.map(Into::into);
        let has_new_property = self.known_properties.insert((service.keeps_client_address, timeout));
        let has_address =
            || endpoint_addresses(service).any(|address| self.addresses.binary_search(&address).is_ok());
        let mut is_needed = has_new_property || has_address();
        if !self.chains.is_empty() {
            for chain in endpoint_chains(self.config, service) {
                is_needed |= self.chains.remove(&chain);
            }
        }
        is_needed
    }
}

fn endpoint_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.ports.iter().flat_map(|port| &port.endpoints).map(|endpoint| endpoint.address.ip())
}
