//! The roles of the operator and of the node agents grant exactly the permissions that these programs use.

use std::collections::BTreeSet;

use e2e::{
    AGENT_ACCOUNT, Failure, Namespace, OPERATOR_ACCOUNT, Permission, Permissions, audit, ensure, ensure_eq,
    eventually, fault_test_in_dedicated_mode, fault_test_in_shared_mode,
};

/// Returns the permissions that a request needs.
fn needed_permissions(request: &audit::ApiRequest) -> Vec<Permission> {
    let permission_with_verb = |verb: &str| Permission {
        api_group: request.api_group.clone(),
        resource: request.resource.clone(),
        verb: verb.to_owned(),
    };
    // Server-side apply of a new object is authorized as a patch first, and then as a create.
    let creates_object = request.verb == "patch" && request.status_code == 201;
    [permission_with_verb(&request.verb)]
        .into_iter()
        .chain(creates_object.then(|| permission_with_verb("create")))
        .collect()
}

/// Returns an error unless a ServiceAccount has used exactly the permissions that its roles grant. `restart_program`
/// ends all watches of the account, because the audit log contains a watch only after the end of the watch.
async fn ensure_permissions_are_exact(
    namespace: &Namespace,
    account: &str,
    restart_program: impl AsyncFnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let permissions = Permissions::read_for_account(&namespace.cluster().client, account).await?;
    ensure(!permissions.granted_permissions.is_empty(), || {
        format!("no role is bound to the ServiceAccount {account}; deploy it first")
    })?;
    let recent_requests = || {
        let requests = audit::read_requests_of_account(account)?.into_iter();
        Ok::<_, Failure>(requests.filter(|request| request.received_at >= permissions.roles_changed_at))
    };
    restart_program().await?;
    eventually("the account has used every permission", async || {
        let allowed_requests = recent_requests()?.filter(|request| request.is_allowed);
        let used_permissions: BTreeSet<_> =
            allowed_requests.flat_map(|request| needed_permissions(&request)).collect();
        let unused_permissions: Vec<_> =
            permissions.granted_permissions.difference(&used_permissions).collect();
        ensure_eq("unused permissions", &unused_permissions, &vec![])
    })
    .await?;
    let denied_requests: Vec<_> = recent_requests()?.filter(|request| request.is_forbidden).collect();
    ensure(denied_requests.is_empty(), || format!("RBAC denied these requests: {denied_requests:?}"))
}

#[tokio::test]
async fn operator_uses_exactly_its_permissions() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        let restart = async || faults.operator.restart().await.map(drop);
        ensure_permissions_are_exact(namespace, OPERATOR_ACCOUNT, restart).await
    })
    .await
}

#[tokio::test]
async fn node_agents_use_exactly_their_permissions() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, faults| {
        let agents = &faults.agents;
        let restart = async || {
            // When the DaemonSet no longer selects the node, the agent reads the DaemonSet and deletes its Lease. The
            // next agent creates the Lease again.
            agents.set_node_selector(Some(("e2e.akrobateo.io/no-node", ""))).await?;
            let result = eventually("no node has an agent", async || {
                ensure_eq("agents", &agents.list_pods().await?.len(), &0)
            })
            .await;
            agents.set_node_selector(None).await?;
            result?;
            agents.wait_rolled_out().await
        };
        ensure_permissions_are_exact(namespace, AGENT_ACCOUNT, restart).await
    })
    .await
}
