//! Clients that one worker has accepted and another one serves, which has fewer: the kernel deals them out by chance, and
//! of two that move much data each should have a processor.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A client that has been let in: the port's place in the list of ports, and the connection with the client's address.
pub(super) type Client = (usize, OwnedFd, SocketAddr);

/// Where others leave clients for a worker.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Connections of the worker, those included that wait here.
    load: AtomicUsize,
    /// `None` once the worker takes no more.
    waiting: Mutex<Option<Vec<Client>>>,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self { load: AtomicUsize::new(0), waiting: Mutex::new(Some(Vec::new())) }
    }

    pub(super) fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// The worker has one connection more.
    pub(super) fn begun(&self) {
        self.load.fetch_add(1, Relaxed);
    }

    /// And one less.
    pub(super) fn ended(&self) {
        self.load.fetch_sub(1, Relaxed);
    }

    /// Leaves a client here; gives it back if the worker takes no more.
    pub(super) fn leave(&self, client: Client) -> Option<Client> {
        match self.waiting().as_mut() {
            Some(waiting) => {
                waiting.push(client);
                self.begun();
                None
            }
            None => Some(client),
        }
    }

    /// Takes those who wait.
    pub(super) fn take(&self) -> Vec<Client> {
        self.waiting().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes those who wait, and lets nobody be left here any more.
    pub(super) fn close(&self) -> Vec<Client> {
        self.waiting().take().unwrap_or_default()
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Client>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which worker should serve a client that worker `own` has accepted, if not itself: the one with the fewest connections.
pub(super) fn least_loaded(desks: &[Inbox], own: usize) -> Option<usize> {
    let load = |at: usize| desks.get(at).map(Inbox::load);
    let least = (0..desks.len()).min_by_key(|&at| load(at))?;
    (load(least) < load(own)).then_some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_fewest_gets_the_next_and_who_has_no_more_keeps_it() {
        let desks = [2, 1, 2].map(|load| {
            let desk = Inbox::new();
            (0..load).for_each(|_| desk.begun());
            desk
        });
        assert_eq!(
            (least_loaded(&desks, 0), least_loaded(&desks, 1), least_loaded(&desks, 2)),
            (Some(1), None, Some(1))
        );
        desks[1].begun();
        assert_eq!(least_loaded(&desks, 0), None);
    }

    #[test]
    fn nothing_is_lost_at_a_desk_that_closes() {
        let client = || (0, std::fs::File::open("/dev/null").unwrap().into(), "192.0.2.1:1".parse().unwrap());
        let desk = Inbox::new();
        assert!(desk.leave(client()).is_none());
        assert_eq!((desk.load(), desk.take().len(), desk.take().len()), (1, 1, 0));
        assert!(desk.leave(client()).is_none());
        assert_eq!(desk.close().len(), 1);
        assert!(desk.leave(client()).is_some());
    }
}
