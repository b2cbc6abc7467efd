//! The operator's life: connect, watch, lead, take turns until told to stop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::apply::{ApplyError, Writer};
use crate::cache::WatchEnded;
use crate::client::{ConnectError, connect};
use crate::decide::ServiceState;
use crate::http::{self, Health};
use crate::key::ServiceKey;
use crate::kube_proxy::auto_ip_mode;
use crate::lease::Election;
use crate::metrics::{Metrics, ReconcileLabels};
use crate::planner::Planner;
use crate::queue::{Outcome, Queue};
use crate::reconcile::{Context, reconcile};
use crate::settings::{OperatorConfig, ResolvedConfig};

/// How long turns that have begun may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// Why the operator does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection to a cluster.
    #[error("no connection to a cluster")]
    Connect(#[from] ConnectError),
    /// The address for probes and metrics is not to be had.
    #[error("cannot answer on {0}; --http-address chooses another address")]
    Http(std::net::SocketAddr, #[source] std::io::Error),
    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signal(#[from] std::io::Error),
    /// A watch is gone.
    #[error(transparent)]
    Watch(#[from] WatchEnded),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: OperatorConfig) -> Result<(), StartError> {
    let metrics = Metrics::new();
    let health = Arc::new(Health { ready: AtomicBool::new(false), metrics: metrics.clone() });
    let listener = TcpListener::bind(settings.http_address).await;
    let listener = listener.map_err(|error| StartError::Http(settings.http_address, error))?;
    tokio::spawn(http::serve(listener, health.clone()));
    let mut stop = Box::pin(stop_signal()?);

    let (client, own_namespace) = connect(&settings).await?;
    let ip_mode = async {
        match settings.ip_mode() {
            Some(ip_mode) => ip_mode,
            None => auto_ip_mode(&client, &metrics).await,
        }
    };
    let ip_mode = tokio::select! {
        ip_mode = ip_mode => ip_mode,
        () = &mut stop => return Ok(()),
    };
    let ResolvedConfig { proxies, defaults } = settings.resolve(&own_namespace, ip_mode);
    let (defaults, watch_namespace) = (Arc::new(defaults), settings.watch_namespace());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        watch_namespace = watch_namespace.unwrap_or("(all)"),
        lb_namespace = %proxies.placement,
        lb_image = settings.lb_image,
        "starting"
    );
    let mut world = Planner::watch(&client, watch_namespace, &proxies.placement, defaults.clone(), &metrics);
    let election = Election::new(client.clone(), &own_namespace, identity(), metrics.clone());
    let context = Context {
        writer: Writer::new(client, metrics.clone()),
        settings: proxies,
        defaults,
        metrics: metrics.clone(),
    };
    tokio::select! {
        complete = world.complete() => complete?,
        () = &mut stop => return Ok(()),
    }
    health.ready.store(true, Ordering::Relaxed);
    lead(world, context, &election, stop).await
}

/// Waits for this replica's time as the leader, and uses it; again whenever that time has ended.
async fn lead(
    mut world: Planner,
    context: Context,
    election: &Election,
    mut stop: Pin<Box<impl Future<Output = ()>>>,
) -> Result<(), StartError> {
    let context = Arc::new(context);
    loop {
        tokio::select! {
            () = election.acquire() => (),
            ended = world.discard_until_leader() => return Err(ended.into()),
            () = &mut stop => return Ok(()),
        }
        tracing::info!("leading");
        context.metrics.leader.set(1.0);
        tokio::select! {
            // What has been begun is dropped where it is: another replica may write now, so this one must not.
            () = election.keep() => {
                tracing::warn!("lost the Lease, or could not renew it in time: no longer leading");
                context.metrics.on_lost_leadership();
            }
            ended = reconcile_changes(&mut world, &context, &mut stop) => {
                ended?;
                break;
            }
        }
    }
    if let Err(error) = election.release().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot give up the Lease; others wait for its end"
        );
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reconciles whatever changes, until `stop`; what has begun by then is brought to its end.
async fn reconcile_changes(
    world: &mut Planner,
    context: &Arc<Context>,
    mut stop: impl Future<Output = ()> + Unpin,
) -> Result<(), WatchEnded> {
    let mut queue = Queue::new();
    world.everything().into_iter().for_each(|key| queue.add(key));
    loop {
        tokio::select! {
            concerned = world.changed() => concerned?.into_iter().for_each(|key| queue.add(key)),
            key = queue.next() => {
                let now = Timestamp::now();
                let observed = world.observe(&key, now);
                queue.start(key.clone(), turn(context.clone(), observed, key, now));
            }
            () = &mut stop => break,
        }
    }
    if timeout(DRAIN, queue.drain()).await.is_err() {
        tracing::warn!("stopping although some calls to the API server have not ended");
    }
    Ok(())
}

async fn turn(context: Arc<Context>, observed: ServiceState, key: ServiceKey, now: Timestamp) -> Outcome {
    let begin = Instant::now();
    let done = reconcile(&context, &key, &observed, now).await;
    context.metrics.turn_seconds.observe(begin.elapsed().as_secs_f64());
    let result = done.as_ref().map_or_else(ApplyError::step, |_| "ok");
    context.metrics.turns.get_or_create(&ReconcileLabels { result }).inc();
    match done {
        Ok(None) => Outcome::Done,
        Ok(Some(again)) => Outcome::Again(Duration::try_from(again.duration_since(now)).unwrap_or_default()),
        Err(error) => {
            tracing::warn!(service = %key, error = &error as &dyn std::error::Error, "failed, will try again");
            Outcome::Failed
        }
    }
}

/// The host's name, in a pod the pod's, with what no other process there has or had.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}_{}", host.trim(), std::process::id(), Timestamp::now().as_nanosecond())
}

/// Ends with SIGTERM, as from the kubelet, or SIGINT, as from a terminal.
fn stop_signal() -> Result<impl Future<Output = ()>, StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    })
}
