//! The fields of a Service that the port allocation reads. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The fields of a Service that the port allocation reads.
#[derive(PartialEq)]
pub(super) struct AllocationInput<'a> {
    uid: Option<&'a str>,
    created_at: Option<&'a Time>,
    is_terminating: bool,
    annotations: Option<&'a BTreeMap<String, String>>,
    spec: Option<&'a ServiceSpec>,
}

/// Returns the fields of a Service that the port allocation reads.
pub(super) fn allocation_input(service: &Service) -> AllocationInput<'_> {
    let metadata = &service.metadata;
    AllocationInput {
        uid: metadata.uid.as_deref(),
        created_at: metadata.creation_timestamp.as_ref(),
        is_terminating: metadata.deletion_timestamp.is_some(),
        annotations: metadata.annotations.as_ref(),
        spec: service.spec.as_ref(),
    }
}
