//! A failed attempt to create the tunnel, and the time of the next attempt. Pure.

use std::time::{Duration, Instant};

use links::NetworkObjects;

use super::error::DataPathError;

/// The time after which the agent tries again to create the tunnel.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The outcome of an attempt to create or change the tunnel.
#[derive(Debug)]
pub(super) enum TunnelResult {
    /// The tunnel is as desired, after this number of changes.
    Created(usize),
    /// The device is up, but differs from the desired state, for example because another program changes the same
    /// objects.
    Disturbed(DataPathError),
    /// The device is missing or down.
    Failed,
}

/// A failed attempt to create the tunnel.
#[derive(Debug)]
pub(super) struct TunnelFailure {
    objects: NetworkObjects,
    pub(super) error: DataPathError,
    pub(super) retry_at: Instant,
}

impl TunnelFailure {
    pub(super) fn new(objects: NetworkObjects, error: DataPathError, now: Instant) -> Self {
        Self { objects, error, retry_at: now + RETRY_INTERVAL }
    }

    /// Returns true if the failed attempt had the same objects, and the time of the next attempt has not come yet.
    pub(super) fn applies_to(&self, objects: &NetworkObjects, now: Instant) -> bool {
        self.objects == *objects && now < self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_does_not_apply_to_other_objects_or_after_the_retry_time() {
        let now = Instant::now();
        let objects = NetworkObjects::default();
        let failure = TunnelFailure::new(objects.clone(), DataPathError::NoAddress, now);
        assert!(failure.applies_to(&objects, now));
        assert!(!failure.applies_to(&objects, now + RETRY_INTERVAL));
        let other_objects = NetworkObjects { addresses: [[127, 0, 0, 1].into()].into(), ..objects };
        assert!(!failure.applies_to(&other_objects, now));
    }
}
