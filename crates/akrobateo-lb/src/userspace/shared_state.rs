//! The state that all workers of a proxy share. The only I/O is a write that wakes a worker.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::write;

use super::drain::DrainState;
use super::inbox::{Client, Inbox, find_least_loaded_worker};
use super::port::Port;
use super::quota::Quota;
use super::watchdog::Watchdog;
use crate::source_ranges::SourceRanges;

/// The state that all workers of a proxy share.
#[derive(Debug)]
pub(super) struct SharedState {
    /// The forwarded ports. Each `port_index` of the userspace path is an index into this list.
    pub(super) ports: Box<[Port]>,
    /// The source ranges; `None` allows all clients.
    pub(super) sources: Option<SourceRanges>,
    /// The limit of the TCP connections of all workers.
    pub(super) connection_quota: Quota,
    /// True if a client waits because the connection limit is reached.
    pub(super) has_waiting_clients: AtomicBool,
    /// The limit of the UDP sessions of all workers.
    pub(super) udp_session_quota: Quota,
    /// The proxy's phase, and the progress of its workers.
    pub(super) drain: DrainState,
    /// Detects workers that no longer run.
    pub(super) watchdog: Watchdog,
    /// One inbox per worker, by the worker's index.
    pub(super) inboxes: Box<[Inbox]>,
    /// One eventfd per worker, by the worker's index.
    pub(super) wakers: Box<[OwnedFd]>,
}

impl SharedState {
    /// Returns true if the source ranges allow a client.
    pub(super) fn allows(&self, client: IpAddr) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.allows(client))
    }

    /// Makes a worker check its inbox and the proxy's phase.
    pub(super) fn wake_worker(&self, worker_index: usize) {
        if let Some(waker) = self.wakers.get(worker_index) {
            // The call fails only if the eventfd's counter is full. The worker has then been woken already.
            let _ = write(waker, &1_u64.to_ne_bytes());
        }
    }

    /// Records that a client waits at the connection limit. Wakes the workers, so that the workers close connections
    /// that have been idle for a long time.
    pub(super) fn record_waiting_client(&self) {
        if !self.has_waiting_clients.swap(true, Relaxed) {
            self.wake_all_workers();
        }
    }

    /// Wakes each worker, as [`Self::wake_worker`] does.
    pub(super) fn wake_all_workers(&self) {
        for worker_index in 0..self.wakers.len() {
            self.wake_worker(worker_index);
        }
    }

    /// Passes a client from the worker with the index `accepting_worker_index` to the worker with the fewest
    /// connections. Returns the client if the worker that has accepted the connection should also serve it.
    pub(super) fn pass_to_least_loaded_worker(
        &self,
        accepting_worker_index: usize,
        client: Client,
    ) -> Option<Client> {
        let Some(worker_index) = find_least_loaded_worker(&self.inboxes, accepting_worker_index) else {
            return Some(client);
        };
        self.inboxes[worker_index].push(client);
        self.wake_worker(worker_index);
        None
    }
}

#[cfg(test)]
impl SharedState {
    /// Returns the state of a proxy with one worker and no ports.
    pub(super) fn for_test() -> Self {
        use rustix::event::{EventfdFlags, eventfd};
        Self {
            ports: Box::new([]),
            sources: None,
            connection_quota: super::quota::Quota::new(1),
            has_waiting_clients: AtomicBool::new(false),
            udp_session_quota: super::quota::Quota::new(1),
            drain: DrainState::new(1),
            watchdog: Watchdog::new(1),
            inboxes: Box::new([Inbox::new()]),
            wakers: Box::new([eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()]),
        }
    }
}
