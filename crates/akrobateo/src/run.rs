//! The operator's life: connect, watch, take turns until told to stop.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::apply::Writer;
use crate::client::{ConnectError, connect};
use crate::decide::ProxySettings;
use crate::health::{self, Ready};
use crate::key::ServiceKey;
use crate::observe::{Observed, WatchEnded, World};
use crate::queue::{Outcome, Queue};
use crate::reconcile::{Context, reconcile};
use crate::settings::Settings;

/// How long turns that have begun may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// Why the operator does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection to a cluster.
    #[error("no connection to a cluster")]
    Connect(#[from] ConnectError),
    /// The address for probes is not to be had.
    #[error("cannot answer probes on {0}; --health-address chooses another address")]
    Health(std::net::SocketAddr, #[source] std::io::Error),
    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signal(#[from] std::io::Error),
    /// A watch is gone.
    #[error(transparent)]
    Watch(#[from] WatchEnded),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> Result<(), StartError> {
    let ready = Ready::default();
    let listener = TcpListener::bind(settings.health_address).await;
    let listener = listener.map_err(|error| StartError::Health(settings.health_address, error))?;
    tokio::spawn(health::serve(listener, ready.clone()));
    let stop = stop_signal()?;

    let (client, own_namespace) = connect(&settings).await?;
    let namespace = settings.lb_namespace.clone().unwrap_or(own_namespace);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        watch_namespace = settings.watched().unwrap_or("(all)"),
        lb_namespace = namespace,
        lb_image = settings.lb_image,
        "starting"
    );
    let world = World::watch(&client, settings.watched(), &namespace);
    let proxies = ProxySettings { namespace, image: settings.lb_image };
    take_turns(world, Context { writer: Writer::new(client), settings: proxies }, &ready, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Reconciles whatever changes, until `stop`; what has begun by then is brought to its end.
async fn take_turns(
    mut world: World,
    context: Context,
    ready: &Ready,
    stop: impl Future<Output = ()>,
) -> Result<(), WatchEnded> {
    let context = Arc::new(context);
    let mut queue = Queue::new();
    let mut stop = pin!(stop);
    tokio::select! {
        complete = world.complete() => complete?,
        () = &mut stop => return Ok(()),
    }
    ready.store(true, Ordering::Relaxed);
    loop {
        tokio::select! {
            concerned = world.changed() => concerned?.into_iter().for_each(|key| queue.add(key)),
            key = queue.next() => queue.start(key.clone(), turn(context.clone(), world.observe(&key), key)),
            () = &mut stop => break,
        }
    }
    if timeout(DRAIN, queue.drain()).await.is_err() {
        tracing::warn!("stopping although some calls to the API server have not ended");
    }
    Ok(())
}

async fn turn(context: Arc<Context>, observed: Observed, key: ServiceKey) -> Outcome {
    match reconcile(&context, &key, &observed).await {
        Ok(()) => Outcome::Done,
        Err(error) => {
            tracing::warn!(service = %key, error = &error as &dyn std::error::Error, "failed, will try again");
            Outcome::Failed
        }
    }
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
