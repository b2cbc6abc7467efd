//! Finds the field manager that wrote the addresses in a Service's status. Pure.

use akrobateo_services::published::published_addresses;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::current_condition::CONDITION_TYPE;
use super::written_addresses::WrittenAddresses;

/// A field of the status that the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusField {
    Addresses,
    Condition,
}

/// Returns true if this operator wrote the status. The operator must not remove the addresses of other controllers.
pub(super) fn owns_status(operator_instance: &str, service: &Service) -> bool {
    status_entries(service).any(|entry| is_written_by_operator(operator_instance, entry))
}

/// Returns the field manager that owns the addresses in the status, and these addresses. Returns `None` if the status
/// has no addresses of other field managers.
pub(super) fn find_other_address_owner<'a>(
    operator_instance: &str,
    service: &'a Service,
) -> Option<(&'a str, Vec<String>)> {
    let ingress = published_addresses(service).iter();
    let addresses: Vec<_> =
        ingress.filter_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone())).collect();
    if addresses.is_empty() {
        return None;
    }
    let mut owners = status_entries(service).filter(|entry| owns_addresses(entry)).peekable();
    let first_owner = owners.peek()?.manager.as_deref()?;
    (!owners.any(|entry| is_written_by_operator(operator_instance, entry)))
        .then_some((first_owner, addresses))
}

/// Returns true if the status already has these addresses. If the operator publishes nothing, the addresses of another
/// field manager are ignored, because server-side apply cannot remove them.
pub(super) fn has_addresses(
    operator_instance: &str,
    service: &Service,
    addresses: &[LoadBalancerIngress],
) -> bool {
    let keeps_other_addresses =
        addresses.is_empty() && find_other_address_owner(operator_instance, service).is_some();
    keeps_other_addresses || published_addresses(service) == addresses
}

/// Returns true if the status still has the addresses that the operator wrote, as [`has_addresses`] does.
pub(super) fn has_written_addresses(instance: &str, service: &Service, written: &WrittenAddresses) -> bool {
    let keeps_other_addresses = written.is_empty() && find_other_address_owner(instance, service).is_some();
    keeps_other_addresses || written.matches(published_addresses(service))
}

/// Returns the field manager that last wrote a field of the status; `None` if the field no longer exists. If this
/// operator and another field manager own parts of the field, returns the other field manager.
pub(super) fn find_last_writer(
    operator_instance: &str,
    service: &Service,
    field: StatusField,
) -> Option<String> {
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
    let (own_managers, other_managers): (Vec<_>, Vec<_>) =
        managers.partition(|manager| manager == operator_instance);
    other_managers.into_iter().next().or_else(|| own_managers.into_iter().next())
}

fn status_entries(service: &Service) -> impl Iterator<Item = &ManagedFieldsEntry> {
    let entries = service.metadata.managed_fields.iter().flatten();
    entries.filter(|entry| entry.subresource.as_deref() == Some("status"))
}

fn is_written_by_operator(operator_instance: &str, entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(operator_instance)
}

fn owns_addresses(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_none_or(|fields| fields.0.pointer("/f:status/f:loadBalancer").is_some())
}
