//! Builders of objects for tests, for example `service("web").tcp(80).build()`. Pure.

use std::collections::BTreeMap;

use akrobateo_core::labels;
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, ContainerState, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, LoadBalancerIngress, Node, NodeAddress, NodeAffinity, NodeCondition, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, NodeSpec, NodeStatus, Pod, PodCondition, PodSpec, Service,
    ServicePort, ServiceSpec, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use crate::address_type::AddressType;
use crate::key::ServiceKey;
use crate::node_info::NodePolicy;
use crate::spec::{ClientAddress, IpModeSetting, PortSet, ServiceBounds, ServiceDefaults, WorkloadKind};

pub const INSTANCE: &str = akrobateo_core::DEFAULT_INSTANCE;

pub fn defaults() -> ServiceDefaults {
    ServiceDefaults {
        is_default_class: true,
        requirements: Vec::new(),
        tolerations: Vec::new(),
        workload: WorkloadKind::DaemonSet,
        allows_dedicated_proxies: true,
        client_address: ClientAddress::Keep,
        replicas: 2,
        address_types: vec![AddressType::ExternalIP, AddressType::InternalIP],
        ip_mode: IpModeSetting::Auto,
        vip_danger: None,
        priority_class: "akrobateo-proxy".to_owned(),
        reserved_ports: PortSet::default(),
        node_policy: NodePolicy::default(),
        bounds: ServiceBounds { tolerations: Vec::new(), priority_classes: Vec::new(), max_ports: 1000 },
    }
}

pub fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "default".to_owned(), name: name.to_owned() }
}

/// Returns the time that is this number of seconds after the Unix epoch.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[derive(Clone)]
pub struct ServiceBuilder(Service);

/// Returns an eligible Service without ports, in the namespace `default`.
pub fn service(name: &str) -> ServiceBuilder {
    let service = Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("uid-of-{name}")),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec { type_: Some("LoadBalancer".to_owned()), ..ServiceSpec::default() }),
        status: None,
    };
    ServiceBuilder(service).cluster_ips(&["10.97.0.7"]).families(&["IPv4"])
}

impl ServiceBuilder {
    fn spec(mut self, edit: impl FnOnce(&mut ServiceSpec)) -> Self {
        edit(self.0.spec.get_or_insert_default());
        self
    }

    fn port(self, port: u16, protocol: &str) -> Self {
        let port =
            ServicePort { port: port.into(), protocol: Some(protocol.to_owned()), ..ServicePort::default() };
        self.spec(|spec| spec.ports.get_or_insert_default().push(port))
    }

    pub fn tcp(self, port: u16) -> Self {
        self.port(port, "TCP")
    }

    pub fn udp(self, port: u16) -> Self {
        self.port(port, "UDP")
    }

    pub fn sctp(self, port: u16) -> Self {
        self.port(port, "SCTP")
    }

    pub fn node_port(self, node_port: i32) -> Self {
        self.spec(|spec| spec.ports.iter_mut().flatten().for_each(|port| port.node_port = Some(node_port)))
    }

    pub fn health_check_node_port(self, port: i32) -> Self {
        self.spec(|spec| spec.health_check_node_port = Some(port))
    }

    pub fn uid(mut self, uid: &str) -> Self {
        self.0.metadata.uid = Some(uid.to_owned());
        self
    }

    pub fn selector(self, key: &str, value: &str) -> Self {
        self.spec(|spec| spec.selector = Some(BTreeMap::from([(key.to_owned(), value.to_owned())])))
    }

    pub fn cluster_ips(self, ips: &[&str]) -> Self {
        self.spec(|spec| {
            spec.cluster_ip = ips.first().map(|&ip| ip.to_owned());
            spec.cluster_ips = Some(strings(ips));
        })
    }

    pub fn families(self, families: &[&str]) -> Self {
        self.spec(|spec| spec.ip_families = Some(strings(families)))
    }

    pub fn source_ranges(self, ranges: &[&str]) -> Self {
        self.spec(|spec| spec.load_balancer_source_ranges = Some(strings(ranges)))
    }

    pub fn class(self, class: &str) -> Self {
        self.spec(|spec| spec.load_balancer_class = Some(class.to_owned()))
    }

    pub fn service_type(self, service_type: &str) -> Self {
        self.spec(|spec| spec.type_ = Some(service_type.to_owned()))
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn traffic_policy_local(self) -> Self {
        self.spec(|spec| spec.external_traffic_policy = Some("Local".to_owned()))
    }

    pub fn internal_traffic_policy_local(self) -> Self {
        self.spec(|spec| spec.internal_traffic_policy = Some("Local".to_owned()))
    }

    pub fn session_affinity(self) -> Self {
        self.spec(|spec| spec.session_affinity = Some("ClientIP".to_owned()))
    }

    pub fn load_balancer_ip(self, ip: &str) -> Self {
        self.spec(|spec| spec.load_balancer_ip = Some(ip.to_owned()))
    }

    pub fn created_at(mut self, seconds: i64) -> Self {
        self.0.metadata.creation_timestamp = Some(Time(at(seconds)));
        self
    }

    pub fn terminating(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at(0)));
        self
    }

    /// Adds an address to the status. The managed fields show that the field manager `manager` wrote the address.
    pub fn published(mut self, ip: &str, ip_mode: &str, manager: &str) -> Self {
        let ingress = LoadBalancerIngress {
            ip: Some(ip.to_owned()),
            ip_mode: Some(ip_mode.to_owned()),
            ..LoadBalancerIngress::default()
        };
        let status = self.0.status.get_or_insert_default();
        status.load_balancer.get_or_insert_default().ingress.get_or_insert_default().push(ingress);
        self.0.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            subresource: Some("status".to_owned()),
            ..ManagedFieldsEntry::default()
        }]);
        self
    }

    pub fn build(self) -> Service {
        self.0
    }
}

pub struct NodeBuilder(Node);

/// Returns a Ready Linux node without addresses.
pub fn node(name: &str) -> NodeBuilder {
    NodeBuilder(Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        }),
    })
}

impl NodeBuilder {
    fn address(mut self, kind: &str, address: &str) -> Self {
        let address = NodeAddress { type_: kind.to_owned(), address: address.to_owned() };
        self.0.status.get_or_insert_default().addresses.get_or_insert_default().push(address);
        self
    }

    pub fn internal_ip(self, address: &str) -> Self {
        self.address("InternalIP", address)
    }

    pub fn external_ip(self, address: &str) -> Self {
        self.address("ExternalIP", address)
    }

    pub fn with_ready_unknown(mut self) -> Self {
        let conditions = self.0.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        conditions.for_each(|condition| "Unknown".clone_into(&mut condition.status));
        self
    }

    pub fn taint(mut self, key: &str) -> Self {
        let taint = Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        self.0.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
        self
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn build(self) -> Node {
        self.0
    }
}

pub struct PodBuilder(Pod);

/// Returns a proxy pod of the Service `default/web`. The pod is not scheduled and not ready.
pub fn pod(name: &str) -> PodBuilder {
    PodBuilder(Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels::proxy_labels(INSTANCE, "default", "web")),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: None,
    })
}

impl PodBuilder {
    pub fn in_host_network(mut self) -> Self {
        self.0.spec.get_or_insert_default().host_network = Some(true);
        self
    }

    pub fn on(mut self, node: &str) -> Self {
        self.0.spec.get_or_insert_default().node_name = Some(node.to_owned());
        self
    }

    /// Gives the pod a hostPort.
    pub fn host_port(mut self, port: u16) -> Self {
        let containers = &mut self.0.spec.get_or_insert_default().containers;
        let port = ContainerPort {
            container_port: port.into(),
            host_port: Some(port.into()),
            ..ContainerPort::default()
        };
        if containers.is_empty() {
            containers.push(Container::default());
        }
        containers[0].ports.get_or_insert_default().push(port);
        self
    }

    /// Restricts the pod to a node, as the DaemonSet controller does.
    pub fn restricted_to_node(mut self, node: &str) -> Self {
        let field = NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        };
        let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
        let selector = NodeSelector { node_selector_terms: vec![term] };
        let affinity = NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(selector),
            ..NodeAffinity::default()
        };
        self.0.spec.get_or_insert_default().affinity =
            Some(Affinity { node_affinity: Some(affinity), ..Affinity::default() });
        self
    }

    /// Requests the deletion of the pod at the time `requested_at`, with a grace period of 30 s.
    pub fn terminating(mut self, requested_at: i64) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at(requested_at + 30)));
        self.0.metadata.deletion_grace_period_seconds = Some(30);
        self
    }

    pub fn created_at(mut self, seconds: i64) -> Self {
        self.0.metadata.creation_timestamp = Some(Time(at(seconds)));
        self
    }

    fn condition(mut self, kind: &str, status: &str, message: Option<&str>) -> Self {
        let condition = PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            message: message.map(str::to_owned),
            ..PodCondition::default()
        };
        self.0.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        self
    }

    pub fn ready(self) -> Self {
        self.condition("Ready", "True", None)
    }

    pub fn unscheduled(self, message: &str) -> Self {
        self.condition("PodScheduled", "False", Some(message))
    }

    fn container_status(mut self, waiting_reason: &str, last_state: Option<ContainerState>) -> Self {
        let waiting_state =
            ContainerStateWaiting { reason: Some(waiting_reason.to_owned()), ..Default::default() };
        self.0.status.get_or_insert_default().container_statuses = Some(vec![ContainerStatus {
            name: "forward".to_owned(),
            state: Some(ContainerState { waiting: Some(waiting_state), ..Default::default() }),
            last_state,
            ..ContainerStatus::default()
        }]);
        self
    }

    /// Makes the container wait before its first start.
    pub fn waiting(self, reason: &str) -> Self {
        self.container_status(reason, None)
    }

    /// Makes the container wait for a restart after a crash with this termination message.
    pub fn crashed(self, message: &str) -> Self {
        let message = Some(message.to_owned());
        let terminated_state = ContainerStateTerminated { exit_code: 1, message, ..Default::default() };
        let last_state = ContainerState { terminated: Some(terminated_state), ..Default::default() };
        self.container_status("CrashLoopBackOff", Some(last_state))
    }

    pub fn build(self) -> Pod {
        self.0
    }
}
