//! Another program writes the same fields as the operator. The operator then writes less often, and emits one Warning.
//! When the other program stops, the operator restores the fields.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use akrobateo_core::annotations::IP_MODE;
use e2e::{
    Failure, Namespace, PROXIES_NAMESPACE, ServiceBuilder, audit, ensure, ensure_eq, eventually,
    eventually_within, fault_test_in_dedicated_mode, fault_test_in_shared_mode, service,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

/// The field manager of the other program.
const OTHER_FIELD_MANAGER: &str = "e2e-rival";
/// The time for which the other program writes.
const CONFLICT_DURATION: Duration = Duration::from_secs(20);
/// The time between two writes of the other program.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(OTHER_FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Returns the number of requests in which the operator wrote the status since `start`.
fn count_status_writes(web: &ServiceBuilder, start: Timestamp) -> Result<usize, Failure> {
    let requests = audit::read_operator_requests()?.into_iter();
    let writes = requests.filter(|request| {
        request.resource == "services/status"
            && request.object_name == web.name()
            && request.received_at >= start
    });
    Ok(writes.count())
}

async fn list_events_with_reason(
    namespace: &Namespace,
    web: &ServiceBuilder,
    reason: &str,
) -> Result<Vec<Event>, Failure> {
    let events = namespace.list_events(web).await?.into_iter();
    Ok(events.filter(|event| event.reason.as_deref() == Some(reason)).collect())
}

/// Returns the number of times that an event was emitted.
fn emission_count(event: &Event) -> i32 {
    event.series.as_ref().map_or(1, |series| series.count)
}

#[tokio::test]
async fn operator_restores_a_status_that_another_program_overwrites() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, _| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        namespace.expose(&web).await?;
        namespace.wait_operator_synced().await?;
        let update_events_before = list_events_with_reason(namespace, &web, "UpdatedLoadBalancer").await?;

        let services: Api<Service> = Api::namespaced(namespace.cluster().client.clone(), namespace.name());
        let other_status: Value =
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.99", "ipMode": "Proxy" }] } } });
        let (start_time, started_at, mut other_write_count) = (Timestamp::now(), Instant::now(), 0);
        while started_at.elapsed() < CONFLICT_DURATION {
            let patch = Patch::Merge(&other_status);
            services.patch_status(web.name(), &patch_params(), &patch).await?;
            other_write_count += 1;
            sleep(WRITE_INTERVAL).await;
        }
        let write_count = count_status_writes(&web, start_time)?;
        eprintln!("the other program has written {other_write_count} times, the operator {write_count} times");
        ensure((2..=6).contains(&write_count), || format!("the operator has written the status {write_count} times"))?;
        namespace
            .wait_warning(&web, "StatusConflict", &[OTHER_FIELD_MANAGER, "status.loadBalancer", "loadBalancerClass"])
            .await?;

        let nodes = namespace.cluster().list_nodes().await?;
        namespace.wait_published(&web, &nodes).await?;
        eventually_within(Duration::from_mins(2), "the condition has no message about the program", async || {
            let message = namespace.get_condition(&web).await?.message;
            ensure(!message.contains(OTHER_FIELD_MANAGER), || message.clone())
        })
        .await?;
        namespace.wait_exposed(&web).await?;
        let warnings = list_events_with_reason(namespace, &web, "StatusConflict").await?;
        ensure_eq("number of Warnings", &warnings.iter().map(emission_count).collect::<Vec<_>>(), &vec![1])?;
        let update_events = list_events_with_reason(namespace, &web, "UpdatedLoadBalancer").await?;
        ensure_eq("events about addresses", &update_events, &update_events_before)?;
        let write_count = count_status_writes(&web, start_time)?;
        ensure(write_count <= 9, || format!("the operator has written the status {write_count} times"))
    })
    .await
}

#[tokio::test]
async fn operator_reverts_an_added_field_twice_and_then_emits_a_warning() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, _| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        namespace.expose(&web).await?;
        let daemonsets: Api<DaemonSet> =
            Api::namespaced(namespace.cluster().client.clone(), PROXIES_NAMESPACE);
        let daemonset_name = namespace.wait_rolled_out(&web).await?.name_any();
        let added_field = json!({ "spec": { "template": { "spec": { "shareProcessNamespace": true } } } });
        let (started_at, mut uids) = (Instant::now(), BTreeSet::new());
        while started_at.elapsed() < CONFLICT_DURATION {
            // The DaemonSet does not exist while the operator creates it again.
            if let Some(daemonset) = daemonsets.get_opt(&daemonset_name).await?
                && daemonset.metadata.deletion_timestamp.is_none()
            {
                uids.extend(daemonset.uid());
                let patch =
                    daemonsets.patch(&daemonset_name, &patch_params(), &Patch::Merge(&added_field)).await;
                ensure(!matches!(&patch, Err(error) if !is_not_found(error)), || format!("{patch:?}"))?;
            }
            sleep(WRITE_INTERVAL).await;
        }
        ensure_eq("number of DaemonSets that the operator created", &uids.len(), &3)?;
        namespace
            .wait_warning(
                &web,
                "WorkloadConflict",
                &[OTHER_FIELD_MANAGER, "spec.template.spec.shareProcessNamespace"],
            )
            .await?;
        let warnings = list_events_with_reason(namespace, &web, "WorkloadConflict").await?;
        ensure_eq("number of Warnings", &warnings.iter().map(emission_count).collect::<Vec<_>>(), &vec![1])?;
        let daemonset = namespace.wait_rolled_out(&web).await?;
        ensure(uids.contains(&daemonset.uid().unwrap_or_default()), || {
            "the operator has created another DaemonSet".to_owned()
        })?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

#[tokio::test]
async fn repeated_event_is_counted_in_one_object() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, _| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        for repetition in 1..=3 {
            namespace.apply(&web).await?;
            eventually("the spec of the Service is accepted", async || {
                let message = namespace.get_condition(&web).await?.message;
                ensure(!message.contains("Bogus"), || message.clone())
            })
            .await?;
            namespace.apply(&web.clone().annotation(IP_MODE, "Bogus")).await?;
            eventually("the event counts every rejection", async || {
                let events = list_events_with_reason(namespace, &web, "InvalidAnnotation").await?;
                ensure_eq("counts", &events.iter().map(emission_count).collect::<Vec<_>>(), &vec![repetition])
            })
            .await?;
        }
        Ok(())
    })
    .await
}
