//! Names of the objects that Akrobateo creates. Pure.

use crate::digest::{digest, digest_of_length};
use crate::dns1123::MAX_LABEL_LENGTH;

/// The maximum length of a name, in bytes. The name is also the value of a label and the host name of pods.
const MAX_NAME_LENGTH: usize = MAX_LABEL_LENGTH;

/// Length of the digest in a name that is truncated, in hexadecimal digits.
///
/// The truncation removes text that the author of a Service controls. With a short digest, the author could try names
/// until two digests are equal.
const LONG_DIGEST_LENGTH: usize = 16;

/// Returns the name of a Service's workload in the namespace that all proxies share:
/// `<instance>-<namespace>-<service>-<digest>`.
///
/// Each name ends with a digest, so that the workloads of two Services never have the same name.
#[must_use]
pub fn proxy_name(operator_instance: &str, namespace: &str, service: &str) -> String {
    // A slash separates the names in the text of the digest, and no name contains a slash. The texts of two Services
    // are therefore always different.
    append_digest(
        &format!("{operator_instance}-{namespace}-{service}"),
        &format!("{operator_instance}/{namespace}/{service}"),
    )
}

/// Returns the name of a Service's workload in the Service's own namespace: `<instance>-<service>-<digest>`.
#[must_use]
pub fn proxy_name_in_service_namespace(operator_instance: &str, service: &str) -> String {
    append_digest(&format!("{operator_instance}-{service}"), &format!("{operator_instance}/{service}"))
}

/// Appends the digest of `identity` to `name`. Truncates `name` if the result would be too long.
fn append_digest(name: &str, identity: &str) -> String {
    let untruncated_name = format!("{name}-{}", digest(identity));
    if untruncated_name.len() <= MAX_NAME_LENGTH {
        return untruncated_name;
    }
    let prefix: String = name.chars().take(MAX_NAME_LENGTH - LONG_DIGEST_LENGTH - 1).collect();
    format!("{}-{}", prefix.trim_end_matches('-'), digest_of_length(identity, LONG_DIGEST_LENGTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "akrobateo";

    #[test]
    fn proxy_name_contains_namespace_and_service_and_ends_with_a_digest() {
        let name = proxy_name(INSTANCE, "default", "web");
        assert!(name.starts_with("akrobateo-default-web-"), "{name}");
        assert_eq!(name.len(), "akrobateo-default-web-".len() + 10);
        let name = proxy_name_in_service_namespace(INSTANCE, "web");
        assert!(name.starts_with("akrobateo-web-"), "{name}");
    }

    #[test]
    fn service_named_like_a_proxy_gets_its_own_proxy_name() {
        assert_ne!(proxy_name(INSTANCE, "a-b", "c"), proxy_name(INSTANCE, "a", "b-c"));
        let existing_name = proxy_name(INSTANCE, "shop-prod", "web");
        let service = existing_name.strip_prefix("akrobateo-shop-").unwrap();
        assert_ne!(proxy_name(INSTANCE, "shop", service), existing_name);
        let existing_name = proxy_name_in_service_namespace(INSTANCE, "web");
        assert_ne!(
            proxy_name_in_service_namespace(INSTANCE, existing_name.strip_prefix("akrobateo-").unwrap()),
            existing_name
        );
    }

    #[test]
    fn operators_with_different_names_use_different_proxy_names() {
        assert_ne!(proxy_name("lb-a", "b", "c"), proxy_name("lb", "a-b", "c"));
        assert_ne!(
            proxy_name_in_service_namespace("lb-a", "b"),
            proxy_name_in_service_namespace("lb", "a-b")
        );
    }

    #[test]
    fn long_proxy_name_is_truncated_and_stays_unique_and_valid() {
        let long_name = "s".repeat(63);
        let names = [("default", &long_name), (&"n".repeat(63), &long_name), ("other", &long_name)]
            .map(|(namespace, service)| proxy_name(INSTANCE, namespace, service));
        for name in &names {
            assert!(name.len() <= MAX_NAME_LENGTH, "{name}");
        }
        assert_ne!(names[0], names[2]);
        // A prefix that ends with a hyphen must not cause two hyphens in a row.
        for length in 20..40 {
            let name_with_hyphen_at_end = format!("{}-{}", "x".repeat(length), "y".repeat(29));
            assert!(!proxy_name(INSTANCE, "default", &name_with_hyphen_at_end).contains("--"), "{length}");
        }
        assert!(proxy_name_in_service_namespace(INSTANCE, &long_name).len() <= MAX_NAME_LENGTH);
    }
}
