//! Names of the objects that Akrobateo creates. Pure.

use crate::digest::{digest, digest_of_length};
use crate::dns1123::MAX_LABEL_LEN;

/// The maximum length of a name, in bytes. The name is also the value of a label and the host name of pods.
const MAX_NAME_LEN: usize = MAX_LABEL_LEN;

/// Length of the digest in a name that is truncated, in hexadecimal digits.
///
/// The author of a Service controls the text after the truncation, and could try names until a short digest is equal.
const LONG_DIGEST_LEN: usize = 16;

/// Returns the name of a Service's workload in the namespace that all proxies share:
/// `<instance>-<namespace>-<service>-<digest>`.
///
/// The digest is part of each name, so that no other namespace and Service can give the same text.
#[must_use]
pub fn proxy_name(instance: &str, namespace: &str, service: &str) -> String {
    // No name contains a '/', so two different triples never give the same text.
    append_digest(&format!("{instance}-{namespace}-{service}"), &format!("{instance}/{namespace}/{service}"))
}

/// Returns the name of a Service's workload in the Service's own namespace: `<instance>-<service>-<digest>`.
#[must_use]
pub fn proxy_name_in_service_namespace(instance: &str, service: &str) -> String {
    append_digest(&format!("{instance}-{service}"), &format!("{instance}/{service}"))
}

fn append_digest(readable: &str, identity: &str) -> String {
    let short = format!("{readable}-{}", digest(identity));
    if short.len() <= MAX_NAME_LEN {
        return short;
    }
    let prefix: String = readable.chars().take(MAX_NAME_LEN - LONG_DIGEST_LEN - 1).collect();
    format!("{}-{}", prefix.trim_end_matches('-'), digest_of_length(identity, LONG_DIGEST_LEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "akrobateo";

    #[test]
    fn a_name_contains_namespace_and_service_and_ends_with_a_digest() {
        let name = proxy_name(INSTANCE, "default", "web");
        assert!(name.starts_with("akrobateo-default-web-"), "{name}");
        assert_eq!(name.len(), "akrobateo-default-web-".len() + 10);
        let name = proxy_name_in_service_namespace(INSTANCE, "web");
        assert!(name.starts_with("akrobateo-web-"), "{name}");
    }

    #[test]
    fn no_service_can_choose_the_name_of_another_service_with_its_digest() {
        assert_ne!(proxy_name(INSTANCE, "a-b", "c"), proxy_name(INSTANCE, "a", "b-c"));
        let victim = proxy_name(INSTANCE, "shop-prod", "web");
        let service = victim.strip_prefix("akrobateo-shop-").unwrap();
        assert_ne!(proxy_name(INSTANCE, "shop", service), victim);
        let victim = proxy_name_in_service_namespace(INSTANCE, "web");
        assert_ne!(
            proxy_name_in_service_namespace(INSTANCE, victim.strip_prefix("akrobateo-").unwrap()),
            victim
        );
    }

    #[test]
    fn operators_with_different_names_never_use_the_same_name() {
        assert_ne!(proxy_name("lb-a", "b", "c"), proxy_name("lb", "a-b", "c"));
        assert_ne!(
            proxy_name_in_service_namespace("lb-a", "b"),
            proxy_name_in_service_namespace("lb", "a-b")
        );
    }

    #[test]
    fn a_long_name_is_truncated_and_stays_unique_and_valid() {
        let long = "s".repeat(63);
        let names = [("default", &long), (&"n".repeat(63), &long), ("other", &long)]
            .map(|(namespace, service)| proxy_name(INSTANCE, namespace, service));
        for name in &names {
            assert!(name.len() <= MAX_NAME_LEN, "{name}");
        }
        assert_ne!(names[0], names[2]);
        // A prefix that ends with a hyphen must not give two hyphens in a row.
        for length in 20..40 {
            let name_with_hyphen_at_end = format!("{}-{}", "x".repeat(length), "y".repeat(29));
            assert!(!proxy_name(INSTANCE, "default", &name_with_hyphen_at_end).contains("--"), "{length}");
        }
        assert!(proxy_name_in_service_namespace(INSTANCE, &long).len() <= MAX_NAME_LEN);
    }
}
