//! The cached objects of one kind, by namespace and name, and by the key of an index. Does no I/O.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

/// The task of a watch has ended. Only a panic or the end of the runtime can end the task.
#[derive(Debug, thiserror::Error)]
#[error("the task of a watch has ended; restart the program and report this fault")]
pub struct WatchEnded;

/// The key type of a store without an index.
pub type NoIndex = ();

/// A function that converts an object of the API server into the object to store.
pub(crate) type Conversion<K, V> = Box<dyn Fn(K) -> V + Send + Sync>;

/// A function that returns the key of an object in the index; `None` if the index does not contain the object.
pub(crate) type ToIndexKey<V, I> = Box<dyn Fn(&V) -> Option<I> + Send + Sync>;

/// The cached objects of one kind.
#[derive(Debug)]
pub struct Store<V, I = NoIndex> {
    objects: Arc<RwLock<Objects<V, I>>>,
    is_ready: watch::Receiver<bool>,
}

/// Changes the content of a store.
pub(crate) struct StoreWriter<K, V, I> {
    objects: Arc<RwLock<Objects<V, I>>>,
    convert: Conversion<K, V>,
    to_index_key: ToIndexKey<V, I>,
    /// The objects of a list that is not complete yet. Until the list is complete, the store keeps its old content.
    incomplete_list: Objects<V, I>,
    is_ready: watch::Sender<bool>,
}

#[derive(Debug)]
struct Objects<V, I> {
    /// The objects by namespace and by name. Objects without a namespace have the empty namespace.
    by_name: HashMap<String, HashMap<String, Arc<V>>>,
    by_index_key: HashMap<I, Vec<Arc<V>>>,
    newest_version: u64,
}

/// Returns an empty store and its writer.
pub(crate) fn new_store<K, V, I>(
    convert: Conversion<K, V>,
    to_index_key: ToIndexKey<V, I>,
) -> (Store<V, I>, StoreWriter<K, V, I>) {
    let objects = Arc::new(RwLock::default());
    let (sender, receiver) = watch::channel(false);
    let incomplete_list = Objects::default();
    let writer =
        StoreWriter { objects: objects.clone(), convert, to_index_key, incomplete_list, is_ready: sender };
    (Store { objects, is_ready: receiver }, writer)
}

impl<V, I: Eq + Hash> Store<V, I> {
    /// Waits until the first list is complete.
    pub async fn wait_until_ready(&self) -> Result<(), WatchEnded> {
        self.is_ready.clone().wait_for(|is_ready| *is_ready).await.map(drop).map_err(|_| WatchEnded)
    }

    /// Returns the object with this name. Objects without a namespace have the empty namespace.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        self.read(|objects| objects.by_name.get(namespace)?.get(name).cloned())
    }

    /// Returns the objects with this key in the index, in undefined order.
    pub fn get_indexed(&self, key: &I) -> Vec<Arc<V>> {
        self.read(|objects| objects.by_index_key.get(key).cloned().unwrap_or_default())
    }

    /// Returns all objects, in undefined order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<V>> {
        self.read(|objects| objects.by_name.values().flat_map(HashMap::values).cloned().collect())
    }

    /// Returns the newest resourceVersion that the store has received. A version that is not a number counts as 0.
    #[must_use]
    pub fn newest_version(&self) -> u64 {
        self.read(|objects| objects.newest_version)
    }

    fn read<T>(&self, read: impl FnOnce(&Objects<V, I>) -> T) -> T {
        read(&self.objects.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Resource, V, I: Eq + Hash> StoreWriter<K, V, I> {
    /// Applies an event to the store. Returns the changed or deleted object, except for the objects of a list.
    pub(crate) fn apply(&mut self, event: Event<K>) -> Option<Arc<V>> {
        match event {
            Event::Apply(object) => {
                let (meta, current) = self.convert(object);
                self.write(|objects, to_key| objects.insert(&meta, current.clone(), to_key));
                Some(current)
            }
            Event::Delete(object) => {
                let (meta, last_state) = self.convert(object);
                self.write(|objects, to_key| objects.remove(&meta, to_key));
                Some(last_state)
            }
            Event::Init => {
                self.incomplete_list = Objects::default();
                None
            }
            Event::InitApply(object) => {
                let (meta, object) = self.convert(object);
                self.incomplete_list.insert(&meta, object, &self.to_index_key);
                None
            }
            Event::InitDone => {
                let list = std::mem::take(&mut self.incomplete_list);
                self.write(|objects, _| *objects = list);
                self.is_ready.send_replace(true);
                None
            }
        }
    }

    fn convert(&self, object: K) -> (ObjectName, Arc<V>) {
        (ObjectName::from_meta(object.meta()), Arc::new((self.convert)(object)))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Objects<V, I>, &ToIndexKey<V, I>) -> T) -> T {
        change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner), &self.to_index_key)
    }
}

/// The name and the version of an object.
#[derive(Debug)]
struct ObjectName {
    namespace: String,
    name: String,
    version: u64,
}

impl ObjectName {
    fn from_meta(meta: &ObjectMeta) -> Self {
        let version = meta.resource_version.as_ref().and_then(|version| version.parse().ok());
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            version: version.unwrap_or_default(),
        }
    }
}

impl<V, I: Eq + Hash> Objects<V, I> {
    /// Inserts an object, or replaces the object with the same name.
    fn insert(&mut self, name: &ObjectName, object: Arc<V>, to_key: &ToIndexKey<V, I>) {
        self.remove(name, to_key);
        if let Some(key) = to_key(&object) {
            self.by_index_key.entry(key).or_default().push(object.clone());
        }
        let namespace = self.by_name.entry(name.namespace.clone()).or_default();
        namespace.insert(name.name.clone(), object);
    }

    /// Removes the object with this name.
    fn remove(&mut self, name: &ObjectName, to_key: &ToIndexKey<V, I>) {
        // The version of a deleted object counts too, because the program has seen all earlier changes.
        self.newest_version = self.newest_version.max(name.version);
        let Some(namespace) = self.by_name.get_mut(&name.namespace) else { return };
        let Some(previous) = namespace.remove(&name.name) else { return };
        if namespace.is_empty() {
            self.by_name.remove(&name.namespace);
        }
        if let Some(key) = to_key(&previous)
            && let Some(indexed) = self.by_index_key.get_mut(&key)
        {
            indexed.retain(|other| !Arc::ptr_eq(other, &previous));
            if indexed.is_empty() {
                self.by_index_key.remove(&key);
            }
        }
    }
}

impl<V, I> Default for Objects<V, I> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), by_index_key: HashMap::new(), newest_version: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt;

    use super::*;

    fn pod(name: &str, owner: &str, version: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".to_owned());
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.resource_version = Some(version.to_owned());
        pod.metadata.labels = Some(BTreeMap::from([("owner".to_owned(), owner.to_owned())]));
        pod
    }

    fn new_pod_store() -> (Store<Pod, String>, StoreWriter<Pod, Pod, String>) {
        new_store(Box::new(|pod| pod), Box::new(|pod: &Pod| pod.labels().get("owner").cloned()))
    }

    fn indexed_names(store: &Store<Pod, String>, owner: &str) -> Vec<String> {
        let mut names: Vec<_> =
            store.get_indexed(&owner.to_owned()).iter().map(|pod| pod.name_any()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn index_follows_the_changes_of_objects() {
        let (store, mut writer) = new_pod_store();
        writer.apply(Event::Apply(pod("a", "web", "1")));
        writer.apply(Event::Apply(pod("b", "web", "2")));
        assert_eq!(indexed_names(&store, "web"), ["a", "b"]);
        writer.apply(Event::Apply(pod("a", "api", "3")));
        assert_eq!(
            (indexed_names(&store, "web"), indexed_names(&store, "api")),
            (vec!["b".into()], vec!["a".into()])
        );
        assert_eq!(writer.apply(Event::Delete(pod("a", "api", "4"))).unwrap().name_any(), "a");
        assert!(indexed_names(&store, "api").is_empty() && store.get("default", "a").is_none());
        assert_eq!((store.all().len(), store.newest_version()), (1, 4));
        assert_eq!(writer.objects.read().unwrap().by_index_key.len(), 1, "no empty entry stays");
    }

    #[test]
    fn list_replaces_the_content_when_it_is_complete() {
        let (store, mut writer) = new_pod_store();
        writer.apply(Event::Apply(pod("a", "web", "9")));
        writer.apply(Event::Init);
        writer.apply(Event::InitApply(pod("b", "web", "5")));
        assert_eq!(indexed_names(&store, "web"), ["a"]);
        writer.apply(Event::InitDone);
        assert_eq!(indexed_names(&store, "web"), ["b"]);
        assert!(store.get("default", "a").is_none() && store.get("other", "b").is_none());
        // A smaller version means that the data of the cluster was restored.
        assert_eq!(store.newest_version(), 5);
    }

    #[tokio::test]
    async fn store_is_ready_after_the_first_list() {
        let (store, mut writer) = new_pod_store();
        writer.apply(Event::Apply(pod("a", "web", "1")));
        assert!(!*store.is_ready.borrow());
        writer.apply(Event::InitDone);
        store.wait_until_ready().await.unwrap();
        let (store, writer) = new_pod_store();
        drop(writer);
        assert!(store.wait_until_ready().await.is_err());
    }
}
