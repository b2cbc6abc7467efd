//! The ServiceAccount of the node agents: tokens for this account, and connections to the API server with these tokens.
//! Does I/O.

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::operator::OPERATOR_NAMESPACE;

/// The name of the node agents' ServiceAccount.
pub const AGENT_ACCOUNT: &str = "akrobateo-agent";

/// The ServiceAccount of the node agents.
pub struct AgentAccount<'a> {
    cluster: &'a Cluster,
    accounts: Api<ServiceAccount>,
    pods: Api<Pod>,
}

/// A pod with the ServiceAccount of the node agents. The pod does not run an agent.
pub struct AgentPod {
    pod: Pod,
    pods: Api<Pod>,
}

impl<'a> AgentAccount<'a> {
    /// Returns the ServiceAccount of a cluster. The files in deploy/agent create this account.
    #[must_use]
    pub fn new(cluster: &'a Cluster) -> Self {
        let client = || cluster.client.clone();
        Self {
            cluster,
            accounts: Api::namespaced(client(), OPERATOR_NAMESPACE),
            pods: Api::namespaced(client(), OPERATOR_NAMESPACE),
        }
    }

    /// Creates a pod with this ServiceAccount on a node. The node cannot pull the pod's image, so the pod never runs.
    pub async fn create_pod(&self, node: &str) -> Result<AgentPod, Failure> {
        let container = Container {
            name: "none".to_owned(),
            image: Some("image.invalid/none".to_owned()),
            image_pull_policy: Some("Never".to_owned()),
            ..Container::default()
        };
        let spec = PodSpec {
            node_name: Some(node.to_owned()),
            service_account_name: Some(AGENT_ACCOUNT.to_owned()),
            termination_grace_period_seconds: Some(0),
            containers: vec![container],
            ..PodSpec::default()
        };
        let metadata =
            ObjectMeta { generate_name: Some("agent-account-".to_owned()), ..ObjectMeta::default() };
        let pod = Pod { metadata, spec: Some(spec), ..Pod::default() };
        let pod = self.pods.create(&PostParams::default(), &pod).await?;
        Ok(AgentPod { pod, pods: self.pods.clone() })
    }

    /// Connects to the API server with a token that is bound to `bound_pod`. Without a pod the token is bound to no
    /// object.
    pub async fn connect_to_api_server(&self, bound_pod: Option<&AgentPod>) -> Result<Client, Failure> {
        let bound_object_ref = bound_pod.map(|AgentPod { pod, .. }| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name_any()),
            uid: pod.uid(),
        });
        let spec = TokenRequestSpec { bound_object_ref, ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let request =
            self.accounts.create_token_request(AGENT_ACCOUNT, &PostParams::default(), &request).await?;
        let token = request.status.and_then(|status| status.token);
        let token =
            token.ok_or_else(|| Failure::UnexpectedState("the API server returned no token".to_owned()))?;
        self.cluster.connect_with_token(&token).await
    }
}

impl AgentPod {
    /// Deletes the pod.
    pub async fn delete_pod(self) -> Result<(), Failure> {
        let params = DeleteParams::default().grace_period(0);
        self.pods.delete(&self.pod.name_any(), &params).await?;
        Ok(())
    }
}
