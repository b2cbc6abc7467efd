//! Tests of leadership and shutdown with a scripted API server and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use api_client::scripted_api::{ReceivedRequest, ScriptedApi, scripted_api};
use http::Method;
use serde_json::{Value, json, to_value};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{RunError, run_when_elected};
use crate::apply::Writer;
use crate::cache::WatchScope;
use crate::decide::fixtures::{INSTANCE, defaults, node, proxy_config, service};
use crate::lease::LeaderElector;
use crate::metrics::Metrics;
use crate::planner::Planner;
use crate::reconcile::Context;

const SERVICES_PATH: &str = "/api/v1/services";
const NODES_PATH: &str = "/api/v1/nodes";
const LEASE_PATH: &str = "/leases/akrobateo";
const LEASE_COLLECTION_PATH: &str = "/leases";
const DAEMONSETS_PATH: &str = "/daemonsets/";

struct Operator {
    api: ScriptedApi,
    metrics: Arc<Metrics>,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
    /// The operator's first write request. The test has not answered it yet.
    unanswered_apply: ReceivedRequest,
    /// The watches that the test leaves open.
    _open_watches: Vec<ReceivedRequest>,
}

fn lease(holder: &str, version: u32) -> Value {
    json!({
        "metadata": { "name": "akrobateo", "resourceVersion": version.to_string() },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15 },
    })
}

/// Starts an operator that is the leader. The operator's first write applies the DaemonSet of a new Service. The
/// operator waits for the answer.
async fn start_leader_with_unanswered_write() -> Operator {
    let (client, mut api) = scripted_api();
    let metrics = Metrics::new();
    let (defaults, config) = (Arc::new(defaults()), proxy_config());
    let planner = Planner::watch(&client, &WatchScope::ALL, &config, defaults, &metrics);
    let mut watches = Vec::new();
    while watches.len() < 2 {
        let request = api.next_request_to(&[SERVICES_PATH, NODES_PATH]).await;
        if request.is_watch() {
            watches.push(request);
        } else if request.path == NODES_PATH {
            request.answer_list(&[to_value(node("a").internal_ip("192.0.2.1").build()).unwrap()]);
        } else {
            request.answer_list(&[to_value(service("web").tcp(80).build()).unwrap()]);
        }
    }
    planner.wait_until_synced().await.unwrap();
    let elector =
        LeaderElector::new(client.clone(), "kube-system", &config, "replica-a".to_owned(), metrics.clone());
    let writer = Writer::new(client, INSTANCE, metrics.clone());
    let context = Context::new(writer, proxy_config(), metrics.clone());
    let (shutdown, shutdown_signal) = oneshot::channel();
    let shutdown_signal = Box::pin(async { drop(shutdown_signal.await) });
    let task =
        tokio::spawn(async move { run_when_elected(planner, context, &elector, shutdown_signal).await });
    api.next_request_to(&[LEASE_PATH]).await.answer_error(404, "NotFound");
    api.next_request_to(&[LEASE_COLLECTION_PATH]).await.accept();
    let unanswered_apply = api.next_write_to(DAEMONSETS_PATH).await;
    Operator { api, metrics, shutdown, task, unanswered_apply, _open_watches: watches }
}

#[tokio::test(start_paused = true)]
async fn lost_leadership_stops_a_reconciliation_after_the_running_write() {
    let Operator { mut api, metrics, unanswered_apply, task, shutdown: _shutdown, _open_watches } =
        start_leader_with_unanswered_write().await;
    assert!((metrics.leader.get() - 1.0).abs() < f64::EPSILON);
    api.next_request_to(&[LEASE_PATH]).await.answer(&lease("replica-b", 1));
    unanswered_apply.accept();
    // The operator reads the Lease and must not write.
    for version in 2..20 {
        let request = api.next_request_to(&[LEASE_PATH]).await;
        assert_eq!(request.method, Method::GET);
        request.answer(&lease("replica-b", version));
    }
    assert!(metrics.leader.get().abs() < f64::EPSILON);
    assert!(!task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn shutdown_completes_the_running_reconciliation_and_releases_the_lease() {
    let Operator { mut api, unanswered_apply, shutdown, task, metrics: _, _open_watches } =
        start_leader_with_unanswered_write().await;
    shutdown.send(()).unwrap();
    unanswered_apply.accept();
    api.next_write_to("/events").await.accept();
    api.next_write_to("/services/web/status").await.accept();
    api.next_request_to(&[LEASE_PATH]).await.answer(&lease("replica-a", 1));
    let release = api.next_request_to(&[LEASE_PATH]).await;
    assert_eq!((&release.method, release.body["spec"].get("holderIdentity")), (&Method::PUT, None));
    release.accept();
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn failed_write_is_repeated_after_a_backoff() {
    for (code, reason) in [(409, "Conflict"), (429, "TooManyRequests"), (500, "InternalError")] {
        let Operator { mut api, unanswered_apply, task, shutdown: _shutdown, metrics: _, _open_watches } =
            start_leader_with_unanswered_write().await;
        unanswered_apply.answer_error(code, reason);
        api.next_write_to("/services/web/status").await.accept();
        if code != 409 {
            api.next_write_to("/events").await.accept();
        }
        // Without the timeout, the test would answer reads of the Lease forever.
        let repeated_write = timeout(Duration::from_secs(5), api.next_write_to(DAEMONSETS_PATH)).await;
        assert_eq!(repeated_write.expect("the write is not repeated").method, Method::PATCH);
        assert!(!task.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn replica_that_regains_the_lease_reports_a_lasting_failure_again() {
    let Operator { mut api, unanswered_apply, task, shutdown: _shutdown, metrics: _, _open_watches } =
        start_leader_with_unanswered_write().await;
    unanswered_apply.answer_error(403, "Forbidden");
    let mut current_lease = lease("replica-b", 1);
    let mut event_requests = Vec::new();
    for _ in 0..200 {
        if event_requests.len() == 2 {
            break;
        }
        let request = api.next_request().await;
        if request.path.ends_with(LEASE_PATH) {
            if request.method == Method::PUT {
                current_lease = request.body.clone();
            }
            request.answer(&current_lease);
        } else if request.path.contains(DAEMONSETS_PATH) {
            request.answer_error(403, "Forbidden");
        } else if request.path.contains("/events") {
            event_requests.push((request.method.clone(), current_lease["spec"]["holderIdentity"].clone()));
            request.accept();
        } else if request.method == Method::PATCH {
            request.accept();
        } else {
            api.answer_unscripted_read(request);
        }
    }
    assert_eq!(event_requests.len(), 2, "the failure is not reported again: {event_requests:?}");
    // The second report increases the count of the first event.
    assert_eq!(event_requests[0].0, Method::POST);
    assert_eq!(event_requests[1], (Method::PATCH, json!("replica-a")));
    assert!(!task.is_finished());
}
