//! Chooses the random changes, and records the desired state of all changed Services. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::Protocol;
use akrobateo_core::annotations::{CLIENT_ADDRESS, IP_MODE, NODE_SELECTOR};
use e2e::ServiceBuilder;
use e2e::backend::{FIRST_OF_FIFTY_PORTS, PORT, SECOND_PORT};
use fastrand::Rng;

use crate::backends::{BackendChange, BackendPod, Backends, GROUPS};
use crate::model::{Endpoints, Port, ServiceModel, SourceRanges, Workload};

/// The number of Services that the random changes create, change and delete.
pub(crate) const CHANGED_SERVICE_COUNT: usize = 180;
/// The maximum number of Services with a DaemonSet of proxies. Each of these Services costs a pod on each node.
const MAX_DEDICATED_SERVICES: usize = 4;
const FAMILIES: [&[&str]; 4] = [&["IPv4"], &["IPv6"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]];
const INVALID_ANNOTATIONS: [(&str, &str); 3] =
    [(NODE_SELECTOR, "a b"), (CLIENT_ADDRESS, "hide"), (IP_MODE, "Bogus")];

/// A change of the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Creates or changes a Service.
    Apply(ServiceBuilder),
    Delete(ServiceBuilder),
    /// Deletes a Service, and creates a new Service with the same name.
    Replace(ServiceBuilder),
    /// Deletes, creates or replaces a backend pod.
    Backend(BackendChange),
}

/// The desired state of all changed Services and of their backends, and the random number generator.
pub(crate) struct Model {
    rng: Rng,
    node_names: Vec<String>,
    /// The ports that no Service of the model has. Some of these ports belonged to a Service before.
    free_ports: Vec<u16>,
    services: BTreeMap<usize, ServiceModel>,
    backends: Backends,
}

impl Model {
    /// Returns a model without Services, and the backend pods at the start.
    pub(crate) fn new(seed: u64, ports: &[u16], node_names: Vec<String>) -> (Self, Vec<BackendPod>) {
        let (backends, pods) = Backends::new(node_names.len());
        let rng = Rng::with_seed(seed);
        (Self { rng, node_names, free_ports: ports.to_vec(), services: BTreeMap::new(), backends }, pods)
    }

    /// Returns the Services of the model with their names.
    pub(crate) fn services(&self) -> impl Iterator<Item = (String, &ServiceModel)> {
        self.services.iter().map(|(index, service)| (service_name(*index), service))
    }

    /// Returns the backend pods of a Service.
    pub(crate) fn endpoints(&self, service: &ServiceModel) -> &Endpoints {
        self.backends.pods_of_group(service.backend_group)
    }

    /// Returns the names of all nodes.
    pub(crate) fn node_names(&self) -> &[String] {
        &self.node_names
    }

    /// Returns the ports that no Service of the model has.
    pub(crate) fn free_ports(&self) -> &[u16] {
        &self.free_ports
    }

    /// Returns a random factor from 0 to 2, for the pause between two changes.
    pub(crate) fn choose_pause_factor(&mut self) -> f32 {
        2.0 * self.rng.f32()
    }

    /// Returns the next change.
    pub(crate) fn next_change(&mut self) -> Change {
        if self.rng.u8(..10) == 0 {
            return Change::Backend(self.backends.change_one_pod(&mut self.rng));
        }
        let index = self.rng.usize(..CHANGED_SERVICE_COUNT);
        let Some(mut service) = self.services.remove(&index) else {
            return self.create(index);
        };
        if self.rng.u8(..12) == 0 {
            self.free_ports.extend(service.ports.iter().map(|port| port.number).collect::<BTreeSet<_>>());
            return Change::Delete(service.build(&service_name(index), &self.node_names));
        }
        // The next change of a rejected Service repairs the Service. If a rejected Service also had other changes, an
        // agent could apply these changes after a restart.
        if service.invalid_annotation.take().is_some() {
            return self.apply(index, service);
        }
        if self.rng.u8(..12) == 0 {
            service.families = FAMILIES[self.rng.usize(..FAMILIES.len())];
            let builder = service.build(&service_name(index), &self.node_names);
            self.services.insert(index, service);
            return Change::Replace(builder);
        }
        self.change_one_field(&mut service);
        self.apply(index, service)
    }

    /// Returns changes after which the model has all Services, each Service is valid, and each Service has a node that
    /// can answer. Without such a node, the addresses in the status depend on earlier states.
    pub(crate) fn complete(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for index in 0..CHANGED_SERVICE_COUNT {
            let Some(mut service) = self.services.remove(&index) else {
                changes.push(self.create(index));
                continue;
            };
            let is_rejected = service.invalid_annotation.take().is_some();
            let has_node = self.has_expected_node(&service);
            service.has_traffic_policy_local &= has_node;
            if is_rejected || !has_node {
                changes.push(self.apply(index, service));
            } else {
                self.services.insert(index, service);
            }
        }
        changes
    }

    /// Returns a change that creates a Service.
    fn create(&mut self, index: usize) -> Change {
        let mut service = ServiceModel {
            ports: Vec::new(),
            families: FAMILIES[self.rng.usize(..FAMILIES.len())],
            backend_group: self.rng.usize(..GROUPS.len()),
            has_traffic_policy_local: self.rng.u8(..4) == 0,
            has_session_affinity: self.rng.u8(..4) == 0,
            has_node_ports: self.rng.bool(),
            source_ranges: SourceRanges::All,
            client_address: None,
            selected_nodes: None,
            workload: Workload::Agents,
            invalid_annotation: None,
        };
        self.add_port(&mut service);
        if self.rng.u8(..3) == 0 {
            self.add_port(&mut service);
        }
        service.has_traffic_policy_local &= self.has_expected_node(&service);
        self.apply(index, service)
    }

    fn apply(&mut self, index: usize, service: ServiceModel) -> Change {
        let builder = service.build(&service_name(index), &self.node_names);
        self.services.insert(index, service);
        Change::Apply(builder)
    }

    fn has_expected_node(&self, service: &ServiceModel) -> bool {
        !service.expected_nodes(self.node_names.len(), self.endpoints(service)).is_empty()
    }

    fn change_one_field(&mut self, service: &mut ServiceModel) {
        match self.rng.u8(..16) {
            0 | 1 => self.move_port(service),
            2 | 3 => {
                let port = self.rng.usize(..service.ports.len());
                service.ports[port].target = self.choose_target_port();
            }
            4 if service.ports.len() > 1 => self.remove_port(service),
            4 => self.add_port(service),
            5 | 6 => service.has_traffic_policy_local = !service.has_traffic_policy_local,
            7 => service.has_session_affinity = !service.has_session_affinity,
            8 | 9 => {
                let ranges = [SourceRanges::All, SourceRanges::WithClient, SourceRanges::WithoutClient];
                service.source_ranges = ranges[self.rng.usize(..ranges.len())];
            }
            10 => {
                let values = [None, Some("keep"), Some("masquerade")];
                service.client_address = values[self.rng.usize(..values.len())];
            }
            11 => {
                let becomes_dedicated = !service.is_dedicated() && self.allows_another_dedicated_service();
                service.workload = if becomes_dedicated { Workload::DaemonSet } else { Workload::Agents };
            }
            12 => {
                let invalid_annotation = INVALID_ANNOTATIONS[self.rng.usize(..INVALID_ANNOTATIONS.len())];
                service.invalid_annotation = Some(invalid_annotation);
            }
            13 | 14 => service.selected_nodes = self.choose_nodes(),
            _ => service.backend_group = self.rng.usize(..GROUPS.len()),
        }
    }

    fn allows_another_dedicated_service(&self) -> bool {
        self.services.values().filter(|service| service.is_dedicated()).count() < MAX_DEDICATED_SERVICES
    }

    /// Returns a random set of one or two nodes, or no node selector.
    fn choose_nodes(&mut self) -> Option<BTreeSet<usize>> {
        let node_count = self.node_names.len();
        let nodes = [self.rng.usize(..node_count), self.rng.usize(..node_count)];
        self.rng.bool().then(|| BTreeSet::from(nodes))
    }

    /// Adds a port with a new number, or with the number of the first port and the other protocol.
    fn add_port(&mut self, service: &mut ServiceModel) {
        let target_port = self.choose_target_port();
        let first_port = service.ports.first().copied().filter(|_| self.rng.bool());
        let port = if let Some(first_port) = first_port {
            let protocol = if first_port.protocol == Protocol::Tcp { Protocol::Udp } else { Protocol::Tcp };
            Port { protocol, number: first_port.number, target: target_port }
        } else {
            let protocol = if self.rng.bool() { Protocol::Tcp } else { Protocol::Udp };
            let number = self.take_free_port();
            Port { protocol, number, target: target_port }
        };
        service.ports.push(port);
    }

    fn remove_port(&mut self, service: &mut ServiceModel) {
        let removed_port = service.ports.swap_remove(self.rng.usize(..service.ports.len()));
        self.release_port(removed_port.number, service);
    }

    /// Gives a random port of a Service another number.
    fn move_port(&mut self, service: &mut ServiceModel) {
        let index = self.rng.usize(..service.ports.len());
        let number = self.take_free_port();
        let previous_number = std::mem::replace(&mut service.ports[index].number, number);
        self.release_port(previous_number, service);
    }

    fn take_free_port(&mut self) -> u16 {
        self.free_ports.swap_remove(self.rng.usize(..self.free_ports.len()))
    }

    /// Another port of the Service may still have the number, with the other protocol.
    fn release_port(&mut self, number: u16, service: &ServiceModel) {
        if !service.ports.iter().any(|port| port.number == number) {
            self.free_ports.push(number);
        }
    }

    fn choose_target_port(&mut self) -> u16 {
        match self.rng.u16(..52) {
            50 => PORT,
            51 => SECOND_PORT,
            offset => FIRST_OF_FIFTY_PORTS + offset,
        }
    }
}

fn service_name(index: usize) -> String {
    format!("changed-{index}")
}
