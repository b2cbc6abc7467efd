//! What the operator made for a Service. Does I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::labels;
use http::Request;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};

use crate::backend::is_ready;
use crate::{Failure, Namespace, ServiceBuilder, ensure, eventually, same, service};

/// The namespace of the operator and, by default, of its proxies.
pub const OPERATOR_NAMESPACE: &str = "kube-system";

impl Namespace {
    /// The DaemonSet that was made for a Service; a failure unless there is exactly one.
    pub async fn daemonset(&self, service: &ServiceBuilder) -> Result<DaemonSet, Failure> {
        let mut found = self.daemonsets(service).await?;
        ensure(found.len() == 1, || format!("{} DaemonSets for {}", found.len(), service.name()))?;
        Ok(found.remove(0))
    }

    /// Each DaemonSet that was made for a Service, anywhere.
    pub async fn daemonsets(&self, service: &ServiceBuilder) -> Result<Vec<DaemonSet>, Failure> {
        Ok(Api::all(self.client()).list(&self.made_for(service)).await?.items)
    }

    /// Each DaemonSet that was made for any Service of the namespace.
    pub async fn all_daemonsets(&self) -> Result<Vec<DaemonSet>, Failure> {
        Ok(Api::all(self.client()).list(&self.all_proxies()).await?.items)
    }

    /// Makes a DaemonSet of the test's own.
    pub async fn create_daemonset(&self, daemonset: &DaemonSet) -> Result<(), Failure> {
        let api = Api::<DaemonSet>::namespaced(self.client(), OPERATOR_NAMESPACE);
        api.create(&PostParams::default(), daemonset).await?;
        Ok(())
    }

    /// Deletes it, and waits until its pods are gone.
    pub async fn delete_daemonset(&self, daemonset: &DaemonSet) -> Result<(), Failure> {
        let api = Api::<DaemonSet>::namespaced(self.client(), OPERATOR_NAMESPACE);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default()
        };
        api.delete(&daemonset.name_any(), &params).await?;
        eventually("the DaemonSet is gone", async || {
            ensure(api.get_opt(&daemonset.name_any()).await?.is_none(), || "it is still there".to_owned())
        })
        .await
    }

    /// Each Deployment that was made for a Service, anywhere.
    pub async fn deployments(&self, service: &ServiceBuilder) -> Result<Vec<Deployment>, Failure> {
        Ok(Api::all(self.client()).list(&self.made_for(service)).await?.items)
    }

    /// The pods of a Service's proxies, anywhere.
    pub async fn proxy_pods(&self, service: &ServiceBuilder) -> Result<Vec<Pod>, Failure> {
        Ok(Api::all(self.client()).list(&self.made_for(service)).await?.items)
    }

    /// The addresses of a Service's proxy pods, by their nodes' names.
    pub async fn proxy_addresses(
        &self,
        service: &ServiceBuilder,
    ) -> Result<BTreeMap<String, Vec<IpAddr>>, Failure> {
        let pods = self.proxy_pods(service).await?;
        Ok(pods.iter().filter_map(addresses).collect())
    }

    /// Waits until every pod of a Service's proxies is new, ready, and the only one on its node.
    pub async fn rolled_out(&self, service: &ServiceBuilder) -> Result<DaemonSet, Failure> {
        eventually("the proxies are rolled out", async || {
            let daemonset = self.daemonset(service).await?;
            let status = daemonset.status.clone().unwrap_or_default();
            let seen = (status.updated_number_scheduled, status.number_ready, status.observed_generation);
            let wanted = status.desired_number_scheduled;
            same(
                "updated, ready, generation",
                &seen,
                &(Some(wanted), wanted, daemonset.metadata.generation),
            )?;
            let pods = self.proxy_pods(service).await?;
            let (ready, all) = (pods.iter().filter(|pod| is_ready(pod)).count(), pods.len());
            let wanted = usize::try_from(wanted).unwrap_or(0);
            same("ready pods, and those that terminate", &(ready, all - ready), &(wanted, 0))?;
            ensure(wanted > 0, || "no node takes proxies".to_owned())?;
            Ok(daemonset)
        })
        .await
    }

    /// The metrics of the first of a Service's proxies, as the API server gets them from the pod.
    pub async fn proxy_metrics(&self, service: &ServiceBuilder) -> Result<String, Failure> {
        let pods = self.proxy_pods(service).await?;
        let pod = pods.first().ok_or_else(|| Failure::Unmet("no proxy pod".to_owned()))?;
        let mut args =
            pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|c| c.args.iter().flatten());
        let port = args.find_map(|arg| arg.strip_prefix("--probe-port=")).unwrap_or_default();
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        Ok(self.client().request_text(request).await?)
    }

    /// Deletes all pods of a Service's proxies at once.
    pub async fn restart_proxies(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        let pods = Api::<Pod>::namespaced(self.client(), OPERATOR_NAMESPACE);
        pods.delete_collection(&DeleteParams::default(), &self.made_for(service)).await?;
        Ok(())
    }

    /// Waits until nothing that was made for a Service is left, nor any addresses in its status.
    pub async fn withdrawn(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        eventually("the proxies are gone", async || {
            let deployments = Api::<Deployment>::all(self.client()).list(&self.made_for(service)).await?;
            let deployments = deployments.iter().map(ResourceExt::name_any);
            let daemonsets = self.daemonsets(service).await?;
            let workloads: Vec<_> = daemonsets.iter().map(ResourceExt::name_any).chain(deployments).collect();
            let pods: Vec<_> = self.proxy_pods(service).await?.iter().map(ResourceExt::name_any).collect();
            same("workloads and pods", &(workloads, pods), &(vec![], vec![]))
        })
        .await?;
        eventually("the status is cleared", async || match self.published(service).await {
            Ok(addresses) => same("addresses", &addresses, &vec![]),
            Err(Failure::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
            Err(failure) => Err(failure),
        })
        .await
    }

    /// Waits until the operator has seen everything up to now: a Service that is made now gets its proxies.
    pub async fn operator_caught_up(&self) -> Result<(), Failure> {
        let [port] = self.ports().await?;
        let later = service(&format!("later-{port}")).tcp(port);
        self.apply(&later).await?;
        eventually("the operator serves a later Service", async || self.daemonset(&later).await).await?;
        self.delete(&later).await
    }

    fn made_for(&self, service: &ServiceBuilder) -> ListParams {
        let labels = labels::proxy_labels(self.name(), service.name());
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        ListParams::default().labels(&labels.join(","))
    }
}

fn addresses(pod: &Pod) -> Option<(String, Vec<IpAddr>)> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let addresses = pod.status.as_ref()?.pod_ips.iter().flatten();
    Some((node, addresses.filter_map(|address| address.ip.parse().ok()).collect()))
}
