//! A testbed: the network of a variant with its proxy and backend. Does I/O.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use akrobateo_core::Protocol;

use crate::agent;
use crate::backend::{Backend, BackendOptions};
use crate::client::request_once;
use crate::error::{BenchError, Context};
use crate::layout::Layout;
use crate::load_generator::Frontends;
use crate::network::Network;
use crate::proxy;
use crate::proxy::process::Process;
use crate::proxy::programs::Programs;
use crate::sampling::{BACKEND_PROCESSOR, LoadPath};
use crate::two_nodes;
use crate::variant::{DataPath, Variant};

/// The time within which a new testbed must forward packets.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// The timeout of a client while the testbed is not ready.
const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The network of a variant with its proxy and backend.
#[derive(Debug)]
pub(crate) struct Testbed {
    /// The variant.
    pub(crate) variant: Variant,
    /// The process in the proxy pod; `None` if the variant has no process. This field is dropped before the namespace
    /// of the process.
    pub(crate) proxy: Option<Process>,
    /// The namespaces.
    pub(crate) network: Network,
    /// The backend.
    pub(crate) backend: Backend,
}

impl Testbed {
    /// Creates the network and the backend, with an empty proxy pod.
    pub(crate) fn new_without_proxy(variant: Variant) -> Result<Self, BenchError> {
        let (role, ports) = (variant.node_role(), variant.ports);
        let network = match variant.layout {
            Layout::OneNode => Network::with_one_node(role, ports),
            layout => two_nodes::build(role, layout, ports, variant.endpoints),
        };
        let options = BackendOptions {
            expects_proxy_header: variant.sends_proxy_header(),
            addresses: variant.backend_addresses(),
            processor: variant.has_two_nodes().then_some(BACKEND_PROCESSOR),
        };
        let backend = Backend::start(&network.backend, options)?;
        Ok(Self { variant, proxy: None, network, backend })
    }

    /// Creates the testbed with its proxy, and waits until the testbed forwards packets.
    pub(crate) fn new(variant: Variant, protocol: Protocol, programs: &Programs) -> Result<Self, BenchError> {
        let mut testbed = Self::new_without_proxy(variant)?;
        testbed.proxy = proxy::start(variant, protocol, &testbed.network.pod, programs)?;
        if let DataPath::Agent(path) = variant.data_path {
            agent::apply(&testbed.network, path, &agent::services(variant))?;
        }
        testbed.wait_until_forwarding(protocol)?;
        Ok(testbed)
    }

    /// Returns the path of packets between clients and the backend.
    pub(crate) fn load_path(&self) -> LoadPath<'_> {
        LoadPath {
            variant: self.variant.name,
            client: &self.network.client,
            frontends: Frontends { first: self.variant.frontend(), ports: self.variant.ports },
            backend: &self.backend,
            proxies: self.proxy.iter().map(Process::pid).collect(),
            has_pinned_clients: self.variant.has_two_nodes(),
        }
    }

    /// Waits until the testbed forwards packets, and checks the source address that the backend sees.
    fn wait_until_forwarding(&mut self, protocol: Protocol) -> Result<(), BenchError> {
        let (frontend, variant) = (self.variant.frontend(), self.variant);
        let expected = variant.expected_source_address();
        let request = || match protocol {
            // The reply to a datagram does not contain the client's address.
            Protocol::Udp => exchange_datagram(frontend).map(|()| expected),
            _ => request_once(frontend, REPLY_TIMEOUT),
        };
        let start = Instant::now();
        loop {
            if let Some(proxy) = &mut self.proxy {
                proxy.check_running()?;
            }
            match self.network.client.run(request).context(variant.name) {
                Ok(source) => return check_source_address(variant, source, expected),
                Err(error) if start.elapsed() > READY_DEADLINE => return Err(error),
                Err(_) => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }
}

fn check_source_address(variant: Variant, source: IpAddr, expected: IpAddr) -> Result<(), BenchError> {
    if source == expected {
        return Ok(());
    }
    let name = variant.name;
    Err(BenchError::UnexpectedState(format!(
        "{name}: the backend sees the client as {source}, expected {expected}"
    )))
}

/// Sends a datagram and waits for its echo.
fn exchange_datagram(remote: SocketAddr) -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(REPLY_TIMEOUT))?;
    socket.connect(remote)?;
    socket.send(b"?")?;
    socket.recv(&mut [0]).map(drop)
}
