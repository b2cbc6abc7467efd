//! Detects drift: differences between a workload in the cluster and the desired workload. Pure.
//!
//! Each of three mechanisms finds changes that the other two miss:
//!
//! 1. **Comparison** (`matching.rs`) finds fields and lists that differ from the desired object. Comparison ignores
//!    fields that the desired object does not have, because the API server fills in defaults. Comparison therefore
//!    misses added fields.
//! 2. **The digest of the desired spec**, in the annotation [`SPEC_DIGEST_ANNOTATION`], finds fields that the Service
//!    no longer needs. The desired object does not have these fields, so comparison misses them, but the digest in the
//!    annotation differs. The operator then applies the desired object, and the apply removes the fields.
//! 3. **Managed fields** (`added_fields.rs`) show which fields another field manager added. An apply cannot remove these
//!    fields, because an apply removes only fields that the operator owns. The operator therefore recreates the
//!    workload.

mod added_fields;
mod matching;

use akrobateo_core::digest;
use k8s_openapi::serde::Serialize;

pub(crate) use added_fields::{added_fields, field_paths, is_applied_by, relevant_managed_fields};

/// The annotation with the digest of the spec that the operator applied.
pub(super) const SPEC_DIGEST_ANNOTATION: &str = "akrobateo.io/spec-digest";

/// Returns true if `existing` has all fields of `desired` with the same values.
///
/// Returns false if an object cannot be serialized; the next apply reports the error.
pub(super) fn matches_desired(existing: &impl Serialize, desired: &impl Serialize) -> bool {
    match (serde_json::to_value(existing), serde_json::to_value(desired)) {
        (Ok(existing), Ok(desired)) => matching::matches_desired(&existing, &desired),
        _ => false,
    }
}

/// Returns the digest of a spec. Returns an empty text if the spec cannot be serialized; the next apply reports the
/// error.
pub(super) fn spec_digest(spec: &impl Serialize) -> String {
    serde_json::to_string(spec).map(|spec| digest(&spec)).unwrap_or_default()
}
