//! Watches one kind of object: keeps its store up to date and sends a trigger for each change. Does I/O.

use std::fmt::Debug;
use std::future::ready;
use std::hash::Hash;

use futures::StreamExt;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use tokio::sync::mpsc::UnboundedSender;

use crate::metrics::{ApiMetrics, WatchLabels};
use crate::store::{Conversion, NoIndex, Store, StoreWriter, ToIndexKey, new_store};

/// The timeout of one watch request, in seconds. The next request continues where the previous request ended.
///
/// If the API server's machine loses power, the connection dies silently. The watch notices the dead connection 5 s
/// after this timeout.
const WATCH_TIMEOUT_SECONDS: u32 = 60;

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
type ToTrigger<V, T> = Box<dyn Fn(&V) -> Option<T> + Send + Sync>;

/// The rules for the cache of one kind of object. The store contains values of the type `V`.
pub struct WatchSpec<K, T, I = NoIndex, V = K> {
    /// Drops the fields that the program does not read, to save memory.
    convert: Conversion<K, V>,
    /// Returns the trigger to send when an object changes or is deleted.
    trigger: ToTrigger<V, T>,
    to_index_key: ToIndexKey<V, I>,
}

impl<K: 'static, T> WatchSpec<K, T> {
    /// Returns the rules for a kind of object. `prune` drops the fields that the program does not read.
    pub fn new(
        prune: impl Fn(&mut K) + Send + Sync + 'static,
        trigger: impl Fn(&K) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let convert = move |mut object| {
            prune(&mut object);
            object
        };
        Self::with_conversion(convert, trigger)
    }
}

impl<K, T, V> WatchSpec<K, T, NoIndex, V> {
    /// Returns the rules for a kind of object. The store contains the results of `convert`.
    pub fn with_conversion(
        convert: impl Fn(K) -> V + Send + Sync + 'static,
        trigger: impl Fn(&V) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self { convert: Box::new(convert), trigger: Box::new(trigger), to_index_key: Box::new(|_| None) }
    }

    /// Adds an index to the store. `to_index_key` returns the key of an object in the index.
    pub fn with_index<I>(
        self,
        to_index_key: impl Fn(&V) -> Option<I> + Send + Sync + 'static,
    ) -> WatchSpec<K, T, I, V> {
        let Self { convert, trigger, to_index_key: _ } = self;
        WatchSpec { convert, trigger, to_index_key: Box::new(to_index_key) }
    }
}

impl<K, T, I, V> WatchSpec<K, T, I, V> {
    /// Returns an empty store with the index of these rules, and the writer of the store.
    pub(crate) fn new_store(self) -> (Store<V, I>, StoreWriter<K, V, I>) {
        new_store(self.convert, self.to_index_key)
    }
}

/// Returns the configuration of a watch for all objects of a kind.
#[must_use]
pub fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS)
}

/// Starts a task that watches until the runtime ends. Returns the store that the task keeps up to date.
pub fn spawn_reflector<K, T, I, V>(
    api: Api<K>,
    config: watcher::Config,
    watch_spec: WatchSpec<K, T, I, V>,
    triggers: &TriggerSender<T>,
) -> Store<V, I>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
    T: Clone + Send + Sync + 'static,
    I: Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let WatchSpec { convert, trigger, to_index_key } = watch_spec;
    let (store, writer) = new_store(convert, to_index_key);
    let events = watcher(api, config).default_backoff();
    let mut watch = Watch { writer, trigger, triggers: triggers.clone() };
    tokio::spawn(events.for_each(move |event| {
        watch.on_event(event);
        ready(())
    }));
    store
}

/// A running watch.
struct Watch<K, T, I, V> {
    writer: StoreWriter<K, V, I>,
    trigger: ToTrigger<V, T>,
    triggers: TriggerSender<T>,
}

impl<K, T, I, V> Watch<K, T, I, V>
where
    K: Resource,
    K::DynamicType: Default,
    T: Clone,
    I: Eq + Hash,
{
    /// Applies an event to the store, and sends its trigger. If the event is an error, logs and counts the error. The
    /// watch then tries again.
    fn on_event(&mut self, event: watcher::Result<Event<K>>) {
        let trigger = match event {
            Ok(event) => {
                let is_list_completed = matches!(event, Event::InitDone);
                let change = self.writer.apply(event);
                if is_list_completed {
                    Some(self.triggers.list_completed.clone())
                } else {
                    change.and_then(|object| (self.trigger)(&object))
                }
            }
            Err(error) => {
                self.report(&error);
                None
            }
        };
        if let Some(trigger) = trigger {
            // The send fails only while the program stops, because the receiver no longer exists.
            let _ = self.triggers.sender.send(trigger);
        }
    }

    fn report(&self, error: &watcher::Error) {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        tracing::warn!(
            kind,
            error = error as &dyn std::error::Error,
            "the watch failed; trying again with a backoff"
        );
        self.triggers.metrics.watch_errors.get_or_create(&WatchLabels { kind }).inc();
    }
}
