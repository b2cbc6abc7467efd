//! Finds out if the agent was uninstalled from its node. The agent checks this when it ends. Does I/O.

use api_client::{ApiMetrics, CallError, call};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};

/// Returns true if the agent's DaemonSet no longer runs an agent on this node.
///
/// If the API server denies the request, the agent's ServiceAccount or role was deleted. So Akrobateo was uninstalled,
/// and the result is true too.
pub(super) async fn is_uninstalled(
    api: &Api<DaemonSet>,
    name: &str,
    node: &Node,
    metrics: &ApiMetrics,
) -> Result<bool, CallError> {
    match call(metrics, "read_daemonset", api.get_opt(name)).await {
        Ok(None) => Ok(true),
        Ok(Some(daemonset)) => {
            Ok(daemonset.metadata.deletion_timestamp.is_some() || !selects_node(&daemonset, node))
        }
        Err(CallError::RequestFailed(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Returns true if the node selector of the DaemonSet matches the node.
fn selects_node(daemonset: &DaemonSet, node: &Node) -> bool {
    let pod_spec = daemonset.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let mut requirements = pod_spec.iter().flat_map(|spec| spec.node_selector.iter().flatten());
    requirements.all(|(name, value)| node.labels().get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use api_client::scripted_api::scripted_api;
    use serde_json::{Value, json};

    use super::*;

    async fn is_uninstalled_with(answer: Result<Value, u16>) -> Result<bool, CallError> {
        let (client, mut api) = scripted_api();
        let daemonsets = Api::namespaced(client, "kube-system");
        let mut node = Node::default();
        node.labels_mut().insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        let metrics = ApiMetrics::default();
        let (result, ()) =
            tokio::join!(is_uninstalled(&daemonsets, "akrobateo-agent", &node, &metrics), async {
                let request = api.next_request().await;
                match answer {
                    Ok(object) => request.answer(&object),
                    Err(code) => {
                        let reason = if code == 404 { "NotFound" } else { "Forbidden" };
                        request.answer_error(code, reason);
                    }
                }
            });
        result
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
        assert!(!is_uninstalled_with(Ok(daemonset("linux", None))).await.unwrap());
        assert!(is_uninstalled_with(Ok(daemonset("windows", None))).await.unwrap());
        assert!(is_uninstalled_with(Ok(daemonset("linux", Some("2026-01-01T00:00:00Z")))).await.unwrap());
        for code in [401, 403, 404] {
            assert!(is_uninstalled_with(Err(code)).await.unwrap(), "{code}");
        }
        assert!(is_uninstalled_with(Err(503)).await.is_err());
    }
}
