//! Snapshots of a test's Services and their workloads, to compare two states of the cluster. Does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use akrobateo_core::labels;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::serde::Serialize;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::conditions::exposed_condition;
use crate::failure::{Failure, ensure, ensure_eq};
use crate::namespace::Namespace;
use crate::pods::is_ready;
use crate::polling::eventually;

/// The state of the cluster is stable if nothing has changed for this time.
const STABLE_DURATION: Duration = Duration::from_secs(5);

/// The status and the workloads of each Service, keyed by the Service's name, without timestamps.
pub type Snapshot = BTreeMap<String, Value>;

/// Returns the differences between two snapshots, each with its path and both values.
#[must_use]
pub fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut differences = Vec::new();
    let services: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for service in services {
        let service_value = |snapshot: &Snapshot| snapshot.get(service).cloned().unwrap_or_default();
        collect_differences(service, &service_value(before), &service_value(after), &mut differences);
    }
    differences
}

fn collect_differences(path: &str, before: &Value, after: &Value, differences: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before_map), Value::Object(after_map)) => {
            for key in before_map.keys().chain(after_map.keys()).collect::<BTreeSet<_>>() {
                collect_differences(&format!("{path}.{key}"), &before[key], &after[key], differences);
            }
        }
        _ if before == after => (),
        _ => differences.push(format!("{path}: {before}, {after}")),
    }
}

impl Namespace {
    /// Waits until nothing has changed for some time, and returns a snapshot of the stable state.
    pub async fn wait_stable(&self) -> Result<Snapshot, Failure> {
        let mut last_snapshot: Option<(Snapshot, Instant)> = None;
        eventually("nothing changes any more", async || {
            let current_snapshot = self.take_snapshot().await.inspect_err(|_| last_snapshot = None)?;
            let unchanged_since = last_snapshot
                .as_ref()
                .filter(|(snapshot, _)| *snapshot == current_snapshot)
                .map(|(_, unchanged_since)| *unchanged_since);
            if unchanged_since.is_some_and(|unchanged_since| unchanged_since.elapsed() > STABLE_DURATION) {
                return Ok(current_snapshot);
            }
            let unchanged_since = unchanged_since.unwrap_or_else(Instant::now);
            last_snapshot = Some((current_snapshot, unchanged_since));
            Err(Failure::UnexpectedState(format!("the last change was {:?} ago", unchanged_since.elapsed())))
        })
        .await
    }

    /// Takes a snapshot. Returns an error while a rollout is in progress.
    async fn take_snapshot(&self) -> Result<Snapshot, Failure> {
        let pods = Api::<Pod>::all(self.client()).list(&self.all_proxies_list_params()).await?;
        let mut snapshot = Snapshot::new();
        let mut services_without_nodes = BTreeSet::new();
        for service in
            Api::<Service>::namespaced(self.client(), self.name()).list(&ListParams::default()).await?
        {
            let condition = exposed_condition(&service);
            let is_in_progress = |condition: &Condition| {
                ["ProxiesNotReady", "AgentsNotReady"].contains(&condition.reason.as_str())
            };
            ensure(!condition.is_some_and(is_in_progress), || {
                format!("Service {} has the condition {condition:?}", service.name_any())
            })?;
            if condition.is_some_and(|condition| condition.reason == "NoNodes") {
                services_without_nodes.insert(service.name_any());
            }
            snapshot.insert(service.name_any(), status_value(&service));
        }
        // A Deployment without a matching node has one pod, which waits for a node.
        let waits_for_node = |pod: &Pod| {
            let service = pod.labels().get(labels::SERVICE_NAME);
            pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
                && service.is_some_and(|service| services_without_nodes.contains(service))
        };
        let unready_pods: Vec<_> = pods
            .iter()
            .filter(|pod| !is_ready(pod) && !waits_for_node(pod))
            .map(ResourceExt::name_any)
            .collect();
        ensure(unready_pods.is_empty(), || format!("these pods are not ready: {unready_pods:?}"))?;
        for daemonset in Api::<DaemonSet>::all(self.client()).list(&self.all_proxies_list_params()).await? {
            let observed_generation = daemonset.status.as_ref().and_then(|status| status.observed_generation);
            insert_workload(&mut snapshot, "DaemonSet", &daemonset, &daemonset.spec, observed_generation)?;
        }
        for deployment in Api::<Deployment>::all(self.client()).list(&self.all_proxies_list_params()).await? {
            let observed_generation =
                deployment.status.as_ref().and_then(|status| status.observed_generation);
            insert_workload(&mut snapshot, "Deployment", &deployment, &deployment.spec, observed_generation)?;
        }
        Ok(snapshot)
    }
}

fn status_value(service: &Service) -> Value {
    let load_balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let condition = exposed_condition(service);
    json!({
        "policy": service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_ref()),
        "ingress": load_balancer.and_then(|status| status.ingress.as_ref()),
        "condition": condition.map(|condition| (&condition.status, &condition.reason, &condition.message)),
        "workloads": {},
    })
}

fn insert_workload(
    snapshot: &mut Snapshot,
    kind: &str,
    workload: &impl ResourceExt,
    spec: &impl Serialize,
    observed_generation: Option<i64>,
) -> Result<(), Failure> {
    let name = format!("{kind} {}/{}", workload.namespace().unwrap_or_default(), workload.name_any());
    ensure_eq(&format!("observed generation of {name}"), &observed_generation, &workload.meta().generation)?;
    let service = workload.labels().get(labels::SERVICE_NAME).cloned().unwrap_or_default();
    let spec = serde_json::to_value(spec).map_err(kube::Error::SerdeError)?;
    let entry = snapshot.entry(service).or_insert_with(|| json!({ "workloads": {} }));
    if kind == "Deployment" {
        // The scheduler chooses the nodes of a Deployment's pods, so only the number of addresses can be compared. With
        // externalTrafficPolicy Local the number varies too, because only nodes with an endpoint are published.
        if entry["policy"] == "Local" {
            (entry["ingress"], entry["condition"]) = (Value::Null, Value::Null);
        } else {
            entry["ingress"] = json!(entry["ingress"].as_array().map_or(0, Vec::len));
        }
    }
    entry["workloads"][name] = spec;
    Ok(())
}
