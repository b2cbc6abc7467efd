//! A network with two nodes for packets that the agent does not forward. Does I/O.

use std::net::Ipv4Addr;

use netns_testkit::Namespace;

use crate::backend::{Backend, BackendOptions};
use crate::error::BenchError;
use crate::layout::{Layout, NODES, backend_addresses, node_address};
use crate::load_generator::Frontends;
use crate::network::{Network, NodeRole, addr};
use crate::sampling::{BACKEND_PROCESSOR, LoadPath};
use crate::two_nodes;

/// The path of packets that the agent does not forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// From a pod on the first node to a pod on the second node.
    BetweenPods,
    /// From a client to the first node, whose rules translate the destination like kube-proxy's.
    KubeProxy,
}

impl Traffic {
    /// All paths.
    pub(crate) const ALL: [Self; 2] = [Self::BetweenPods, Self::KubeProxy];

    /// The name in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BetweenPods => "between-pods",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// The network, with a client pod on the first node and a backend on the second node.
#[derive(Debug)]
pub(crate) struct NeighbourNetwork {
    /// The nodes with their pods.
    pub(crate) network: Network,
    client_pod: Namespace,
    backend: Backend,
}

impl NeighbourNetwork {
    /// The layout.
    pub(crate) const LAYOUT: Layout = Layout::RemoteBackend;

    /// Creates the network. The nodes have rules like kube-proxy's, so that conntrack tracks all packets.
    pub(crate) fn new() -> Result<Self, BenchError> {
        let network = two_nodes::build(NodeRole::KubeProxy, Self::LAYOUT, 1, 1);
        let client_pod = two_nodes::add_client_pod(&network);
        let options = BackendOptions {
            expects_proxy_header: false,
            addresses: vec![Self::backend_address()],
            processor: Some(BACKEND_PROCESSOR),
        };
        let backend = Backend::start(&network.backend, options)?;
        Ok(Self { network, client_pod, backend })
    }

    /// Returns the address of the backend.
    pub(crate) fn backend_address() -> Ipv4Addr {
        backend_addresses(Self::LAYOUT.backend_node(), 1)[0]
    }

    /// Returns the path of packets.
    pub(crate) fn load_path(&self, traffic: Traffic) -> LoadPath<'_> {
        let (client, first) = match traffic {
            Traffic::BetweenPods => (&self.client_pod, (Self::backend_address(), addr::BACKEND_PORT)),
            Traffic::KubeProxy => (&self.network.client, (node_address(NODES[0]), addr::FIRST_SERVICE_PORT)),
        };
        LoadPath {
            variant: traffic.name(),
            client,
            frontends: Frontends { first: first.into(), ports: 1 },
            backend: &self.backend,
            proxies: Vec::new(),
            has_pinned_clients: true,
        }
    }
}
