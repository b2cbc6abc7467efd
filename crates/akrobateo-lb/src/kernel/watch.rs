//! What goes on for as long as the kernel path lives: what others change is put back, pressure is reported.

use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::path::KernelPath;
use crate::ip_forwarding;
use crate::run::Error;
use netfilter::conntrack::Statistics;
use netfilter::netlink::Socket;
use netfilter::nft;

/// Shortest time between two looks, whoever changes things how often; well below a second.
const PAUSE: Duration = Duration::from_millis(100);
/// When to try again what failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often the figures of connection tracking are looked at, so the most warnings about them.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(5);

/// Hears of changes of rules.
pub(super) fn rules() -> Result<AsyncFd<Socket>, Error> {
    Ok(watched(nft::client::watch()?)?)
}

/// Hears of changes of interfaces and of their forwarding switches.
pub(super) fn switches() -> Result<AsyncFd<Socket>, Error> {
    Ok(watched(ip_forwarding::watch().map_err(Error::Watch)?)?)
}

fn watched(socket: Socket) -> std::io::Result<AsyncFd<Socket>> {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that lie about their descriptor; ours owns it"
    )]
    AsyncFd::new(socket)
}

/// Waits until something changed since the last call; then empties the socket, before the caller looks, so that
/// no change after that goes unnoticed.
async fn changed(watch: &AsyncFd<Socket>) {
    match watch.readable().await {
        Ok(mut ready) => {
            watch.get_ref().drain();
            ready.clear_ready();
        }
        Err(_) => sleep(RETRY).await,
    }
}

/// Puts the rules back whenever somebody else changed them; never ends.
pub(super) async fn reconcile_rules(path: &KernelPath, watch: &AsyncFd<Socket>) {
    let mut fresh = true;
    loop {
        match path.keeper.restore() {
            Ok(false) => {}
            Ok(true) => {
                fresh = true;
                path.restored.set(path.restored.get() + 1);
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
            path.keeper.delete_stale_flows();
        }
        changed(watch).await;
    }
}

/// Switches forwarding on again whenever somebody else switched it off; never ends.
pub(super) async fn reconcile_sysctls(path: &KernelPath, watch: &AsyncFd<Socket>) {
    let mut told = false;
    loop {
        match ip_forwarding::ensure(path.keeper.plan()) {
            Ok(()) => told = false,
            // What nobody but a privileged container can mend stays so for long.
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::error!(%error, "packets are not passed on");
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
        changed(watch).await;
    }
}

const FULL: &str =
    "the connection table is full (net.netfilter.nf_conntrack_max): new connections are dropped";
const CLASHING: &str = "new connections were dropped for others have their addresses and ports: towards one target, \
                        source ports may be used up";

/// Tells when packets are lost in connection tracking, in the log and to who probes; never ends.
pub(super) async fn report_conntrack_pressure(path: &KernelPath) {
    let mut before: Option<Statistics> = None;
    let mut told = false;
    loop {
        match path.keeper.flows().statistics() {
            Ok(now) => {
                if let Some(before) = before.replace(now) {
                    path.conntrack_warning.set(report(&now.since(&before)));
                }
            }
            // A kernel without them won't have them later.
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(%error, "cannot tell when the connection table is full or source ports are used up");
            }
            Err(_) => {}
        }
        sleep(PRESSURE_INTERVAL).await;
    }
}

fn report(lost: &Statistics) -> Option<&'static str> {
    let Statistics { entries, max, insert_failed, early_drop, .. } = *lost;
    let limit = max.unwrap_or(0);
    if insert_failed > 0 {
        tracing::warn!(dropped = insert_failed, "{CLASHING}");
    }
    if lost.full() > 0 || early_drop > 0 {
        tracing::warn!(dropped = lost.full(), evicted = early_drop, entries, limit, "{FULL}");
        return Some(FULL);
    }
    (insert_failed > 0).then_some(CLASHING)
}
