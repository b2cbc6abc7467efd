//! The life of a proxy: rules in, then watch over them and answer probes until told to stop.

use std::rc::Rc;
use std::time::Duration;

use contract::ProxyArgs;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::forwarding::{self, ForwardingError};
use crate::keeper::Keeper;
use crate::netlink::Socket;
use crate::nft::kernel::{self, NftError};
use crate::plan::{Family, Plan, PlanError};
use crate::ready;

/// Shortest time between two looks at the rules, whoever changes tables how often; well below a second.
const PAUSE: Duration = Duration::from_millis(100);
/// When to try again after the rules could not be put back.
const RETRY: Duration = Duration::from_millis(500);

/// Why a proxy can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments contradict each other.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Packets would not be passed on.
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
    /// The rules are not in the kernel.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The probe's port is taken, or not allowed.
    #[error("--probe-port {0}: cannot listen: {1}")]
    Probe(u16, std::io::Error),
    /// The process itself could not be set up.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// Does nothing until SIGTERM or SIGINT.
pub fn reserve() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let told = told_to_stop()?;
        tracing::info!("keeping the pod's ports from others; kube-proxy answers");
        told.await;
        Ok(())
    })
}

/// Forwards as `args` say until SIGTERM or SIGINT; leaves the rules in place, so that flows live on.
pub fn run(args: &ProxyArgs) -> Result<(), Error> {
    let plan = Plan::new(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, live(plan, args.probe_port))
}

async fn live(plan: Plan, probe_port: u16) -> Result<(), Error> {
    // Before anything takes time: as a container's first process, it would miss signals without a handler.
    let told = told_to_stop()?;
    forwarding::ensure(&plan)?;
    let ports = Family::ALL.map(|family| plan.forwards(family).count()).iter().sum::<usize>();
    let restricted = plan.sources().is_some();
    let keeper = Rc::new(Keeper::install(plan)?);
    tracing::info!(ports, restricted, "forwarding");
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that lie about their descriptor; ours owns it"
    )]
    let watch = AsyncFd::new(kernel::watch()?)?;
    let listener = ready::listener(probe_port).and_then(TcpListener::from_std);
    let listener = listener.map_err(|error| Error::Probe(probe_port, error))?;
    // Exiting at once is best: the kernel goes on forwarding for as long as the pod's network lives, and the
    // pod's successor can have its ports only after that.
    tokio::select! {
        () = told => {}
        () = ready::answer_probes(listener, Rc::clone(&keeper)) => {}
        () = keep(&keeper, &watch) => {}
    }
    tracing::info!("stopping; the rules stay");
    Ok(())
}

fn told_to_stop() -> Result<impl Future<Output = ()>, Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Puts the rules back whenever somebody else changed them; never ends.
async fn keep(keeper: &Keeper, watch: &AsyncFd<Socket>) {
    let mut fresh = true;
    loop {
        match keeper.restore() {
            Ok(false) => {}
            Ok(true) => {
                fresh = true;
                tracing::warn!("the rules had been changed by somebody else: put back");
            }
            Err(error) => {
                tracing::error!(%error, "cannot put the rules back");
                sleep(RETRY).await;
                continue;
            }
        }
        sleep(PAUSE).await;
        if std::mem::take(&mut fresh) {
            // Once more, for packets that were under way when the rules changed.
            keeper.end_stale_flows();
        }
        match watch.readable().await {
            // Emptied before the next look, so that no change after it goes unnoticed.
            Ok(mut ready) => {
                watch.get_ref().drain();
                ready.clear_ready();
            }
            Err(_) => sleep(RETRY).await,
        }
    }
}
