//! Builders of objects for tests: `service("web").tcp(80).build()`.

use std::collections::BTreeMap;

use contract::labels;
use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, Pod,
    PodCondition, PodSpec, PodStatus, Service, ServicePort, ServiceSpec, ServiceStatus, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::ProxySettings;

pub(crate) fn settings() -> ProxySettings {
    ProxySettings { namespace: "kube-system".to_owned(), image: "lb:test".to_owned() }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn some_time() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

pub(crate) struct ServiceBuilder(Service);

/// A wanted Service in `default`, without ports.
pub(crate) fn service(name: &str) -> ServiceBuilder {
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

    pub(crate) fn tcp(self, port: u16) -> Self {
        self.port(port, "TCP")
    }

    pub(crate) fn udp(self, port: u16) -> Self {
        self.port(port, "UDP")
    }

    pub(crate) fn node_port(self, node_port: i32) -> Self {
        self.spec(|spec| spec.ports.iter_mut().flatten().for_each(|port| port.node_port = Some(node_port)))
    }

    pub(crate) fn selector(self, key: &str, value: &str) -> Self {
        self.spec(|spec| spec.selector = Some(BTreeMap::from([(key.to_owned(), value.to_owned())])))
    }

    pub(crate) fn cluster_ips(self, ips: &[&str]) -> Self {
        self.spec(|spec| {
            spec.cluster_ip = ips.first().map(|&ip| ip.to_owned());
            spec.cluster_ips = Some(strings(ips));
        })
    }

    pub(crate) fn families(self, families: &[&str]) -> Self {
        self.spec(|spec| spec.ip_families = Some(strings(families)))
    }

    pub(crate) fn sources(self, ranges: &[&str]) -> Self {
        self.spec(|spec| spec.load_balancer_source_ranges = Some(strings(ranges)))
    }

    pub(crate) fn class(self, class: &str) -> Self {
        self.spec(|spec| spec.load_balancer_class = Some(class.to_owned()))
    }

    pub(crate) fn kind(self, kind: &str) -> Self {
        self.spec(|spec| spec.type_ = Some(kind.to_owned()))
    }

    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn being_deleted(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(some_time());
        self
    }

    /// An address in the status, written by `manager`.
    pub(crate) fn published(mut self, ip: &str, mode: &str, manager: &str) -> Self {
        let ingress = LoadBalancerIngress {
            ip: Some(ip.to_owned()),
            ip_mode: Some(mode.to_owned()),
            ..LoadBalancerIngress::default()
        };
        self.0.status = Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus { ingress: Some(vec![ingress]) }),
            ..ServiceStatus::default()
        });
        self.0.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            subresource: Some("status".to_owned()),
            ..ManagedFieldsEntry::default()
        }]);
        self
    }

    pub(crate) fn build(self) -> Service {
        self.0
    }
}

pub(crate) struct NodeBuilder(Node);

/// A Ready node without addresses.
pub(crate) fn node(name: &str) -> NodeBuilder {
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

    pub(crate) fn internal(self, address: &str) -> Self {
        self.address("InternalIP", address)
    }

    pub(crate) fn external(self, address: &str) -> Self {
        self.address("ExternalIP", address)
    }

    pub(crate) fn unready(mut self) -> Self {
        let conditions = self.0.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        conditions.for_each(|condition| condition.status = "Unknown".to_owned());
        self
    }

    pub(crate) fn taint(mut self, key: &str) -> Self {
        let taint = Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        self.0.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
        self
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn build(self) -> Node {
        self.0
    }
}

pub(crate) struct PodBuilder(Pod);

/// A proxy pod of the Service `default/web`, not scheduled and not ready.
pub(crate) fn pod(name: &str) -> PodBuilder {
    PodBuilder(Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels::of_proxy("default", "web")),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: None,
    })
}

impl PodBuilder {
    pub(crate) fn on(mut self, node: &str) -> Self {
        self.0.spec.get_or_insert_default().node_name = Some(node.to_owned());
        self
    }

    pub(crate) fn ready(mut self) -> Self {
        self.0.status = Some(PodStatus {
            conditions: Some(vec![PodCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        });
        self
    }

    pub(crate) fn terminating(mut self) -> Self {
        self.0.metadata.deletion_timestamp = Some(some_time());
        self
    }

    pub(crate) fn build(self) -> Pod {
        self.0
    }
}
