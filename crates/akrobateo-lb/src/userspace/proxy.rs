//! A running proxy: starts its workers, reports their status, and drains them. I/O only.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use akrobateo_core::{Forward, Protocol};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep};

use super::drain::{DrainState, Phase};
use super::error::UserspaceError;
use super::inbox::Inbox;
use super::port::Port;
use super::quota::Quota;
use super::settings::Settings;
use super::shared_state::SharedState;
use super::sockets::{BoundSocket, bind_port, has_ipv6};
use super::stats::{WorkerStats, format_metrics};
use super::watchdog::{Watchdog, WatchdogResult};
use super::worker::{Worker, WorkerSockets};
use crate::forwarding_config::ForwardingConfig;
use crate::probe::DataPathStatus;

/// Stack of a worker, in bytes. Workers have no deep call chains.
const WORKER_STACK_SIZE: usize = 256 << 10;
/// The warning for a dual-stack configuration on a host without IPv6.
const IPV4_ONLY_WARNING: &str = "only IPv4 is served: this node's kernel has no IPv6";
/// Time between two checks that decide whether the next phase of a drain can begin.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A running proxy. The proxy stops when the `Proxy` is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared_state: Arc<SharedState>,
    /// True if the configuration also has IPv6 ports, which the proxy cannot serve because the kernel has no IPv6.
    serves_ipv4_only: bool,
    stats: Vec<Arc<WorkerStats>>,
    /// Receives the result of each worker that has ended.
    worker_results: UnboundedReceiver<Result<(), Errno>>,
    /// Number of workers that have not ended.
    running_worker_count: usize,
    /// See [`Settings::drain_timeout`].
    drain_timeout: Duration,
    /// See [`Settings::close_timeout`].
    close_timeout: Duration,
}

/// The readiness and metrics of a proxy.
#[derive(Debug)]
pub struct ProxyStatus {
    shared_state: Arc<SharedState>,
    serves_ipv4_only: bool,
    stats: Vec<Arc<WorkerStats>>,
}

impl Proxy {
    /// Binds all ports and starts to forward. The closure `build_settings` receives the number of TCP ports and the
    /// number of UDP ports.
    pub fn start(
        config: &ForwardingConfig,
        build_settings: impl FnOnce(usize, usize) -> Settings,
    ) -> Result<Self, UserspaceError> {
        let configured_ports = Port::from_config(config);
        let configured_count = configured_ports.len();
        let ports = Port::filter_servable(configured_ports, has_ipv6()).into_boxed_slice();
        let serves_ipv4_only = ports.len() < configured_count;
        if serves_ipv4_only {
            tracing::warn!("{IPV4_ONLY_WARNING}");
        }
        let tcp_port_count = ports.iter().filter(|port| port.protocol == Protocol::Tcp).count();
        let settings = build_settings(tcp_port_count, ports.len() - tcp_port_count);
        let create_waker = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wakers = (0..settings.worker_count).map(|_| create_waker()).collect::<Result<_, _>>();
        let shared_state = Arc::new(SharedState {
            ports,
            sources: config.sources().cloned(),
            connection_quota: Quota::new(settings.max_connections),
            has_waiting_clients: AtomicBool::new(false),
            udp_session_quota: Quota::new(settings.max_udp_sessions),
            drain: DrainState::new(settings.worker_count),
            watchdog: Watchdog::new(settings.worker_count),
            inboxes: (0..settings.worker_count).map(|_| Inbox::new()).collect(),
            wakers: wakers.map_err(|error| UserspaceError::StartWorker(error.into()))?,
        });
        let (result_sender, worker_results) = unbounded_channel();
        let mut proxy = Self {
            shared_state,
            serves_ipv4_only,
            stats: Vec::new(),
            worker_results,
            running_worker_count: settings.worker_count,
            drain_timeout: settings.drain_timeout,
            close_timeout: settings.close_timeout,
        };
        // All ports are bound before the first client is accepted, so a proxy that cannot start has forwarded nothing.
        let workers = (0..settings.worker_count)
            .map(|index| proxy.create_worker(index, &settings))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, worker) in workers.into_iter().enumerate() {
            let result_sender = result_sender.clone();
            let thread_builder =
                std::thread::Builder::new().name(format!("worker-{index}")).stack_size(WORKER_STACK_SIZE);
            let run_worker = move || {
                // The call fails only if the proxy has been dropped, because the proxy owns the receiver.
                let _ = result_sender.send(worker.run());
            };
            thread_builder.spawn(run_worker).map_err(UserspaceError::StartWorker)?;
        }
        let ports = proxy.shared_state.ports.len();
        let has_source_ranges = proxy.shared_state.sources.is_some();
        tracing::info!(
            ports,
            source_ranges = has_source_ranges,
            workers = settings.worker_count,
            connections = settings.max_connections,
            udp_sessions = settings.max_udp_sessions,
            "forwarding in userspace"
        );
        Ok(proxy)
    }

    fn create_worker(&mut self, index: usize, settings: &Settings) -> Result<Worker, UserspaceError> {
        let mut sockets = WorkerSockets::default();
        for (port_index, port) in self.shared_state.ports.iter().enumerate() {
            let socket = bind_port(port).map_err(|error| bind_error(port, error))?;
            let bound_socket = BoundSocket { port_index, socket };
            match port.protocol {
                Protocol::Tcp => sockets.listeners.push(bound_socket),
                _ => sockets.udp_sockets.push(bound_socket),
            }
        }
        let stats = Arc::new(WorkerStats::new(self.shared_state.ports.len()));
        self.stats.push(Arc::clone(&stats));
        Worker::new(Arc::clone(&self.shared_state), stats, index, sockets, settings)
            .map_err(|error| UserspaceError::StartWorker(error.into()))
    }

    /// Returns a handle to the readiness and metrics. The handle may outlive the proxy.
    #[must_use]
    pub fn status(&self) -> ProxyStatus {
        ProxyStatus {
            shared_state: Arc::clone(&self.shared_state),
            serves_ipv4_only: self.serves_ipv4_only,
            stats: self.stats.clone(),
        }
    }

    /// Drains the proxy, and returns when the proxy has ended.
    ///
    /// In the draining phase, accepts new clients until the existing connections have ended, for at most
    /// [`Settings::drain_timeout`]. During this phase, other proxies cannot use the node's ports. In the closing phase,
    /// refuses new clients. The remaining connections may finish, for at most [`Settings::close_timeout`]. After the
    /// closing phase, resets the remaining connections.
    pub async fn drain(&mut self) -> Result<(), UserspaceError> {
        self.begin_phase(
            Phase::Draining,
            "draining: new clients are served until the existing connections have ended",
        );
        self.wait_until_complete(Phase::Draining, self.drain_timeout).await;
        self.begin_phase(Phase::Closing, "closing: new clients are refused; existing connections may finish");
        self.wait_until_complete(Phase::Closing, self.close_timeout).await;
        self.begin_phase(Phase::Stopped, "stopping: the remaining connections are reset");
        self.join().await
    }

    fn begin_phase(&self, phase: Phase, message: &str) {
        let connections = self.shared_state.connection_quota.used_places();
        let udp_sessions = self.shared_state.udp_session_quota.used_places();
        tracing::info!(connections, udp_sessions, "{message}");
        self.shared_state.drain.begin_phase(phase);
        self.shared_state.wake_all_workers();
    }

    async fn wait_until_complete(&self, phase: Phase, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline && !self.shared_state.drain.is_complete(phase) {
            sleep(DRAIN_CHECK_INTERVAL).await;
        }
    }

    /// Waits until all workers have ended, or until one worker has failed.
    pub async fn join(&mut self) -> Result<(), UserspaceError> {
        while self.running_worker_count > 0 {
            match self.worker_results.recv().await {
                Some(Ok(())) => self.running_worker_count -= 1,
                Some(Err(error)) => return Err(UserspaceError::WorkerFailed(error.into())),
                None => break,
            }
        }
        Ok(())
    }
}

impl Drop for Proxy {
    /// Stops the workers.
    fn drop(&mut self) {
        if self.running_worker_count > 0 {
            self.begin_phase(Phase::Stopped, "stopping: the remaining connections are reset");
        }
    }
}

impl DataPathStatus for ProxyStatus {
    fn check_readiness(&self) -> Result<(), String> {
        if self.shared_state.drain.phase() != Phase::Forwarding {
            return Err(format!(
                "draining: {} connections are still open",
                self.shared_state.connection_quota.used_places()
            ));
        }
        Ok(())
    }

    fn check_health(&self) -> Result<(), String> {
        match self.shared_state.watchdog.check(std::time::Instant::now()) {
            WatchdogResult::AllHaveRun => self.shared_state.wake_all_workers(),
            WatchdogResult::Waiting => {}
            WatchdogResult::Stuck(worker) => return Err(format!("worker {worker} no longer runs")),
        }
        Ok(())
    }

    fn warning(&self) -> Option<String> {
        self.serves_ipv4_only.then(|| IPV4_ONLY_WARNING.to_owned())
    }

    fn metrics(&self) -> String {
        let workers: Vec<&WorkerStats> = self.stats.iter().map(|stats| &**stats).collect();
        format_metrics(&self.shared_state.ports, &workers, self.shared_state.sources.is_some())
    }
}

fn bind_error(port: &Port, error: Errno) -> UserspaceError {
    let forward = Forward { protocol: port.protocol, port: port.number, target: port.target };
    match error {
        Errno::ACCESS => UserspaceError::PortNotAllowed(forward),
        error => UserspaceError::Bind(forward, error.into()),
    }
}
