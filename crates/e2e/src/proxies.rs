//! The proxies of a Service: their workloads, their pods and their metrics. Does I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use akrobateo_core::{DEFAULT_INSTANCE, labels};
use http::Request;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};

use crate::failure::{Failure, ensure, ensure_eq};
use crate::mode::TestMode;
use crate::namespace::Namespace;
use crate::operator::{OPERATOR_NAMESPACE, PROXIES_NAMESPACE};
use crate::pods::is_ready;
use crate::polling::eventually;
use crate::service::{ServiceBuilder, service};

impl Namespace {
    /// Returns the DaemonSet of a Service. The Service must have exactly one DaemonSet.
    pub async fn get_daemonset(&self, service: &ServiceBuilder) -> Result<DaemonSet, Failure> {
        let mut daemonsets = self.list_daemonsets(service).await?;
        ensure_eq(&format!("number of DaemonSets of {}", service.name()), &daemonsets.len(), &1)?;
        Ok(daemonsets.remove(0))
    }

    /// Returns each `DaemonSet` of a Service in all namespaces.
    pub async fn list_daemonsets(&self, service: &ServiceBuilder) -> Result<Vec<DaemonSet>, Failure> {
        Ok(Api::all(self.client()).list(&self.proxy_list_params(service)).await?.items)
    }

    /// Returns each `DaemonSet` of all Services of this namespace.
    pub async fn list_all_daemonsets(&self) -> Result<Vec<DaemonSet>, Failure> {
        Ok(Api::all(self.client()).list(&self.all_proxies_list_params()).await?.items)
    }

    /// Creates a DaemonSet that the operator does not manage, in the operator's namespace.
    pub async fn create_daemonset(&self, daemonset: &DaemonSet) -> Result<(), Failure> {
        let api = Api::<DaemonSet>::namespaced(self.client(), OPERATOR_NAMESPACE);
        api.create(&PostParams::default(), daemonset).await?;
        Ok(())
    }

    /// Deletes a DaemonSet in the operator's namespace, and waits until its pods are gone.
    pub async fn delete_daemonset(&self, daemonset: &DaemonSet) -> Result<(), Failure> {
        let api = Api::<DaemonSet>::namespaced(self.client(), OPERATOR_NAMESPACE);
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default()
        };
        api.delete(&daemonset.name_any(), &params).await?;
        eventually("the DaemonSet is gone", async || {
            ensure(api.get_opt(&daemonset.name_any()).await?.is_none(), || {
                "the DaemonSet still exists".to_owned()
            })
        })
        .await
    }

    /// Returns the Deployments of a Service in all namespaces.
    pub async fn list_deployments(&self, service: &ServiceBuilder) -> Result<Vec<Deployment>, Failure> {
        Ok(Api::all(self.client()).list(&self.proxy_list_params(service)).await?.items)
    }

    /// Returns the proxy pods of a Service in all namespaces.
    pub async fn list_proxy_pods(&self, service: &ServiceBuilder) -> Result<Vec<Pod>, Failure> {
        Ok(Api::all(self.client()).list(&self.proxy_list_params(service)).await?.items)
    }

    /// Returns the addresses of a Service's proxy pods, keyed by the name of their node. During a rollout a node may
    /// have both a terminating pod and a new pod.
    pub async fn proxy_pod_ips(
        &self,
        service: &ServiceBuilder,
    ) -> Result<BTreeMap<String, Vec<IpAddr>>, Failure> {
        let mut ips_by_node: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (node, ips) in self.list_proxy_pods(service).await?.iter().filter_map(node_and_ips) {
            ips_by_node.entry(node).or_default().extend(ips);
        }
        Ok(ips_by_node)
    }

    /// Returns the UID and the generation of each `DaemonSet` of a Service. In shared mode there is none.
    pub async fn list_workload_versions(
        &self,
        service: &ServiceBuilder,
    ) -> Result<Vec<(Option<String>, Option<i64>)>, Failure> {
        let daemonsets = self.list_daemonsets(service).await?.into_iter();
        Ok(daemonsets.map(|daemonset| (daemonset.metadata.uid, daemonset.metadata.generation)).collect())
    }

    /// Waits until all rollouts of the Service have ended. In shared mode the Service has no rollouts.
    pub async fn wait_rollouts_ended(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        match self.mode() {
            TestMode::Shared => Ok(()),
            TestMode::Dedicated => self.wait_rolled_out(service).await.map(drop),
        }
    }

    /// Waits until a Service's DaemonSet is rolled out: all pods are up to date and ready, and none is terminating.
    ///
    /// A pod is up to date if it has all annotations of the pod template. The status of the DaemonSet cannot replace
    /// this check. If only the placement of the pods has changed, the status counts pods with the current annotations
    /// as outdated.
    pub async fn wait_rolled_out(&self, service: &ServiceBuilder) -> Result<DaemonSet, Failure> {
        eventually("the proxies are rolled out", async || {
            let daemonset = self.get_daemonset(service).await?;
            let status = daemonset.status.clone().unwrap_or_default();
            let desired_count = status.desired_number_scheduled;
            ensure_eq(
                "ready pods, observed generation",
                &(status.number_ready, status.observed_generation),
                &(desired_count, daemonset.metadata.generation),
            )?;
            let pods = self.list_proxy_pods(service).await?;
            let current_count =
                pods.iter().filter(|pod| is_ready(pod) && has_template_annotations(pod, &daemonset)).count();
            let desired_count = usize::try_from(desired_count).unwrap_or(0);
            ensure_eq(
                "ready pods that are up to date, other pods",
                &(current_count, pods.len() - current_count),
                &(desired_count, 0),
            )?;
            ensure(desired_count > 0, || "the DaemonSet selects no node".to_owned())?;
            Ok(daemonset)
        })
        .await
    }

    /// Returns the metrics of the first proxy pod of a Service, read through the API server.
    pub async fn get_proxy_metrics(&self, service: &ServiceBuilder) -> Result<String, Failure> {
        let pods = self.list_proxy_pods(service).await?;
        let pod = pods.first().ok_or_else(|| {
            Failure::UnexpectedState(format!("the Service {} has no proxy pod", service.name()))
        })?;
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut args = containers.flat_map(|container| container.args.iter().flatten());
        let port = args.find_map(|arg| arg.strip_prefix("--probe-port=")).unwrap_or_default();
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        Ok(self.client().request_text(request).await?)
    }

    /// Deletes all proxy pods of a Service at the same time.
    pub async fn delete_proxy_pods(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        let pods = Api::<Pod>::namespaced(self.client(), PROXIES_NAMESPACE);
        pods.delete_collection(&DeleteParams::default(), &self.proxy_list_params(service)).await?;
        Ok(())
    }

    /// Waits until a Service's workload, its proxy pods and the addresses in its status are gone.
    pub async fn wait_cleaned_up(&self, service: &ServiceBuilder) -> Result<(), Failure> {
        eventually("the proxies are gone", async || {
            let deployments = self.list_deployments(service).await?;
            let deployments = deployments.iter().map(ResourceExt::name_any);
            let daemonsets = self.list_daemonsets(service).await?;
            let workloads: Vec<_> = daemonsets.iter().map(ResourceExt::name_any).chain(deployments).collect();
            let pods: Vec<_> =
                self.list_proxy_pods(service).await?.iter().map(ResourceExt::name_any).collect();
            ensure_eq("workloads and pods", &(workloads, pods), &(vec![], vec![]))
        })
        .await?;
        eventually("the status has no addresses", async || match self.published_addresses(service).await {
            Ok(addresses) => ensure_eq("published addresses", &addresses, &vec![]),
            Err(Failure::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
            Err(failure) => Err(failure),
        })
        .await
    }

    /// Waits until the operator has processed all earlier changes: creates a Service, and waits for its DaemonSet.
    pub async fn wait_operator_synced(&self) -> Result<(), Failure> {
        let [port] = self.allocate_ports().await?;
        let marker_service = service(&format!("last-{port}")).tcp(port).with_dedicated_mode();
        self.apply(&marker_service).await?;
        eventually("the operator has created the DaemonSet of the new Service", async || {
            self.get_daemonset(&marker_service).await
        })
        .await?;
        self.delete_service(&marker_service).await
    }

    fn proxy_list_params(&self, service: &ServiceBuilder) -> ListParams {
        let labels = labels::proxy_labels(DEFAULT_INSTANCE, self.name(), service.name());
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        ListParams::default().labels(&labels.join(","))
    }

    /// Returns list parameters that select the workloads and pods of all Services of this namespace.
    pub(crate) fn all_proxies_list_params(&self) -> ListParams {
        ListParams::default().labels(&format!("{}={}", labels::SERVICE_NAMESPACE, self.name()))
    }
}

/// Returns true if the pod has all annotations of the DaemonSet's pod template.
fn has_template_annotations(pod: &Pod, daemonset: &DaemonSet) -> bool {
    let template = daemonset.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let mut annotations = template.iter().flat_map(|metadata| metadata.annotations.iter().flatten());
    annotations.all(|(name, value)| pod.annotations().get(name) == Some(value))
}

fn node_and_ips(pod: &Pod) -> Option<(String, Vec<IpAddr>)> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let pod_ips = pod.status.as_ref()?.pod_ips.iter().flatten();
    Some((node, pod_ips.filter_map(|pod_ip| pod_ip.ip.parse().ok()).collect()))
}
