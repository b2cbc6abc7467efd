//! The rules of leader election, as in Kubernetes' client-go: when to acquire the Lease, and what to write. Pure.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// The time for which other replicas wait after they observe a renewal.
pub(super) const LEASE_DURATION: Duration = Duration::from_secs(15);

/// The annotation with the `--lb-namespace` of the last leader.
const LB_NAMESPACE_ANNOTATION: &str = "akrobateo.io/lb-namespace";

/// The last version of the Lease that this replica read, with the time when this replica first saw that version.
///
/// A replica measures the age of a version with its own clock, because the clocks of machines differ.
#[derive(Clone, Debug, Default)]
pub(super) struct ObservedRecord {
    /// The observed Lease; `None` if the Lease is missing or was never read.
    pub(super) lease: Option<Lease>,
    /// The time when this replica first saw this version of the Lease.
    observed_at: Option<Instant>,
}

/// The next step of this replica.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ElectionStep {
    /// Create the missing Lease.
    Create,
    /// Replace the Lease: it has expired, was released, or belongs to this replica.
    Acquire,
    /// Wait, because the replica with this identity is the leader.
    Wait(String),
}

impl ObservedRecord {
    /// Records a Lease that was read. A new version starts the wait for the expiry again.
    pub(super) fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        if self.observed_at.is_none()
            || resource_version(self.lease.as_ref()) != resource_version(lease.as_ref())
        {
            self.observed_at = Some(now);
        }
        self.lease = lease;
    }

    fn is_expired(&self, now: Instant) -> bool {
        let duration = self.lease.as_ref().map_or(LEASE_DURATION, lease_duration);
        self.observed_at.is_some_and(|observed_at| now.duration_since(observed_at) > duration)
    }
}

/// Decides the next step of the replica with this identity.
pub(super) fn next_step(identity: &str, record: &ObservedRecord, now: Instant) -> ElectionStep {
    let Some(lease) = &record.lease else { return ElectionStep::Create };
    match holder(lease) {
        Some(leader) if leader != identity && !record.is_expired(now) => {
            ElectionStep::Wait(leader.to_owned())
        }
        _ => ElectionStep::Acquire,
    }
}

/// Returns the identity of the holder, or `None` if the Lease was released.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Returns the Lease with a new holder. A change of the holder sets the acquire time and counts a transition.
pub(super) fn with_holder(lease: &Lease, identity: &str, now: Timestamp) -> Lease {
    let previous = lease.spec.clone().unwrap_or_default();
    let is_new_holder = holder(lease) != Some(identity);
    let is_transition = is_new_holder && lease.spec.is_some();
    let transitions = previous.lease_transitions.unwrap_or(0).saturating_add(is_transition.into());
    let acquire_time = previous.acquire_time.clone().filter(|_| !is_new_holder);
    let spec = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: acquire_time.or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..previous
    };
    Lease { spec: Some(spec), ..lease.clone() }
}

/// Returns the Lease with the namespace of the proxies. An operator with another `--lb-namespace` reads
/// this namespace at its start.
pub(super) fn with_proxy_namespace(mut lease: Lease, proxy_namespace: &str) -> Lease {
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(LB_NAMESPACE_ANNOTATION.to_owned(), proxy_namespace.to_owned());
    lease
}

/// Returns the namespace of the last leader's proxies.
pub(super) fn proxy_namespace(lease: &Lease) -> Option<&str> {
    lease.metadata.annotations.as_ref()?.get(LB_NAMESPACE_ANNOTATION).map(String::as_str)
}

/// Returns the Lease without a holder, so that another replica can acquire the Lease immediately.
pub(super) fn without_holder(lease: &Lease) -> Lease {
    let spec = lease.spec.clone().map(|spec| LeaseSpec { holder_identity: None, ..spec });
    Lease { spec, ..lease.clone() }
}

/// Returns the time within which the holder must renew the Lease. Reads the duration from the Lease, because a replica
/// of another version may use another duration.
fn lease_duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LEASE_DURATION, Duration::from_secs)
}

fn resource_version(lease: Option<&Lease>) -> Option<&str> {
    lease?.metadata.resource_version.as_deref()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    const OWN_IDENTITY: &str = "replica-a";
    const OTHER_IDENTITY: &str = "replica-b";

    fn timestamp(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn lease(holder: &str, duration: Option<i32>, version: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: duration,
            acquire_time: Some(MicroTime(timestamp(100))),
            renew_time: Some(MicroTime(timestamp(200))),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    fn observed_record(lease: Lease, at: Instant) -> ObservedRecord {
        let mut record = ObservedRecord::default();
        record.observe(Some(lease), at);
        record
    }

    #[test]
    fn missing_lease_is_created() {
        assert_eq!(next_step(OWN_IDENTITY, &ObservedRecord::default(), Instant::now()), ElectionStep::Create);
    }

    #[test]
    fn released_lease_is_acquired_immediately() {
        let now = Instant::now();
        assert_eq!(
            next_step(OWN_IDENTITY, &observed_record(lease("", Some(15), "1"), now), now),
            ElectionStep::Acquire
        );
    }

    #[test]
    fn own_lease_is_acquired_immediately() {
        let now = Instant::now();
        assert_eq!(
            next_step(OWN_IDENTITY, &observed_record(lease(OWN_IDENTITY, Some(15), "1"), now), now),
            ElectionStep::Acquire
        );
    }

    #[test]
    fn lease_of_another_replica_expires_after_the_duration_in_the_lease() {
        let start = Instant::now();
        for (duration, seconds) in [(Some(15), 15), (Some(40), 40), (Some(5), 5), (None, 15)] {
            let record = observed_record(lease(OTHER_IDENTITY, duration, "1"), start);
            let expiry = start + Duration::from_secs(seconds);
            assert_eq!(
                next_step(OWN_IDENTITY, &record, expiry),
                ElectionStep::Wait(OTHER_IDENTITY.to_owned()),
                "{duration:?}"
            );
            let time_after_expiry = expiry + Duration::from_millis(1);
            assert_eq!(
                next_step(OWN_IDENTITY, &record, time_after_expiry),
                ElectionStep::Acquire,
                "{duration:?}"
            );
        }
    }

    #[test]
    fn only_a_renewal_restarts_the_wait_for_expiry() {
        let start = Instant::now();
        let (later_time, expiry) = (start + Duration::from_secs(10), start + Duration::from_secs(16));
        let mut unchanged_record = observed_record(lease(OTHER_IDENTITY, Some(15), "1"), start);
        unchanged_record.observe(Some(lease(OTHER_IDENTITY, Some(15), "1")), later_time);
        assert_eq!(next_step(OWN_IDENTITY, &unchanged_record, expiry), ElectionStep::Acquire);
        let mut renewed_record = observed_record(lease(OTHER_IDENTITY, Some(15), "1"), start);
        renewed_record.observe(Some(lease(OTHER_IDENTITY, Some(15), "2")), later_time);
        assert_eq!(
            next_step(OWN_IDENTITY, &renewed_record, expiry),
            ElectionStep::Wait(OTHER_IDENTITY.to_owned())
        );
    }

    #[test]
    fn new_holder_sets_the_acquire_time_and_counts_a_transition() {
        let acquired_spec =
            with_holder(&lease(OTHER_IDENTITY, Some(40), "1"), OWN_IDENTITY, timestamp(300)).spec.unwrap();
        assert_eq!(acquired_spec.holder_identity.as_deref(), Some(OWN_IDENTITY));
        assert_eq!(acquired_spec.lease_duration_seconds, Some(15));
        assert_eq!(acquired_spec.acquire_time, Some(MicroTime(timestamp(300))));
        assert_eq!(acquired_spec.renew_time, Some(MicroTime(timestamp(300))));
        assert_eq!(acquired_spec.lease_transitions, Some(4));
    }

    #[test]
    fn renewal_changes_only_the_renew_time() {
        let lease_before = lease(OWN_IDENTITY, Some(15), "1");
        let mut expected = lease_before.clone();
        expected.spec.get_or_insert_default().renew_time = Some(MicroTime(timestamp(300)));
        assert_eq!(with_holder(&lease_before, OWN_IDENTITY, timestamp(300)), expected);
    }

    #[test]
    fn created_lease_has_zero_transitions() {
        let created_spec = with_holder(&Lease::default(), OWN_IDENTITY, timestamp(300)).spec.unwrap();
        assert_eq!(created_spec.lease_transitions, Some(0));
        assert_eq!(created_spec.acquire_time, Some(MicroTime(timestamp(300))));
    }
}
