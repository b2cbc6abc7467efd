//! The policy for the Leases of the node agents. All writes are dry runs, so the test changes no Lease.

use akrobateo_core::DEFAULT_INSTANCE;
use e2e::{AgentAccount, Failure, OPERATOR_NAMESPACE, ensure, test_in_shared_mode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

const AGENT_LABEL: &str = "akrobateo.io/agent";

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), OPERATOR_NAMESPACE)
}

/// Returns the error message of the API server if the API server has rejected the request.
fn rejection_message<T>(result: Result<T, kube::Error>) -> Result<Option<String>, Failure> {
    match result {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Some(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// Applies a Lease in a dry run. Returns the message of the API server if the API server rejects the Lease.
async fn apply_in_dry_run(client: &Client, name: &str, labels: &[&str]) -> Result<Option<String>, Failure> {
    let labels: serde_json::Map<_, _> =
        labels.iter().map(|&label| (label.to_owned(), DEFAULT_INSTANCE.into())).collect();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name, "labels": labels },
    });
    let params = PatchParams { dry_run: true, ..PatchParams::apply("lease-policy-test").force() };
    rejection_message(leases(client).patch(name, &params, &Patch::Apply(lease)).await)
}

async fn ensure_accepted(client: &Client, name: &str, labels: &[&str]) -> Result<(), Failure> {
    let rejection = apply_in_dry_run(client, name, labels).await?;
    ensure(rejection.is_none(), || format!("Lease {name}: {rejection:?}"))
}

async fn ensure_rejected(
    client: &Client,
    name: &str,
    labels: &[&str],
    expected_message: &str,
) -> Result<(), Failure> {
    let rejection = apply_in_dry_run(client, name, labels).await?;
    ensure(rejection.as_ref().is_some_and(|message| message.contains(expected_message)), || {
        format!("Lease {name}: expected a rejection with {expected_message:?}, got {rejection:?}")
    })
}

#[tokio::test]
async fn agent_writes_only_the_lease_of_its_own_node() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [own_lease, other_lease] =
            [0, 1].map(|index: usize| format!("{DEFAULT_INSTANCE}-{}", nodes[index].name));
        let account = AgentAccount::new(namespace.cluster());
        let pod = account.create_pod(&nodes[0].name).await?;
        let agent_client = account.connect_to_api_server(Some(&pod)).await?;
        let result = async {
            ensure_accepted(&agent_client, &own_lease, &[AGENT_LABEL]).await?;
            ensure_accepted(&agent_client, &own_lease, &[]).await?;
            let message = format!("expected the Lease {own_lease}");
            for lease in [other_lease.as_str(), "kube-scheduler", DEFAULT_INSTANCE] {
                ensure_rejected(&agent_client, lease, &[AGENT_LABEL], &message).await?;
                ensure_rejected(&agent_client, lease, &[], &message).await?;
            }
            // The Lease of the operator exists.
            let params = DeleteParams { dry_run: true, ..DeleteParams::default() };
            let rejection = rejection_message(leases(&agent_client).delete(DEFAULT_INSTANCE, &params).await)?;
            ensure(rejection.as_ref().is_some_and(|rejection| rejection.contains(&message)), || {
                format!("an agent deleted the Lease of the operator: {rejection:?}")
            })?;
            let client_with_unbound_token = account.connect_to_api_server(None).await?;
            ensure_rejected(
                &client_with_unbound_token,
                &own_lease,
                &[AGENT_LABEL],
                "the token belongs to node \"\"",
            )
            .await
        };
        let result = result.await;
        pod.delete_pod().await?;
        result
    })
    .await
}

#[tokio::test]
async fn other_users_write_only_leases_without_the_agent_label() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let administrator = &namespace.cluster().client;
        ensure_accepted(administrator, "lease-policy-test", &[]).await?;
        let message = "only the ServiceAccount kube-system/akrobateo-agent";
        ensure_rejected(administrator, "lease-policy-test", &[AGENT_LABEL], message).await?;
        // The Lease of the operator exists, so this request is an update.
        ensure_accepted(administrator, DEFAULT_INSTANCE, &[]).await?;
        ensure_rejected(administrator, DEFAULT_INSTANCE, &[AGENT_LABEL], message).await
    })
    .await
}
