//! The stores of proxies' workloads and pods in one namespace, or in the namespaces of the Services. Starts the
//! watches. The look-ups do no I/O.

use std::sync::Arc;

use akrobateo_core::labels;
use akrobateo_services::key::ServiceKey;
use api_client::{
    ApiMetrics, ListError, Store, WatchEnded, list_into_store, service_api, spawn_reflector, watch_config,
};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Resource, ResourceExt};

use super::trust::{controls, is_trusted, service_in_labels};
use super::watch_spec::{self, TriggerSender};
use crate::decide::{ProxyNamespace, Workload};

/// The workloads and pods of proxies in one namespace, or in the namespaces of the Services.
pub(super) struct ProxyStores {
    proxy_namespace: ProxyNamespace,
    instance: String,
    daemonsets: Store<DaemonSet, ServiceKey>,
    deployments: Store<Deployment, ServiceKey>,
    /// `None` in a former namespace, where the operator only deletes workloads.
    pods: Option<Store<Pod, ServiceKey>>,
}

/// The parameters that select the objects to read: the workloads and pods of one operator's proxies.
pub(super) struct ProxySource<'a> {
    pub(super) client: &'a Client,
    /// The namespace whose Services are watched; `None` for all namespaces.
    pub(super) watch_namespace: Option<&'a str>,
    pub(super) instance: &'a str,
    pub(super) proxy_namespace: &'a ProxyNamespace,
    /// True if `proxy_namespace` is an earlier value of `--lb-namespace`.
    pub(super) is_former_namespace: bool,
}

impl ProxySource<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match self.proxy_namespace {
            ProxyNamespace::SharedNamespace(namespace) => Api::namespaced(self.client.clone(), namespace),
            ProxyNamespace::ServiceNamespace => service_api(self.client, self.watch_namespace),
        }
    }
}

impl ProxyStores {
    /// Starts a watch of each kind.
    pub(super) fn watch(source: &ProxySource, triggers: &TriggerSender) -> Self {
        let proxy_watch_config = || watch_config().labels(&labels::all_proxies_selector(source.instance));
        let (proxy_namespace, instance) = (source.proxy_namespace, source.instance);
        let watch_pods = || {
            spawn_reflector(source.api(), proxy_watch_config(), watch_spec::pod(proxy_namespace), triggers)
        };
        Self {
            proxy_namespace: proxy_namespace.clone(),
            instance: instance.to_owned(),
            daemonsets: spawn_reflector(
                source.api(),
                proxy_watch_config(),
                watch_spec::workload(proxy_namespace, instance),
                triggers,
            ),
            deployments: spawn_reflector(
                source.api(),
                proxy_watch_config(),
                watch_spec::workload(proxy_namespace, instance),
                triggers,
            ),
            pods: (!source.is_former_namespace).then(watch_pods),
        }
    }

    /// Lists each kind once, and returns stores with the results.
    pub(super) async fn list(source: &ProxySource<'_>, metrics: &ApiMetrics) -> Result<Self, ListError> {
        let selector = labels::all_proxies_selector(source.instance);
        let (proxy_namespace, instance) = (source.proxy_namespace, source.instance);
        let daemonset_spec = watch_spec::workload(proxy_namespace, instance);
        let daemonsets = list_into_store(source.api(), &selector, daemonset_spec, metrics).await?;
        let deployment_spec = watch_spec::workload(proxy_namespace, instance);
        let deployments = list_into_store(source.api(), &selector, deployment_spec, metrics).await?;
        let pods = if source.is_former_namespace {
            None
        } else {
            Some(list_into_store(source.api(), &selector, watch_spec::pod(proxy_namespace), metrics).await?)
        };
        Ok(Self {
            proxy_namespace: proxy_namespace.clone(),
            instance: instance.to_owned(),
            daemonsets,
            deployments,
            pods,
        })
    }

    /// Waits until the first list of each kind is complete.
    pub(super) async fn wait_until_synced(&self) -> Result<(), WatchEnded> {
        self.daemonsets.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.deployments.wait_until_ready().await.map_err(|_| WatchEnded)?;
        if let Some(pods) = &self.pods {
            pods.wait_until_ready().await.map_err(|_| WatchEnded)?;
        }
        Ok(())
    }

    /// Returns true if the proxies are in the namespaces of their Services, where tenants can write to them.
    pub(super) fn is_in_service_namespaces(&self) -> bool {
        self.proxy_namespace == ProxyNamespace::ServiceNamespace
    }

    /// Returns the workloads of a Service that this operator applied.
    pub(super) fn workloads(&self, key: &ServiceKey) -> Vec<Workload> {
        let daemonsets = self.daemonsets.get_indexed(key).into_iter();
        let daemonsets = daemonsets
            .filter(|daemonset| self.trusted_key(&**daemonset).is_some())
            .map(|daemonset| Workload::DaemonSet(Box::new((*daemonset).clone())));
        let deployments = self.deployments.get_indexed(key).into_iter();
        let deployments = deployments
            .filter(|deployment| self.trusted_key(&**deployment).is_some())
            .map(|deployment| Workload::Deployment(Box::new((*deployment).clone())));
        daemonsets.chain(deployments).collect()
    }

    /// Returns the pods of a Service that these workloads control.
    pub(super) fn pods(&self, key: &ServiceKey, workloads: &[Workload]) -> Vec<Arc<Pod>> {
        let Some(pods) = &self.pods else { return Vec::new() };
        let mut pods = pods.get_indexed(key);
        pods.retain(|pod| workloads.iter().any(|workload| controls(workload, pod)));
        pods
    }

    /// Returns the keys of all Services with a workload that this operator applied.
    pub(super) fn keys(&self) -> Vec<ServiceKey> {
        let daemonsets =
            self.daemonsets.all().into_iter().filter_map(|daemonset| self.trusted_key(&*daemonset));
        let deployments =
            self.deployments.all().into_iter().filter_map(|deployment| self.trusted_key(&*deployment));
        daemonsets.chain(deployments).collect()
    }

    fn trusted_key(&self, workload: &impl ResourceExt) -> Option<ServiceKey> {
        let is_trusted = is_trusted(&self.proxy_namespace, &self.instance, workload.meta());
        if is_trusted { service_in_labels(&self.proxy_namespace, workload) } else { None }
    }
}
