//! Watches one kind of object: keeps its store up to date and sends a trigger for each change. Does I/O.

use std::fmt::Debug;
use std::future::ready;
use std::hash::Hash;

use futures::StreamExt;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use tokio::sync::mpsc::UnboundedSender;

use crate::metrics::{ApiMetrics, WatchLabels};

/// The timeout of one watch request, in seconds. The next request continues where the previous request ended.
///
/// If the API server's machine loses power, the connection dies silently. The watch notices the dead connection 5 s
/// after this timeout.
const WATCH_TIMEOUT_SECONDS: u32 = 60;

/// The task of a watch has ended. Only a panic or the end of the runtime can end the task.
#[derive(Debug, thiserror::Error)]
#[error("the task of a watch has ended; restart the program and report this fault")]
pub struct WatchEnded;

/// Sends the triggers of all watches, and counts the errors of watches.
#[derive(Clone, Debug)]
pub struct TriggerSender<T> {
    /// The channel for the triggers.
    pub sender: UnboundedSender<T>,
    /// The trigger to send when a watch has listed all objects of its kind.
    pub list_completed: T,
    /// The metrics that count the errors.
    pub metrics: ApiMetrics,
}

/// A function that returns the trigger for an object.
type ToTrigger<K, T> = Box<dyn Fn(&K) -> Option<T> + Send + Sync>;

/// The rules for the cache of one kind of object.
pub struct WatchSpec<K, T> {
    /// Drops the fields that the program does not read, to save memory.
    prune: Box<dyn Fn(&mut K) + Send + Sync>,
    /// Returns the trigger to send when an object changes or is deleted.
    trigger: ToTrigger<K, T>,
}

impl<K, T> WatchSpec<K, T> {
    /// Returns the rules for a kind of object.
    pub fn new(
        prune: impl Fn(&mut K) + Send + Sync + 'static,
        trigger: impl Fn(&K) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self { prune: Box::new(prune), trigger: Box::new(trigger) }
    }

    /// Drops the fields that the program does not read.
    pub(crate) fn prune(&self, object: &mut K) {
        (self.prune)(object);
    }
}

/// Returns the configuration of a watch for all objects of a kind.
#[must_use]
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS)
}

/// Starts a task that watches until the runtime ends. Returns the store that the task keeps up to date.
pub fn spawn_reflector<K, T>(
    api: Api<K>,
    config: watcher::Config,
    watch_spec: WatchSpec<K, T>,
    triggers: &TriggerSender<T>,
) -> Store<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    T: Clone + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let WatchSpec { prune, trigger } = watch_spec;
    let events = watcher(api, config).default_backoff().modify(move |object| prune(object)).reflect(writer);
    let triggers = triggers.clone();
    tokio::spawn(events.for_each(move |event| {
        if let Some(trigger) = on_event(event, &trigger, &triggers) {
            // The send fails only while the program stops, because the receiver no longer exists.
            let _ = triggers.sender.send(trigger);
        }
        ready(())
    }));
    store
}

/// Returns the trigger for an event. If the event is an error, logs and counts the error. The watch then tries again.
fn on_event<K, T>(
    event: watcher::Result<Event<K>>,
    trigger: &dyn Fn(&K) -> Option<T>,
    triggers: &TriggerSender<T>,
) -> Option<T>
where
    K: Resource,
    K::DynamicType: Default,
    T: Clone,
{
    match event {
        Ok(Event::Apply(object) | Event::Delete(object)) => trigger(&object),
        // The store keeps its old content until the list is complete.
        Ok(Event::Init | Event::InitApply(_)) => None,
        Ok(Event::InitDone) => Some(triggers.list_completed.clone()),
        Err(error) => {
            let kind = K::kind(&K::DynamicType::default()).into_owned();
            tracing::warn!(
                kind,
                error = &error as &dyn std::error::Error,
                "the watch failed; trying again with a backoff"
            );
            triggers.metrics.watch_errors.get_or_create(&WatchLabels { kind }).inc();
            None
        }
    }
}
