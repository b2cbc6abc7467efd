//! A variant, built: a network with its backend and its proxy, known to carry connections as it should.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::once;
use crate::failure::{Failure, Tried};
use crate::network::{Network, at};
use crate::proxy::process::Process;
use crate::proxy::{self, Programs, Protocol};
use crate::variant::{Variant, Way};

/// Longer than anything here takes to start.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long a client waits for an answer, while a route is being checked.
const PATIENCE: Duration = Duration::from_millis(500);

/// A variant, built.
#[derive(Debug)]
pub(crate) struct Route {
    /// What it is.
    pub(crate) variant: Variant,
    /// What is in the proxy pod, if that is a process.
    pub(crate) proxy: Option<Process>,
    /// The namespaces.
    pub(crate) network: Network,
    /// Where connections end.
    pub(crate) backend: Backend,
}

impl Route {
    /// The network and the backend, and nothing in the proxy pod yet.
    pub(crate) fn without_proxy(variant: Variant) -> Result<Self, Failure> {
        let network = Network::new(variant.node(), variant.ports)?;
        let backend = Backend::start(&network.backend, variant.header())?;
        Ok(Self { variant, proxy: None, network, backend })
    }

    /// All of it, working.
    pub(crate) fn new(variant: Variant, protocol: Protocol, programs: &Programs) -> Result<Self, Failure> {
        let mut route = Self::without_proxy(variant)?;
        route.proxy = proxy::start(variant, protocol, &route.network.pod, programs)?;
        route.check(protocol)?;
        Ok(route)
    }

    /// Where clients connect.
    pub(crate) fn entry(&self) -> SocketAddr {
        let port = if self.variant.way == Way::Direct { at::BACKEND_PORT } else { at::FIRST_PORT };
        (self.variant.entry(), port).into()
    }

    /// Waits until it forwards, and makes sure that the backend sees the client as it should.
    fn check(&mut self, protocol: Protocol) -> Result<(), Failure> {
        let entry = self.entry();
        let start = Instant::now();
        loop {
            if let Some(proxy) = &mut self.proxy {
                proxy.runs()?;
            }
            let answer = match protocol {
                Protocol::Tcp => self.network.client.run(|| once(entry, PATIENCE).tried(self.variant.name)),
                Protocol::Udp => self
                    .network
                    .client
                    .run(|| echoed(entry).tried(self.variant.name))
                    .map(|()| self.variant.seen()),
            };
            match answer {
                Ok(seen) if seen == self.variant.seen() => return Ok(()),
                Ok(seen) => {
                    let (name, wanted) = (self.variant.name, self.variant.seen());
                    return Err(Failure::Wrong(format!("{name}: the backend sees {seen} and not {wanted}")));
                }
                Err(error) if start.elapsed() > DEADLINE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn echoed(to: SocketAddr) -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"?")?;
    socket.recv(&mut [0]).map(drop)
}
