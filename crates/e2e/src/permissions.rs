//! The permissions of the operator and of the node agents, read from the roles that are bound to them. Does I/O.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, Resource};

use crate::failure::Failure;
use crate::operator::OPERATOR_NAMESPACE;

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The API group; empty for the core group.
    pub api_group: String,
    /// The resource and subresource, for example `services/status`.
    pub resource: String,
    /// The verb.
    pub verb: String,
}

/// The permissions of a ServiceAccount.
#[derive(Debug, Default)]
pub struct Permissions {
    /// The permissions that the bound roles grant.
    pub granted_permissions: BTreeSet<Permission>,
    /// The time of the last change of these roles.
    pub roles_changed_at: Timestamp,
}

impl Permissions {
    /// Reads the roles that are bound to a ServiceAccount in the operator's namespace.
    pub async fn read_for_account(client: &Client, account: &str) -> Result<Self, Failure> {
        let list_params = ListParams::default();
        let mut permissions = Self::default();
        for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&list_params).await? {
            if includes_account(binding.subjects.as_ref(), account) {
                permissions.add_cluster_role(client, &binding.role_ref.name).await?;
            }
        }
        for binding in Api::<RoleBinding>::all(client.clone()).list(&list_params).await? {
            if includes_account(binding.subjects.as_ref(), account) {
                let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
                match binding.role_ref.kind.as_str() {
                    "Role" => {
                        let api: Api<Role> = Api::namespaced(client.clone(), namespace);
                        let role = api.get(&binding.role_ref.name).await?;
                        permissions.add_role(&role, role.rules.as_ref());
                    }
                    _ => permissions.add_cluster_role(client, &binding.role_ref.name).await?,
                }
            }
        }
        Ok(permissions)
    }

    async fn add_cluster_role(&mut self, client: &Client, name: &str) -> Result<(), Failure> {
        let role = Api::<ClusterRole>::all(client.clone()).get(name).await?;
        self.add_role(&role, role.rules.as_ref());
        Ok(())
    }

    fn add_role(&mut self, role: &impl Resource, rules: Option<&Vec<PolicyRule>>) {
        self.granted_permissions.extend(rules.into_iter().flatten().flat_map(rule_permissions));
        let changes = role.meta().managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
        self.roles_changed_at =
            changes.map(|time| time.0).chain([self.roles_changed_at]).max().unwrap_or_default();
    }
}

fn includes_account(subjects: Option<&Vec<Subject>>, account: &str) -> bool {
    subjects.into_iter().flatten().any(|subject| {
        subject.kind == "ServiceAccount"
            && subject.name == account
            && subject.namespace.as_deref() == Some(OPERATOR_NAMESPACE)
    })
}

fn rule_permissions(rule: &PolicyRule) -> Vec<Permission> {
    let mut permissions = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            permissions.extend(rule.verbs.iter().map(|verb| Permission {
                api_group: group.clone(),
                resource: resource.clone(),
                verb: verb.clone(),
            }));
        }
    }
    permissions
}
