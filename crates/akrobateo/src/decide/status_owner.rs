//! Finds the field manager that wrote the addresses in a Service's status. Pure.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::addresses::published_addresses;
use super::current_condition::CONDITION_TYPE;

/// A field of the status that the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusField {
    Addresses,
    Condition,
}

/// Returns true if this operator wrote the status. The addresses of other controllers must stay.
pub(super) fn owns_status(instance: &str, service: &Service) -> bool {
    status_entries(service).any(|entry| is_manager(instance, entry))
}

/// Returns the other field manager that owns the addresses in the status, and these addresses. `None` if there are none, or
/// if this operator owns them.
pub(super) fn foreign_manager<'a>(instance: &str, service: &'a Service) -> Option<(&'a str, Vec<String>)> {
    let ingress = published_addresses(service).iter();
    let addresses: Vec<_> =
        ingress.filter_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone())).collect();
    if addresses.is_empty() {
        return None;
    }
    let mut owners = status_entries(service).filter(|entry| owns_addresses(entry)).peekable();
    let first = owners.peek()?.manager.as_deref()?;
    (!owners.any(|entry| is_manager(instance, entry))).then_some((first, addresses))
}

/// Returns true if the status needs no write to have these addresses. Server-side apply cannot remove the addresses of
/// another field manager.
pub(super) fn has_addresses(instance: &str, service: &Service, addresses: &[LoadBalancerIngress]) -> bool {
    let keeps_foreign = addresses.is_empty() && foreign_manager(instance, service).is_some();
    keeps_foreign || published_addresses(service) == addresses
}

/// Returns the field manager that wrote a field of the status last. `None` if the field was removed. The operator is only
/// returned if no other field manager owns a part of the field.
pub(super) fn writer_of(instance: &str, service: &Service, field: StatusField) -> Option<String> {
    let path = match field {
        StatusField::Addresses => "/f:status/f:loadBalancer".to_owned(),
        StatusField::Condition => {
            let item = format!("k:{{\"type\":\"{CONDITION_TYPE}\"}}");
            format!("/f:status/f:conditions/{}", item.replace('/', "~1"))
        }
    };
    let owns_field = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_none_or(|fields| fields.0.pointer(&path).is_some())
    };
    let managers = status_entries(service).filter(owns_field).filter_map(|entry| entry.manager.clone());
    let (own, others): (Vec<_>, Vec<_>) = managers.partition(|manager| manager == instance);
    others.into_iter().next().or_else(|| own.into_iter().next())
}

fn status_entries(service: &Service) -> impl Iterator<Item = &ManagedFieldsEntry> {
    let entries = service.metadata.managed_fields.iter().flatten();
    entries.filter(|entry| entry.subresource.as_deref() == Some("status"))
}

fn is_manager(instance: &str, entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(instance)
}

fn owns_addresses(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_none_or(|fields| fields.0.pointer("/f:status/f:loadBalancer").is_some())
}
