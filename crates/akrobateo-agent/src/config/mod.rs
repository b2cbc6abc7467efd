//! The configuration of the data path of one node: the node, its peers and the Services. Pure.

mod endpoints;
mod error;
mod file;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
pub(crate) mod fixtures;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use akrobateo_core::{Family, Frontend, Protocol};
use ipnet::IpNet;
use links::MacAddress;

pub use error::ConfigError;

use crate::marks::{Marks, NodeNumber};
use crate::probe::PeerPath;

/// The configuration of the data path of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node itself.
    pub node: LocalNode,
    /// The ranges of the addresses of pods, on all nodes. Clients with these addresses are masqueraded.
    pub pod_ranges: Vec<IpNet>,
    /// The other nodes with an agent.
    pub peers: Vec<Peer>,
    /// True if the probe tries the tunnel. If false, the tunnel exists only while a path uses it.
    pub probes_tunnel: bool,
    /// True if packets from peers may have the addresses of clients, although no Service keeps these addresses now. A
    /// peer may still have an earlier configuration, and connections that a peer has translated before may still exist.
    pub recognizes_clients: bool,
    /// The Services. No two Services have the same port, protocol and family.
    pub services: Vec<Service>,
}

/// The node that uses the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// The node's number. All nodes use the same number for this node.
    pub number: NodeNumber,
    /// The node's name, as in the hints of endpoints.
    pub name: String,
    /// The node's zone (label `topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// The addresses to which clients send packets.
    pub addresses: Vec<IpAddr>,
    /// The network interface that has the node's addresses.
    pub uplink: String,
    /// The MTU of the uplink.
    pub uplink_mtu: u32,
    /// The addresses to which peers send probes. These addresses are in the ranges of this node's pods. No pod needs to
    /// have these addresses.
    pub probe_addresses: Vec<IpAddr>,
    /// True if the kernel has the egress hook of nftables. Without the hook, the node needs routing rules for each
    /// peer.
    pub has_egress_hook: bool,
    /// The marks of this agent.
    pub marks: Marks,
}

/// A node with an agent, other than this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node's number.
    pub number: NodeNumber,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// The MAC address of the node's uplink.
    pub mac: MacAddress,
    /// The addresses to which this node sends its probes of the paths to the peer, at most one per family. These
    /// addresses are in the ranges of the peer's pods.
    pub probe_addresses: Vec<IpAddr>,
    /// The path that keeps the client's address, for each family. For a family without a path, the client's address is
    /// masqueraded.
    pub paths: BTreeMap<Family, PeerPath>,
    /// The last path that worked, for each family. Packets of established flows stay on this path after it was lost,
    /// because only the peer's agent may have stopped: then the peer's rules still forward the packets.
    pub last_paths: BTreeMap<Family, PeerPath>,
    /// True if the peer's agent does not renew its Lease. The peer's rules may be old, so new flows to its endpoints are
    /// masqueraded. But the rules still forward, so this node still recognizes the packets of the peer's clients.
    pub is_silent: bool,
}

impl Peer {
    /// Sets the paths of new flows and of established flows, as if all these paths worked.
    pub fn set_paths(&mut self, paths: BTreeMap<Family, PeerPath>) {
        self.last_paths.clone_from(&paths);
        self.paths = paths;
    }
}

/// A Service of type `LoadBalancer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The Service's namespace and name.
    pub name: String,
    /// The UID of the Service object; `None` without a cluster.
    pub uid: Option<String>,
    /// The families of the addresses at which clients reach the Service. This node has no frontend of a Service without
    /// families, and only other nodes send packets to the endpoints of this Service.
    pub families: Vec<Family>,
    /// True if `externalTrafficPolicy` is `Local`, so that only endpoints on this node receive packets.
    pub is_traffic_policy_local: bool,
    /// True if endpoints should see the client's address. If the endpoint is on another node, a path that keeps the
    /// address is also necessary.
    pub keeps_client_address: bool,
    /// The time for which a client stays with its endpoint after its last connection (sessionAffinity `ClientIP`).
    pub affinity_seconds: Option<NonZeroU32>,
    /// The clients that may connect; `None` allows all clients. If the list has no range of a family, all clients of
    /// this family are denied.
    pub source_ranges: Option<Vec<IpNet>>,
    /// The ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port to which clients send packets.
    pub port: NonZeroU16,
    /// The endpoints of both families.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of a Service's port, as an `EndpointSlice` describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address and the port of the pod.
    pub address: SocketAddr,
    /// The number of the node where the pod runs, as the Service's `EndpointSlice` says; `None` if the node has no
    /// number.
    pub node: Option<NodeNumber>,
    /// True if endpoints with this address, of any Service, name different nodes. Packets to the endpoint are
    /// masqueraded, because the table keeps the client's address by the endpoint's address only.
    pub has_node_conflict: bool,
    /// True if the pod is ready and does not terminate.
    pub is_ready: bool,
    /// True if the pod terminates, but still serves its clients.
    pub is_serving_while_terminating: bool,
    /// The zones whose clients should use the endpoint (`hints.forZones`).
    pub hinted_zones: Vec<String>,
    /// The names of the nodes whose clients should use the endpoint (`hints.forNodes`).
    pub hinted_nodes: Vec<String>,
}

impl Service {
    /// Returns the text that identifies the Service in the rules.
    #[must_use]
    pub fn identity(&self) -> String {
        service_identity(&self.name, self.uid.as_deref())
    }

    /// Returns the frontends at which clients reach the Service on this node: each port in each family.
    pub fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.ports.iter().flat_map(|port| {
            let frontend =
                |family: &Family| Frontend { family: *family, protocol: port.protocol, port: port.port };
            self.families.iter().map(frontend)
        })
    }
}

/// Returns the text that identifies a Service in the rules: its name, and its UID, because a new Service may have the
/// name of a deleted Service.
#[must_use]
pub fn service_identity(name: &str, uid: Option<&str>) -> String {
    uid.map_or_else(|| name.to_owned(), |uid| format!("{name} {uid}"))
}

impl NodeConfig {
    /// Returns the ranges of clients inside the cluster: the ranges of pods, and the addresses of nodes with an agent.
    #[must_use]
    pub fn cluster_client_ranges(&self, family: Family) -> Vec<IpNet> {
        let nodes = self.all_node_addresses(family).map(IpNet::from);
        let ranges = self.pod_ranges(family).into_iter().chain(nodes).collect();
        IpNet::aggregate(&ranges)
    }

    /// Returns the pods' address ranges of a family. Adjacent ranges are joined.
    #[must_use]
    pub fn pod_ranges(&self, family: Family) -> Vec<IpNet> {
        let ranges = self.pod_ranges.iter().filter(|range| Family::from_ip(range.addr()) == family);
        IpNet::aggregate(&ranges.copied().collect())
    }

    /// Returns the addresses of this node and of its peers in one family.
    pub fn all_node_addresses(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let peers = self.peers.iter().flat_map(|peer| &peer.addresses);
        self.node.addresses.iter().chain(peers).copied().filter(move |ip| Family::from_ip(*ip) == family)
    }

    /// Returns the families of the node's addresses.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let has_address =
            |family: &Family| self.node.addresses.iter().any(|ip| Family::from_ip(*ip) == *family);
        Family::ALL.into_iter().filter(has_address).collect()
    }

    /// Returns the families of the addresses of this node and of its peers. Services are unreachable in other families,
    /// and the nodes' kernels may not support the other families.
    #[must_use]
    pub fn families_of_node_and_peers(&self) -> Vec<Family> {
        Family::ALL.into_iter().filter(|family| self.all_node_addresses(*family).next().is_some()).collect()
    }

    /// Returns the configuration without the tunnel. Clients of endpoints behind the tunnel are masqueraded.
    #[must_use]
    pub fn without_tunnel(&self) -> Self {
        let mut config = Self { probes_tunnel: false, ..self.clone() };
        for peer in &mut config.peers {
            for paths in [&mut peer.paths, &mut peer.last_paths] {
                paths.retain(|_, path| *path != PeerPath::Tunnel);
            }
        }
        config
    }

    /// Returns the node's first address of each family. The probe uses these addresses.
    #[must_use]
    pub fn first_address_of_each_family(&self) -> Vec<IpAddr> {
        let first_address =
            |family| self.node.addresses.iter().copied().find(|ip| Family::from_ip(*ip) == family);
        Family::ALL.into_iter().filter_map(first_address).collect()
    }

    /// Returns the path on which new flows to an endpoint keep the client's address; `None` if no path keeps the address.
    #[must_use]
    pub fn path_to(&self, endpoint: &Endpoint) -> Option<PeerPath> {
        let peer = self.peer_of(endpoint).filter(|peer| !peer.is_silent)?;
        peer.paths.get(&Family::from_ip(endpoint.address.ip())).copied()
    }

    /// Returns the path of the packets of established flows to an endpoint, if these flows keep the client's address.
    #[must_use]
    pub fn last_path_to(&self, endpoint: &Endpoint) -> Option<PeerPath> {
        self.peer_of(endpoint)?.last_paths.get(&Family::from_ip(endpoint.address.ip())).copied()
    }

    /// Returns the node of an endpoint; `None` if the node is not a peer, or if the node is not certain.
    fn peer_of(&self, endpoint: &Endpoint) -> Option<&Peer> {
        let node = endpoint.node.filter(|_| !endpoint.has_node_conflict)?;
        self.peers.iter().find(|peer| peer.number == node)
    }

    /// Returns true if packets between nodes may have the addresses of clients.
    ///
    /// Also returns true for a node without Services, because the probe needs some time to find the paths to the peers.
    /// If the probe starts early, the first connections of the first Service also keep the client's address.
    #[must_use]
    pub fn keeps_client_addresses(&self) -> bool {
        let needs_client_address = self.recognizes_clients
            || self.services.is_empty()
            || self.services.iter().any(|service| service.keeps_client_address);
        !self.peers.is_empty() && needs_client_address
    }

    /// Returns true if the node needs the tunnel. The tunnel's routing rules cost time for each packet on the node.
    #[must_use]
    pub fn needs_tunnel(&self) -> bool {
        self.probes_tunnel
            || self.peers.iter().any(|peer| peer.last_paths.values().any(|path| *path == PeerPath::Tunnel))
    }

    /// Returns true if the endpoint is on this node, and no endpoint with the same address names another node.
    #[must_use]
    pub fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node == Some(self.node.number) && !endpoint.has_node_conflict
    }
}
