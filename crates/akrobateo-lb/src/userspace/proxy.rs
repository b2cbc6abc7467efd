//! A running proxy: its workers, what they tell of themselves, and how they end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use akrobateo_core::{Forward, Protocol};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::error::UserspaceError;
use super::inbox::Inbox;
use super::listen::bind_listener;
use super::ports::Port;
use super::settings::Settings;
use super::shared::{Quota, Shared};
use super::stats::{WorkerStats, metrics};
use super::worker::{Arrivals, Worker};
use crate::forwarding_config::ForwardingConfig;
use crate::probe::DataPathStatus;

/// Stack of a worker, in bytes; it calls nothing deep.
const STACK: usize = 256 << 10;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    stats: Vec<Arc<WorkerStats>>,
    ends: UnboundedReceiver<Result<(), Errno>>,
    working: usize,
}

/// What a proxy tells of itself.
#[derive(Debug)]
pub struct ProxyStatus {
    shared: Arc<Shared>,
    stats: Vec<Arc<WorkerStats>>,
}

impl Proxy {
    /// Listens on all ports of the plan, and begins to forward; `settings` gets the numbers of TCP and UDP ports.
    pub fn start(
        plan: &ForwardingConfig,
        settings: impl FnOnce(usize, usize) -> Settings,
    ) -> Result<Self, UserspaceError> {
        let ports = Port::all(plan).into_boxed_slice();
        let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp).count();
        let settings = settings(tcp, ports.len() - tcp);
        let waker = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wakers = (0..settings.workers).map(|_| waker()).collect::<Result<_, _>>();
        let shared = Arc::new(Shared {
            ports,
            sources: plan.sources().cloned(),
            connections: Quota::new(settings.connections),
            flows: Quota::new(settings.flows),
            draining: AtomicBool::new(false),
            desks: (0..settings.workers).map(|_| Inbox::new()).collect(),
            wakers: wakers.map_err(|error| UserspaceError::Start(error.into()))?,
        });
        let (end, ends) = unbounded_channel();
        let mut proxy = Self { shared, stats: Vec::new(), ends, working: settings.workers };
        // All of them before the first client is let in: what is refused must not have begun.
        let workers = (0..settings.workers)
            .map(|number| proxy.worker(number, &settings))
            .collect::<Result<Vec<_>, _>>()?;
        for (number, worker) in workers.into_iter().enumerate() {
            let end = end.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).stack_size(STACK);
            let run = move || {
                // Nobody frontends only when the process is about to end.
                let _ = end.send(worker.run());
            };
            thread.spawn(run).map_err(UserspaceError::Start)?;
        }
        let ports = proxy.shared.ports.len();
        let restricted = proxy.shared.sources.is_some();
        let Settings { workers, connections, flows, .. } = settings;
        tracing::info!(ports, restricted, workers, connections, flows, "forwarding in userspace");
        Ok(proxy)
    }

    fn worker(&mut self, number: usize, settings: &Settings) -> Result<Worker, UserspaceError> {
        let stats = Arc::new(WorkerStats::new(self.shared.ports.len()));
        let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
        for (at, port) in self.shared.ports.iter().enumerate() {
            let arrivals =
                Arrivals { port: at, socket: bind_listener(port).map_err(|error| refused(port, error))? };
            if port.protocol == Protocol::Tcp { listeners.push(arrivals) } else { datagrams.push(arrivals) }
        }
        self.stats.push(Arc::clone(&stats));
        let shared = Arc::clone(&self.shared);
        Worker::new(shared, stats, number, (listeners, datagrams), settings)
            .map_err(|error| UserspaceError::Start(error.into()))
    }

    /// What it tells of itself, as long as somebody asks.
    #[must_use]
    pub fn status(&self) -> ProxyStatus {
        ProxyStatus { shared: Arc::clone(&self.shared), stats: self.stats.clone() }
    }

    /// Lets nobody in any more; who is in may stay.
    pub fn drain(&self) {
        let (connections, flows) = (self.shared.connections.taken(), self.shared.flows.taken());
        tracing::info!(connections, flows, "draining: nobody is let in any more, and who is in may finish");
        self.shared.draining.store(true, Release);
        for worker in 0..self.shared.wakers.len() {
            self.shared.wake(worker);
        }
    }

    /// Waits until all workers have ended, or one has failed.
    pub async fn ended(&mut self) -> Result<(), UserspaceError> {
        while self.working > 0 {
            match self.ends.recv().await {
                Some(Ok(())) => self.working -= 1,
                Some(Err(error)) => return Err(UserspaceError::Worker(error.into())),
                None => break,
            }
        }
        Ok(())
    }
}

impl Drop for Proxy {
    /// The workers end when their connections do.
    fn drop(&mut self) {
        if self.working > 0 {
            self.drain();
        }
    }
}

impl DataPathStatus for ProxyStatus {
    fn ready(&self) -> Result<(), String> {
        if self.shared.draining.load(Acquire) {
            return Err(format!("draining: {} connections are left", self.shared.connections.taken()));
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        let workers: Vec<&WorkerStats> = self.stats.iter().map(|stats| &**stats).collect();
        metrics(&self.shared.ports, &workers, self.shared.sources.is_some())
    }
}

fn refused(port: &Port, error: Errno) -> UserspaceError {
    let forward = Forward { protocol: port.protocol, port: port.number, target: port.target };
    match error {
        Errno::ACCESS => UserspaceError::Privileged(forward),
        error => UserspaceError::Frontend(forward, error.into()),
    }
}
