//! What the operator may do, by the roles that are bound to it in the cluster. Does I/O.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, Resource};

use crate::Failure;
use crate::audit::OPERATOR_ACCOUNT;

/// One verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group, empty for the core.
    pub group: String,
    /// Resource and subresource: `services/status`.
    pub resource: String,
    /// The verb.
    pub verb: String,
}

/// What the operator may do, and since when.
#[derive(Debug, Default)]
pub struct Rights {
    /// Everything that its roles allow.
    pub granted: BTreeSet<Right>,
    /// The last change of these roles.
    pub since: Timestamp,
}

impl Rights {
    /// Of the operator's account in this cluster.
    pub async fn of_the_operator(client: &Client) -> Result<Self, Failure> {
        let all = ListParams::default();
        let mut rights = Self::default();
        for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&all).await? {
            if is_bound(binding.subjects.as_ref()) {
                rights.add_cluster_role(client, &binding.role_ref.name).await?;
            }
        }
        for binding in Api::<RoleBinding>::all(client.clone()).list(&all).await? {
            if is_bound(binding.subjects.as_ref()) {
                let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
                match binding.role_ref.kind.as_str() {
                    "Role" => {
                        let api: Api<Role> = Api::namespaced(client.clone(), namespace);
                        let role = api.get(&binding.role_ref.name).await?;
                        rights.add(&role, role.rules.as_ref());
                    }
                    _ => rights.add_cluster_role(client, &binding.role_ref.name).await?,
                }
            }
        }
        Ok(rights)
    }

    async fn add_cluster_role(&mut self, client: &Client, name: &str) -> Result<(), Failure> {
        let role = Api::<ClusterRole>::all(client.clone()).get(name).await?;
        self.add(&role, role.rules.as_ref());
        Ok(())
    }

    fn add(&mut self, role: &impl Resource, rules: Option<&Vec<PolicyRule>>) {
        self.granted.extend(rules.into_iter().flatten().flat_map(rights));
        let writes = role.meta().managed_fields.iter().flatten().filter_map(|write| write.time.as_ref());
        self.since = writes.map(|time| time.0).chain([self.since]).max().unwrap_or_default();
    }
}

fn is_bound(subjects: Option<&Vec<Subject>>) -> bool {
    let (namespace, name) = OPERATOR_ACCOUNT;
    subjects.into_iter().flatten().any(|subject| {
        subject.kind == "ServiceAccount"
            && subject.name == name
            && subject.namespace.as_deref() == Some(namespace)
    })
}

fn rights(rule: &PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            rights.extend(rule.verbs.iter().map(|verb| Right {
                group: group.clone(),
                resource: resource.clone(),
                verb: verb.clone(),
            }));
        }
    }
    rights
}
