//! Tests of leader election with a scripted API server and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use api_client::scripted_api::{ReceivedRequest, ScriptedApi, scripted_api};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{LeaderElector, RENEW_DEADLINE, RETRY_PERIOD};
use crate::decide::fixtures::proxy_config;
use crate::metrics::Metrics;

/// The maximum delay of tokio's timers in these tests.
const TIMER_SLACK: Duration = Duration::from_millis(20);
const LEASE_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/akrobateo";

fn elector() -> (Arc<LeaderElector>, ScriptedApi) {
    let (client, api) = scripted_api();
    let elector =
        LeaderElector::new(client, "kube-system", &proxy_config(), "replica-a".to_owned(), Metrics::new());
    (Arc::new(elector), api)
}

fn lease(holder: &str, duration_seconds: u32, version: &str) -> Value {
    json!({
        "metadata": { "name": "akrobateo", "resourceVersion": version },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": duration_seconds, "leaseTransitions": 3 },
    })
}

async fn next_write(api: &mut ScriptedApi) -> ReceivedRequest {
    let request = api.next_request().await;
    assert_ne!(request.method, Method::GET);
    request
}

/// Answers each read request with `lease` until the elector writes. Panics if the elector does not write within a few
/// minutes.
async fn answer_reads_until_write(api: &mut ScriptedApi, lease: &Value) -> ReceivedRequest {
    for _ in 0..100 {
        let request = api.next_request().await;
        if request.method != Method::GET {
            return request;
        }
        request.answer(lease);
    }
    panic!("the elector only reads the Lease");
}

#[tokio::test(start_paused = true)]
async fn missing_lease_is_created() {
    let (elector, mut api) = elector();
    let acquire_task = tokio::spawn(async move { elector.acquire().await });
    api.next_request().await.answer_error(404, "NotFound");
    let write = next_write(&mut api).await;
    assert_eq!(
        (write.method.clone(), write.body["spec"]["holderIdentity"].as_str()),
        (Method::POST, Some("replica-a"))
    );
    let annotations = &write.body["metadata"]["annotations"];
    assert_eq!(annotations["akrobateo.io/lb-namespace"].as_str(), Some("akrobateo-proxies"));
    write.accept();
    acquire_task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn replica_takes_an_unrenewed_lease_only_after_the_lease_duration() {
    for duration in [15, 40] {
        let (elector, mut api) = elector();
        let started_at = Instant::now();
        let acquire_task = tokio::spawn(async move { elector.acquire().await });
        let write = answer_reads_until_write(&mut api, &lease("replica-b", duration, "7")).await;
        let wait_duration = started_at.elapsed();
        let expected_wait = Duration::from_secs(duration.into());
        assert!(
            wait_duration > expected_wait && wait_duration <= expected_wait + RETRY_PERIOD + TIMER_SLACK,
            "{wait_duration:?}"
        );
        assert_eq!(write.body["metadata"]["resourceVersion"], "7");
        assert_eq!(write.body["spec"]["leaseTransitions"], 4);
        write.accept();
        acquire_task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn replica_waits_while_another_replica_renews_the_lease() {
    let (elector, mut api) = elector();
    let acquire_task = tokio::spawn(async move { elector.acquire().await });
    for version in 0..60 {
        let request = api.next_request().await;
        assert_eq!((&request.method, request.path.as_str()), (&Method::GET, LEASE_PATH));
        request.answer(&lease("replica-b", 15, &version.to_string()));
    }
    assert!(!acquire_task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn replica_that_loses_the_race_for_an_expired_lease_waits_again() {
    let (elector, mut api) = elector();
    let acquire_task = tokio::spawn(async move { elector.acquire().await });
    api.next_request().await.answer(&lease("", 15, "1"));
    next_write(&mut api).await.answer_error(409, "Conflict");
    let started_at = Instant::now();
    let write = answer_reads_until_write(&mut api, &lease("replica-b", 15, "2")).await;
    assert!(started_at.elapsed() > Duration::from_secs(15));
    assert!(!acquire_task.is_finished());
    drop(write);
}

#[tokio::test(start_paused = true)]
async fn conflict_on_renewal_ends_leadership() {
    let (elector, mut api) = elector();
    let hold_task = tokio::spawn(async move { elector.hold(Instant::now()).await });
    api.next_request().await.answer(&lease("replica-a", 15, "1"));
    next_write(&mut api).await.accept();
    api.next_request().await.answer(&lease("replica-a", 15, "2"));
    let write = next_write(&mut api).await;
    assert_eq!(write.body["metadata"]["resourceVersion"], "2");
    write.answer_error(409, "Conflict");
    hold_task.await.unwrap();
    api.expect_no_request().await;
}

#[tokio::test(start_paused = true)]
async fn leadership_ends_when_another_replica_holds_the_lease() {
    let (elector, mut api) = elector();
    let started_at = Instant::now();
    let hold_task = tokio::spawn(async move { elector.hold(Instant::now()).await });
    api.next_request().await.answer(&lease("replica-b", 15, "1"));
    hold_task.await.unwrap();
    assert!(started_at.elapsed() <= RETRY_PERIOD + TIMER_SLACK, "{:?}", started_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn leadership_survives_failed_renewals_until_the_renew_deadline() {
    let (elector, mut api) = elector();
    let started_at = Instant::now();
    let hold_task = tokio::spawn(async move { elector.hold(Instant::now()).await });
    for _ in 0..3 {
        assert!(!hold_task.is_finished());
        api.next_request().await.answer_error(503, "ServiceUnavailable");
    }
    // The API server stops answering.
    let unanswered_request = api.next_request().await;
    hold_task.await.unwrap();
    assert!(started_at.elapsed() <= RENEW_DEADLINE + TIMER_SLACK, "{:?}", started_at.elapsed());
    drop(unanswered_request);
}

#[tokio::test(start_paused = true)]
async fn renew_deadline_starts_when_the_renewal_request_starts() {
    let (elector, mut api) = elector();
    let started_at = Instant::now();
    let hold_task = tokio::spawn(async move { elector.hold(Instant::now()).await });
    api.next_request().await.answer(&lease("replica-a", 15, "1"));
    let write = next_write(&mut api).await;
    // The API server writes the Lease at once, but its answer is late.
    sleep(Duration::from_secs(6)).await;
    write.accept();
    let unanswered_request = api.next_request().await;
    hold_task.await.unwrap();
    assert!(
        started_at.elapsed() <= RETRY_PERIOD + RENEW_DEADLINE + TIMER_SLACK,
        "{:?}",
        started_at.elapsed()
    );
    drop(unanswered_request);
}

#[tokio::test(start_paused = true)]
async fn release_removes_the_holder() {
    let (elector, mut api) = elector();
    let release_task = tokio::spawn(async move { elector.release().await });
    api.next_request().await.answer(&lease("replica-a", 15, "5"));
    let write = next_write(&mut api).await;
    assert_eq!(write.body["metadata"]["resourceVersion"], "5");
    assert_eq!(write.body["spec"].get("holderIdentity"), None);
    write.accept();
    release_task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn release_does_not_change_the_lease_of_another_replica() {
    let (elector, mut api) = elector();
    let release_task = tokio::spawn(async move { elector.release().await });
    api.next_request().await.answer(&lease("replica-b", 15, "5"));
    release_task.await.unwrap().unwrap();
    api.expect_no_request().await;
}

#[tokio::test(start_paused = true)]
async fn recorded_proxy_namespace_is_read_before_the_first_write() {
    for (annotations, expected) in
        [(json!({ "akrobateo.io/lb-namespace": "kube-system" }), Some("kube-system")), (json!({}), None)]
    {
        let (elector, mut api) = elector();
        let read_task = tokio::spawn(async move { elector.recorded_proxy_namespace().await });
        api.next_request().await.answer_error(503, "ServiceUnavailable");
        let mut recorded_lease = lease("replica-b", 15, "1");
        recorded_lease["metadata"]["annotations"] = annotations;
        api.next_request().await.answer(&recorded_lease);
        assert_eq!(read_task.await.unwrap().as_deref(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn acquire_returns_the_start_time_of_the_request() {
    let (elector, mut api) = elector();
    let acquire_task = tokio::spawn(async move { elector.acquire().await });
    api.next_request().await.answer(&lease("", 15, "1"));
    let write = next_write(&mut api).await;
    let request_time = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    write.accept();
    assert!(acquire_task.await.unwrap() <= request_time);
}
