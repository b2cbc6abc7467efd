//! Keeps a view of one kind of object up to date, and tells which Services each change concerns. Does I/O.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::ready;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::mpsc::UnboundedSender;

use crate::decide::foreign_fields;
use crate::key::ServiceKey;
use crate::metrics::{Metrics, WatchLabels};
use crate::node_info::NodeInfo;

/// Which Services a change concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A Service itself.
    Service(ServiceKey),
    /// What was made for it.
    Workload(ServiceKey),
    /// Where its backends are.
    Endpoints(ServiceKey),
    /// Any Service.
    All,
}

/// Where changes are told.
#[derive(Clone)]
pub(crate) struct Changes {
    pub(crate) sender: UnboundedSender<Trigger>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The label of a slice that names its Service
/// (<https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>).
pub(super) const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// What is done with each kind of object: parts to forget, and whom a change concerns.
pub(super) struct WatchSpec<K> {
    pub(super) prune: fn(&mut K),
    concern: Box<FindConcern<K>>,
}

type FindConcern<K> = dyn FnMut(&K, Gone) -> Option<Trigger> + Send;

/// Whether a change is a deletion.
type Gone = bool;

/// Services keep their managedFields: they tell whether the status is ours.
pub(super) fn service() -> WatchSpec<Service> {
    WatchSpec {
        prune: |_| (),
        concern: Box::new(|service, _| Some(Trigger::Service(ServiceKey::from_service(service)))),
    }
}

/// The workloads that were made for a Service. Of their managedFields only what others have added is kept.
pub(super) fn workload<K: ResourceExt>() -> WatchSpec<K> {
    let prune = |object: &mut K| {
        let entries = std::mem::take(object.managed_fields_mut());
        *object.managed_fields_mut() = foreign_fields(entries);
    };
    WatchSpec {
        prune,
        concern: Box::new(|object, _| ServiceKey::from_proxy_labels(object).map(Trigger::Workload)),
    }
}

/// Their pods.
pub(super) fn pod() -> WatchSpec<Pod> {
    WatchSpec {
        prune: |pod| pod.managed_fields_mut().clear(),
        concern: Box::new(|pod, _| ServiceKey::from_proxy_labels(pod).map(Trigger::Workload)),
    }
}

/// Of endpoints only the node and the readiness matter.
pub(super) fn slice() -> WatchSpec<EndpointSlice> {
    WatchSpec {
        prune: |slice| {
            slice.managed_fields_mut().clear();
            slice.ports = None;
            for endpoint in slice.endpoints.iter_mut().flatten() {
                endpoint.addresses.clear();
                endpoint.target_ref = None;
            }
        },
        concern: Box::new(|slice, _| {
            let name = slice.labels().get(SERVICE_OF_SLICE)?.clone();
            Some(Trigger::Endpoints(ServiceKey { namespace: slice.namespace()?, name }))
        }),
    }
}

/// Nodes concern every Service, but only when something changes that addresses depend on: their status is written
/// every few minutes, or seconds, with nothing but a new heartbeat.
pub(super) fn node() -> WatchSpec<Node> {
    let mut known = HashMap::new();
    WatchSpec {
        prune: |node| {
            node.managed_fields_mut().clear();
            if let Some(status) = &mut node.status {
                status.images = None;
            }
        },
        concern: Box::new(move |node, gone| {
            let before = if gone {
                known.remove(&node.name_any())
            } else {
                known.insert(node.name_any(), NodeInfo::from_node(node))
            };
            let facts = known.get(&node.name_any());
            if !gone && before.as_ref() == facts {
                return None;
            }
            if let Some(facts) = facts.filter(|facts| !facts.invalid_addresses.is_empty()) {
                let (annotation, parts) =
                    (akrobateo_core::annotations::NODE_ADDRESS, &facts.invalid_addresses);
                tracing::warn!(node = facts.name, annotation, ?parts, "not addresses to publish; left out");
            }
            Some(Trigger::All)
        }),
    }
}

/// Starts a task that watches for ever, and returns its view.
pub(super) fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    mut interest: WatchSpec<K>,
    changes: &Changes,
) -> Store<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let events = watch(api, config).default_backoff().modify(interest.prune).reflect(writer);
    let changes = changes.clone();
    tokio::spawn(events.for_each(move |event| {
        let concern = match event {
            Ok(Event::Apply(object)) => (interest.concern)(&object, false),
            Ok(Event::Delete(object)) => (interest.concern)(&object, true),
            // While a list comes in the view is the old one; its end says that anything may have changed.
            Ok(Event::Init) => None,
            Ok(Event::InitApply(object)) => {
                (interest.concern)(&object, false);
                None
            }
            Ok(Event::InitDone) => Some(Trigger::All),
            Err(error) => {
                let kind = K::kind(&K::DynamicType::default()).into_owned();
                tracing::warn!(kind, error = &error as &dyn std::error::Error, "watch failed, retrying");
                changes.metrics.watch_errors.get_or_create(&WatchLabels { kind }).inc();
                None
            }
        };
        if let Some(concern) = concern {
            // The receiver goes only when the operator ends.
            let _ = changes.sender.send(concern);
        }
        ready(())
    }));
    store
}
