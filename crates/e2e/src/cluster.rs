//! The cluster under test: the connection to it, and its nodes. Does I/O.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::environment::Environment;
use crate::outside::{self, Session};
use crate::{Answer, Failure, Reply, Target};

const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// The cluster under test, and the client outside it.
#[derive(Clone)]
pub struct Cluster {
    /// The connection to its API server.
    pub client: Client,
    pub(crate) environment: Environment,
}

/// A node that proxies are scheduled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The node's name.
    pub name: String,
    /// Its external addresses if it has any, else the internal ones.
    pub addresses: Vec<IpAddr>,
}

impl Cluster {
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let environment = Environment::read()?;
        let options =
            KubeConfigOptions { context: Some(environment.context.clone()), ..KubeConfigOptions::default() };
        let kubeconfig = Kubeconfig::read_from(&environment.kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        config.read_timeout = Some(CALL_DEADLINE);
        // Else the time that a connection was idle counts too, and a call after a pause fails.
        config.reset_reader_on_write = true;
        Ok(Self { client: Client::try_from(config)?, environment })
    }

    /// The nodes that have no taint against proxies.
    pub async fn nodes(&self) -> Result<Vec<NodeAddresses>, Failure> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(nodes.items.iter().filter(|node| takes_proxies(node)).map(addresses).collect())
    }

    /// Asks all targets at once from outside the cluster, each once.
    pub async fn ask(&self, targets: &[Target]) -> Result<Vec<Reply>, Failure> {
        outside::ask(&self.environment, targets).await
    }

    /// Opens a TCP connection from outside the cluster, and holds it.
    pub async fn session(&self, server: SocketAddr) -> Result<Session, Failure> {
        self.sessions(server, 1).await
    }

    /// Opens so many.
    pub async fn sessions(&self, server: SocketAddr, connections: usize) -> Result<Session, Failure> {
        Session::open(&self.environment, server, connections).await
    }

    /// Begins as many flows of datagrams as the client outside the cluster can, with its one address.
    pub async fn flood(&self, server: SocketAddr) -> Result<(), Failure> {
        outside::flood(&self.environment, server).await
    }

    /// Sends datagrams of this length and of one flow, from outside the cluster, until one is answered by as many bytes.
    pub async fn insist(
        &self,
        server: SocketAddr,
        length: usize,
        within: Duration,
    ) -> Result<Answer, Failure> {
        outside::insist(&self.environment, server, length, within).await
    }
}

fn takes_proxies(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    // Of its own accord, a DaemonSet tolerates what begins like this.
    let mut others = taints.filter(|taint| !taint.key.starts_with("node.kubernetes.io/"));
    !others.any(|taint| taint.effect != "PreferNoSchedule")
}

fn addresses(node: &Node) -> NodeAddresses {
    let of_kind = |kind| -> Vec<IpAddr> {
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        addresses.filter(|address| address.type_ == kind).filter_map(|a| a.address.parse().ok()).collect()
    };
    let external = of_kind("ExternalIP");
    let addresses = if external.is_empty() { of_kind("InternalIP") } else { external };
    NodeAddresses { name: node.name_any(), addresses }
}
