//! Detects drift: differences between a workload in the cluster and the desired workload. Pure.
//!
//! Three mechanisms are necessary, because each mechanism misses changes that another mechanism finds:
//!
//! 1. **Comparison** (`matching.rs`) finds fields and lists that differ from the desired object. Comparison ignores
//!    fields that the desired object does not have, because the API server fills in defaults. So comparison misses
//!    added fields.
//! 2. **The digest of the desired spec**, in the annotation [`SPEC_DIGEST_ANNOTATION`], finds fields that the Service
//!    no longer needs. The desired object does not have them, so comparison misses them. But the digest in the
//!    annotation differs. The operator then applies the desired object, and this removes the fields.
//! 3. **Managed fields** (`foreign_fields.rs`) find fields that another field manager added. Apply cannot remove these
//!    fields, because it removes only fields that the operator owns. Therefore the operator recreates the workload.

mod foreign_fields;
mod matching;

use akrobateo_core::digest;
use k8s_openapi::serde::Serialize;

pub(crate) use foreign_fields::{field_paths, foreign_fields, is_applied_by, relevant_managed_fields};

/// The annotation with the digest of the spec that the operator applied.
pub(super) const SPEC_DIGEST_ANNOTATION: &str = "akrobateo.io/spec-digest";

/// Returns true if `existing` has all fields of `desired`.
///
/// An object that cannot be serialized does not match; the apply that follows reports the error.
pub(super) fn matches_desired(existing: &impl Serialize, desired: &impl Serialize) -> bool {
    match (serde_json::to_value(existing), serde_json::to_value(desired)) {
        (Ok(existing), Ok(desired)) => matching::matches_desired(&existing, &desired),
        _ => false,
    }
}

/// Returns the digest of a spec. If the spec cannot be serialized, returns an empty text; the apply that follows
/// reports the error.
pub(super) fn spec_digest(spec: &impl Serialize) -> String {
    serde_json::to_string(spec).map(|spec| digest(&spec)).unwrap_or_default()
}
