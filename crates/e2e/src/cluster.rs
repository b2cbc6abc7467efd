//! The cluster under test: the connection to its API server, its nodes, and requests from outside. Does I/O.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::answer::Answer;
use crate::environment::Environment;
use crate::external_client::{self, Connections};
use crate::failure::Failure;
use crate::reply::Reply;
use crate::target::Target;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The cluster under test, and the client outside the cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The connection to the cluster's API server.
    pub client: Client,
    pub(crate) environment: Environment,
}

/// A node on which proxies can run, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The node's name.
    pub name: String,
    /// The node's addresses of type `ExternalIP`, or its addresses of type `InternalIP` if the node has no
    /// `ExternalIP`.
    pub addresses: Vec<IpAddr>,
}

impl Cluster {
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let environment = Environment::read()?;
        let config = read_kubeconfig(&environment).await?;
        Ok(Self { client: Client::try_from(config)?, environment })
    }

    /// Returns a connection to the API server with the token of a ServiceAccount.
    pub(crate) async fn connect_with_token(&self, token: &str) -> Result<Client, Failure> {
        let mut config = read_kubeconfig(&self.environment).await?;
        config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        Ok(Client::try_from(config)?)
    }

    /// Returns the nodes on which proxies can run. Nodes with a taint that the proxies do not tolerate are omitted.
    pub async fn list_nodes(&self) -> Result<Vec<NodeAddresses>, Failure> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        Ok(nodes.items.iter().filter(|node| accepts_proxies(node)).map(node_addresses).collect())
    }

    /// Sends one request to each target from outside the cluster. Sends all requests at the same time.
    pub async fn send_requests(&self, targets: &[Target]) -> Result<Vec<Reply>, Failure> {
        self.send_requests_within(targets, external_client::ANSWER_TIMEOUT).await
    }

    /// Sends requests like [`Self::send_requests`], but with this time limit for an answer.
    pub async fn send_requests_within(
        &self,
        targets: &[Target],
        timeout: Duration,
    ) -> Result<Vec<Reply>, Failure> {
        external_client::send_requests(&self.environment, targets, timeout).await
    }

    /// Opens TCP connections from outside the cluster, and keeps them open.
    pub async fn open_connections(
        &self,
        server: SocketAddr,
        connection_count: usize,
    ) -> Result<Connections, Failure> {
        Connections::open(&self.environment, server, connection_count).await
    }

    /// Sends one UDP datagram from each source port of the client outside the cluster.
    pub async fn flood_udp(&self, server: SocketAddr) -> Result<(), Failure> {
        external_client::flood_udp(&self.environment, server).await
    }

    /// Sends UDP datagrams of `datagram_length` bytes from one socket outside the cluster until the server answers one
    /// of them.
    pub async fn send_until_answered(
        &self,
        server: SocketAddr,
        datagram_length: usize,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        external_client::send_until_answered(&self.environment, server, datagram_length, timeout).await
    }
}

async fn read_kubeconfig(environment: &Environment) -> Result<Config, Failure> {
    let options = KubeConfigOptions {
        context: Some(environment.kubeconfig_context.clone()),
        ..KubeConfigOptions::default()
    };
    let kubeconfig = Kubeconfig::read_from(&environment.kubeconfig_path)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.read_timeout = Some(REQUEST_TIMEOUT);
    // Without this option the read timeout includes idle time, and the first request after a pause fails.
    config.reset_reader_on_write = true;
    Ok(config)
}

fn accepts_proxies(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    // The DaemonSet controller adds tolerations for the taints with this prefix.
    let mut other_taints = taints.filter(|taint| !taint.key.starts_with("node.kubernetes.io/"));
    !other_taints.any(|taint| taint.effect != "PreferNoSchedule")
}

fn node_addresses(node: &Node) -> NodeAddresses {
    let addresses_of_type = |address_type| -> Vec<IpAddr> {
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let matching_addresses = addresses.filter(|address| address.type_ == address_type);
        matching_addresses.filter_map(|address| address.address.parse().ok()).collect()
    };
    let external_ips = addresses_of_type("ExternalIP");
    let addresses = if external_ips.is_empty() { addresses_of_type("InternalIP") } else { external_ips };
    NodeAddresses { name: node.name_any(), addresses }
}
