//! What the threads of a proxy share.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use rustix::io::write;

use super::inbox::Inbox;
use super::ports::Port;
use crate::sources::Sources;

/// What all workers know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ports: Box<[Port]>,
    /// The clients that are let in; `None` for everybody.
    pub(super) sources: Option<Sources>,
    pub(super) connections: Quota,
    pub(super) flows: Quota,
    /// Nothing new is let in any more.
    pub(super) draining: AtomicBool,
    /// Where each worker's clients are counted, and left by others.
    pub(super) desks: Box<[Inbox]>,
    /// By which each worker is told that something here has changed.
    pub(super) wakers: Box<[OwnedFd]>,
}

impl Shared {
    /// Has a worker look at what has changed.
    pub(super) fn wake(&self, worker: usize) {
        if let Some(waker) = self.wakers.get(worker) {
            // Fails only where the worker has been woken already.
            let _ = write(waker, &1_u64.to_ne_bytes());
        }
    }
}

/// A number of things that may exist at a time.
#[derive(Debug)]
pub(super) struct Quota {
    limit: usize,
    taken: AtomicUsize,
}

impl Quota {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, taken: AtomicUsize::new(0) }
    }

    /// Takes a place, if one is free.
    pub(super) fn enter(&self) -> bool {
        let free = self.taken.fetch_add(1, Relaxed) < self.limit;
        if !free {
            self.left();
        }
        free
    }

    /// Gives a place back.
    pub(super) fn left(&self) {
        self.taken.fetch_sub(1, Relaxed);
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}
