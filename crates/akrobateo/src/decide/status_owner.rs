//! Finds the field manager that wrote the addresses in a Service's status. Pure.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::addresses::published_addresses;

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
