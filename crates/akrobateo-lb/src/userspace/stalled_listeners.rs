//! The listeners whose clients wait for a free connection, descriptor or memory. Pure.

use std::collections::BTreeSet;

/// Delay before clients that had to wait are accepted, in milliseconds.
const ACCEPT_RETRY: u64 = 50;

/// The listeners to try again later, each once. Under overload a listener stalls many times in a second.
#[derive(Debug, Default)]
pub(super) struct StalledListeners {
    listeners: BTreeSet<u32>,
    retry_at: u64,
}

impl StalledListeners {
    /// Adds a listener, to be tried again after a short delay.
    pub(super) fn add(&mut self, listener: u32, now: u64) {
        if self.listeners.is_empty() {
            self.retry_at = now + ACCEPT_RETRY;
        }
        self.listeners.insert(listener);
    }

    /// Returns whether no listener waits.
    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Returns when to try the listeners again; `None` if there are none.
    pub(super) fn retry_at(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.retry_at)
    }

    /// Removes and returns all listeners, if it is time to try them again.
    pub(super) fn take(&mut self, now: u64) -> BTreeSet<u32> {
        if now < self.retry_at { BTreeSet::new() } else { std::mem::take(&mut self.listeners) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_that_stalls_often_is_listed_once() {
        let mut stalled = StalledListeners::default();
        for now in 0..10_000 {
            stalled.add(7, now);
            stalled.add(8, now);
            assert!(stalled.listeners.len() <= 2);
            for listener in stalled.take(now) {
                stalled.add(listener, now);
            }
        }
        assert!(stalled.listeners.len() <= 2);
    }

    #[test]
    fn listeners_are_tried_again_after_the_delay() {
        let mut stalled = StalledListeners::default();
        assert_eq!(stalled.retry_at(), None);
        stalled.add(7, 100);
        stalled.add(8, 120);
        assert_eq!(stalled.retry_at(), Some(100 + ACCEPT_RETRY));
        assert!(stalled.take(149).is_empty());
        assert_eq!(stalled.take(150), [7, 8].into());
        assert!(stalled.is_empty());
    }
}
