//! The listeners whose clients wait until a connection ends, or until a descriptor or memory is free. Pure.

use std::collections::BTreeSet;

/// Delay before the next attempt to accept clients from a stalled listener, in milliseconds.
const ACCEPT_RETRY_DELAY_MS: u64 = 50;

/// The stalled listeners, each listed once. Under overload a listener stalls many times in a second.
#[derive(Debug, Default)]
pub(super) struct StalledListeners {
    /// Indices into the worker's list of listeners.
    listener_indices: BTreeSet<u32>,
    /// Time of the next attempt to accept: milliseconds since the worker's start.
    retry_at_ms: u64,
}

impl StalledListeners {
    /// Adds a listener. The next attempt to accept from the listener follows after [`ACCEPT_RETRY_DELAY_MS`].
    pub(super) fn add(&mut self, listener_index: u32, now_ms: u64) {
        if self.listener_indices.is_empty() {
            self.retry_at_ms = now_ms + ACCEPT_RETRY_DELAY_MS;
        }
        self.listener_indices.insert(listener_index);
    }

    /// Returns true if no listener is stalled.
    pub(super) fn is_empty(&self) -> bool {
        self.listener_indices.is_empty()
    }

    /// Returns the time of the next attempt to accept; `None` if no listener is stalled.
    pub(super) fn retry_at_ms(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.retry_at_ms)
    }

    /// Removes and returns all listeners if the time of the next attempt has come.
    pub(super) fn take(&mut self, now_ms: u64) -> BTreeSet<u32> {
        if now_ms < self.retry_at_ms { BTreeSet::new() } else { std::mem::take(&mut self.listener_indices) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_that_stalls_often_is_listed_once() {
        let mut stalled_listeners = StalledListeners::default();
        for now_ms in 0..10_000 {
            stalled_listeners.add(7, now_ms);
            stalled_listeners.add(8, now_ms);
            assert!(stalled_listeners.listener_indices.len() <= 2);
            for listener in stalled_listeners.take(now_ms) {
                stalled_listeners.add(listener, now_ms);
            }
        }
        assert!(stalled_listeners.listener_indices.len() <= 2);
    }

    #[test]
    fn stalled_listeners_are_returned_after_the_delay() {
        let mut stalled_listeners = StalledListeners::default();
        assert_eq!(stalled_listeners.retry_at_ms(), None);
        stalled_listeners.add(7, 100);
        stalled_listeners.add(8, 120);
        assert_eq!(stalled_listeners.retry_at_ms(), Some(100 + ACCEPT_RETRY_DELAY_MS));
        assert!(stalled_listeners.take(149).is_empty());
        assert_eq!(stalled_listeners.take(150), [7, 8].into());
        assert!(stalled_listeners.is_empty());
    }
}
