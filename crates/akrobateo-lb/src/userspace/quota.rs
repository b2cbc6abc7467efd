//! A limit on the number of objects that all workers together may have open. No I/O.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A limited number of places, which all threads share. Each open object takes one place.
#[derive(Debug)]
pub(super) struct Quota {
    limit: usize,
    used_places: AtomicUsize,
}

impl Quota {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, used_places: AtomicUsize::new(0) }
    }

    /// Takes one place. Returns false if no place is free.
    pub(super) fn try_acquire(&self) -> bool {
        let is_acquired = self.used_places.fetch_add(1, Relaxed) < self.limit;
        if !is_acquired {
            self.release();
        }
        is_acquired
    }

    /// Gives one place back.
    pub(super) fn release(&self) {
        self.used_places.fetch_sub(1, Relaxed);
    }

    /// Returns the number of places in use.
    pub(super) fn used_places(&self) -> usize {
        self.used_places.load(Relaxed)
    }
}
