//! A model of Services and nodes that produces random changes. Pure.

use std::collections::BTreeSet;

use akrobateo_core::annotations::{IP_MODE, NODE_SELECTOR, PRIORITY_CLASS, WORKLOAD};
use akrobateo_core::{LOAD_BALANCER_CLASS, Protocol};
use e2e::{POOL_LABEL, ServiceBuilder, service};
use fastrand::Rng;

/// The numbers of Services and ports are small, so that port conflicts are frequent.
const SERVICE_COUNT: usize = 8;
pub(crate) const PORT_COUNT: usize = 7;
const POOL_LABEL_VALUES: [Option<&str>; 3] = [None, Some("edge"), Some("core")];
const INVALID_IP_MODE: Option<&str> = Some("Bogus");

/// A change of the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Creates or changes a Service.
    Apply(ServiceBuilder),
    /// Deletes a Service.
    Delete(ServiceBuilder),
    /// Deletes a Service, and creates a new Service with the same name.
    ReplaceService(ServiceBuilder),
    /// Sets or removes the pool label of the node with this index.
    SetPoolLabel(usize, Option<&'static str>),
}

/// The desired state of one Service.
#[derive(Clone, Debug)]
struct ServiceModel {
    ports: BTreeSet<(Protocol, u16)>,
    load_balancer: bool,
    class: Option<&'static str>,
    pool: Option<&'static str>,
    workload: Option<&'static str>,
    ip_mode: Option<&'static str>,
    priority_class: Option<&'static str>,
    traffic_policy_local: bool,
}

/// The desired state of all Services, and the random number generator that chooses the changes.
pub(crate) struct Model {
    rng: Rng,
    ports: [u16; PORT_COUNT],
    services: [Option<ServiceModel>; SERVICE_COUNT],
}

impl Model {
    pub(crate) fn new(seed: u64, ports: [u16; PORT_COUNT]) -> Self {
        Self { rng: Rng::with_seed(seed), ports, services: Default::default() }
    }

    /// Returns the next change for a cluster with this number of nodes.
    pub(crate) fn next_change(&mut self, nodes: usize) -> Change {
        if self.rng.u8(..16) == 0 {
            return Change::SetPoolLabel(self.rng.usize(..nodes), self.choose(POOL_LABEL_VALUES));
        }
        let index = self.rng.usize(..SERVICE_COUNT);
        let Some(mut service) = self.services[index].take() else {
            let service = self.new_service();
            self.services[index] = Some(service.clone());
            return Change::Apply(service.build(index));
        };
        if self.rng.u8(..8) == 0 {
            return Change::Delete(service.build(index));
        }
        let needs_replacement = self.change_one_field(&mut service);
        self.services[index] = Some(service.clone());
        if needs_replacement {
            Change::ReplaceService(service.build(index))
        } else {
            Change::Apply(service.build(index))
        }
    }

    /// Returns the changes that remove all invalid annotations. A Service with an invalid annotation keeps its previous
    /// proxies. A new operator does not know the previous configuration.
    pub(crate) fn correct_invalid_annotations(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (index, service) in self.services.iter_mut().enumerate() {
            if let Some(service) = service.as_mut().filter(|service| service.ip_mode == INVALID_IP_MODE) {
                service.ip_mode = None;
                changes.push(Change::Apply(service.build(index)));
            }
        }
        changes
    }

    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn new_service(&mut self) -> ServiceModel {
        ServiceModel {
            ports: BTreeSet::from([self.choose_port()]),
            load_balancer: true,
            class: None,
            pool: None,
            workload: None,
            ip_mode: None,
            priority_class: None,
            traffic_policy_local: false,
        }
    }

    fn choose_port(&mut self) -> (Protocol, u16) {
        let protocol = if self.rng.bool() { Protocol::Tcp } else { Protocol::Udp };
        (protocol, self.ports[self.rng.usize(..PORT_COUNT)])
    }

    /// Changes one field. Returns true if the Service must be replaced. Only a new class requires this, because the API
    /// server rejects a change of the class.
    fn change_one_field(&mut self, service: &mut ServiceModel) -> bool {
        match self.rng.u8(..9) {
            0 | 1 => drop(service.ports.insert(self.choose_port())),
            2 if service.ports.len() > 1 => drop(service.ports.pop_first()),
            2 | 3 => service.load_balancer = !service.load_balancer,
            4 => service.pool = self.choose(POOL_LABEL_VALUES),
            5 => service.workload = self.choose([None, Some("Deployment"), Some("DaemonSet")]),
            6 => service.ip_mode = self.choose([None, Some("Proxy"), INVALID_IP_MODE]),
            7 => service.traffic_policy_local = !service.traffic_policy_local,
            _ => {
                service.priority_class = self.choose([None, None, Some("akrobateo-proxy")]);
                let classes = [service.class, Some(LOAD_BALANCER_CLASS), Some("example.com/other")];
                let class = self.choose(classes);
                return std::mem::replace(&mut service.class, class) != class;
            }
        }
        false
    }

    fn choose(&mut self, values: [Option<&'static str>; 3]) -> Option<&'static str> {
        values[self.rng.usize(..values.len())]
    }
}

impl ServiceModel {
    fn build(&self, index: usize) -> ServiceBuilder {
        let mut builder = service(&format!("random-{index}"));
        for &(protocol, port) in &self.ports {
            builder = builder.port(protocol, port, port);
        }
        let selector = self.pool.map(|pool| format!("{POOL_LABEL}={pool}"));
        for (name, value) in [
            (NODE_SELECTOR, selector.as_deref()),
            (WORKLOAD, self.workload),
            (IP_MODE, self.ip_mode),
            (PRIORITY_CLASS, self.priority_class),
        ] {
            builder = if let Some(value) = value { builder.annotation(name, value) } else { builder };
        }
        if !self.load_balancer {
            return builder.with_type_cluster_ip();
        }
        builder = if self.traffic_policy_local { builder.traffic_policy_local() } else { builder };
        if let Some(class) = self.class { builder.class(class) } else { builder }
    }
}
