//! The roles of the operator grant exactly the permissions that it uses.

use std::collections::BTreeSet;

use e2e::{Failure, Permission, Permissions, audit, ensure, ensure_eq, eventually, fault_test};

/// Returns the permissions that a request needs.
fn needed_permissions(request: &audit::Request) -> Vec<Permission> {
    let permission_with_verb = |verb: &str| Permission {
        group: request.api_group.clone(),
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

#[tokio::test]
async fn operator_uses_all_its_permissions_and_needs_no_others() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let permissions = Permissions::list_operator_permissions(&namespace.cluster().client).await?;
        ensure(!permissions.granted_permissions.is_empty(), || {
            "no role is bound to the operator; deploy it first".to_owned()
        })?;
        let recent_requests = || {
            let requests = audit::requests()?.into_iter();
            Ok::<_, Failure>(requests.filter(|request| request.received_at >= permissions.roles_changed_at))
        };
        // The restart ends all watches. The audit log contains a watch only after the end of the watch.
        faults.operator.restart().await?;
        eventually("the operator has used every permission", async || {
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
    })
    .await
}
