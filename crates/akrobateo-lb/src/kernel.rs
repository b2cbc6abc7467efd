//! The kernel path: rules in, then watch over them and answer probes until told to stop.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::keeper::Keeper;
use crate::netlink::Socket;
use crate::plan::{Family, Plan};
use crate::run::{Error, listen};
use crate::{forwarding, nft, probe};

/// Shortest time between two looks at the rules, whoever changes tables how often; well below a second.
const PAUSE: Duration = Duration::from_millis(100);
/// When to try again after the rules could not be put back.
const RETRY: Duration = Duration::from_millis(500);

/// Forwards until `told`; leaves the rules in place, so that flows live on.
pub async fn live(plan: Plan, probe_port: u16, told: impl Future<Output = ()>) -> Result<(), Error> {
    forwarding::ensure(&plan)?;
    let ports = Family::ALL.map(|family| plan.forwards(family).count()).iter().sum::<usize>();
    let restricted = plan.sources().is_some();
    let keeper = Rc::new(Keeper::install(plan)?);
    tracing::info!(ports, restricted, "forwarding");
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that lie about their descriptor; ours owns it"
    )]
    let watch = AsyncFd::new(nft::kernel::watch()?)?;
    let listener = listen(probe_port)?;
    // Exiting at once is best: the kernel goes on forwarding for as long as the pod's network lives, and the
    // pod's successor can have its ports only after that.
    tokio::select! {
        () = told => {}
        () = probe::answer(listener, Rc::clone(&keeper)) => {}
        () = keep(&keeper, &watch) => {}
    }
    tracing::info!("stopping; the rules stay");
    Ok(())
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
