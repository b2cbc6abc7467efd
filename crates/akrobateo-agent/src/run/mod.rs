//! Runs the agent: connects to the API server, follows the cluster and the node, and keeps the data path and the Lease
//! up to date. Does I/O.

mod error;
mod http;
mod lease;
mod metrics;
mod observer;
mod report;
mod state;
mod uninstall;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use akrobateo_core::{Family, Frontend};
use akrobateo_services::agent_report::{AgentReport, lease_name};
use api_client::{WatchEnded, connect};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, ResourceExt};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::http::Health;
use self::lease::NodeLease;
use self::metrics::Metrics;
use self::observer::{DataPathEvent, EventSender};
use self::state::{Identity, State};
use crate::agent::Agent;
use crate::cluster::{ProxyLabels, Stores, Trigger, TriggerSender, WatchScope};
use crate::data_path::{DataPath, DataPathError};
use crate::host::HostWatch;
use crate::plan::Planner;
use crate::settings::RunOptions;
use crate::table::family_set;
use crate::table::keys::parse_service;
pub use error::RunError;

/// The namespace of the agents if the agent does not run in a pod.
const DEFAULT_NAMESPACE: &str = "kube-system";
/// The time between two readings of the node's listening sockets.
const HOST_INTERVAL: Duration = Duration::from_secs(5);
/// The time between two reactions to changes of the node's network. A new pod causes many notifications.
const HOST_QUIET_TIME: Duration = Duration::from_millis(500);
/// The time for which changes are collected before a new plan.
const COLLECTION_TIME: Duration = Duration::from_millis(5);
/// The time for the last requests after a signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// The time for the check if the agent was uninstalled. Usually the check needs one request.
const UNINSTALL_CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum number of triggers that one call takes from the channel.
const MAX_TRIGGERS: usize = 4096;

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let shutdown = shutdown_signal()?;
    tokio::pin!(shutdown);
    // Without this right, the agent can do nothing. The error says so before the agent waits for the API server.
    let installed = installed_frontends()?;
    let health = Arc::new(Health { is_ready: AtomicBool::new(false), metrics: Metrics::default() });
    let address = options.http_address;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    tokio::spawn(http::serve(listener, health.clone()));
    let (client, pod_namespace) = connect(&options.connection).await?;
    let namespace = pod_namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let (trigger_sender, triggers) = mpsc::unbounded_channel();
    watch_host(trigger_sender.clone())?;
    let stores = watch(&client, &options, &namespace, &health, trigger_sender);
    tokio::select! {
        synced = stores.wait_until_synced() => synced?,
        () = &mut shutdown => return Ok(()),
    }
    tracing::info!(
        node = options.node_name,
        version = env!("CARGO_PKG_VERSION"),
        "the agent follows the cluster"
    );
    let identity = identity(&options, &namespace);
    let planner = Planner::new(options.services.defaults(), options.pod_ranges());
    let mut running = Running {
        client,
        namespace,
        daemonset: options.daemonset.clone(),
        lease_name: lease_name(&options.instance, &options.node_name),
        state: State::new(identity, stores, planner, installed),
        instance: options.instance,
        node: options.node_name,
        health,
        agent: None,
        reports: None,
    };
    let result = running.follow(triggers, &mut shutdown).await;
    running.stop().await;
    result
}

/// A connected agent.
struct Running {
    client: Client,
    namespace: String,
    daemonset: String,
    lease_name: String,
    instance: String,
    node: String,
    state: State,
    health: Arc<Health>,
    /// The data path; `None` before the first plan.
    agent: Option<Agent>,
    /// The reports for the Lease; `None` before the first plan.
    reports: Option<watch::Sender<Arc<AgentReport>>>,
}

impl Running {
    /// Follows the cluster and the node until a signal.
    async fn follow(
        &mut self,
        mut triggers: mpsc::UnboundedReceiver<Trigger>,
        mut shutdown: impl Future<Output = ()> + Unpin,
    ) -> Result<(), RunError> {
        let (event_sender, mut events) = mpsc::unbounded_channel();
        let mut host_interval = interval(HOST_INTERVAL);
        host_interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.state.record_all_leases(Instant::now());
        loop {
            let needs_plan = tokio::select! {
                batch = receive_triggers(&mut triggers) => self.state.on_triggers(batch?, Instant::now()),
                event = events.recv() => {
                    self.on_event(event.ok_or(RunError::AgentEnded)?);
                    false
                }
                _ = host_interval.tick() => self.state.read_host(),
                () = wait_until(self.state.next_plan_at()) => true,
                () = &mut shutdown => return Ok(()),
            };
            if needs_plan {
                // Changes often come together, for example a Service and its EndpointSlices.
                sleep(COLLECTION_TIME).await;
                let batch = std::iter::from_fn(|| triggers.try_recv().ok()).collect();
                self.state.on_triggers(batch, Instant::now());
                self.plan(&event_sender)?;
            }
            self.report();
        }
    }

    /// Makes a new plan, and gives a changed configuration to the data path.
    fn plan(&mut self, events: &mpsc::UnboundedSender<DataPathEvent>) -> Result<(), RunError> {
        let Some((id, config)) = self.state.make_plan(Instant::now()) else { return Ok(()) };
        match &self.agent {
            Some(agent) => agent.set_config(id, config),
            None => self.agent = Some(Agent::start(id, config, EventSender(events.clone()))?),
        }
        Ok(())
    }

    fn on_event(&mut self, event: DataPathEvent) {
        if let DataPathEvent::Applied(_, result) = &event {
            self.health.metrics.count_change(result.is_ok());
        }
        self.state.on_data_path_event(event);
        if self.state.is_applied() {
            self.health.is_ready.store(true, Ordering::Relaxed);
        }
    }

    /// Gives the current report to the Lease and to the metrics.
    fn report(&mut self) {
        let Some(report) = self.state.report() else { return };
        self.health.metrics.set_report(&report);
        let report = Arc::new(report);
        if let Some(reports) = &self.reports {
            // A changed use of conntrack is reported with the next renewal.
            reports.send_if_modified(|previous| {
                let is_new = !is_same_except_conntrack(previous, &report);
                *previous = report;
                is_new
            });
        } else if let Some(lease) = self.lease() {
            let (sender, receiver) = watch::channel(report);
            tokio::spawn(lease.keep(receiver));
            self.reports = Some(sender);
        }
    }

    fn lease(&self) -> Option<NodeLease> {
        Some(NodeLease {
            api: Api::namespaced(self.client.clone(), &self.namespace),
            name: self.lease_name.clone(),
            instance: self.instance.clone(),
            node: self.node.clone(),
            node_uid: self.state.own_node()?.uid()?,
            metrics: self.health.metrics.api.clone(),
        })
    }

    /// Announces that the rules remain, or removes them if the agent was uninstalled.
    async fn stop(mut self) {
        let (report, lease, node) = (self.state.report(), self.lease(), self.state.own_node());
        // The last message of the data path tells the peers that the rules remain.
        drop(self.agent.take());
        drop(self.reports.take());
        let (Some(report), Some(lease), Some(node)) = (report, lease, node) else { return };
        let daemonsets: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let metrics = &self.health.metrics.api;
        let check = uninstall::is_uninstalled(&daemonsets, &self.daemonset, &node, metrics);
        match timeout(UNINSTALL_CHECK_TIMEOUT, check).await {
            Ok(Ok(true)) => {
                remove_data_path();
                if let Ok(Err(error)) = timeout(SHUTDOWN_TIMEOUT, lease.delete()).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot delete the Lease of the node");
                }
            }
            Ok(Ok(false)) => {
                let report = AgentReport { is_paused: true, ..report };
                if let Ok(Err(error)) = timeout(SHUTDOWN_TIMEOUT, lease.write(&report)).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot announce the end of the agent");
                }
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot read the DaemonSet of the agents; the rules remain");
            }
            Err(_) => tracing::warn!("the API server does not answer; the rules remain"),
        }
    }
}

fn identity(options: &RunOptions, namespace: &str) -> Identity {
    let proxy_namespace = Some(options.lb_namespace.clone()).filter(|namespace| namespace != "@service");
    Identity {
        node: options.node_name.clone(),
        instance: options.instance.clone(),
        namespace: namespace.to_owned(),
        proxies: ProxyLabels { instance: options.instance.clone(), namespace: proxy_namespace },
        node_policy: options.services.defaults().node_policy,
    }
}

fn watch(
    client: &Client,
    options: &RunOptions,
    namespace: &str,
    health: &Health,
    sender: mpsc::UnboundedSender<Trigger>,
) -> Stores {
    let scope = WatchScope {
        service_namespace: options.services.watch_namespace(),
        agent_namespace: namespace,
        instance: &options.instance,
        node_of_pods: options.watch_host_ports.then_some(options.node_name.as_str()),
    };
    let metrics = health.metrics.api.clone();
    let triggers = TriggerSender { sender, list_completed: Trigger::Relisted, metrics };
    Stores::watch(client, &scope, &triggers)
}

/// Returns the frontends in the rules of an earlier process.
fn installed_frontends() -> Result<BTreeSet<Frontend>, DataPathError> {
    let Some(installed) = DataPath::open()?.read_table()? else { return Ok(BTreeSet::new()) };
    let frontends = Family::ALL.into_iter().flat_map(|family| {
        let services = family_set(&installed.table, family, "services").iter();
        services.filter_map(move |element| {
            let (_, port) = parse_service(family, element)?;
            Some(Frontend { family, protocol: port.protocol, port: port.port })
        })
    });
    Ok(frontends.collect())
}

fn remove_data_path() {
    match DataPath::open().and_then(|mut data_path| data_path.cleanup()) {
        Ok(_) => tracing::info!("the agent was uninstalled from this node; its rules were removed"),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "cannot remove the rules of the agent");
        }
    }
}

fn is_same_except_conntrack(left: &AgentReport, right: &AgentReport) -> bool {
    AgentReport { conntrack: None, ..left.clone() } == AgentReport { conntrack: None, ..right.clone() }
}

/// Starts a thread that sends a trigger when an interface or an address of the node changes.
fn watch_host(sender: mpsc::UnboundedSender<Trigger>) -> Result<(), RunError> {
    let watch = HostWatch::open()?;
    let send_triggers = move || {
        loop {
            // If a signal interrupts the wait, the loop waits again.
            let _ = poll(&mut [PollFd::new(&watch, PollFlags::IN)], None);
            let has_changes = watch.has_changes().unwrap_or_else(|error| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read a change of the network"
                );
                true
            });
            // The send fails when the agent stops.
            if has_changes && sender.send(Trigger::Host).is_err() {
                return;
            }
            std::thread::sleep(HOST_QUIET_TIME);
        }
    };
    std::thread::Builder::new().name("host".to_owned()).spawn(send_triggers).map_err(RunError::Thread)?;
    Ok(())
}

/// Waits for triggers. A cancelled call loses no trigger.
async fn receive_triggers(
    triggers: &mut mpsc::UnboundedReceiver<Trigger>,
) -> Result<Vec<Trigger>, WatchEnded> {
    let mut batch = Vec::new();
    if triggers.recv_many(&mut batch, MAX_TRIGGERS).await == 0 {
        return Err(WatchEnded);
    }
    Ok(batch)
}

/// Waits until a time. If the time is `None`, waits for ever.
async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Returns a future that ends at SIGTERM or SIGINT. The kubelet sends SIGTERM, and a terminal sends SIGINT.
fn shutdown_signal() -> Result<impl Future<Output = ()>, RunError> {
    let mut sigterm = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut sigint = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    Ok(async move {
        tokio::select! {
            _ = sigterm.recv() => (),
            _ = sigint.recv() => (),
        }
    })
}
