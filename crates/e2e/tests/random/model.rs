//! A model of the cluster: the Services of two tenants, the nodes and the settings. The model produces random changes.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::annotations::{IP_MODE, NODE_SELECTOR, PRIORITY_CLASS, WORKLOAD};
use akrobateo_core::{Family, Frontend, LOAD_BALANCER_CLASS, Protocol};
use e2e::{POOL_LABEL, ServiceBuilder, service};
use fastrand::Rng;

/// The numbers of Services and ports are small, so that port conflicts are frequent.
const SERVICES_PER_TENANT: usize = 5;
const FREE_PORT_COUNT: usize = 5;
/// The number of ports that Services also use as nodePorts.
const NODE_PORT_COUNT: usize = 2;
/// The number of proxies of a Deployment without the annotation `akrobateo.io/replicas`.
const DEFAULT_REPLICAS: usize = 2;
const NODE_POOLS: [Option<&str>; 3] = [None, Some("edge"), Some("core")];
const FAMILIES: [&[&str]; 6] =
    [&["IPv4"], &["IPv4"], &["IPv6"], &["IPv6"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]];
/// The workloads of Services. The agents forward a Service without the annotation.
const WORKLOADS: [Option<&str>; 3] = [None, Some("Deployment"), Some("DaemonSet")];
const INVALID_IP_MODE: Option<&str> = Some("Bogus");

/// The tenant of a Service, and the index of the Service in its tenant. Both tenants use the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceId {
    pub(crate) tenant_index: usize,
    pub(crate) service_index: usize,
}

/// A change of the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Creates or changes a Service.
    Apply(ServiceId, ServiceBuilder),
    Delete(ServiceId, ServiceBuilder),
    /// Deletes a Service, and creates a new Service with the same name.
    Replace(ServiceId, ServiceBuilder),
    /// Sets or removes the pool label of the node with this index.
    SetPoolLabel(usize, Option<&'static str>),
    /// A tenant creates objects that look like the proxies of this Service and have this hostPort.
    Forge {
        tenant_index: usize,
        imitated_service: ServiceId,
        port: u16,
    },
}

/// The type of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServiceType {
    LoadBalancer,
    NodePort,
    ClusterIp,
}

/// The desired state of one Service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceModel {
    ports: BTreeSet<(Protocol, u16)>,
    families: &'static [&'static str],
    service_type: ServiceType,
    class: Option<&'static str>,
    node_pool: Option<&'static str>,
    workload: Option<&'static str>,
    ip_mode: Option<&'static str>,
    priority_class: Option<&'static str>,
    has_traffic_policy_local: bool,
    has_endpoint: bool,
    node_port: Option<u16>,
    health_check_node_port: Option<u16>,
}

/// The desired state of the cluster, and the random number generator that chooses the changes.
pub(crate) struct Model {
    pub(crate) rng: Rng,
    ports: Vec<u16>,
    /// The ports that Services also use as nodePorts.
    node_ports: [u16; NODE_PORT_COUNT],
    pub(crate) services: BTreeMap<ServiceId, ServiceModel>,
    /// The pool of each node.
    pub(crate) pool_by_node: Vec<Option<&'static str>>,
    pub(crate) reserved_port: Option<u16>,
    /// The Services that this round changes.
    pub(crate) changing_services: BTreeSet<ServiceId>,
    /// The nodes whose pool changed in this round.
    pub(crate) relabelled_nodes: BTreeSet<usize>,
    /// The port that was reserved in the previous round.
    previously_reserved_port: Option<u16>,
}

impl Model {
    pub(crate) fn new(
        seed: u64,
        ports: [u16; FREE_PORT_COUNT],
        node_ports: [u16; NODE_PORT_COUNT],
        node_count: usize,
    ) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            ports: ports.into_iter().chain(node_ports).collect(),
            node_ports,
            services: BTreeMap::new(),
            pool_by_node: vec![None; node_count],
            reserved_port: None,
            changing_services: BTreeSet::new(),
            relabelled_nodes: BTreeSet::new(),
            previously_reserved_port: None,
        }
    }

    /// Begins a round. Chooses the reserved port, and the Services that the round changes: all Services of one tenant,
    /// or a random half of all Services.
    pub(crate) fn start_round(&mut self, round: usize) {
        let all_services = (0..2).flat_map(|tenant_index| {
            (0..SERVICES_PER_TENANT).map(move |service_index| ServiceId { tenant_index, service_index })
        });
        let rng = &mut self.rng;
        self.changing_services = all_services
            .filter(|id| if round % 3 == 2 { rng.bool() } else { round == 0 || id.tenant_index == round % 2 })
            .collect();
        self.changing_services.insert(ServiceId { tenant_index: round % 2, service_index: 0 });
        self.relabelled_nodes.clear();
        self.previously_reserved_port = self.reserved_port;
        self.reserved_port = (round % 2 == 1).then(|| self.choose_port_number());
    }

    /// Returns true if the Service must not lose a port on this node in this round.
    pub(crate) fn must_keep_ports_on_node(&self, id: ServiceId, node: usize) -> bool {
        let Some(service) = self.services.get(&id).filter(|_| !self.changing_services.contains(&id)) else {
            return false;
        };
        // A Service may be rejected because of a reserved port. The last change of the Service takes effect when the
        // port is no longer reserved.
        let reserved_ports = [self.reserved_port, self.previously_reserved_port];
        let had_reserved_port = service.ports.iter().any(|(_, port)| reserved_ports.contains(&Some(*port)));
        let is_relabelled = service.node_pool.is_some() && self.relabelled_nodes.contains(&node);
        !had_reserved_port && !is_relabelled
    }

    /// Returns the next change.
    pub(crate) fn next_change(&mut self) -> Change {
        match self.rng.u8(..16) {
            0 => {
                let node = self.rng.usize(..self.pool_by_node.len());
                self.pool_by_node[node] = self.choose_value(NODE_POOLS);
                self.relabelled_nodes.insert(node);
                return Change::SetPoolLabel(node, self.pool_by_node[node]);
            }
            1 => {
                let tenant_index = self.choose_changing_service().tenant_index;
                let imitated_service = ServiceId {
                    tenant_index: self.rng.usize(..2),
                    service_index: self.rng.usize(..SERVICES_PER_TENANT),
                };
                return Change::Forge { tenant_index, imitated_service, port: self.choose_port_number() };
            }
            _ => (),
        }
        let id = self.choose_changing_service();
        let Some(mut service) = self.services.remove(&id) else {
            let service = self.new_service();
            self.services.insert(id, service.clone());
            return Change::Apply(id, service.build(id));
        };
        if self.rng.u8(..8) == 0 {
            return Change::Delete(id, service.build(id));
        }
        let had_node_port = service.has_chosen_node_port();
        let needs_replacement =
            self.change_one_field(&mut service) || had_node_port || service.has_chosen_node_port();
        self.services.insert(id, service.clone());
        if needs_replacement {
            Change::Replace(id, service.build(id))
        } else {
            Change::Apply(id, service.build(id))
        }
    }

    /// Returns a line for the output of the test.
    pub(crate) fn describe(&self, change: &Change) -> String {
        match change {
            Change::Apply(id, _) => format!("apply {id:?}: {:?}", self.services.get(id)),
            Change::Replace(id, _) => format!("replace {id:?}: {:?}", self.services.get(id)),
            Change::Delete(id, _) => format!("delete {id:?}"),
            Change::SetPoolLabel(..) | Change::Forge { .. } => format!("{change:?}"),
        }
    }

    fn choose_changing_service(&mut self) -> ServiceId {
        let changing_services: Vec<_> = self.changing_services.iter().copied().collect();
        changing_services[self.rng.usize(..changing_services.len())]
    }

    fn new_service(&mut self) -> ServiceModel {
        ServiceModel {
            ports: BTreeSet::from([self.choose_port()]),
            families: FAMILIES[self.rng.usize(..FAMILIES.len())],
            service_type: ServiceType::LoadBalancer,
            class: None,
            node_pool: None,
            workload: self.choose_value(WORKLOADS),
            ip_mode: None,
            priority_class: None,
            has_traffic_policy_local: self.rng.u8(..4) == 0,
            has_endpoint: self.rng.u8(..3) > 0,
            node_port: None,
            health_check_node_port: None,
        }
    }

    fn choose_port_number(&mut self) -> u16 {
        self.ports[self.rng.usize(..self.ports.len())]
    }

    fn choose_port(&mut self) -> (Protocol, u16) {
        let protocol = if self.rng.u8(..3) > 0 { Protocol::Tcp } else { Protocol::Udp };
        (protocol, self.choose_port_number())
    }

    /// Returns a nodePort that no Service has. The API server rejects a nodePort that another Service has.
    fn choose_node_port(&mut self) -> Option<u16> {
        let number = self.node_ports[self.rng.usize(..NODE_PORT_COUNT)];
        let is_used = |service: &ServiceModel| {
            [service.node_port, service.health_check_node_port].contains(&Some(number))
        };
        (!self.services.values().any(is_used) && self.rng.bool()).then_some(number)
    }

    /// Changes one field. Returns true if the Service must be replaced, because the API server rejects the change.
    fn change_one_field(&mut self, service: &mut ServiceModel) -> bool {
        match self.rng.u8(..13) {
            0 | 1 => drop(service.ports.insert(self.choose_port())),
            2 if service.ports.len() > 1 => drop(service.ports.pop_first()),
            2 | 3 => {
                let types = [ServiceType::LoadBalancer, ServiceType::NodePort, ServiceType::ClusterIp];
                let next_type = types[self.rng.usize(..types.len())];
                service.service_type =
                    if service.service_type == next_type { ServiceType::LoadBalancer } else { next_type };
            }
            4 => service.node_pool = self.choose_value(NODE_POOLS),
            5 => service.workload = self.choose_value(WORKLOADS),
            6 => service.ip_mode = self.choose_value([None, Some("Proxy"), INVALID_IP_MODE]),
            7 | 8 => {
                service.has_traffic_policy_local = !service.has_traffic_policy_local;
                service.health_check_node_port =
                    service.has_traffic_policy_local.then(|| self.choose_node_port()).flatten();
                service.health_check_node_port =
                    service.health_check_node_port.filter(|number| service.node_port != Some(*number));
            }
            9 => service.has_endpoint = !service.has_endpoint,
            10 => {
                service.families = FAMILIES[self.rng.usize(..FAMILIES.len())];
                return true;
            }
            11 => {
                service.node_port = None;
                service.node_port =
                    self.choose_node_port().filter(|number| service.health_check_node_port != Some(*number));
            }
            _ => {
                service.priority_class = self.choose_value([None, None, Some("akrobateo-proxy")]);
                let classes = [service.class, Some(LOAD_BALANCER_CLASS), Some("example.com/other")];
                let class = self.choose_value(classes);
                return std::mem::replace(&mut service.class, class) != class;
            }
        }
        false
    }

    fn choose_value(&mut self, values: [Option<&'static str>; 3]) -> Option<&'static str> {
        values[self.rng.usize(..values.len())]
    }
}

impl ServiceModel {
    /// Returns true if the operator serves the Service.
    pub(crate) fn is_eligible(&self) -> bool {
        self.service_type == ServiceType::LoadBalancer && self.class != Some("example.com/other")
    }

    /// Returns true if the operator accepts the Service.
    pub(crate) fn is_valid(&self, reserved_port: Option<u16>) -> bool {
        self.is_eligible()
            && self.ip_mode != INVALID_IP_MODE
            && !self.ports.iter().any(|(_, port)| reserved_port == Some(*port))
    }

    /// Returns true if the agents forward the Service.
    fn is_forwarded_by_agents(&self) -> bool {
        self.workload.is_none()
    }

    /// Returns the ports that the agents or the proxies use for the Service. Proxies that forward use each port for
    /// both families. Agents, and proxies that only reserve ports, use each port for the families of the Service.
    pub(crate) fn frontends(&self) -> BTreeSet<Frontend> {
        let uses_both_families = self.ip_mode.is_some() && !self.is_forwarded_by_agents();
        let has_family = |family: &Family| uses_both_families || self.families.contains(&family.as_str());
        let ports = self.ports.iter().filter_map(|&(protocol, port)| Some((protocol, port.try_into().ok()?)));
        ports
            .flat_map(|(protocol, port)| {
                Family::ALL.into_iter().filter(has_family).map(move |family| Frontend {
                    family,
                    protocol,
                    port,
                })
            })
            .collect()
    }

    /// Returns true if the Service claims its ports on a node of this pool. `has_endpoint` is true if the tenant's
    /// backend runs on this node.
    pub(crate) fn claims_ports_on_node(&self, node_pool: Option<&str>, has_endpoint: bool) -> bool {
        (self.node_pool.is_none() || self.node_pool == node_pool)
            && (!self.has_traffic_policy_local || (self.has_endpoint && has_endpoint))
    }

    /// Returns true if the Service has a Deployment that needs no more than this number of nodes.
    pub(crate) fn has_enough_nodes(&self, node_count: usize) -> bool {
        self.workload == Some("Deployment") && node_count >= DEFAULT_REPLICAS
    }

    fn has_chosen_node_port(&self) -> bool {
        self.node_port.is_some() || self.health_check_node_port.is_some()
    }

    fn build(&self, id: ServiceId) -> ServiceBuilder {
        let mut builder = service(&format!("random-{}", id.service_index)).families(self.families);
        for &(protocol, port) in &self.ports {
            builder = builder.port(protocol, port, port);
        }
        let selector = self.node_pool.map(|pool| format!("{POOL_LABEL}={pool}"));
        for (name, value) in [
            (NODE_SELECTOR, selector.as_deref()),
            (WORKLOAD, self.workload),
            (IP_MODE, self.ip_mode),
            (PRIORITY_CLASS, self.priority_class),
        ] {
            builder = if let Some(value) = value { builder.annotation(name, value) } else { builder };
        }
        builder = if self.has_endpoint { builder } else { builder.add_selector_label("tier", "none") };
        if self.service_type == ServiceType::ClusterIp {
            return builder.with_type_cluster_ip();
        }
        builder = if let Some(port) = self.node_port { builder.node_port(port) } else { builder };
        builder = if self.has_traffic_policy_local { builder.traffic_policy_local() } else { builder };
        if self.service_type == ServiceType::NodePort {
            return builder.with_type_node_port();
        }
        if let Some(port) = self.health_check_node_port {
            builder = builder.health_check_node_port(port);
        }
        if let Some(class) = self.class { builder.class(class) } else { builder }
    }
}
