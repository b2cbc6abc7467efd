//! A laboratory whose nodes have a data path, and the configurations of the nodes.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_agent::config::{Endpoint, LocalNode, NodeConfig, Peer, Service, ServicePort};
use akrobateo_agent::data_path::{Changes, DataPath};
use akrobateo_agent::marks::{Marks, NodeNumber};
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::{Family, Protocol};
use netns_testkit::isolation::report_not_tested;
use netns_testkit::laboratory::addresses::{BACKEND_PORT, cluster_pod_range, pod_address};
use netns_testkit::laboratory::{Answer, Laboratory, Node, Options, ask};
use netns_testkit::privileges::{CapabilitySet, keep_capabilities};
use netns_testkit::{DEADLINE, Namespace};

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// The port of the Service in tests with one Service.
pub(crate) const SERVICE_PORT: u16 = 80;

/// The path between each two nodes, and the use of the egress hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClusterMode {
    pub(crate) path: Option<PeerPath>,
    /// False if the nodes do not use the egress hook, like nodes with a kernel before Linux 5.16.
    pub(crate) has_egress_hook: bool,
}

impl ClusterMode {
    const fn without_egress_hook(path: PeerPath) -> Self {
        Self { path: Some(path), has_egress_hook: false }
    }
}

impl From<Option<PeerPath>> for ClusterMode {
    fn from(path: Option<PeerPath>) -> Self {
        Self { path, has_egress_hook: true }
    }
}

/// The modes that keep the client's address.
pub(crate) const ADDRESS_KEEPING_MODES: [ClusterMode; 4] = [
    ClusterMode { path: Some(PeerPath::Direct), has_egress_hook: true },
    ClusterMode { path: Some(PeerPath::Tunnel), has_egress_hook: true },
    ClusterMode::without_egress_hook(PeerPath::Direct),
    ClusterMode::without_egress_hook(PeerPath::Tunnel),
];
/// The modes that keep the client's address, and the mode in which all nodes masquerade.
pub(crate) const ALL_MODES: [ClusterMode; 5] = {
    let [a, b, c, d] = ADDRESS_KEEPING_MODES;
    [ClusterMode { path: None, has_egress_hook: true }, a, b, c, d]
};

/// A laboratory, and the configuration of each node.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) laboratory: Laboratory,
    pub(crate) families: &'static [Family],
    /// The paths between each two nodes, for all families.
    pub(crate) path: Option<PeerPath>,
    pub(crate) services: Vec<Service>,
    /// True if the tunnel exists even if no path needs it, as during a change of the paths.
    pub(crate) probes_tunnel: bool,
    /// False if the nodes do not use the egress hook, like nodes with a kernel before Linux 5.16.
    pub(crate) has_egress_hook: bool,
}

impl Cluster {
    /// Creates a laboratory without data paths.
    pub(crate) fn new(options: &Options, mode: impl Into<ClusterMode>) -> Self {
        let ClusterMode { path, mut has_egress_hook } = mode.into();
        if has_egress_hook && !DataPath::open().unwrap().has_egress_hook().unwrap() {
            report_not_tested("egress hook: this kernel does not have the hook, so the nodes do not use it");
            has_egress_hook = false;
        }
        let laboratory = Laboratory::new(options);
        Self {
            laboratory,
            families: options.segment_families(),
            path,
            services: Vec::new(),
            probes_tunnel: true,
            has_egress_hook,
        }
    }

    /// Creates a laboratory in which all nodes serve these Services.
    pub(crate) fn start(
        options: &Options,
        mode: impl Into<ClusterMode>,
        services: impl Fn(&Laboratory) -> Vec<Service>,
    ) -> Self {
        let mut cluster = Self::new(options, mode);
        cluster.services = services(&cluster.laboratory);
        cluster.apply_all();
        cluster
    }

    /// Returns the configuration of a node.
    pub(crate) fn config(&self, node: usize) -> NodeConfig {
        let node = self.laboratory.node(node);
        let peers = self.laboratory.nodes.iter().filter(|peer| peer.number != node.number);
        NodeConfig {
            node: LocalNode {
                number: number(node.number),
                name: format!("node{}", node.number),
                zone: None,
                addresses: node.addresses.clone(),
                uplink: node.uplink.to_owned(),
                uplink_mtu: 1500,
                probe_addresses: probe_addresses(node.number),
                has_egress_hook: self.has_egress_hook,
                marks: Marks::default(),
            },
            pod_ranges: Family::ALL.map(|family| cluster_pod_range(family).parse().unwrap()).into(),
            peers: peers.map(|peer| self.peer(peer)).collect(),
            probes_tunnel: self.probes_tunnel,
            recognizes_clients: false,
            services: self.services.clone(),
        }
    }

    fn peer(&self, node: &Node) -> Peer {
        let paths = self.families.iter().filter_map(|family| Some((*family, self.path?)));
        Peer {
            number: number(node.number),
            addresses: node.addresses.clone(),
            mac: node.mac.parse().unwrap(),
            probe_addresses: probe_addresses(node.number),
            paths: paths.clone().collect(),
            last_paths: paths.collect(),
            is_silent: false,
        }
    }

    /// Applies the configuration of each node.
    pub(crate) fn apply_all(&self) {
        for node in 1..=self.laboratory.nodes.len() {
            self.apply(node, &self.config(node));
        }
    }

    /// Applies a configuration on a node with a new [`DataPath`], as a restarted agent does. The data path has only the
    /// capability `NET_ADMIN`.
    pub(crate) fn apply(&self, node: usize, config: &NodeConfig) -> Changes {
        self.with_data_path(node, |data_path| data_path.apply(config).unwrap())
    }

    /// Runs `action` with the data path of a node.
    pub(crate) fn with_data_path<T: Send>(
        &self,
        node: usize,
        action: impl FnOnce(&mut DataPath) -> T + Send,
    ) -> T {
        self.laboratory.node(node).namespace.run(|| {
            keep_capabilities(CapabilitySet::NET_ADMIN);
            action(&mut DataPath::open().unwrap())
        })
    }

    /// Sends a request to the Service on port [`SERVICE_PORT`] of a node, and returns the answer.
    pub(crate) fn request(
        &self,
        client_netns: &Namespace,
        protocol: Protocol,
        family: Family,
        node: usize,
    ) -> std::io::Result<Answer> {
        let to = SocketAddr::new(self.laboratory.node(node).address(family), SERVICE_PORT);
        client_netns.run(|| ask(protocol, to, DEADLINE))
    }

    /// Sends requests to a node's Service over TCP and UDP in each family. Returns the client address that the endpoint
    /// has seen in each family. The address must be the same for both protocols. The endpoint `backend` must answer.
    pub(crate) fn seen_client_addresses(
        &self,
        client_netns: &Namespace,
        node: usize,
        backend: &str,
    ) -> Vec<IpAddr> {
        let seen_address = |family: &Family| {
            let answers = PROTOCOLS.map(|protocol| {
                let answer = self.request(client_netns, protocol, *family, node);
                answer.unwrap_or_else(|error| panic!("{protocol} {family} to node {node}: {error}"))
            });
            assert!(answers.iter().all(|answer| answer.backend == backend), "{answers:?} {backend}");
            assert_eq!(answers[0].client.ip(), answers[1].client.ip(), "{family} to node {node}");
            answers[0].client.ip()
        };
        self.families.iter().map(seen_address).collect()
    }
}

/// Returns one address of each range of a node's pods. No pod has these addresses.
fn probe_addresses(node: usize) -> Vec<IpAddr> {
    Family::ALL.map(|family| pod_address(family, node, 90)).into()
}

pub(crate) fn number(node: usize) -> NodeNumber {
    NodeNumber::try_from(node).unwrap()
}

/// Returns a Service on a port, over TCP and UDP, with these endpoints.
pub(crate) fn service(port: u16, endpoints: &[Endpoint]) -> Service {
    let port = NonZeroU16::new(port).unwrap();
    let build_service_port = |protocol| ServicePort { protocol, port, endpoints: endpoints.to_vec() };
    Service {
        name: format!("test/port-{port}"),
        uid: None,
        families: Family::ALL.into(),
        is_traffic_policy_local: false,
        keeps_client_address: true,
        affinity_seconds: None,
        source_ranges: None,
        ports: PROTOCOLS.map(build_service_port).into(),
    }
}

/// Returns a pod of a node as an endpoint, in both families.
pub(crate) fn pod_endpoints(laboratory: &Laboratory, node: usize, pod: usize) -> Vec<Endpoint> {
    laboratory.pod(node, pod).addresses.map(|address| endpoint(address, node)).into()
}

/// Returns all pods as endpoints, in both families.
pub(crate) fn all_pod_endpoints(laboratory: &Laboratory) -> Vec<Endpoint> {
    let pods = laboratory.nodes.iter().flat_map(|node| (1..=node.pods.len()).map(|pod| (node.number, pod)));
    pods.flat_map(|(node, number)| pod_endpoints(laboratory, node, number)).collect()
}

/// Returns a ready endpoint with the port of backends.
pub(crate) fn endpoint(address: IpAddr, node: usize) -> Endpoint {
    Endpoint {
        address: SocketAddr::new(address, BACKEND_PORT),
        node: Some(number(node)),
        has_node_conflict: false,
        is_ready: true,
        is_serving_while_terminating: false,
        hinted_zones: Vec::new(),
        hinted_nodes: Vec::new(),
    }
}
