//! Finds out whether the agent was uninstalled from its node. The agent runs this check before it exits. Does I/O.

use std::time::Duration;

use api_client::{ApiMetrics, CallError, call};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::time::{Instant, sleep};

use super::node_eligibility::allows_pod;

/// The time for which the agent waits until its ServiceAccount is deleted too. The API server accepts the token of a
/// deleted ServiceAccount for up to 10 seconds.
const ACCOUNT_DELETION_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Returns true if the agent's DaemonSet no longer runs an agent on this node.
///
/// An agent without its ServiceAccount (401) was uninstalled. An agent without its rights (403) was uninstalled if the
/// ServiceAccount disappears too. If the ServiceAccount stays, an administrator has changed the roles by mistake, and
/// the rules must remain.
pub(super) async fn is_uninstalled(
    api: &Api<DaemonSet>,
    name: &str,
    node: &Node,
    metrics: &ApiMetrics,
) -> Result<bool, CallError> {
    let account_deletion_deadline = Instant::now() + ACCOUNT_DELETION_TIMEOUT;
    loop {
        match call(metrics, "read_daemonset", api.get_opt(name)).await {
            Ok(None) => return Ok(true),
            Ok(Some(daemonset)) => {
                return Ok(daemonset.metadata.deletion_timestamp.is_some() || !allows_agent(&daemonset, node));
            }
            Err(error) if has_code(&error, 401) => return Ok(true),
            Err(error) if has_code(&error, 403) && Instant::now() < account_deletion_deadline => {
                sleep(RETRY_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn has_code(error: &CallError, code: u16) -> bool {
    matches!(error, CallError::RequestFailed(kube::Error::Api(status)) if status.code == code)
}

/// Returns true if the DaemonSet may keep an agent on the node.
fn allows_agent(daemonset: &DaemonSet, node: &Node) -> bool {
    let pod_spec = daemonset.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod_spec.is_none_or(|pod_spec| allows_pod(pod_spec, node))
}

#[cfg(test)]
mod tests {
    use api_client::scripted_api::scripted_api;
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::*;

    /// Returns the outcome of the check after these answers of the API server: objects, or the codes of errors. The
    /// server repeats the last answer.
    async fn is_uninstalled_after_answers(answers: &[Result<Value, u16>]) -> Result<bool, CallError> {
        let (client, mut api) = scripted_api();
        let daemonsets = Api::namespaced(client, "kube-system");
        let mut node = Node::default();
        node.labels_mut().insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        let metrics = ApiMetrics::default();
        let mut answers = answers.iter().chain(std::iter::repeat(answers.last().unwrap()));
        let answer_requests = async {
            loop {
                let request = api.next_request().await;
                match answers.next().unwrap() {
                    Ok(object) => request.answer(object),
                    Err(code) => {
                        let reason = if *code == 404 { "NotFound" } else { "Forbidden" };
                        request.answer_error(*code, reason);
                    }
                }
            }
        };
        tokio::select! {
            result = is_uninstalled(&daemonsets, "akrobateo-agent", &node, &metrics) => result,
            () = answer_requests => unreachable!(),
        }
    }

    fn daemonset(os: &str, deletion_timestamp: Option<&str>) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": { "name": "akrobateo-agent", "deletionTimestamp": deletion_timestamp },
            "spec": {
                "selector": {},
                "template": { "spec": { "containers": [], "nodeSelector": { "kubernetes.io/os": os } } },
            },
        })
    }

    #[tokio::test(start_paused = true)]
    async fn agent_is_uninstalled_if_its_daemonset_no_longer_selects_the_node() {
        assert!(!is_uninstalled_after_answers(&[Ok(daemonset("linux", None))]).await.unwrap());
        assert!(is_uninstalled_after_answers(&[Ok(daemonset("windows", None))]).await.unwrap());
        let deleted_daemonset = daemonset("linux", Some("2026-01-01T00:00:00Z"));
        assert!(is_uninstalled_after_answers(&[Ok(deleted_daemonset)]).await.unwrap());
        for code in [401, 404] {
            assert!(is_uninstalled_after_answers(&[Err(code)]).await.unwrap(), "{code}");
        }
        assert!(is_uninstalled_after_answers(&[Err(503)]).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn agent_without_its_role_is_uninstalled_only_if_its_account_disappears_too() {
        assert!(is_uninstalled_after_answers(&[Err(403), Err(403), Err(401)]).await.unwrap());
        assert!(is_uninstalled_after_answers(&[Err(403), Err(404)]).await.unwrap());
        assert!(is_uninstalled_after_answers(&[Err(403)]).await.is_err());
    }
}
