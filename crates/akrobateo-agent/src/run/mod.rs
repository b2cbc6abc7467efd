//! Runs the agent: connects to the API server, watches the cluster and the node, and keeps the data path and the Lease
//! up to date. Does I/O.

mod adoption;
mod error;
mod http;
mod kernel_metrics;
mod lease;
mod metrics;
mod node_eligibility;
mod node_kernel;
mod observer;
mod port_metrics;
#[cfg(test)]
mod reference;
mod report;
mod report_length;
mod state;
mod state_file;
mod uninstall;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use admin_server::program::serve_program;
use akrobateo_services::agent_report::{AgentReport, lease_name};
use api_client::{WatchEnded, connect};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, ResourceExt};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::adoption::adopt;
use self::http::Health;
use self::lease::{LeaseContent, NodeLease};
use self::metrics::Metrics;
use self::observer::{DataPathEvent, EventSender};
use self::report::is_urgent;
use self::state::{AgentState, Identity, NewConfig};
use self::state_file::StateFile;
use crate::cluster::{ProxyLabels, Stores, Trigger, TriggerSender, WatchScope};
use crate::host::HostWatch;
use crate::marks::Marks;
use crate::plan::Planner;
use crate::settings::RunOptions;
pub use error::RunError;
pub use kernel_metrics::KernelReader;
pub use node_kernel::{LocalKernel, NodeKernel, RunningDataPath};

/// The namespace of the agents if the agent does not run in a pod.
const DEFAULT_NAMESPACE: &str = "kube-system";
/// The time between two reads of the node's listening sockets and network.
const HOST_READ_INTERVAL: Duration = Duration::from_secs(5);
/// The minimum time between two reactions to changes of the node's network. A new pod causes many notifications.
const HOST_CHANGE_INTERVAL: Duration = Duration::from_millis(500);
/// The time for which the agent collects changes before it makes a new plan.
const CHANGE_COLLECTION_TIME: Duration = Duration::from_millis(5);
/// The timeout of each API request that the agent sends after a signal.
const SHUTDOWN_REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout of the check whether the agent was uninstalled. Usually the check needs one request.
const UNINSTALL_CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum number of triggers that one call takes from the channel.
const MAX_TRIGGERS_PER_BATCH: usize = 4096;

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let shutdown = shutdown_signal()?;
    run_on(Arc::new(LocalKernel), options, shutdown).await
}

/// Runs the agent on a node with this kernel until `shutdown` ends.
pub async fn run_on(
    kernel: Arc<dyn NodeKernel>,
    options: RunOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    tokio::pin!(shutdown);
    // Only a process with the capability NET_ADMIN can read the rules. A process without the capability ends here,
    // before it waits for the API server.
    let (event_sender, events) = mpsc::unbounded_channel();
    let state_file = StateFile::new(options.state_file.clone());
    let metrics = Metrics::new(kernel.open_counters()?);
    let adoption = adopt(kernel.as_ref(), &state_file, &event_sender, &metrics)?;
    let health = Arc::new(Health { is_ready: AtomicBool::new(false), metrics });
    let address = options.http_address;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    tokio::spawn(serve_program(listener, health.clone()));
    let (client, pod_namespace) = connect(&options.connection).await?;
    let namespace = pod_namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let (trigger_sender, triggers) = mpsc::unbounded_channel();
    if let Some(watch) = kernel.watch_network()? {
        watch_host(watch, trigger_sender.clone())?;
    }
    let stores = start_watches(&client, &options, &namespace, &health, trigger_sender);
    tokio::select! {
        synced = stores.wait_until_synced() => synced?,
        () = &mut shutdown => return Ok(()),
    }
    tracing::info!(
        node = options.node_name,
        version = env!("CARGO_PKG_VERSION"),
        "the agent has started: it watches the cluster and the node"
    );
    let identity = identity(&options, &namespace);
    let planner = Planner::new(options.services.defaults(), options.pod_ranges());
    let mut running_agent = RunningAgent {
        client,
        namespace,
        daemonset: options.daemonset.clone(),
        lease_name: lease_name(&options.instance, &options.node_name),
        state: AgentState::new(identity, kernel.clone(), stores, planner, adoption.installed),
        instance: options.instance,
        node_name: options.node_name,
        kernel,
        health,
        data_path_thread: adoption.thread,
        event_sender,
        state_file,
        lease_sender: None,
    };
    let result = running_agent.run_until(&mut shutdown, triggers, events).await;
    running_agent.stop().await;
    result
}

/// An agent that is connected to the API server.
struct RunningAgent {
    client: Client,
    namespace: String,
    daemonset: String,
    lease_name: String,
    instance: String,
    node_name: String,
    kernel: Arc<dyn NodeKernel>,
    state: AgentState,
    health: Arc<Health>,
    /// The thread that changes the data path; `None` before the first plan, unless the agent has adopted the rules of
    /// an earlier process.
    data_path_thread: Option<Box<dyn RunningDataPath>>,
    /// Sends the events of the thread to this task.
    event_sender: mpsc::UnboundedSender<DataPathEvent>,
    state_file: StateFile,
    /// Sends reports to the task that writes the Lease; `None` before the first plan.
    lease_sender: Option<watch::Sender<LeaseContent>>,
}

impl RunningAgent {
    /// Reacts to changes of the cluster and of the node until `shutdown` ends.
    async fn run_until(
        &mut self,
        mut shutdown: impl Future<Output = ()> + Unpin,
        mut triggers: mpsc::UnboundedReceiver<Trigger>,
        mut events: mpsc::UnboundedReceiver<DataPathEvent>,
    ) -> Result<(), RunError> {
        let mut host_reads = interval(HOST_READ_INTERVAL);
        host_reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.state.record_all_leases(Instant::now());
        self.state.record_all_services();
        loop {
            let needs_plan = tokio::select! {
                batch = receive_triggers(&mut triggers) => self.state.on_triggers(batch?, Instant::now()),
                event = events.recv() => {
                    self.on_event(event.ok_or(RunError::DataPathThreadEnded)?);
                    false
                }
                _ = host_reads.tick() => self.state.read_host(),
                () = wait_until(self.state.next_plan_at()) => true,
                () = wait_until(self.state_file.save_at()) => false,
                () = &mut shutdown => return Ok(()),
            };
            if needs_plan {
                // Changes often come together, for example a Service and its EndpointSlices.
                sleep(CHANGE_COLLECTION_TIME).await;
                let batch = std::iter::from_fn(|| triggers.try_recv().ok()).collect();
                self.state.on_triggers(batch, Instant::now());
                self.plan()?;
            }
            if let Some(config) = self.state.config() {
                self.state_file.save_if_due(config, Instant::now());
            }
            self.report();
        }
    }

    /// Makes a new plan, and gives a changed configuration to the data path.
    fn plan(&mut self) -> Result<(), RunError> {
        let Some(new_config) = self.state.make_plan(Instant::now()) else { return Ok(()) };
        let NewConfig { id, config, changes_only_endpoints } = new_config;
        if !changes_only_endpoints {
            self.health.metrics.set_services(&config);
        }
        self.health.metrics.set_endpoints(&config);
        self.state_file.on_new_config(Instant::now());
        if let Some(thread) = &self.data_path_thread {
            thread.set_config(id, config);
        } else {
            let observer = Box::new(EventSender(self.event_sender.clone()));
            self.data_path_thread = Some(self.kernel.start_data_path(id, config, observer)?);
        }
        Ok(())
    }

    fn on_event(&mut self, event: DataPathEvent) {
        let metrics = &self.health.metrics;
        match &event {
            DataPathEvent::Modes(modes) => metrics.set_modes(modes),
            DataPathEvent::Applied(_, result, duration) => {
                metrics.count_change(result.as_ref().err().map(|failure| failure.step), *duration);
            }
        }
        self.state.on_data_path_event(event);
        if self.state.has_applied_rules() {
            self.health.is_ready.store(true, Ordering::Relaxed);
        }
    }

    /// Updates the Lease and the metrics from the current report.
    fn report(&mut self) {
        let Some(report) = self.state.report() else { return };
        self.health.metrics.set_report(&report, self.state.has_current_rules());
        let node_uid = self.state.own_node().and_then(|node| node.uid());
        let content = LeaseContent { node_uid, report: Arc::new(report) };
        if let Some(sender) = &self.lease_sender {
            // Without a notification, the next renewal of the Lease contains the report.
            sender.send_if_modified(|previous| {
                let must_be_written = previous.node_uid != content.node_uid
                    || is_urgent(&previous.report, &content.report, self.state.awaited_versions());
                *previous = content;
                must_be_written
            });
        } else {
            let (sender, receiver) = watch::channel(content);
            tokio::spawn(self.node_lease().write_reports(receiver));
            self.lease_sender = Some(sender);
        }
    }

    fn node_lease(&self) -> NodeLease {
        NodeLease {
            api: Api::namespaced(self.client.clone(), &self.namespace),
            name: self.lease_name.clone(),
            instance: self.instance.clone(),
            node_name: self.node_name.clone(),
            metrics: self.health.metrics.api.clone(),
        }
    }

    /// Announces in the Lease that the rules remain. If the agent was uninstalled, removes the rules and the Lease.
    async fn stop(mut self) {
        let (report, lease, node) = (self.state.report(), self.node_lease(), self.state.own_node());
        // When the thread ends, its probe announces to the peers that the rules remain.
        drop(self.data_path_thread.take());
        drop(self.lease_sender.take());
        let (Some(report), Some(node)) = (report, node) else { return };
        let daemonsets: Api<DaemonSet> = Api::namespaced(self.client.clone(), &self.namespace);
        let metrics = &self.health.metrics.api;
        let check = uninstall::is_uninstalled(&daemonsets, &self.daemonset, &node, metrics);
        match timeout(UNINSTALL_CHECK_TIMEOUT, check).await {
            Ok(Ok(true)) => {
                remove_data_path(self.kernel.as_ref());
                if let Ok(Err(error)) = timeout(SHUTDOWN_REQUEST_TIMEOUT, lease.delete()).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot delete the Lease of the node");
                }
            }
            Ok(Ok(false)) => {
                let report = AgentReport { is_paused: true, ..report };
                if let Ok(Err(error)) =
                    timeout(SHUTDOWN_REQUEST_TIMEOUT, lease.write(&node.uid().unwrap_or_default(), &report))
                        .await
                {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "cannot announce in the Lease of the node that the agent has ended"
                    );
                }
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot read the DaemonSet of the agents; the rules remain");
            }
            Err(_) => tracing::warn!("the API server does not respond; the rules remain"),
        }
    }
}

fn identity(options: &RunOptions, namespace: &str) -> Identity {
    let proxy_namespace = Some(options.lb_namespace.clone()).filter(|namespace| namespace != "@service");
    Identity {
        node_name: options.node_name.clone(),
        instance: options.instance.clone(),
        namespace: namespace.to_owned(),
        proxy_labels: ProxyLabels { instance: options.instance.clone(), namespace: proxy_namespace },
        marks: Marks::from_highest_byte(options.mark_byte),
        node_policy: options.services.defaults().node_policy,
    }
}

fn start_watches(
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
        watched_pods_node: options.watch_host_ports.then_some(options.node_name.as_str()),
    };
    let metrics = health.metrics.api.clone();
    let triggers = TriggerSender { sender, list_completed: Trigger::ListCompleted, metrics };
    Stores::start_watches(client, &scope, &triggers)
}

fn remove_data_path(kernel: &dyn NodeKernel) {
    match kernel.remove_data_path() {
        Ok(()) => tracing::info!("the agent was uninstalled from this node; its rules were removed"),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "cannot remove the rules of the agent");
        }
    }
}

/// Starts a thread that sends a trigger when an interface or an address of the node changes.
fn watch_host(watch: HostWatch, sender: mpsc::UnboundedSender<Trigger>) -> Result<(), RunError> {
    let send_triggers = move || {
        loop {
            // If a signal interrupts the wait, the loop waits again.
            let _ = poll(&mut [PollFd::new(&watch, PollFlags::IN)], None);
            let has_changes = watch.has_changes().unwrap_or_else(|error| {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the notifications about the node's network"
                );
                true
            });
            // The send fails only when the agent stops.
            if has_changes && sender.send(Trigger::HostNetwork).is_err() {
                return;
            }
            std::thread::sleep(HOST_CHANGE_INTERVAL);
        }
    };
    std::thread::Builder::new().name("host".to_owned()).spawn(send_triggers).map_err(RunError::Thread)?;
    Ok(())
}

/// Waits for triggers. If a call is cancelled, its triggers are not lost.
async fn receive_triggers(
    triggers: &mut mpsc::UnboundedReceiver<Trigger>,
) -> Result<Vec<Trigger>, WatchEnded> {
    let mut batch = Vec::new();
    if triggers.recv_many(&mut batch, MAX_TRIGGERS_PER_BATCH).await == 0 {
        return Err(WatchEnded);
    }
    Ok(batch)
}

/// Waits until a time. If the time is `None`, waits forever.
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
