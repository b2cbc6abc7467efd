//! The state that all workers of a proxy share. The only I/O is a write that wakes a worker.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use rustix::io::write;

use super::inbox::{Client, Inbox, least_loaded};
use super::port::Port;
use super::quota::Quota;
use crate::source_ranges::SourceRanges;

/// The state that all workers of a proxy share.
#[derive(Debug)]
pub(super) struct SharedState {
    /// The forwarded ports. Each `port_index` of the userspace path is an index into this list.
    pub(super) ports: Box<[Port]>,
    /// The source ranges; `None` allows all clients.
    pub(super) sources: Option<SourceRanges>,
    /// The TCP connections of all workers.
    pub(super) connections: Quota,
    /// The UDP sessions of all workers.
    pub(super) udp_sessions: Quota,
    /// Set once, when the proxy must accept no new clients.
    pub(super) draining: AtomicBool,
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

    /// Wakes a worker, so that it checks its inbox and the flag `draining`.
    pub(super) fn wake_worker(&self, worker: usize) {
        if let Some(waker) = self.wakers.get(worker) {
            // Fails only if the worker has been woken already.
            let _ = write(waker, &1_u64.to_ne_bytes());
        }
    }

    /// Takes a client from `own_worker`, and passes the client to the worker with the fewest connections. Returns the
    /// client if `own_worker` should serve it.
    pub(super) fn push_to_least_loaded(&self, own_worker: usize, client: Client) -> Option<Client> {
        let Some(worker) = least_loaded(&self.inboxes, own_worker) else { return Some(client) };
        let returned_client = self.inboxes[worker].push(client);
        if returned_client.is_none() {
            self.wake_worker(worker);
        }
        returned_client
    }
}
