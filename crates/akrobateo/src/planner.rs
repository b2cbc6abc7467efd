//! What is: the cluster as the watches last saw it. `watch.rs` does the I/O; reading it is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;

use crate::allocation::{Admission, PortAllocations};
use crate::cache::{Changes, ListError, Stores, Trigger, WatchEnded};
use crate::decide::{MissingPods, Placement, ServiceState};
use crate::key::ServiceKey;
use crate::metrics::Metrics;
use crate::node_info::NodeInfo;
use crate::spec::ServiceDefaults;

/// Changes that are taken in at once; more wait for the next time.
const BATCH: usize = 1024;

/// Live views of everything that is watched, and what follows from them for all Services together.
pub(crate) struct Planner {
    views: Stores,
    changes: mpsc::UnboundedReceiver<Trigger>,
    watched: Option<String>,
    defaults: Arc<ServiceDefaults>,
    nodes: Arc<Vec<NodeInfo>>,
    landscape: PortAllocations,
    gaps: MissingPods,
}

impl Planner {
    /// Starts the watches, as tasks of this runtime.
    pub(crate) fn watch(
        client: &Client,
        watched: Option<&str>,
        placement: &Placement,
        defaults: Arc<ServiceDefaults>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        Self {
            views: Stores::watch(client, watched, placement, &Changes { sender, metrics: metrics.clone() }),
            changes,
            watched: watched.map(str::to_owned),
            defaults,
            nodes: Arc::default(),
            landscape: PortAllocations::default(),
            gaps: MissingPods::default(),
        }
    }

    /// Looks once, and never again.
    pub(crate) async fn list(
        client: &Client,
        watched: Option<&str>,
        placement: &Placement,
        defaults: Arc<ServiceDefaults>,
        metrics: &Metrics,
    ) -> Result<Self, ListError> {
        let (_, changes) = mpsc::unbounded_channel();
        Ok(Self {
            views: Stores::list(client, watched, placement, metrics).await?,
            changes,
            watched: watched.map(str::to_owned),
            defaults,
            nodes: Arc::default(),
            landscape: PortAllocations::default(),
            gaps: MissingPods::default(),
        })
    }

    /// Returns once every view is complete: decisions on less would remove what is wanted.
    pub(crate) async fn complete(&mut self) -> Result<(), WatchEnded> {
        self.views.complete().await
    }

    /// Lets changes go by, for as long as they are another replica's business.
    pub(crate) async fn discard_until_leader(&mut self) -> WatchEnded {
        let mut batch = Vec::new();
        while self.changes.recv_many(&mut batch, BATCH).await > 0 {
            batch.clear();
        }
        WatchEnded
    }

    /// Looks at everything as if for the first time: every Service is concerned.
    pub(crate) fn everything(&mut self) -> BTreeSet<ServiceKey> {
        self.survey();
        let mut concerned = self.views.all();
        concerned.retain(|key| self.in_scope(key));
        concerned
    }

    /// Waits for changes, and tells which Services they concern: also those that now own a port, or no longer.
    pub(crate) async fn changed(&mut self) -> Result<BTreeSet<ServiceKey>, WatchEnded> {
        let mut batch = Vec::new();
        if self.changes.recv_many(&mut batch, BATCH).await == 0 {
            return Err(WatchEnded);
        }
        let mut concerned = BTreeSet::new();
        let mut survey = false;
        for concern in batch {
            match concern {
                Trigger::Service(key) => {
                    survey = true;
                    concerned.insert(key);
                }
                Trigger::Workload(key) => {
                    // What a refused Service's proxies hold is part of the landscape.
                    survey |= matches!(self.landscape.get(&key), Some(Admission::Rejected(_)));
                    concerned.insert(key);
                }
                Trigger::Endpoints(key) => {
                    concerned.insert(key);
                }
                Trigger::All => {
                    survey = true;
                    concerned.extend(self.views.all());
                }
            }
        }
        if survey {
            concerned.extend(self.survey());
        }
        concerned.retain(|key| self.in_scope(key));
        Ok(concerned)
    }

    /// What is known about one Service.
    pub(crate) fn observe(&mut self, key: &ServiceKey, now: Timestamp) -> ServiceState {
        let service = self.views.service(key);
        let pods = self.views.pods(key);
        let pod_missing_since = if let Some(service) = &service {
            self.gaps.update(key, service, &pods, &self.nodes, now)
        } else {
            self.gaps.forget(key);
            BTreeMap::new()
        };
        ServiceState {
            service,
            admission: self.landscape.get(key).cloned(),
            workloads: self.views.workloads(key),
            pods,
            nodes: self.nodes.clone(),
            endpoint_nodes: self.views.endpoint_nodes(key),
            pod_missing_since,
        }
    }

    /// Looks at all Services together, and tells whose case is another now.
    fn survey(&mut self) -> Vec<ServiceKey> {
        self.nodes = Arc::new(self.views.nodes());
        let services = self.views.services();
        let views = &self.views;
        let now = PortAllocations::allocate(&services, &self.nodes, &self.defaults, |key| views.holding(key));
        let changed = now.changed_since(&self.landscape);
        self.landscape = now;
        changed
    }

    /// Proxies for Services outside the watched namespace are another operator's: their Services cannot be seen.
    fn in_scope(&self, key: &ServiceKey) -> bool {
        self.watched.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }
}
