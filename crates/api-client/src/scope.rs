//! The APIs of the namespaces in which the program watches Services. No I/O.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// Returns the API of a kind of object in the namespaces in which the program watches Services.
#[must_use]
pub fn service_api<K>(client: &Client, watch_namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match watch_namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}
