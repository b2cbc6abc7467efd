//! Tests of the plan with examples.

mod changes;
mod endpoint_limits;
mod families;
mod node_conflicts;
mod refused;
mod rejected;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU16;
use std::time::Duration;

use akrobateo_core::annotations::{CLIENT_ADDRESS, IP_MODE, NODE_SELECTOR, WORKLOAD};
use akrobateo_core::{Family, Protocol};
use akrobateo_services::agent_report::{AgentReport, PortOwner};
use akrobateo_services::fixtures::{ServiceBuilder, defaults, key, node, service};
use akrobateo_services::published::parse_published_addresses;
use akrobateo_services::spec::WorkloadKind;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::*;
use crate::host::HostNetwork;
use crate::marks::Marks;

/// A planner, and the objects that it observes.
struct TestCluster {
    planner: Planner,
    services: BTreeMap<ServiceKey, Service>,
    slices: HashMap<ServiceKey, Vec<Arc<EndpointSlice>>>,
    peer_reports: PeerReports,
    pods: Vec<HostPortPod>,
    listening_frontends: BTreeSet<Frontend>,
    installed: InstalledServices,
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

impl TestCluster {
    fn new() -> Self {
        let defaults = ServiceDefaults { workload: WorkloadKind::Shared, ..defaults() };
        Self {
            planner: Planner::new(defaults, Vec::new()),
            services: BTreeMap::new(),
            slices: HashMap::new(),
            peer_reports: PeerReports::default(),
            pods: Vec::new(),
            listening_frontends: BTreeSet::new(),
            installed: InstalledServices::default(),
            now: Instant::now(),
        }
    }

    fn apply(&mut self, service: ServiceBuilder) {
        let service = service.build();
        self.services.insert(ServiceKey::from_service(&service), service);
    }

    /// Replaces the endpoints of a Service by one endpoint on a node.
    fn set_endpoint(&mut self, name: &str, node: &str) {
        let slice = json!({
            "addressType": "IPv4", "ports": [{ "port": 8080 }],
            "endpoints": [{ "addresses": ["10.244.1.10"], "nodeName": node }],
        });
        self.slices.insert(key(name), vec![Arc::new(serde_json::from_value(slice).unwrap())]);
    }

    fn set_reserved_ports(&mut self, ports: &str) {
        let defaults = ServiceDefaults::clone(self.planner.services.defaults());
        let reserved_ports = ports.parse().unwrap();
        self.planner.services.set_defaults(Arc::new(ServiceDefaults { reserved_ports, ..defaults }));
    }

    /// Passes the Services to the planner. Returns true if the planner must make a new plan.
    fn update_services(&mut self) -> bool {
        self.planner.retain_services(|key| self.services.contains_key(key));
        let mut needs_plan = false;
        for (key, service) in &self.services {
            let addresses = parse_published_addresses(service).collect();
            let change = self.planner.update_service(key, Some((Arc::new(service.clone()), addresses)));
            needs_plan |= self.planner.needs_plan(key, change);
        }
        needs_plan
    }

    fn plan(&mut self) -> Plan {
        self.update_services();
        let nodes = [node_object("n1", "10.244.1.0/24"), node_object("n2", "10.244.0.0/24")];
        let observation = Observation {
            node_name: "n1",
            number: 1,
            marks: Marks::default(),
            endpoint_slices: &|key| self.slices.get(key).cloned().unwrap_or_default(),
            nodes: nodes.into_iter().map(Arc::new).collect(),
            peer_reports: &self.peer_reports,
            pods: self.pods.clone(),
            network: HostNetwork {
                uplink: "eth0".to_owned(),
                mtu: 1500,
                mac: "02:00:00:00:00:01".parse().ok(),
                local_addresses: vec!["10.0.0.1".parse().unwrap()],
            },
            installed: &self.installed,
            has_listener: &|frontend| self.listening_frontends.contains(&frontend),
        };
        self.planner.plan(&observation, self.now).unwrap()
    }

    /// Makes a plan, and returns the names of the Services that the node serves.
    fn served_names(&mut self) -> Vec<String> {
        let services = self.plan().config.services.into_iter();
        services.filter(|service| !service.families.is_empty()).map(|service| service.name).collect()
    }

    /// Creates a planner as a restarted agent does. The rules of the earlier planner remain in the kernel, but not its
    /// configuration.
    fn restart(&mut self) {
        let configured_services = self.planner.configured_services.take();
        let templates = configured_services.iter().flat_map(|services| services.served.values());
        let frontends_of_template = |template: &Arc<ServiceTemplate>| {
            let identity = service_identity(&template.key.to_string(), template.uid.as_deref());
            template.frontends().into_iter().map(move |frontend| (frontend, identity.clone()))
        };
        let frontends = templates.flat_map(frontends_of_template).collect();
        self.installed = InstalledServices { frontends, services: BTreeMap::new() };
        let defaults = ServiceDefaults::clone(self.planner.services.defaults());
        self.planner = Planner::new(defaults, Vec::new());
    }
}

/// Returns the pod `shop/pod` with a hostPort.
fn host_port_pod(port: u16) -> HostPortPod {
    HostPortPod {
        name: "shop/pod".to_owned(),
        frontends: [tcp(port)].into(),
        proxied_service: None,
        is_ready: true,
    }
}

fn port_problem(service: &str, port: &str, owner: PortOwner) -> PortProblem {
    PortProblem { service: service.to_owned(), port: port.to_owned(), owner }
}

#[test]
fn node_serves_the_services_that_select_it() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("web").tcp(80));
    cluster.apply(service("other-type").tcp(81).service_type("NodePort"));
    cluster.apply(service("elsewhere").tcp(82).annotation(NODE_SELECTOR, "pool=edge"));
    cluster.apply(service("dedicated").tcp(83).annotation(WORKLOAD, "DaemonSet"));
    cluster.set_endpoint("web", "n1");
    let plan = cluster.plan();
    let [web] = &plan.config.services[..] else { panic!("{:?}", plan.config.services) };
    assert_eq!(web.name, "default/web");
    assert_eq!(web.ports[0].endpoints[0].node, Some(1));
    assert_eq!(
        (plan.refused_ports, plan.doubly_used_ports, plan.services_waiting_for_proxies),
        (vec![], vec![], Vec::<String>::new())
    );
}

#[test]
fn plan_names_the_nodes_of_endpoints_without_an_agent() {
    let nodes_without_agent_at = |service: ServiceBuilder, endpoint_node: &str| {
        let mut cluster = TestCluster::new();
        cluster.apply(service);
        cluster.set_endpoint("web", endpoint_node);
        cluster.plan().nodes_without_agent
    };
    let nodes_without_agent = |service| nodes_without_agent_at(service, "n2");
    let web = || service("web").tcp(80);
    assert_eq!(nodes_without_agent(web()), ["n2".to_owned()].into());
    // Every tenant can write the name of a node that does not exist.
    assert_eq!(nodes_without_agent_at(web(), "forged"), BTreeSet::new());
    let masqueraded_service = web().annotation(akrobateo_core::annotations::CLIENT_ADDRESS, "masquerade");
    assert_eq!(nodes_without_agent(masqueraded_service), BTreeSet::new());
    assert_eq!(nodes_without_agent(web().traffic_policy_local()), BTreeSet::new());
}

#[test]
fn configuration_describes_the_node_and_its_peers() {
    let mut cluster = TestCluster::new();
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
    cluster.peer_reports.alive = vec![
        peer("n2", 2, "02:00:00:00:00:02"),
        peer("n3", 2, "02:00:00:00:00:03"),
        peer("n4", 4, "02:00:00:00:00:02"),
        peer("n5", 5, ""),
        peer("n6", 1, "02:00:00:00:00:06"),
    ];
    cluster.apply(service("web").tcp(80));
    cluster.set_endpoint("web", "n2");
    let plan = cluster.plan();
    let peers = |plan: &Plan| -> Vec<_> {
        plan.config.peers.iter().map(|it| (it.number, it.mac.to_string(), it.is_silent)).collect()
    };
    assert_eq!(peers(&plan), [(2, "02:00:00:00:00:02".to_owned(), false)]);
    assert_eq!(plan.config.services[0].ports[0].endpoints[0].node, Some(2));
    let ranges: Vec<_> = plan.config.pod_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.244.0.0/23"]);
    assert_eq!(plan.config.node.probe_addresses, plan.network.probe_addresses);
    assert_eq!(plan.network.probe_addresses[0].to_string(), "10.244.1.0");
    assert_eq!(plan.network.mac, "02:00:00:00:00:01");
    // The rules of a silent agent still forward, unless another node has its addresses.
    let with_address = |report: AgentReport, address: &str| {
        let network =
            report.network.map(|it| NodeNetwork { addresses: vec![address.parse().unwrap()], ..it });
        AgentReport { network, ..report }
    };
    cluster.peer_reports.alive = vec![with_address(peer("n2", 2, "02:00:00:00:00:02"), "10.0.0.2")];
    cluster.peer_reports.silent = vec![
        with_address(peer("n3", 3, "02:00:00:00:00:03"), "10.0.0.3"),
        with_address(peer("n4", 4, "02:00:00:00:00:04"), "10.0.0.2"),
        with_address(peer("n5", 5, "02:00:00:00:00:01"), "10.0.0.5"),
    ];
    cluster.set_endpoint("web", "n3");
    let plan = cluster.plan();
    let expected = [(2, "02:00:00:00:00:02".to_owned(), false), (3, "02:00:00:00:00:03".to_owned(), true)];
    assert_eq!(peers(&plan), expected);
    assert_eq!(plan.config.services[0].ports[0].endpoints[0].node, Some(3));
}

#[test]
fn older_service_gets_a_free_port_but_not_an_occupied_port() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("older").tcp(80).created_at(1));
    cluster.apply(service("younger").tcp(80).created_at(2));
    let plan = cluster.plan();
    assert_eq!(plan.config.services[0].name, "default/older");
    let owner = PortOwner::Service("default/older".to_owned());
    assert_eq!(plan.refused_ports, [port_problem("default/younger", "80/TCP", owner)]);
    cluster.services.remove(&key("older"));
    assert_eq!(cluster.served_names(), ["default/younger"]);
    cluster.apply(service("older").tcp(80).created_at(1));
    assert_eq!(cluster.served_names(), ["default/younger"]);
}

#[test]
fn service_is_refused_if_a_process_or_a_pod_uses_its_port() {
    let mut cluster = TestCluster::new();
    cluster.listening_frontends.insert(tcp(80));
    cluster.pods.push(host_port_pod(81));
    cluster.apply(service("a").tcp(80));
    cluster.apply(service("b").tcp(81).udp(53));
    let plan = cluster.plan();
    assert!(plan.config.services.is_empty());
    assert_eq!(
        plan.refused_ports,
        [
            port_problem("default/a", "80/TCP", PortOwner::Process),
            port_problem("default/b", "81/TCP", PortOwner::Pod("shop/pod".to_owned())),
        ]
    );
    // When the process and the pod have ended, the node serves both Services.
    cluster.listening_frontends.clear();
    cluster.pods.clear();
    assert_eq!(cluster.served_names(), ["default/a", "default/b"]);
}

#[test]
fn service_keeps_a_port_that_a_process_uses_later() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo"));
    cluster.served_names();
    cluster.listening_frontends.insert(tcp(80));
    for _ in 0..2 {
        let plan = cluster.plan();
        assert_eq!(plan.config.services.len(), 1);
        assert_eq!(plan.doubly_used_ports, [port_problem("default/web", "80/TCP", PortOwner::Process)]);
        assert!(plan.refused_ports.is_empty());
        cluster.restart();
    }
    // But the Service does not get a new port that the process already uses.
    cluster.served_names();
    cluster.listening_frontends.insert(tcp(81));
    cluster.apply(service("web").tcp(80).tcp(81).published("10.0.0.1", "Proxy", "akrobateo"));
    assert_eq!(cluster.plan().refused_ports, [port_problem("default/web", "81/TCP", PortOwner::Process)]);
}

#[test]
fn agent_serves_a_dedicated_service_until_its_proxy_is_ready() {
    let mut cluster = TestCluster::new();
    let web = || service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(web());
    cluster.served_names();
    cluster.apply(web().annotation(WORKLOAD, "DaemonSet"));
    assert_eq!(cluster.plan().services_waiting_for_proxies, ["default/web"]);
    cluster.restart();
    assert_eq!(cluster.served_names(), ["default/web"]);
    let proxy = HostPortPod { proxied_service: Some(key("web")), is_ready: false, ..host_port_pod(80) };
    cluster.pods = vec![proxy.clone()];
    assert_eq!(cluster.served_names(), ["default/web"]);
    cluster.pods = vec![HostPortPod { is_ready: true, ..proxy.clone() }];
    assert!(cluster.served_names().is_empty());
    // When the Service is in shared mode again, its proxy does not block the port for the agent.
    cluster.apply(web());
    assert_eq!(cluster.served_names(), ["default/web"]);
    // When the Service is in dedicated mode again, the proxy of the former workload still exists for some seconds.
    cluster.apply(web().annotation(WORKLOAD, "DaemonSet"));
    assert_eq!(cluster.plan().services_waiting_for_proxies, ["default/web"]);
    assert_eq!(cluster.plan().services_waiting_for_proxies, ["default/web"]);
    let new_proxy = HostPortPod { name: "proxies/new".to_owned(), is_ready: true, ..proxy.clone() };
    cluster.pods.push(new_proxy);
    assert!(cluster.served_names().is_empty());
    cluster.apply(web());
    assert_eq!(cluster.served_names(), ["default/web"]);
    // The proxies of a Deployment are on other nodes, so the operator has removed this node's address from the status.
    cluster.pods.clear();
    cluster.apply(service("web").tcp(80).annotation(WORKLOAD, "Deployment"));
    assert!(cluster.served_names().is_empty());
}

#[test]
fn services_with_policy_local_use_the_same_port_on_different_nodes() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("a").tcp(80).traffic_policy_local().created_at(1));
    cluster.apply(service("b").tcp(80).traffic_policy_local().created_at(2));
    cluster.set_endpoint("a", "n2");
    cluster.set_endpoint("b", "n1");
    let plan = cluster.plan();
    assert_eq!(plan.config.services[0].name, "default/b");
    assert!(plan.config.services[0].is_traffic_policy_local && plan.refused_ports.is_empty());
    // The Service keeps the port for a minute after its last endpoint on the node has disappeared.
    cluster.set_endpoint("b", "n2");
    cluster.set_endpoint("a", "n1");
    assert_eq!(cluster.served_names(), ["default/b"]);
    let next_plan_at = cluster.plan().next_plan_at.unwrap();
    cluster.now = next_plan_at + Duration::from_secs(1);
    assert_eq!(cluster.served_names(), ["default/a"]);
}

#[test]
fn new_service_with_the_same_name_does_not_get_the_old_settings() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("web").tcp(80).uid("1"));
    cluster.served_names();
    cluster.apply(service("web").tcp(80).uid("2").annotation(IP_MODE, "typo"));
    assert!(cluster.served_names().is_empty());
}

#[test]
fn configuration_has_local_endpoints_of_services_that_other_nodes_serve() {
    let mut cluster = TestCluster::new();
    let service_of_other_nodes = || service("web").tcp(80).annotation(NODE_SELECTOR, "pool=edge");
    let family_and_endpoint_counts = |cluster: &mut TestCluster| {
        let config = cluster.plan().config;
        config
            .services
            .into_iter()
            .map(|it| (it.families.len(), it.ports[0].endpoints.len()))
            .collect::<Vec<_>>()
    };
    cluster.apply(service_of_other_nodes());
    cluster.set_endpoint("web", "n2");
    assert!(family_and_endpoint_counts(&mut cluster).is_empty());
    cluster.set_endpoint("web", "n1");
    assert_eq!(family_and_endpoint_counts(&mut cluster), [(0, 1)]);
    // Another node may learn later than this node that the settings of the Service have changed.
    for service in [
        service_of_other_nodes().annotation(CLIENT_ADDRESS, "masquerade"),
        service_of_other_nodes().traffic_policy_local(),
        service_of_other_nodes().annotation(WORKLOAD, "DaemonSet"),
    ] {
        cluster.apply(service);
        assert_eq!(family_and_endpoint_counts(&mut cluster), [(0, 1)]);
    }
}
