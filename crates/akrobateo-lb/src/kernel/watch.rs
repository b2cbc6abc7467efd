//! The background tasks of the kernel data path: restore rules and sysctls, and watch conntrack. Does I/O.

use std::time::Duration;

use netfilter::conntrack::Statistics;
use netfilter::netlink::Socket;
use netfilter::nft;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::conntrack_loss::ConntrackLoss;
use super::log_once::LogOnce;
use super::path::KernelPath;
use crate::error::Error;
use crate::ip_forwarding;

/// The shortest time between two checks, regardless of how often changes are reported. The proxy must undo changes
/// within one second, so this time is much shorter.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The pause after an error.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The time between two reads of conntrack's statistics. Warnings about drops have the same interval.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);

/// Opens a watch of nftables rules.
pub(super) fn open_rules_watch() -> Result<AsyncFd<Socket>, Error> {
    Ok(to_async_fd(nft::watch::open_socket()?)?)
}

/// Opens a watch of network interfaces and their forwarding sysctls.
pub(super) fn open_sysctls_watch() -> Result<AsyncFd<Socket>, Error> {
    Ok(to_async_fd(ip_forwarding::open_watch().map_err(Error::WatchInterfaces)?)?)
}

fn to_async_fd(socket: Socket) -> std::io::Result<AsyncFd<Socket>> {
    #[expect(
        deprecated,
        reason = "the newer function is unsafe, and `Socket` does not need it, \
                  because `Socket` owns its descriptor"
    )]
    AsyncFd::new(socket)
}

/// Waits until the kernel reports a change, and discards the reports in the socket. If a change is reported during the
/// caller's check, the next call returns at once.
async fn wait_for_change(watch: &AsyncFd<Socket>) {
    match watch.readable().await {
        Ok(mut guard) => {
            watch.get_ref().discard_received();
            guard.clear_ready();
        }
        Err(_) => sleep(RETRY_DELAY).await,
    }
}

/// Restores the rules whenever another program changes them; never returns.
pub(super) async fn reconcile_rules(path: &KernelPath, watch: &AsyncFd<Socket>) {
    let mut is_new_table = true;
    loop {
        match path.table_manager.restore() {
            Ok(false) => {}
            Ok(true) => {
                is_new_table = true;
                path.rule_restoration_count.set(path.rule_restoration_count.get() + 1);
                tracing::warn!("another program changed the rules in the kernel; restored them");
            }
            Err(error) => {
                tracing::error!(%error, "cannot restore the rules in the kernel; will retry");
                sleep(RETRY_DELAY).await;
                continue;
            }
        }
        sleep(MIN_CHECK_INTERVAL).await;
        if std::mem::take(&mut is_new_table) {
            // Deletes stale flows again, because packets during the replacement of the table may have created new stale
            // flows.
            path.table_manager.delete_stale_flows();
        }
        wait_for_change(watch).await;
    }
}

/// Switches IPv4 forwarding on whenever another program switches it off; never returns.
pub(super) async fn reconcile_sysctls(path: &KernelPath, watch: &AsyncFd<Socket>) {
    // Only a privileged container can switch IPv6 forwarding on. An error about IPv6 forwarding may therefore persist
    // for a long time, and the proxy logs this error only once.
    let (mut log_error_once, mut log_ipv6_problem_once) = (LogOnce::default(), LogOnce::default());
    loop {
        match ip_forwarding::find_ipv6_problem(path.table_manager.config()) {
            None => log_ipv6_problem_once.reset(),
            Some(problem) => {
                if log_ipv6_problem_once.permit_message() {
                    tracing::warn!("{problem}");
                }
            }
        }
        match ip_forwarding::ensure_enabled(path.table_manager.config()) {
            Ok(()) => log_error_once.reset(),
            Err(error) => {
                if log_error_once.permit_message() {
                    tracing::error!(%error, "the kernel does not forward packets");
                }
            }
        }
        sleep(MIN_CHECK_INTERVAL).await;
        wait_for_change(watch).await;
    }
}

/// Reports packets that conntrack drops: writes a log message and sets the path's warning; never returns.
pub(super) async fn report_conntrack_losses(path: &KernelPath) {
    let mut previous_statistics: Option<Statistics> = None;
    let mut log_error_once = LogOnce::default();
    loop {
        match path.table_manager.conntrack().statistics() {
            Ok(current) => {
                if let Some(previous) = previous_statistics.replace(current) {
                    let recent_statistics = current.increase_since(&previous);
                    log_conntrack_losses(&recent_statistics);
                    path.conntrack_loss.set(ConntrackLoss::find_most_serious_loss(&recent_statistics));
                }
            }
            Err(error) => {
                // The proxy logs the error only once, because a kernel without statistics never provides statistics.
                if log_error_once.permit_message() {
                    tracing::warn!(
                        %error,
                        "cannot read conntrack's statistics; a full conntrack table will not be reported"
                    );
                }
            }
        }
        sleep(STATISTICS_INTERVAL).await;
    }
}

fn log_conntrack_losses(recent_statistics: &Statistics) {
    let Statistics { entries, max_entries, failed_insertions, evictions, .. } = *recent_statistics;
    if failed_insertions > 0 {
        tracing::warn!(dropped = failed_insertions, "{}", ConntrackLoss::Clash.as_str());
    }
    let dropped = recent_statistics.table_full_drops();
    if dropped > 0 || evictions > 0 {
        let limit = max_entries.unwrap_or(0);
        let evicted = evictions;
        tracing::warn!(dropped, evicted, entries, limit, "{}", ConntrackLoss::TableFull.as_str());
    }
}
