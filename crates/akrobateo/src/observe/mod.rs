//! What is: the cluster as the watches last saw it. `watch.rs` does the I/O; reading it is pure.

mod watch;

use std::sync::Arc;

use contract::labels;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::key::ServiceKey;
use watch::{Concern, follow};

/// Everything about one Service that decisions rest on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// The Service, unless it is gone.
    pub(crate) service: Option<Arc<Service>>,
    /// The workloads made for it: at most one, unless names or settings have changed.
    pub(crate) proxies: Vec<Arc<DaemonSet>>,
    /// The proxies' pods.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// All nodes.
    pub(crate) nodes: Vec<Arc<Node>>,
}

/// Live views of everything that is watched.
pub(crate) struct World {
    services: Store<Service>,
    proxies: Store<DaemonSet>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    changes: mpsc::UnboundedReceiver<Concern>,
    watched: Option<String>,
}

impl World {
    /// Starts the watches, as tasks of this runtime.
    pub(crate) fn watch(client: &Client, watched: Option<&str>, lb_namespace: &str) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let services = match watched {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let proxies = watcher::Config::default().labels(&labels::all_proxies());
        let in_lb_namespace = || Api::namespaced(client.clone(), lb_namespace);
        Self {
            services: follow(services, watcher::Config::default(), watch::service(), &sender),
            proxies: follow(in_lb_namespace(), proxies.clone(), watch::proxy(), &sender),
            pods: follow(Api::namespaced(client.clone(), lb_namespace), proxies, watch::proxy(), &sender),
            nodes: follow(Api::all(client.clone()), watcher::Config::default(), watch::node(), &sender),
            changes,
            watched: watched.map(str::to_owned),
        }
    }

    /// Returns once every view is complete: decisions on less would remove what is wanted.
    pub(crate) async fn complete(&self) -> Result<(), WatchEnded> {
        self.services.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.proxies.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.pods.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.nodes.wait_until_ready().await.map_err(|_| WatchEnded)
    }

    /// The Services that the next change concerns.
    pub(crate) async fn changed(&mut self) -> Result<Vec<ServiceKey>, WatchEnded> {
        Ok(match self.changes.recv().await.ok_or(WatchEnded)? {
            Concern::One(key) if self.in_scope(&key) => vec![key],
            Concern::One(_) => Vec::new(),
            Concern::All => self.all(),
        })
    }

    /// What is known about one Service.
    pub(crate) fn observe(&self, key: &ServiceKey) -> Observed {
        let ours = |object: &dyn Fn() -> Option<ServiceKey>| object().as_ref() == Some(key);
        Observed {
            service: self.services.get(&ObjectRef::new(&key.name).within(&key.namespace)),
            proxies: self.proxies.state_filter(|proxy| ours(&|| ServiceKey::of_proxy(proxy))),
            pods: self.pods.state_filter(|pod| ours(&|| ServiceKey::of_proxy(pod))),
            nodes: self.nodes.state(),
        }
    }

    /// Every Service that exists, and every one that something was made for.
    fn all(&self) -> Vec<ServiceKey> {
        let services = self.services.state().into_iter().map(|service| ServiceKey::of(&service));
        let orphans = self.proxies.state().into_iter().filter_map(|proxy| ServiceKey::of_proxy(&*proxy));
        let mut keys: Vec<_> = services.chain(orphans).filter(|key| self.in_scope(key)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Proxies for Services outside the watched namespace are another operator's: their Services cannot be seen.
    fn in_scope(&self, key: &ServiceKey) -> bool {
        self.watched.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }
}

/// A watch's task is gone, which only a panic or the end of the runtime brings about.
#[derive(Debug, thiserror::Error)]
#[error("a watch has ended")]
pub struct WatchEnded;
