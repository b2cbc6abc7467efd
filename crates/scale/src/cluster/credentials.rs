//! The tokens of the operator and of the agents, and their kubeconfigs. Does I/O.

use std::fs;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::nodes::node_name;
use crate::error::{Context, ScaleError};

/// The token of an administrator, which the API server knows from its token file.
pub(super) const ADMIN_TOKEN: &str = "admin";
/// The port of the API server on the loopback address.
pub(super) const API_PORT: u16 = 6443;
/// The namespace of the operator and of the agents.
const NAMESPACE: &str = "kube-system";
const PARALLEL_REQUESTS: usize = 20;

/// Returns the path of the operator's kubeconfig.
pub(crate) fn operator_kubeconfig(directory: &Path) -> PathBuf {
    directory.join("operator.kubeconfig")
}

/// Returns the path of an agent's kubeconfig.
pub(crate) fn agent_kubeconfig(directory: &Path, node: usize) -> PathBuf {
    directory.join(format!("{}.kubeconfig", node_name(node)))
}

/// Writes a kubeconfig with a token. `directory` also has the certificate of the API server.
pub(super) fn write_kubeconfig(directory: &Path, path: &Path, token: &str) -> Result<(), ScaleError> {
    // Each JSON document is also a YAML document.
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "scale",
        "clusters": [{ "name": "scale", "cluster": {
            "server": format!("https://127.0.0.1:{API_PORT}"),
            "certificate-authority": directory.join("certificates/apiserver.crt"),
        } }],
        "users": [{ "name": "scale", "user": { "token": token } }],
        "contexts": [{ "name": "scale", "context": { "cluster": "scale", "user": "scale" } }],
    });
    fs::write(path, kubeconfig.to_string()).context(&path.display().to_string())
}

/// Requests tokens for the `ServiceAccounts` of the operator and of the agents, and writes the kubeconfigs. The token of
/// an agent is bound to its node, because the admission policy of the agents reads the node from the token.
pub(crate) async fn issue_tokens(
    client: &Client,
    directory: &Path,
    node_count: usize,
) -> Result<(), ScaleError> {
    let token = request_token(client, "akrobateo", None).await?;
    write_kubeconfig(directory, &operator_kubeconfig(directory), &token)?;
    let nodes: Api<Node> = Api::all(client.clone());
    let issue = async |index: usize| {
        let node = nodes.get(&node_name(index)).await.context("reading a node")?;
        let token = request_token(client, "akrobateo-agent", Some(&node)).await?;
        write_kubeconfig(directory, &agent_kubeconfig(directory, index), &token)
    };
    stream::iter(0..node_count).map(issue).buffer_unordered(PARALLEL_REQUESTS).try_collect().await
}

async fn request_token(client: &Client, account: &str, node: Option<&Node>) -> Result<String, ScaleError> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let bound_object = node.map(
        |node| json!({ "apiVersion": "v1", "kind": "Node", "name": node.name_any(), "uid": node.uid() }),
    );
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "audiences": [], "expirationSeconds": 86400, "boundObjectRef": bound_object },
    });
    let request: TokenRequest =
        serde_json::from_value(request).map_err(kube::Error::SerdeError).context("a token request")?;
    let answer = api.create_token_request(account, &PostParams::default(), &request).await;
    let status = answer.context(&format!("requesting a token of {account}"))?.status;
    status
        .and_then(|status| status.token)
        .ok_or_else(|| ScaleError::UnexpectedState(format!("the token request of {account} has no token")))
}
