//! The writes that lead from what is to what should be; none where nothing differs. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use kube::ResourceExt;

use super::addresses::published;
use super::covers::covers;
use super::{Decision, Proxy};
use crate::observe::Observed;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Make this workload, or make it so again.
    ApplyProxy(Box<DaemonSet>),
    /// Remove a workload, unless another one has taken its name.
    DeleteProxy { namespace: String, name: String, uid: String },
    /// Publish these addresses, unless the Service is another one by now.
    PublishAddresses { uid: String, addresses: Vec<LoadBalancerIngress> },
}

/// What has to be written, in order: a proxy is there before the addresses that promise it, and goes after them.
pub(crate) fn difference(observed: &Observed, decision: &Decision) -> Vec<Change> {
    let addresses = addresses(observed, decision);
    match &decision.proxy {
        Proxy::Unchanged => addresses.into_iter().collect(),
        Proxy::Absent => {
            addresses.into_iter().chain(observed.proxies.iter().map(|proxy| delete(proxy))).collect()
        }
        Proxy::Present(desired) => workload(observed, desired).into_iter().chain(addresses).collect(),
    }
}

/// Others than the desired one hold its ports, so they go first.
fn workload(observed: &Observed, desired: &DaemonSet) -> Vec<Change> {
    let (same, others): (Vec<_>, Vec<_>) =
        observed.proxies.iter().partition(|proxy| proxy.name_any() == desired.name_any());
    let up_to_date = same.iter().any(|existing| is_covered(existing, desired));
    let apply = (!up_to_date).then(|| Change::ApplyProxy(Box::new(desired.clone())));
    others.into_iter().map(|proxy| delete(proxy)).chain(apply).collect()
}

fn addresses(observed: &Observed, decision: &Decision) -> Option<Change> {
    let (service, addresses) = (observed.service.as_ref()?, decision.addresses.as_ref()?);
    (published(service) != addresses).then(|| Change::PublishAddresses {
        uid: service.uid().unwrap_or_default(),
        addresses: addresses.clone(),
    })
}

fn delete(proxy: &DaemonSet) -> Change {
    Change::DeleteProxy {
        namespace: proxy.namespace().unwrap_or_default(),
        name: proxy.name_any(),
        uid: proxy.uid().unwrap_or_default(),
    }
}

/// What cannot be compared is applied: the API server will say what is wrong with it.
fn is_covered(existing: &DaemonSet, desired: &DaemonSet) -> bool {
    match (serde_json::to_value(existing), serde_json::to_value(desired)) {
        (Ok(existing), Ok(desired)) => covers(&existing, &desired),
        _ => false,
    }
}
