//! Allocates the ports of the nodes to all Services together. Pure.

mod claim;
mod claims;
mod node_owners;
mod node_ports;
mod recent_endpoints;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use akrobateo_core::Frontend;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::parsed_services::ParsedService;
use crate::spec::{LoadBalancerSpec, ServiceDefaults, SpecError};
pub use claim::OccupiedPorts;
use claim::{Claim, ClaimOrder, ClaimedNodes};
use claims::allocate_claims;
pub use claims::{Allocation, Conflict, ConflictScope};
use node_ports::NodePorts;
pub use recent_endpoints::RecentEndpoints;

#[cfg(test)]
mod tests;

/// The result of validation and allocation for one eligible Service.
#[derive(Clone, Debug, PartialEq)]
pub enum AllocationResult {
    /// The spec is invalid.
    Rejected(SpecError),
    /// The spec is valid. The allocation contains the nodes on which the Service gets its ports.
    Accepted(Arc<LoadBalancerSpec>, Allocation),
}

/// The observed facts that decide which Service gets a port.
pub trait Observations {
    /// Returns the ports that a Service's proxies need. Proxies that cannot be limited to one family need the ports of
    /// both families.
    fn needed_frontends(&self, spec: &LoadBalancerSpec) -> BTreeSet<Frontend>;

    /// Returns the ports that the Service occupies through its own workload or through the node agents.
    fn occupied_ports(&self, key: &ServiceKey) -> OccupiedPorts;

    /// Returns the nodes that have a usable endpoint of a Service, or had an endpoint a short time ago.
    fn recent_endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String>;

    /// Returns the nodes with a usable endpoint of a Service now.
    fn endpoint_nodes(&self, key: &ServiceKey) -> BTreeSet<String>;

    /// Returns the nodes with an address in the Service's status.
    fn published_nodes(&self, service: &ParsedService) -> BTreeSet<String>;
}

/// The observations of a cluster in which Services have neither proxies nor addresses.
pub struct NothingObserved;

impl Observations for NothingObserved {
    fn needed_frontends(&self, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
        spec.frontends()
    }

    fn occupied_ports(&self, _: &ServiceKey) -> OccupiedPorts {
        OccupiedPorts::default()
    }

    fn recent_endpoint_nodes(&self, _: &ServiceKey) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn endpoint_nodes(&self, _: &ServiceKey) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn published_nodes(&self, _: &ParsedService) -> BTreeSet<String> {
        BTreeSet::new()
    }
}

/// An eligible Service, its spec, and the ports that it needs.
struct PortRequest<'a> {
    parsed: &'a ParsedService,
    spec: &'a Result<Arc<LoadBalancerSpec>, SpecError>,
    frontends: BTreeSet<Frontend>,
}

/// The allocation result of a Service, with the UID of that Service and the ports that it needs.
#[derive(Clone, Debug)]
struct ServiceEntry {
    service_uid: Option<String>,
    allocation_result: AllocationResult,
    frontends: BTreeSet<Frontend>,
    /// The nodes on which the Service got its ports; `None` if the allocation did not check the nodes. A node that
    /// gets a matching label later is not in this set.
    granted_nodes: Option<BTreeSet<String>>,
}

/// The allocation results of all eligible Services.
#[derive(Clone, Debug, Default)]
pub struct PortAllocations {
    entries: HashMap<ServiceKey, ServiceEntry>,
}

impl PortAllocations {
    /// Validates all Services and allocates their ports.
    #[must_use]
    pub fn update(
        &self,
        services: &[Arc<Service>],
        nodes: &[NodeInfo],
        defaults: &ServiceDefaults,
        observations: &impl Observations,
    ) -> Self {
        let services = services.iter().map(|service| ParsedService::from_service(service, defaults));
        let services: Vec<_> = services.collect();
        self.update_parsed(services.iter(), services.iter(), nodes, defaults, observations)
    }

    /// Allocates the ports of `services`. A nodePort of another Service in `all_services` is not available.
    ///
    /// A Service that already has a port keeps this port. `self` is the previous allocation. After a start of the
    /// operator, the previous allocation is empty.
    #[must_use]
    pub fn update_parsed<'a>(
        &self,
        services: impl Iterator<Item = &'a ParsedService>,
        all_services: impl Iterator<Item = &'a ParsedService>,
        nodes: &[NodeInfo],
        defaults: &ServiceDefaults,
        observations: &impl Observations,
    ) -> Self {
        let requests = services.filter_map(|it| PortRequest::new(it, defaults, observations));
        let requests: Vec<_> = requests.collect();
        let node_ports = NodePorts::from_services(all_services);
        let contested_ports = contested_frontends(&requests);
        let is_contested = |request: &&PortRequest| {
            let key = &request.parsed.key;
            let mut frontends = request.frontends.iter();
            frontends.any(|port| {
                contested_ports.contains(port) || node_ports.get_other_owner(*port, key).is_some()
            })
        };
        // Most Services have no port in common with another Service. For these Services, the allocation does not check
        // the nodes.
        let contested_requests = requests.iter().filter(is_contested);
        let claims: Vec<_> =
            contested_requests.map(|request| self.create_claim(request, nodes, observations)).collect();
        let mut allocations = allocate_claims(&claims, nodes, &node_ports);
        let entries = requests.into_iter().map(|PortRequest { parsed, spec, frontends }| {
            let (allocation, granted_nodes) = allocations
                .remove(&parsed.key)
                .map(|result| (result.allocation, Some(result.granted_nodes)))
                .unwrap_or_default();
            let accept = |spec| AllocationResult::Accepted(spec, allocation);
            let allocation_result = spec.clone().map_or_else(AllocationResult::Rejected, accept);
            let entry = ServiceEntry {
                service_uid: parsed.service.uid(),
                allocation_result,
                frontends,
                granted_nodes,
            };
            (parsed.key.clone(), entry)
        });
        Self { entries: entries.collect() }
    }

    /// Returns the claim of a Service, with all facts that decide its precedence.
    fn create_claim(
        &self,
        request: &PortRequest,
        nodes: &[NodeInfo],
        observations: &impl Observations,
    ) -> Claim {
        let PortRequest { parsed, spec, frontends } = request;
        let (key, service) = (parsed.key.clone(), &parsed.service);
        let occupied_ports = observations.occupied_ports(&key);
        let claimed_nodes = match spec {
            Ok(spec) if spec.is_external_traffic_policy_local => {
                let recent_endpoint_nodes = observations.recent_endpoint_nodes(&key);
                if recent_endpoint_nodes.is_empty() {
                    ClaimedNodes::SelectedWithoutEndpoint(spec.nodes.clone())
                } else {
                    ClaimedNodes::SelectedWithEndpoint {
                        selection: spec.nodes.clone(),
                        endpoint_nodes: observations.endpoint_nodes(&key),
                        recent_endpoint_nodes,
                    }
                }
            }
            Ok(spec) => ClaimedNodes::Selected(spec.nodes.clone()),
            Err(_) => {
                let kept_nodes = self.kept_nodes(&key, service.uid().as_ref(), &occupied_ports);
                ClaimedNodes::KeptByRejectedService { kept_nodes }
            }
        };
        Claim {
            frontends: frontends.clone(),
            nodes: claimed_nodes,
            is_shared: spec.as_ref().is_ok_and(|spec| spec.is_shared()),
            occupied_ports,
            allocated_ports: self.allocated_ports(&key, service.uid().as_ref(), nodes),
            published_nodes: observations.published_nodes(parsed),
            order: ClaimOrder {
                created_at: service.creation_timestamp().map_or(Timestamp::MAX, |time| time.0),
                key,
            },
        }
    }

    /// Returns the ports of a Service in this allocation. Ignores an earlier Service with the same name and another
    /// UID.
    fn allocated_ports(
        &self,
        key: &ServiceKey,
        service_uid: Option<&String>,
        nodes: &[NodeInfo],
    ) -> OccupiedPorts {
        let is_accepted = matches!(self.get(key), Some(AllocationResult::Accepted(..)));
        self.previous_ports(key, service_uid, nodes).filter(|_| is_accepted).unwrap_or_default()
    }

    /// Returns the ports that this allocation gave to a Service; `None` if the allocation does not contain the Service.
    /// A rejected Service has the ports of its last accepted spec. Ignores an earlier Service with the same name and
    /// another UID.
    #[must_use]
    pub fn previous_ports(
        &self,
        key: &ServiceKey,
        service_uid: Option<&String>,
        nodes: &[NodeInfo],
    ) -> Option<OccupiedPorts> {
        let entry = self.entries.get(key).filter(|entry| entry.service_uid.as_ref() == service_uid)?;
        let may_have_ports = |node: &&NodeInfo| match (&entry.granted_nodes, &entry.allocation_result) {
            (Some(granted_nodes), _) => granted_nodes.contains(&node.name),
            (None, AllocationResult::Accepted(spec, allocation)) => allocation.allows(spec, node),
            (None, AllocationResult::Rejected(_)) => true,
        };
        let nodes = nodes.iter().filter(may_have_ports).map(|node| node.name.clone()).collect();
        Some(OccupiedPorts { frontends: entry.frontends.clone(), nodes, is_assumed: false })
    }

    /// Returns the nodes that this allocation gave to a Service. The Service is rejected now, and its workload keeps
    /// running.
    fn kept_nodes(
        &self,
        key: &ServiceKey,
        service_uid: Option<&String>,
        occupied_ports: &OccupiedPorts,
    ) -> BTreeSet<String> {
        let entry = self.entries.get(key).filter(|entry| entry.service_uid.as_ref() == service_uid);
        let kept_nodes = entry.map(|entry| entry.granted_nodes.as_ref().unwrap_or(&occupied_ports.nodes));
        kept_nodes.cloned().unwrap_or_default()
    }

    /// Returns the allocation result of one Service; `None` if no eligible Service has this key.
    #[must_use]
    pub fn get(&self, key: &ServiceKey) -> Option<&AllocationResult> {
        self.entries.get(key).map(|entry| &entry.allocation_result)
    }

    /// Returns true if the allocation checked the nodes of the Service, and therefore read its endpoints.
    #[must_use]
    pub fn is_contested(&self, key: &ServiceKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.granted_nodes.is_some())
    }

    /// Returns the Services whose allocation result differs from the result in `previous`.
    #[must_use]
    pub fn services_changed_since(&self, previous: &Self) -> Vec<ServiceKey> {
        let changed_services = self.entries.keys().filter(|key| previous.get(key) != self.get(key));
        let removed_services = previous.entries.keys().filter(|key| !self.entries.contains_key(key));
        changed_services.chain(removed_services).cloned().collect()
    }
}

impl<'a> PortRequest<'a> {
    /// Returns the request of a Service; `None` if the Service is not eligible.
    fn new(
        parsed: &'a ParsedService,
        defaults: &ServiceDefaults,
        observations: &impl Observations,
    ) -> Option<Self> {
        let spec = parsed.spec.as_ref()?;
        let frontends = if let Ok(spec) = spec {
            observations.needed_frontends(spec)
        } else {
            // The previous proxies of a rejected Service keep running, except proxies that use a reserved port.
            let occupied_frontends = observations.occupied_ports(&parsed.key).frontends;
            let is_reserved = |port: &Frontend| defaults.reserved_ports.contains(port.host_port());
            if occupied_frontends.iter().any(is_reserved) { BTreeSet::new() } else { occupied_frontends }
        };
        Some(Self { parsed, spec, frontends })
    }
}

/// Returns the ports that more than one Service needs.
fn contested_frontends(requests: &[PortRequest]) -> BTreeSet<Frontend> {
    let (mut needed, mut contested) = (BTreeSet::new(), BTreeSet::new());
    for frontend in requests.iter().flat_map(|request| &request.frontends) {
        if !needed.insert(*frontend) {
            contested.insert(*frontend);
        }
    }
    contested
}
