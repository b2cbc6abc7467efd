//! Everything that the operator has made of a test's Services, to be compared as a whole. Does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use akrobateo_core::labels;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::serde::Serialize;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend::is_ready;
use crate::warnings::exposed_condition;
use crate::{Failure, Namespace, ensure, eventually, same};

/// How long nothing may change until it is believed that nothing will.
const QUIET: Duration = Duration::from_secs(5);

/// What was made for each Service, by its name, and what its status says; without times.
pub type Snapshot = BTreeMap<String, Value>;

/// Where two snapshots differ, each place with what either has there.
#[must_use]
pub fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut differences = Vec::new();
    let services: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for service in services {
        let of = |snapshot: &Snapshot| snapshot.get(service).cloned().unwrap_or_default();
        compare(service, &of(before), &of(after), &mut differences);
    }
    differences
}

fn compare(place: &str, before: &Value, after: &Value, differences: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(one), Value::Object(two)) => {
            for key in one.keys().chain(two.keys()).collect::<BTreeSet<_>>() {
                compare(&format!("{place}.{key}"), &before[key], &after[key], differences);
            }
        }
        _ if before == after => (),
        _ => differences.push(format!("{place}: {before}, {after}")),
    }
}

impl Namespace {
    /// Waits until nothing has changed for a while, and takes a snapshot of that.
    pub async fn quiet(&self) -> Result<Snapshot, Failure> {
        let mut last: Option<(Snapshot, Instant)> = None;
        eventually("nothing changes any more", async || {
            let now = self.settled().await.inspect_err(|_| last = None)?;
            let since = last.as_ref().filter(|(before, _)| *before == now).map(|(_, since)| *since);
            let quiet = since.is_some_and(|since| since.elapsed() > QUIET);
            if !quiet {
                last = Some((now, since.unwrap_or_else(Instant::now)));
                return Err(Failure::Unmet(format!("the last change was at {since:?}")));
            }
            Ok(now)
        })
        .await
    }

    /// Takes a snapshot, unless something is still under way.
    async fn settled(&self) -> Result<Snapshot, Failure> {
        let pods = Api::<Pod>::all(self.client()).list(&self.all_proxies()).await?;
        let unready: Vec<_> = pods.iter().filter(|pod| !is_ready(pod)).map(ResourceExt::name_any).collect();
        ensure(unready.is_empty(), || format!("not ready: {unready:?}"))?;
        let mut snapshot = Snapshot::new();
        for service in
            Api::<Service>::namespaced(self.client(), self.name()).list(&ListParams::default()).await?
        {
            let condition = exposed_condition(&service);
            ensure(condition.is_none_or(|condition| condition.reason != "ProxiesNotReady"), || {
                format!("{}: {condition:?}", service.name_any())
            })?;
            snapshot.insert(service.name_any(), status(&service));
        }
        for daemonset in Api::<DaemonSet>::all(self.client()).list(&self.all_proxies()).await? {
            let seen = daemonset.status.as_ref().and_then(|status| status.observed_generation);
            insert(&mut snapshot, "DaemonSet", &daemonset, &daemonset.spec, seen)?;
        }
        for deployment in Api::<Deployment>::all(self.client()).list(&self.all_proxies()).await? {
            let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
            insert(&mut snapshot, "Deployment", &deployment, &deployment.spec, seen)?;
        }
        Ok(snapshot)
    }

    /// Takes away all that the operator has made and written, as if there had never been one.
    pub async fn forget_everything(&self) -> Result<(), Failure> {
        let background = DeleteParams::background();
        for daemonset in Api::<DaemonSet>::all(self.client()).list(&self.all_proxies()).await? {
            let api: Api<DaemonSet> =
                Api::namespaced(self.client(), &daemonset.namespace().unwrap_or_default());
            api.delete(&daemonset.name_any(), &background).await?;
        }
        for deployment in Api::<Deployment>::all(self.client()).list(&self.all_proxies()).await? {
            let api: Api<Deployment> =
                Api::namespaced(self.client(), &deployment.namespace().unwrap_or_default());
            api.delete(&deployment.name_any(), &background).await?;
        }
        let services: Api<Service> = Api::namespaced(self.client(), self.name());
        let nothing = json!({ "status": { "loadBalancer": { "ingress": null }, "conditions": null } });
        for service in services.list(&ListParams::default()).await? {
            services
                .patch_status(&service.name_any(), &PatchParams::default(), &Patch::Merge(nothing.clone()))
                .await?;
        }
        Ok(())
    }

    pub(crate) fn all_proxies(&self) -> ListParams {
        ListParams::default().labels(&format!("{}={}", labels::SERVICE_NAMESPACE, self.name()))
    }
}

fn status(service: &Service) -> Value {
    let published = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let condition = exposed_condition(service);
    json!({
        "policy": service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_ref()),
        "published": published.and_then(|published| published.ingress.as_ref()),
        "condition": condition.map(|condition| (&condition.status, &condition.reason, &condition.message)),
        "workloads": {},
    })
}

fn insert(
    snapshot: &mut Snapshot,
    kind: &str,
    workload: &impl ResourceExt,
    spec: &impl Serialize,
    seen_generation: Option<i64>,
) -> Result<(), Failure> {
    same(
        &format!("the generation of {kind} {} that has been seen to", workload.name_any()),
        &seen_generation,
        &workload.meta().generation,
    )?;
    let service = workload.labels().get(labels::SERVICE_NAME).cloned().unwrap_or_default();
    let spec = serde_json::to_value(spec).map_err(kube::Error::SerdeError)?;
    let name = format!("{kind} {}/{}", workload.namespace().unwrap_or_default(), workload.name_any());
    let entry = snapshot.entry(service).or_insert_with(|| json!({ "workloads": {} }));
    if kind == "Deployment" {
        // Its pods choose their nodes by chance: how many are published is certain, or, where only nodes with an
        // endpoint are, not even that.
        if entry["policy"] == "Local" {
            (entry["published"], entry["condition"]) = (Value::Null, Value::Null);
        } else {
            entry["published"] = json!(entry["published"].as_array().map_or(0, Vec::len));
        }
    }
    entry["workloads"][name] = spec;
    Ok(())
}
