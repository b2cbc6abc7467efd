//! The proxies that remain after a Service has moved to shared mode. Pure.

use std::collections::BTreeSet;

use akrobateo_services::key::ServiceKey;

use super::observation::HostPortPod;

/// The proxies that a plan has seen while their Service was in shared mode, as `<namespace>/<name>`.
///
/// The garbage collector deletes these pods some seconds after their workload. If the Service moves back to dedicated
/// mode in this time, the pods are still ready, but only the pods of the new workload will stay.
#[derive(Debug, Default)]
pub(super) struct PreviousProxies(BTreeSet<String>);

impl PreviousProxies {
    /// Adds the proxies of Services in shared mode, and removes pods that no longer exist.
    pub(super) fn update(&mut self, pods: &[HostPortPod], is_shared: impl Fn(&ServiceKey) -> bool) {
        let is_previous = |pod: &&HostPortPod| {
            self.0.contains(&pod.name) || pod.proxied_service.as_ref().is_some_and(&is_shared)
        };
        self.0 = pods.iter().filter(is_previous).map(|pod| pod.name.clone()).collect();
    }

    /// Returns true if a proxy of the Service's current workload is ready.
    pub(super) fn has_ready_proxy(&self, pods: &[HostPortPod], key: &ServiceKey) -> bool {
        pods.iter().any(|pod| {
            pod.proxied_service.as_ref() == Some(key) && pod.is_ready && !self.0.contains(&pod.name)
        })
    }
}
