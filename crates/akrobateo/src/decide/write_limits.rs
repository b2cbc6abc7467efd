//! The limits of the operator's next writes, and the last status that the operator wrote. Pure.

use k8s_openapi::api::core::v1::LoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::condition::Exposure;
use super::written_addresses::WrittenAddresses;

/// The limits of the writes to one Service and to its workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WriteLimits {
    pub(super) status: WriteLimit,
    pub(super) workload: WriteLimit,
    /// The status that the operator wrote last; `None` after a restart of the operator.
    pub(super) previous_status: Option<WrittenStatus>,
}

/// The limit of one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WriteLimit {
    /// The operator has not written the desired content before. The write may cause events.
    #[default]
    Change,
    /// The operator's last write already had the desired content. The write does not cause an event.
    Restore,
    /// The operator must not write before this time.
    DelayUntil(Timestamp),
}

impl WriteLimit {
    pub(super) const fn delayed_until(self) -> Option<Timestamp> {
        match self {
            Self::DelayUntil(until) => Some(until),
            Self::Change | Self::Restore => None,
        }
    }
}

/// A status that the operator wrote.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrittenStatus {
    pub(super) addresses: WrittenAddresses,
    pub(super) condition: Option<Condition>,
}

impl WrittenStatus {
    /// Returns true if the desired status has the content of this written status.
    pub(super) fn matches_desired(
        &self,
        addresses: &[LoadBalancerIngress],
        exposure: Option<&Exposure>,
    ) -> bool {
        let has_same_condition = match exposure {
            Some(exposure) => exposure.matches(self.condition.as_ref()),
            None => self.condition.is_none(),
        };
        self.addresses.matches(addresses) && has_same_condition
    }

    /// Returns true if the desired status has the addresses of this written status, and its condition has the same
    /// status and reason. The message may differ.
    pub(super) fn has_same_addresses_and_reason(
        &self,
        addresses: &[LoadBalancerIngress],
        exposure: &Exposure,
    ) -> bool {
        let condition = self.condition.as_ref();
        self.addresses.matches(addresses)
            && condition.is_some_and(|condition| {
                condition.reason == exposure.reason.as_str() && condition.status == exposure.status()
            })
    }

    /// Returns true if both written statuses have the same addresses and the same condition.
    pub(super) fn has_same_content(&self, other: &Self) -> bool {
        self.addresses == other.addresses && self.has_same_condition(other.condition.as_ref())
    }

    /// Returns true if `other` has the status, the reason and the message of the written condition. The transition time
    /// may differ.
    pub(super) fn has_same_condition(&self, other: Option<&Condition>) -> bool {
        match (&self.condition, other) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                (&own.status, &own.reason, &own.message) == (&other.status, &other.reason, &other.message)
            }
            _ => false,
        }
    }
}
