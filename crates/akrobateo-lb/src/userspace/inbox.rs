//! Hands accepted clients from one worker to another. No I/O.
//!
//! The kernel distributes clients among the workers by a hash of the addresses. To balance the load, a worker passes a
//! client to the worker with the fewest connections. Without this step, one worker could serve two busy connections
//! while other workers are idle.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A client that has been accepted and that the source ranges allow.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) port_index: usize,
    pub(super) socket: OwnedFd,
    pub(super) address: SocketAddr,
}

/// The clients that other workers accepted for one worker.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Number of connections of the worker, including the clients in this inbox.
    connection_count: AtomicUsize,
    clients: Mutex<Vec<Client>>,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self { connection_count: AtomicUsize::new(0), clients: Mutex::new(Vec::new()) }
    }

    /// Returns the number of connections of the worker.
    pub(super) fn connection_count(&self) -> usize {
        self.connection_count.load(Relaxed)
    }

    /// Adds one to the number of connections of the worker.
    pub(super) fn increment_connection_count(&self) {
        self.connection_count.fetch_add(1, Relaxed);
    }

    /// Subtracts one from the number of connections of the worker.
    pub(super) fn decrement_connection_count(&self) {
        self.connection_count.fetch_sub(1, Relaxed);
    }

    /// Adds a client.
    pub(super) fn push(&self, client: Client) {
        self.increment_connection_count();
        self.lock().push(client);
    }

    /// Removes and returns all clients.
    pub(super) fn take_clients(&self) -> Vec<Client> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the index of the worker with the fewest connections. Returns `None` if no worker has fewer connections than
/// the worker with the index `accepting_worker_index`.
pub(super) fn find_least_loaded_worker(inboxes: &[Inbox], accepting_worker_index: usize) -> Option<usize> {
    let connection_count = |worker_index: usize| inboxes.get(worker_index).map(Inbox::connection_count);
    let least_loaded_worker =
        (0..inboxes.len()).min_by_key(|&worker_index| connection_count(worker_index))?;
    (connection_count(least_loaded_worker) < connection_count(accepting_worker_index))
        .then_some(least_loaded_worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_passed_only_to_a_worker_with_fewer_connections() {
        let inboxes = [2, 1, 2].map(|connection_count| {
            let inbox = Inbox::new();
            (0..connection_count).for_each(|_| inbox.increment_connection_count());
            inbox
        });
        assert_eq!(
            [0, 1, 2]
                .map(|accepting_worker_index| find_least_loaded_worker(&inboxes, accepting_worker_index)),
            [Some(1), None, Some(1)]
        );
        inboxes[1].increment_connection_count();
        assert_eq!(find_least_loaded_worker(&inboxes, 0), None);
    }

    #[test]
    fn take_clients_returns_each_client_once() {
        let client = || Client {
            port_index: 0,
            socket: std::fs::File::open("/dev/null").unwrap().into(),
            address: "192.0.2.1:1".parse().unwrap(),
        };
        let inbox = Inbox::new();
        inbox.push(client());
        assert_eq!(
            (inbox.connection_count(), inbox.take_clients().len(), inbox.take_clients().len()),
            (1, 1, 0)
        );
    }
}
