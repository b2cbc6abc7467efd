//! Runs the operator: connects, starts the watches, waits for leadership, and reconciles until a signal. Does I/O.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use admin_server::program::serve_program;
use akrobateo_services::key::ServiceKey;
use api_client::{ConnectError, connect};
use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::apply::{ApplyError, Writer};
use crate::cache::{WatchEnded, WatchScope};
use crate::decide::{ProxyNamespaceMismatch, ServiceState};
use crate::host_name::host_name;
use crate::http::OperatorState;
use crate::kube_proxy::start_vip_danger_detection;
use crate::lease::LeaderElector;
use crate::metrics::{Metrics, ReconcileLabels};
use crate::planner::Planner;
use crate::queue::{Outcome, Queue};
use crate::reconcile::{Context, reconcile};
use crate::settings::DEFAULT_OPERATOR_NAMESPACE;
use crate::settings::{OperatorConfig, ResolvedConfig};

#[cfg(test)]
mod tests;

/// The longest time for which the operator waits for the running reconciliations after the stop signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// The reason why the operator cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client of the API server cannot be created.
    #[error("cannot connect to a cluster")]
    Connect(#[from] ConnectError),
    /// The address for probes and metrics cannot be used.
    #[error("cannot listen on {0} for probes and metrics; --http-address sets another address")]
    Http(std::net::SocketAddr, #[source] std::io::Error),
    /// The handlers of SIGTERM and SIGINT cannot be installed.
    #[error("cannot install the handlers of SIGTERM and SIGINT")]
    Signal(#[from] std::io::Error),
    /// The proxies are in a namespace that this operator does not manage.
    #[error(transparent)]
    ProxyNamespaceMismatch(#[from] ProxyNamespaceMismatch),
    /// The cache is no longer updated.
    #[error(transparent)]
    Watch(#[from] WatchEnded),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: OperatorConfig) -> Result<(), RunError> {
    let metrics = Metrics::new();
    let operator_state =
        Arc::new(OperatorState { is_ready: AtomicBool::new(false), metrics: metrics.clone() });
    let listener = TcpListener::bind(config.http_address).await;
    let listener = listener.map_err(|error| RunError::Http(config.http_address, error))?;
    tokio::spawn(serve_program(listener, operator_state.clone()));
    let mut shutdown = Box::pin(shutdown_signal()?);

    let (client, pod_namespace) = connect(&config.connection).await?;
    let ResolvedConfig { proxy_config, defaults } = config.resolve();
    let operator_namespace = pod_namespace.unwrap_or_else(|| DEFAULT_OPERATOR_NAMESPACE.to_owned());
    let vip_danger_detection = async {
        if defaults.must_detect_vip_danger() {
            Some(start_vip_danger_detection(&client, &metrics).await)
        } else {
            None
        }
    };
    let vip_danger_receiver = tokio::select! {
        receiver = vip_danger_detection => receiver,
        () = &mut shutdown => return Ok(()),
    };
    let (defaults, watch_namespace) = (Arc::new(defaults), config.watch_namespace());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        watch_namespace = watch_namespace.unwrap_or("(all)"),
        lb_namespace = %proxy_config.proxy_namespace,
        lb_image = proxy_config.image,
        "starting"
    );
    let elector = LeaderElector::new(
        client.clone(),
        &operator_namespace,
        &proxy_config,
        unique_identity(),
        metrics.clone(),
    );
    let recorded_namespace = tokio::select! {
        namespace = elector.recorded_proxy_namespace() => namespace,
        () = &mut shutdown => return Ok(()),
    };
    proxy_config.check_proxy_namespace(recorded_namespace.as_deref())?;
    let has_proxies = defaults.allows_dedicated_proxies;
    let scope = WatchScope { watch_namespace, operator_namespace: &operator_namespace, has_proxies };
    let mut planner = Planner::watch(&client, &scope, &proxy_config, defaults, &metrics);
    if let Some(receiver) = vip_danger_receiver {
        planner = planner.with_vip_danger(receiver);
    }
    let writer = Writer::new(client, &proxy_config.instance, metrics.clone());
    let context = Context::new(writer, proxy_config, metrics.clone());
    tokio::select! {
        synced = planner.wait_until_synced() => synced?,
        () = &mut shutdown => return Ok(()),
    }
    operator_state.is_ready.store(true, Ordering::Relaxed);
    run_when_elected(planner, context, &elector, shutdown).await
}

/// Reconciles whenever this replica is the leader. Ends at `shutdown`, and releases the Lease.
async fn run_when_elected(
    mut planner: Planner,
    context: Context,
    elector: &LeaderElector,
    mut shutdown: Pin<Box<impl Future<Output = ()>>>,
) -> Result<(), RunError> {
    let context = Arc::new(context);
    loop {
        let acquired_at = tokio::select! {
            acquired_at = elector.acquire() => acquired_at,
            ended = planner.discard_triggers() => return Err(ended.into()),
            () = &mut shutdown => return Ok(()),
        };
        tracing::info!("this replica is the leader");
        context.metrics.leader.set(1.0);
        tokio::select! {
            // When `hold` ends, `select` cancels the running reconciliations, because another replica may write now.
            () = elector.hold(acquired_at) => {
                tracing::warn!(
                    "lost the Lease: another replica acquired the Lease, or this replica could not renew the Lease in time"
                );
                context.on_lost_leadership();
            }
            result = reconcile_changes(&mut planner, &context, &mut shutdown) => {
                result?;
                break;
            }
        }
    }
    if let Err(error) = elector.release().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot release the Lease; other replicas wait until it expires"
        );
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reconciles all Services once, and then each Service that changes. After `shutdown`, waits for the running
/// reconciliations and returns.
async fn reconcile_changes(
    planner: &mut Planner,
    context: &Arc<Context>,
    mut shutdown: impl Future<Output = ()> + Unpin,
) -> Result<(), WatchEnded> {
    let mut queue = Queue::new();
    planner.resync().into_iter().for_each(|key| queue.add(key));
    loop {
        report_address_errors(planner, context);
        context.metrics.set_agents(&planner.agent_counts());
        tokio::select! {
            services = planner.wait_for_changes() => services?.into_iter().for_each(|key| queue.add(key)),
            key = queue.next() => {
                let now = Timestamp::now();
                let state = planner.service_state(&key, now);
                queue.start(key.clone(), reconcile_and_record(context.clone(), state, key, now));
            }
            () = &mut shutdown => break,
        }
    }
    if timeout(SHUTDOWN_TIMEOUT, queue.drain()).await.is_err() {
        tracing::warn!("shutdown timeout: some API requests are still in flight");
    }
    Ok(())
}

/// Reports new errors in the annotations of nodes, in the log and as events of the nodes.
fn report_address_errors(planner: &mut Planner, context: &Arc<Context>) {
    for address_error in planner.take_address_errors() {
        let context = context.clone();
        tokio::spawn(async move {
            tracing::warn!("{address_error}");
            if let Err(error) = context.writer.emit_address_warning(&address_error, Timestamp::now()).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(node = address_error.node, error, "cannot emit an event of the node");
            }
        });
    }
}

/// Reconciles a Service, and records the result in the metrics and the log.
async fn reconcile_and_record(
    context: Arc<Context>,
    state: ServiceState,
    key: ServiceKey,
    now: Timestamp,
) -> Outcome {
    let start = Instant::now();
    let reconcile_result = reconcile(&context, &key, &state, now).await;
    context.metrics.reconcile_seconds.observe(start.elapsed().as_secs_f64());
    let result = reconcile_result.as_ref().map_or_else(ApplyError::step, |_| "ok");
    context.metrics.reconciliations.get_or_create(&ReconcileLabels { result }).inc();
    match reconcile_result {
        Ok(None) => Outcome::Done,
        Ok(Some(recheck_at)) => {
            Outcome::RequeueAfter(Duration::try_from(recheck_at.duration_since(now)).unwrap_or_default())
        }
        Err(error) => {
            tracing::warn!(service = %key, error = &error as &dyn std::error::Error, "the reconciliation failed; trying again with a backoff");
            Outcome::Failed
        }
    }
}

/// Returns the host name with a suffix that differs for each process.
fn unique_identity() -> String {
    format!("{}_{}_{}", host_name(), std::process::id(), Timestamp::now().as_nanosecond())
}

/// Returns a future that ends at SIGTERM or SIGINT. The kubelet sends SIGTERM, and a terminal sends SIGINT.
fn shutdown_signal() -> Result<impl Future<Output = ()>, RunError> {
    let mut sigterm = signal(SignalKind::terminate())?;
    let mut sigint = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = sigterm.recv() => (),
            _ = sigint.recv() => (),
        }
    })
}
