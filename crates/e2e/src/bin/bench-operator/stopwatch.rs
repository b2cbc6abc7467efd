//! Uses watches to record the times of changes, because polling would distort the measurement. Does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::ready;
use std::pin::Pin;

use akrobateo_core::labels;
use e2e::{Failure, Namespace, is_ready};
use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::watcher::Config;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use tokio::time::Instant;

/// The number of nodes in the cluster. Each node runs a proxy.
const NODE_COUNT: usize = 3;
const BASELINE_NAME: &str = "e2e-baseline";

/// A change that the measurement waits for.
enum Change {
    /// The Service with this name has a DaemonSet.
    DaemonSetCreated(String),
    /// The pod with this name is ready.
    PodReady(String),
    /// The Service with this name has this number of addresses in its status.
    AddressesPublished(String, usize),
}

type ChangeStream = Pin<Box<dyn Stream<Item = Option<Change>> + Send>>;

/// The times at which a Service reached each step.
pub(crate) struct ExposureTimes {
    /// The time of the creation of the Service's DaemonSet.
    pub(crate) daemonset_created: Instant,
    /// The time at which the Service's last proxy became ready.
    pub(crate) proxies_ready: Instant,
    /// The time of the publication of the Service's last address.
    pub(crate) addresses_published: Instant,
}

/// Running watches.
pub(crate) struct Stopwatch {
    changes: SelectAll<ChangeStream>,
}

impl Stopwatch {
    /// Starts the watches.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let client = &namespace.cluster().client;
        let proxies = || Config::default().labels("app.kubernetes.io/name=akrobateo-lb");
        let ready_pods = watch_objects(Api::<Pod>::all(client.clone()), proxies())
            .map(|pod| is_ready(&pod).then(|| Change::PodReady(pod.name_any())));
        let daemonsets = watch_objects(Api::<DaemonSet>::all(client.clone()), proxies()).map(|daemonset| {
            Some(Change::DaemonSetCreated(daemonset.labels().get(labels::SERVICE_NAME)?.clone()))
        });
        let services = Api::<Service>::namespaced(client.clone(), namespace.name());
        let services = watch_objects(services, Config::default()).map(|service| {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let addresses = status.and_then(|status| status.ingress.as_ref()).map_or(0, Vec::len);
            Some(Change::AddressesPublished(service.name_any(), addresses))
        });
        let mut changes: SelectAll<ChangeStream> = SelectAll::new();
        changes.push(Box::pin(ready_pods));
        changes.push(Box::pin(daemonsets));
        changes.push(Box::pin(services));
        Self { changes }
    }

    /// Waits until a Service is exposed on all nodes, and returns the time of each step.
    pub(crate) async fn wait_exposed(&mut self, name: &str) -> Result<ExposureTimes, Failure> {
        let (mut created_at, mut ready_at, mut ready_pods) = (None, None, BTreeSet::new());
        while let Some(change) = self.changes.next().await {
            match change {
                Some(Change::DaemonSetCreated(service)) if service == name && created_at.is_none() => {
                    created_at = Some(Instant::now());
                }
                Some(Change::PodReady(pod)) if created_at.is_some() && ready_pods.insert(pod.clone()) => {
                    ready_at = Some(Instant::now());
                }
                Some(Change::AddressesPublished(service, NODE_COUNT))
                    if service == name && ready_pods.len() >= NODE_COUNT =>
                {
                    if let (Some(daemonset_created), Some(proxies_ready)) = (created_at, ready_at) {
                        let addresses_published = Instant::now();
                        return Ok(ExposureTimes { daemonset_created, proxies_ready, addresses_published });
                    }
                }
                _ => (),
            }
        }
        Err(watch_ended_failure())
    }

    /// Waits until the last pod of the baseline is ready, and returns the time.
    pub(crate) async fn wait_baseline_ready(&mut self) -> Result<Instant, Failure> {
        let mut ready_pods = BTreeSet::new();
        while let Some(change) = self.changes.next().await {
            if let Some(Change::PodReady(pod)) = change
                && pod.starts_with(BASELINE_NAME)
                && ready_pods.insert(pod)
                && ready_pods.len() == NODE_COUNT
            {
                return Ok(Instant::now());
            }
        }
        Err(watch_ended_failure())
    }
}

fn watch_ended_failure() -> Failure {
    Failure::UnexpectedState("a watch has ended".to_owned())
}

/// Returns a stream of objects. The stream has an item for each creation and each change.
fn watch_objects<K>(api: Api<K>, config: Config) -> impl Stream<Item = K> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, config).default_backoff().applied_objects().filter_map(|object| ready(object.ok()))
}

/// Changes this DaemonSet of a Service into the baseline. The operator does not manage the baseline, and the
/// baseline has another port.
pub(crate) fn convert_to_baseline(daemonset: &mut DaemonSet, port: u16) {
    let labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "akrobateo-lb".to_owned()),
        ("e2e".to_owned(), BASELINE_NAME.to_owned()),
    ]);
    daemonset.metadata = ObjectMeta {
        name: Some(BASELINE_NAME.to_owned()),
        namespace: daemonset.namespace(),
        labels: Some(labels.clone()),
        ..ObjectMeta::default()
    };
    daemonset.status = None;
    if let Some(spec) = &mut daemonset.spec {
        spec.selector.match_labels = Some(labels.clone());
        spec.template.metadata.get_or_insert_default().labels = Some(labels);
        let containers = spec.template.spec.iter_mut().flat_map(|pod| &mut pod.containers);
        let ports = containers.flat_map(|container| container.ports.iter_mut().flatten());
        for container_port in ports.filter(|port| port.host_port.is_some()) {
            (container_port.host_port, container_port.container_port) = (Some(port.into()), port.into());
        }
    }
}
