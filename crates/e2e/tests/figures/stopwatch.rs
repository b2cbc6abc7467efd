//! Notes when things are seen to happen, by watches: no polling that would add to what is measured. Does I/O.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::ready;
use std::pin::Pin;

use e2e::{Failure, Namespace};
use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::watcher::Config;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use tokio::time::Instant;

/// The nodes of the cluster, each of which gets a pod.
const NODES: usize = 3;
const BARE: &str = "e2e-figures-bare";

enum Seen {
    Workload(String),
    Ready(String),
    Published(String, usize),
}

/// Watches that have begun.
pub(crate) struct Stopwatch {
    seen: SelectAll<Pin<Box<dyn Stream<Item = Option<Seen>> + Send>>>,
}

impl Stopwatch {
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let client = &namespace.cluster().client;
        let proxies = || Config::default().labels("app.kubernetes.io/name=akrobateo-lb");
        let pods = objects(Api::<Pod>::all(client.clone()), proxies())
            .map(|pod| is_ready(&pod).then(|| Seen::Ready(pod.name_any())));
        let daemonsets = objects(Api::<DaemonSet>::all(client.clone()), proxies()).map(|daemonset| {
            Some(Seen::Workload(daemonset.labels().get(akrobateo_core::labels::SERVICE_NAME)?.clone()))
        });
        let services = Api::<Service>::namespaced(client.clone(), namespace.name());
        let services = objects(services, Config::default()).map(|service| {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let addresses = status.and_then(|status| status.ingress.as_ref()).map_or(0, Vec::len);
            Some(Seen::Published(service.name_any(), addresses))
        });
        let mut seen: SelectAll<Pin<Box<dyn Stream<Item = Option<Seen>> + Send>>> = SelectAll::new();
        seen.push(Box::pin(pods));
        seen.push(Box::pin(daemonsets));
        seen.push(Box::pin(services));
        Self { seen }
    }

    /// When the Service's workload was made, its last pod ready, its last address published.
    pub(crate) async fn service_served(
        &mut self,
        name: &str,
    ) -> Result<(Instant, Instant, Instant), Failure> {
        let (mut workload, mut ready, mut pods) = (None, None, BTreeSet::new());
        while let Some(seen) = self.seen.next().await {
            match seen {
                Some(Seen::Workload(of)) if of == name && workload.is_none() => {
                    workload = Some(Instant::now());
                }
                Some(Seen::Ready(pod)) if workload.is_some() && pods.insert(pod.clone()) => {
                    ready = Some(Instant::now());
                }
                Some(Seen::Published(of, NODES)) if of == name && pods.len() >= NODES => {
                    if let (Some(workload), Some(ready)) = (workload, ready) {
                        return Ok((workload, ready, Instant::now()));
                    }
                }
                _ => (),
            }
        }
        Err(Failure::Unmet("a watch has ended".to_owned()))
    }

    /// When the last pod of a DaemonSet that nobody looks after was ready.
    pub(crate) async fn pods_ready(&mut self) -> Result<Instant, Failure> {
        let mut pods = BTreeSet::new();
        while let Some(seen) = self.seen.next().await {
            if let Some(Seen::Ready(pod)) = seen
                && pod.starts_with(BARE)
                && pods.insert(pod)
                && pods.len() == NODES
            {
                return Ok(Instant::now());
            }
        }
        Err(Failure::Unmet("a watch has ended".to_owned()))
    }
}

/// Objects as they are made and changed.
fn objects<K>(api: Api<K>, config: Config) -> impl Stream<Item = K> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, config).default_backoff().applied_objects().filter_map(|object| ready(object.ok()))
}

/// Makes a copy of a DaemonSet into one that the operator does not know, on a port of its own.
pub(crate) fn make_bare(daemonset: &mut DaemonSet, port: u16) {
    let labels: std::collections::BTreeMap<_, _> = [
        ("app.kubernetes.io/name".to_owned(), "akrobateo-lb".to_owned()),
        ("e2e".to_owned(), BARE.to_owned()),
    ]
    .into();
    daemonset.metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some(BARE.to_owned()),
        namespace: daemonset.namespace(),
        labels: Some(labels.clone()),
        ..Default::default()
    };
    daemonset.status = None;
    if let Some(spec) = &mut daemonset.spec {
        spec.selector.match_labels = Some(labels.clone());
        spec.template.metadata.get_or_insert_default().labels = Some(labels);
        let containers = spec.template.spec.iter_mut().flat_map(|pod| &mut pod.containers);
        for held in containers.flat_map(|container| container.ports.iter_mut().flatten()) {
            (held.host_port, held.container_port) = (Some(port.into()), port.into());
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
