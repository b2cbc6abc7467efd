//! Watches the status of all Services, and waits until it is complete. Does I/O.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::error::ScaleError;
use crate::objects::{NAMESPACE, expected_addresses, service_name};

/// The state of all Services, by their names.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    services: HashMap<String, Status>,
    complete_count: usize,
    event_count: usize,
}

#[derive(Debug)]
struct Status {
    addresses: BTreeSet<Ipv4Addr>,
    /// The time at which the watch reported the last missing address; `None` if an address is missing.
    complete_since: Option<Instant>,
}

/// A running watch.
pub(crate) struct ServiceWatch {
    statuses: Arc<Mutex<Statuses>>,
    changes: watch::Receiver<()>,
}

impl ServiceWatch {
    /// Starts a task that watches until the runtime ends.
    pub(crate) fn start(client: &Client, node_count: usize) -> Self {
        let statuses = Arc::new(Mutex::new(Statuses::default()));
        let (sender, changes) = watch::channel(());
        let api: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
        let recorded = Arc::clone(&statuses);
        tokio::spawn(async move {
            let mut events = Box::pin(watcher(api, Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let Ok(event) = event else { continue };
                lock(&recorded).record(event, node_count);
                // An error means that the measurement has ended.
                let _ = sender.send(());
            }
        });
        Self { statuses, changes }
    }

    /// Returns the current state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Statuses> {
        lock(&self.statuses)
    }

    /// Waits until `is_reached` returns true.
    pub(crate) async fn wait_until(
        &self,
        expected: &str,
        limit: Duration,
        is_reached: impl Fn(&Statuses) -> bool,
    ) -> Result<(), ScaleError> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            if is_reached(&self.lock()) {
                return Ok(());
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                let found = self.lock().describe();
                return Err(ScaleError::Timeout { expected: expected.to_owned(), found, limit });
            }
        }
    }
}

fn lock(statuses: &Mutex<Statuses>) -> MutexGuard<'_, Statuses> {
    statuses.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Statuses {
    fn record(&mut self, event: Event<Service>, node_count: usize) {
        match event {
            Event::Apply(service) | Event::InitApply(service) => self.apply(&service, node_count),
            Event::Delete(service) => {
                let deleted = self.services.remove(&service.name_any());
                self.complete_count -= usize::from(deleted.is_some_and(|it| it.complete_since.is_some()));
            }
            Event::Init | Event::InitDone => {}
        }
    }

    fn apply(&mut self, service: &Service, node_count: usize) {
        let name = service.name_any();
        let index = name.rsplit('-').next().and_then(|number| number.parse().ok());
        let Some(index) = index else { return };
        let addresses = addresses(service);
        let previous = self.services.remove(&name);
        self.event_count += 1;
        self.complete_count -= usize::from(previous.as_ref().is_some_and(|it| it.complete_since.is_some()));
        let complete_since = (addresses == expected_addresses(index, node_count))
            .then(|| previous.and_then(|it| it.complete_since).unwrap_or_else(Instant::now));
        self.complete_count += usize::from(complete_since.is_some());
        self.services.insert(name, Status { addresses, complete_since });
    }

    /// Returns the number of Services whose status has all expected addresses.
    pub(crate) const fn complete_count(&self) -> usize {
        self.complete_count
    }

    /// Returns the number of changes of Services that the watch has reported.
    pub(crate) const fn event_count(&self) -> usize {
        self.event_count
    }

    /// Returns the time at which the status of a Service became complete; `None` if it is not complete.
    pub(crate) fn complete_since(&self, index: usize) -> Option<Instant> {
        self.services.get(&service_name(index))?.complete_since
    }

    /// Returns the number of Services whose status has this address.
    pub(crate) fn count_with_address(&self, address: Ipv4Addr) -> usize {
        self.services.values().filter(|status| status.addresses.contains(&address)).count()
    }

    /// Describes the state for an error message.
    fn describe(&self) -> String {
        let incomplete = self.services.iter().find(|(_, status)| status.complete_since.is_none());
        let example = incomplete.map_or(String::new(), |(name, status)| {
            format!("; for example {name} has {} addresses", status.addresses.len())
        });
        format!("{} of {} Services are complete{example}", self.complete_count, self.services.len())
    }
}

fn addresses(service: &Service) -> BTreeSet<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(addresses: &[&str]) -> Service {
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let service = json!({
            "metadata": { "name": "service-0000" }, "status": { "loadBalancer": { "ingress": ingress } },
        });
        serde_json::from_value(service).unwrap()
    }

    #[test]
    fn service_is_complete_with_the_addresses_of_all_nodes() {
        let mut statuses = Statuses::default();
        statuses.record(Event::Apply(service(&["10.0.0.1"])), 2);
        assert_eq!((statuses.complete_count(), statuses.complete_since(0)), (0, None));
        assert!(statuses.describe().contains("0 of 1 Services are complete; for example service-0000 has 1"));
        statuses.record(Event::Apply(service(&["10.0.0.1", "10.0.0.2"])), 2);
        let complete_since = statuses.complete_since(0).unwrap();
        statuses.record(Event::Apply(service(&["10.0.0.2", "10.0.0.1"])), 2);
        assert_eq!(statuses.complete_since(0), Some(complete_since));
        assert_eq!((statuses.complete_count(), statuses.event_count()), (1, 3));
        assert_eq!(statuses.count_with_address("10.0.0.2".parse().unwrap()), 1);
        statuses.record(Event::Delete(service(&[])), 2);
        assert_eq!(statuses.complete_count(), 0);
    }
}
