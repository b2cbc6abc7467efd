//! Names of the objects that Akrobateo creates. Pure.

use crate::digest::{self, digest};
use crate::dns1123::MAX_LABEL_LEN;

/// The maximum length of a name, in bytes. The name is also the value of a label and the host name of pods.
const MAX_NAME_LEN: usize = MAX_LABEL_LEN;

/// Returns the name of a Service's workload in the namespace that all proxies share: `akrobateo-<namespace>-<service>`.
///
/// The name ends with a digest if it would be too long, or if the namespace has a hyphen. Without a digest the Services
/// `a-b/c` and `a/b-c` would have the same name.
#[must_use]
pub fn proxy(namespace: &str, service: &str) -> String {
    let plain_name = format!("akrobateo-{namespace}-{service}");
    if namespace.contains('-') {
        add_digest(&plain_name, namespace, service)
    } else {
        add_digest_if_too_long(plain_name, namespace, service)
    }
}

/// Returns the name of a Service's workload in the Service's own namespace: `akrobateo-<service>`.
#[must_use]
pub fn proxy_name_in_service_namespace(service: &str) -> String {
    add_digest_if_too_long(format!("akrobateo-{service}"), "", service)
}

fn add_digest_if_too_long(plain_name: String, namespace: &str, service: &str) -> String {
    if plain_name.len() <= MAX_NAME_LEN { plain_name } else { add_digest(&plain_name, namespace, service) }
}

fn add_digest(plain_name: &str, namespace: &str, service: &str) -> String {
    let prefix: String = plain_name.chars().take(MAX_NAME_LEN - digest::DIGEST_LEN - 1).collect();
    // No name contains a '/', so two different Services never give the same text.
    format!("{}-{}", prefix.trim_end_matches('-'), digest(&format!("{namespace}/{service}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_contains_namespace_and_service() {
        assert_eq!(proxy("default", "web"), "akrobateo-default-web");
    }

    #[test]
    fn a_digest_distinguishes_names_that_would_be_equal() {
        assert_ne!(proxy("a-b", "c"), proxy("a", "b-c"));
        assert_eq!(proxy("a", "b-c"), "akrobateo-a-b-c");
        assert!(proxy("a-b", "c").starts_with("akrobateo-a-b-c-"));
    }

    #[test]
    fn a_long_name_is_truncated_and_stays_unique_and_valid() {
        let long_service_name = "s".repeat(63);
        let names = [
            proxy("default", &long_service_name),
            proxy(&"n".repeat(63), &long_service_name),
            proxy("other", &long_service_name),
        ];
        for name in &names {
            assert!(name.len() <= MAX_NAME_LEN, "{name}");
        }
        assert_ne!(names[0], names[2]);
        // A prefix that ends with a hyphen must not give two hyphens in a row.
        let name_with_hyphen_at_end = format!("{}-{}", "x".repeat(33), "y".repeat(29));
        assert!(!proxy("default", &name_with_hyphen_at_end).contains("--"));
    }

    #[test]
    fn a_proxy_name_in_the_service_namespace_does_not_contain_the_namespace() {
        assert_eq!(proxy_name_in_service_namespace("web"), "akrobateo-web");
        assert_eq!(proxy_name_in_service_namespace(&"s".repeat(63)).len(), MAX_NAME_LEN);
    }
}
