//! Renews the Lease of this node, and writes the agent's report into the Lease after each change. Does I/O.

use std::sync::Arc;
use std::time::Duration;

use akrobateo_core::labels::MANAGED_BY;
use akrobateo_services::agent_report::{AGENT_LABEL, AgentReport, LEASE_DURATION_SECONDS, REPORT_ANNOTATION};
use api_client::{ApiMetrics, CallError, call, error_chain};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The time between two renewals of the Lease if the report does not change.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// The minimum time between two writes of the Lease. Changes within this time share one write.
const MIN_WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// The time after which a failed write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The field manager of the agents.
const FIELD_MANAGER: &str = "akrobateo-agent";

/// The variable content of a node's Lease.
#[derive(Clone, Debug)]
pub(super) struct LeaseContent {
    /// The UID of the Node object; `None` while the object does not exist. The Lease has the Node as its owner, so
    /// Kubernetes deletes the Lease after the Node. A node may return with another UID while its agent runs.
    pub(super) node_uid: Option<String>,
    pub(super) report: Arc<AgentReport>,
}

/// The Lease of one node.
#[derive(Clone)]
pub(super) struct NodeLease {
    pub(super) api: Api<Lease>,
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) node_name: String,
    pub(super) metrics: ApiMetrics,
}

impl NodeLease {
    /// Writes the newest content after each change, and at least once in each [`RENEW_INTERVAL`]. Returns when the sender
    /// is dropped.
    pub(super) async fn write_reports(self, mut contents: watch::Receiver<LeaseContent>) {
        let mut next_renewal = Instant::now();
        let mut has_failed = false;
        loop {
            tokio::select! {
                changed = contents.changed() => if changed.is_err() { return },
                () = sleep_until(next_renewal) => (),
            }
            let LeaseContent { node_uid, report } = contents.borrow_and_update().clone();
            let started_at = Instant::now();
            // Kubernetes would delete the Lease of a node that does not exist.
            let result = match node_uid {
                Some(node_uid) => self.write(&node_uid, &report).await,
                None => Ok(()),
            };
            let interval = match result {
                Ok(()) => {
                    if std::mem::take(&mut has_failed) {
                        tracing::info!("the agent can write the Lease of the node again");
                    }
                    RENEW_INTERVAL
                }
                Err(error) => {
                    // Only the first failure is logged, because the API server may be unavailable for days.
                    if !std::mem::replace(&mut has_failed, true) {
                        let error = error_chain(&error);
                        tracing::warn!(
                            error,
                            "cannot write the Lease of the node; trying again every second"
                        );
                    }
                    RETRY_INTERVAL
                }
            };
            next_renewal = started_at + interval;
            sleep_until(started_at + MIN_WRITE_INTERVAL).await;
        }
    }

    /// Writes the Lease with this report.
    pub(super) async fn write(&self, node_uid: &str, report: &AgentReport) -> Result<(), CallError> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(self.object(node_uid, report));
        call(&self.metrics, "write_lease", self.api.patch(&self.name, &params, &patch)).await.map(drop)
    }

    /// Deletes the Lease.
    pub(super) async fn delete(&self) -> Result<(), CallError> {
        match call(&self.metrics, "delete_lease", self.api.delete(&self.name, &DeleteParams::default())).await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn object(&self, node_uid: &str, report: &AgentReport) -> Value {
        // The conversion of these types to JSON cannot fail.
        let report_json = report.to_json().unwrap_or_default();
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": { AGENT_LABEL: self.instance, MANAGED_BY: self.instance },
                "annotations": { REPORT_ANNOTATION: report_json },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": node_uid },
                ],
            },
            "spec": {
                "holderIdentity": self.node_name,
                "leaseDurationSeconds": LEASE_DURATION_SECONDS,
                "renewTime": MicroTime(Timestamp::now()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use api_client::scripted_api::{ScriptedApi, scripted_api};

    use super::*;

    fn lease() -> (NodeLease, ScriptedApi) {
        let (client, api) = scripted_api();
        let lease = NodeLease {
            api: Api::namespaced(client, "kube-system"),
            name: "akrobateo-n1".to_owned(),
            instance: "akrobateo".to_owned(),
            node_name: "n1".to_owned(),
            metrics: ApiMetrics::default(),
        };
        (lease, api)
    }

    fn content(served_count: usize) -> LeaseContent {
        let report = AgentReport { node: "n1".to_owned(), served_count, ..AgentReport::default() };
        LeaseContent { node_uid: Some("uid-of-n1".to_owned()), report: Arc::new(report) }
    }

    /// Waits for a write, and returns the number of Services in its report.
    async fn next_served_count(api: &mut ScriptedApi) -> usize {
        let request = api.next_request().await;
        assert!(request.path.ends_with("/namespaces/kube-system/leases/akrobateo-n1"), "{}", request.path);
        assert_eq!(request.body["metadata"]["labels"][AGENT_LABEL], "akrobateo");
        assert_eq!(request.body["metadata"]["ownerReferences"][0]["uid"], "uid-of-n1");
        let lease: Lease = serde_json::from_value(request.body.clone()).unwrap();
        request.accept();
        AgentReport::from_lease(&lease).unwrap().unwrap().served_count
    }

    #[tokio::test(start_paused = true)]
    async fn agent_renews_the_lease_and_writes_changes_immediately() {
        let (lease, mut api) = lease();
        let (sender, receiver) = watch::channel(content(1));
        tokio::spawn(lease.write_reports(receiver));
        assert_eq!(next_served_count(&mut api).await, 1);
        let renewed_at = Instant::now();
        assert_eq!(next_served_count(&mut api).await, 1);
        assert_eq!(renewed_at.elapsed(), RENEW_INTERVAL);
        // A single write contains all changes.
        (2..10).for_each(|count| _ = sender.send(content(count)));
        assert_eq!(next_served_count(&mut api).await, 9);
        assert!(renewed_at.elapsed() <= RENEW_INTERVAL + MIN_WRITE_INTERVAL);
        api.expect_no_request().await;
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_written_at_once_but_not_continuously() {
        let (lease, mut api) = lease();
        let (sender, receiver) = watch::channel(content(1));
        tokio::spawn(lease.write_reports(receiver));
        assert_eq!(next_served_count(&mut api).await, 1);
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
        let changed_at = Instant::now();
        sender.send(content(2)).unwrap();
        assert_eq!(next_served_count(&mut api).await, 2);
        assert_eq!(changed_at.elapsed(), Duration::ZERO);
        sender.send(content(3)).unwrap();
        assert_eq!(next_served_count(&mut api).await, 3);
        assert_eq!(changed_at.elapsed(), MIN_WRITE_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn lease_belongs_to_the_current_node_object() {
        let (lease, mut api) = lease();
        let (sender, receiver) = watch::channel(content(1));
        tokio::spawn(lease.write_reports(receiver));
        assert_eq!(next_served_count(&mut api).await, 1);
        sender.send(LeaseContent { node_uid: None, ..content(2) }).unwrap();
        sleep_until(Instant::now() + 2 * RENEW_INTERVAL).await;
        api.expect_no_request().await;
        sender.send(LeaseContent { node_uid: Some("new-uid".to_owned()), ..content(2) }).unwrap();
        let request = api.next_request().await;
        assert_eq!(request.body["metadata"]["ownerReferences"][0]["uid"], "new-uid");
        request.accept();
    }

    #[tokio::test(start_paused = true)]
    async fn failed_write_is_tried_again() {
        let (lease, mut api) = lease();
        let (_sender, receiver) = watch::channel(content(1));
        tokio::spawn(lease.write_reports(receiver));
        let failed_at = Instant::now();
        api.next_request().await.answer_error(503, "ServiceUnavailable");
        assert_eq!(next_served_count(&mut api).await, 1);
        assert_eq!(failed_at.elapsed(), RETRY_INTERVAL);
    }
}
