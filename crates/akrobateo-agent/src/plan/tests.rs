//! Tests of the plan with examples.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::Duration;

use akrobateo_core::annotations::{IP_MODE, NODE_SELECTOR, WORKLOAD};
use akrobateo_core::{Family, Protocol};
use akrobateo_services::agent_report::AgentReport;
use akrobateo_services::fixtures::{ServiceBuilder, defaults, key, node, service};
use akrobateo_services::spec::WorkloadKind;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::*;
use crate::host::HostNetwork;

/// The objects that an agent observes, and its planner.
struct World {
    planner: Planner,
    services: BTreeMap<ServiceKey, Service>,
    slices: HashMap<ServiceKey, Vec<Arc<EndpointSlice>>>,
    peers: Vec<AgentReport>,
    pods: Vec<HostPortPod>,
    listening: BTreeSet<Frontend>,
    installed: BTreeSet<Frontend>,
    now: Instant,
}

fn frontend(protocol: Protocol, port: u16) -> Frontend {
    Frontend { family: Family::V4, protocol, port: NonZeroU16::new(port).unwrap() }
}

fn tcp(port: u16) -> Frontend {
    frontend(Protocol::Tcp, port)
}

fn node_object(name: &str, pod_range: &str) -> Node {
    let mut node = node(name).internal_ip(if name == "n1" { "10.0.0.1" } else { "10.0.0.2" }).build();
    node.spec.get_or_insert_default().pod_cidrs = Some(vec![pod_range.to_owned()]);
    node
}

impl World {
    fn new() -> Self {
        let defaults = ServiceDefaults { workload: WorkloadKind::Shared, ..defaults() };
        Self {
            planner: Planner::new(defaults, Vec::new()),
            services: BTreeMap::new(),
            slices: HashMap::new(),
            peers: Vec::new(),
            pods: Vec::new(),
            listening: BTreeSet::new(),
            installed: BTreeSet::new(),
            now: Instant::now(),
        }
    }

    fn apply(&mut self, service: ServiceBuilder) {
        let service = service.build();
        self.services.insert(ServiceKey::from_service(&service), service);
    }

    /// Gives a Service one endpoint on a node, at port 8080.
    fn endpoint(&mut self, name: &str, node: &str) {
        let slice = json!({
            "addressType": "IPv4", "ports": [{ "port": 8080 }],
            "endpoints": [{ "addresses": ["10.244.1.10"], "nodeName": node }],
        });
        self.slices.insert(key(name), vec![Arc::new(serde_json::from_value(slice).unwrap())]);
    }

    fn plan(&mut self) -> Plan {
        let nodes = [node_object("n1", "10.244.1.0/24"), node_object("n2", "10.244.0.0/24")];
        let observation = Observation {
            node: "n1",
            number: 1,
            services: self.services.values().cloned().map(Arc::new).collect(),
            endpoint_slices: self.slices.clone(),
            nodes: nodes.into_iter().map(Arc::new).collect(),
            peers: self.peers.clone(),
            pods: self.pods.clone(),
            network: HostNetwork {
                uplink: "eth0".to_owned(),
                mtu: 1500,
                mac: "02:00:00:00:00:01".parse().ok(),
                local_addresses: vec!["10.0.0.1".parse().unwrap()],
            },
            installed: &self.installed,
            is_listening: &|frontend| self.listening.contains(&frontend),
        };
        self.planner.plan(&observation, self.now).unwrap()
    }

    /// Returns the names of the Services that the node serves.
    fn served(&mut self) -> Vec<String> {
        self.plan().config.services.into_iter().map(|service| service.name).collect()
    }

    /// Starts a new process of the agent. The rules are still in the kernel.
    fn restart(&mut self) {
        let served = self.planner.served.take().unwrap_or_default();
        self.installed = served.values().flat_map(ServiceTemplate::frontends).collect();
        let defaults = self.planner.defaults.clone();
        self.planner = Planner::new(defaults, Vec::new());
    }
}

/// The pod `shop/holder` with a hostPort.
fn holder(port: u16) -> HostPortPod {
    HostPortPod {
        name: "shop/holder".to_owned(),
        frontends: [tcp(port)].into(),
        proxy_of: None,
        is_ready: true,
    }
}

fn problem(service: &str, port: &str, owner: PortOwner) -> PortProblem {
    PortProblem { service: service.to_owned(), port: port.to_owned(), owner }
}

#[test]
fn node_serves_the_services_that_select_it() {
    let mut world = World::new();
    world.apply(service("web").tcp(80));
    world.apply(service("other-type").tcp(81).service_type("NodePort"));
    world.apply(service("elsewhere").tcp(82).annotation(NODE_SELECTOR, "pool=edge"));
    world.apply(service("dedicated").tcp(83).annotation(WORKLOAD, "DaemonSet"));
    world.endpoint("web", "n1");
    let plan = world.plan();
    let [web] = &plan.config.services[..] else { panic!("{:?}", plan.config.services) };
    assert_eq!(web.name, "default/web");
    assert_eq!(web.ports[0].endpoints[0].node, Some(1));
    assert_eq!((plan.refused, plan.shared_ports, plan.handing_over), (vec![], vec![], Vec::<String>::new()));
}

#[test]
fn configuration_describes_the_node_and_its_peers() {
    let mut world = World::new();
    let peer = |node: &str, number, mac: &str| AgentReport {
        node: node.to_owned(),
        network: Some(NodeNetwork {
            number,
            addresses: vec!["10.0.0.2".parse().unwrap()],
            mac: mac.to_owned(),
            probe_addresses: vec!["10.244.0.0".parse().unwrap()],
        }),
        ..AgentReport::default()
    };
    world.peers = vec![
        peer("n2", 2, "02:00:00:00:00:02"),
        peer("n3", 2, "02:00:00:00:00:03"),
        peer("n4", 4, "02:00:00:00:00:02"),
        peer("n5", 5, ""),
        peer("n6", 1, "02:00:00:00:00:06"),
    ];
    world.apply(service("web").tcp(80));
    world.endpoint("web", "n2");
    let plan = world.plan();
    let peers: Vec<_> = plan.config.peers.iter().map(|peer| (peer.number, peer.mac.to_string())).collect();
    assert_eq!(peers, [(2, "02:00:00:00:00:02".to_owned())]);
    assert_eq!(plan.config.services[0].ports[0].endpoints[0].node, Some(2));
    let ranges: Vec<_> = plan.config.pod_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.244.0.0/23"]);
    assert_eq!(plan.config.node.probe_addresses, plan.network.probe_addresses);
    assert_eq!(plan.network.probe_addresses[0].to_string(), "10.244.1.0");
    assert_eq!(plan.network.mac, "02:00:00:00:00:01");
}

#[test]
fn older_service_gets_a_free_port_and_the_holder_keeps_it() {
    let mut world = World::new();
    world.apply(service("older").tcp(80).created_at(1));
    world.apply(service("younger").tcp(80).created_at(2));
    let plan = world.plan();
    assert_eq!(plan.config.services[0].name, "default/older");
    let owner = PortOwner::Service("default/older".to_owned());
    assert_eq!(plan.refused, [problem("default/younger", "80/TCP", owner)]);
    world.services.remove(&key("older"));
    assert_eq!(world.served(), ["default/younger"]);
    world.apply(service("older").tcp(80).created_at(1));
    assert_eq!(world.served(), ["default/younger"]);
}

#[test]
fn port_of_a_process_or_pod_is_refused() {
    let mut world = World::new();
    world.listening.insert(tcp(80));
    world.pods.push(holder(81));
    world.apply(service("a").tcp(80));
    world.apply(service("b").tcp(81).udp(53));
    let plan = world.plan();
    assert!(plan.config.services.is_empty());
    assert_eq!(
        plan.refused,
        [
            problem("default/a", "80/TCP", PortOwner::Process),
            problem("default/b", "81/TCP", PortOwner::Pod("shop/holder".to_owned())),
        ]
    );
    // When the owner goes, the Service takes over.
    world.listening.clear();
    world.pods.clear();
    assert_eq!(world.served(), ["default/a", "default/b"]);
}

#[test]
fn later_owner_does_not_take_a_port() {
    let mut world = World::new();
    world.apply(service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo"));
    world.served();
    world.listening.insert(tcp(80));
    for _ in 0..2 {
        let plan = world.plan();
        assert_eq!(plan.config.services.len(), 1);
        assert_eq!(plan.shared_ports, [problem("default/web", "80/TCP", PortOwner::Process)]);
        assert!(plan.refused.is_empty());
        world.restart();
    }
    // A new port of the same Service has no such right.
    world.served();
    world.listening.insert(tcp(81));
    world.apply(service("web").tcp(80).tcp(81).published("10.0.0.1", "Proxy", "akrobateo"));
    assert_eq!(world.plan().refused, [problem("default/web", "81/TCP", PortOwner::Process)]);
}

#[test]
fn rejected_service_keeps_its_last_good_settings() {
    let mut world = World::new();
    let web = || service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    world.apply(web());
    world.endpoint("web", "n1");
    world.served();
    world.apply(web().tcp(443).annotation(IP_MODE, "typo"));
    world.endpoint("web", "n2");
    let config = world.plan().config;
    assert_eq!((config.services[0].ports.len(), config.services[0].ports[0].endpoints[0].node), (1, None));
    // The table in the kernel is the record of the last good state.
    world.apply(web().annotation(IP_MODE, "typo"));
    world.restart();
    assert_eq!(world.served(), ["default/web"]);
    // A node that never served the Service does not begin.
    world.planner = Planner::new(world.planner.defaults.clone(), Vec::new());
    world.installed.clear();
    assert!(world.served().is_empty());
}

#[test]
fn reserved_port_is_released() {
    let mut world = World::new();
    world.apply(service("web").tcp(80));
    assert_eq!(world.served(), ["default/web"]);
    world.planner.defaults.reserved_ports = "80".parse().unwrap();
    assert!(world.served().is_empty());
}

#[test]
fn dedicated_service_is_served_until_its_proxy_is_ready() {
    let mut world = World::new();
    let web = || service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    world.apply(web());
    world.served();
    world.apply(web().annotation(WORKLOAD, "DaemonSet"));
    assert_eq!(world.plan().handing_over, ["default/web"]);
    world.restart();
    assert_eq!(world.served(), ["default/web"]);
    let proxy = HostPortPod { proxy_of: Some(key("web")), is_ready: false, ..holder(80) };
    world.pods = vec![proxy.clone()];
    assert_eq!(world.served(), ["default/web"]);
    world.pods = vec![HostPortPod { is_ready: true, ..proxy.clone() }];
    assert!(world.served().is_empty());
    // The way back: the proxies of a Service do not block its port for the agent.
    world.apply(web());
    assert_eq!(world.served(), ["default/web"]);
    // A Deployment has no proxy on this node. The operator removes the node's address.
    world.pods.clear();
    world.apply(service("web").tcp(80).annotation(WORKLOAD, "Deployment"));
    assert!(world.served().is_empty());
}

#[test]
fn local_services_share_a_port_on_different_nodes() {
    let mut world = World::new();
    world.apply(service("a").tcp(80).traffic_policy_local().created_at(1));
    world.apply(service("b").tcp(80).traffic_policy_local().created_at(2));
    world.endpoint("a", "n2");
    world.endpoint("b", "n1");
    let plan = world.plan();
    assert_eq!(plan.config.services[0].name, "default/b");
    assert!(plan.config.services[0].is_traffic_policy_local && plan.refused.is_empty());
    // The port stays with the Service for a minute after its last endpoint.
    world.endpoint("b", "n2");
    world.endpoint("a", "n1");
    assert_eq!(world.served(), ["default/b"]);
    let next_at = world.plan().next_at.unwrap();
    world.now = next_at + Duration::from_secs(1);
    assert_eq!(world.served(), ["default/a"]);
}

#[test]
fn another_service_with_the_same_name_inherits_nothing() {
    let mut world = World::new();
    world.apply(service("web").tcp(80).uid("1"));
    world.served();
    world.apply(service("web").tcp(80).uid("2").annotation(IP_MODE, "typo"));
    assert!(world.served().is_empty());
}

#[test]
fn endpoints_of_services_on_other_nodes_are_known() {
    let mut world = World::new();
    let elsewhere = || service("web").tcp(80).annotation(NODE_SELECTOR, "pool=edge");
    let transit = |world: &mut World| {
        let config = world.plan().config;
        config
            .services
            .into_iter()
            .map(|it| (it.families.len(), it.ports[0].endpoints.len()))
            .collect::<Vec<_>>()
    };
    world.apply(elsewhere());
    world.endpoint("web", "n2");
    assert!(transit(&mut world).is_empty());
    world.endpoint("web", "n1");
    assert_eq!(transit(&mut world), [(0, 1)]);
    // No client's address arrives from another node.
    world.apply(elsewhere().annotation(akrobateo_core::annotations::CLIENT_ADDRESS, "masquerade"));
    assert!(transit(&mut world).is_empty());
    world.apply(elsewhere().traffic_policy_local());
    assert!(transit(&mut world).is_empty());
    world.apply(elsewhere().annotation(WORKLOAD, "DaemonSet"));
    assert!(transit(&mut world).is_empty());
    // Another node serves the Service until its proxy is ready.
    world.peers =
        vec![AgentReport { handing_over: vec!["default/web".to_owned()], ..AgentReport::default() }];
    assert_eq!(transit(&mut world), [(0, 1)]);
}
