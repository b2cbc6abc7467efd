//! Names of the objects that Akrobateo makes.

use crate::digest::{self, digest};

/// Longest name that is also a valid label value and host name (RFC 1123).
const MAX_LEN: usize = 63;

/// The name of a Service's proxy in the namespace shared by all proxies: `akrobateo-<namespace>-<service>`.
///
/// Closed with a digest where it is too long, and where the namespace has a hyphen: `a-b/c` and `a/b-c` would
/// otherwise share a name.
#[must_use]
pub fn proxy(namespace: &str, service: &str) -> String {
    let plain = format!("akrobateo-{namespace}-{service}");
    if namespace.contains('-') {
        closed(&plain, namespace, service)
    } else {
        fitting(plain, namespace, service)
    }
}

/// The name of a Service's proxy in the Service's own namespace: `akrobateo-<service>`.
#[must_use]
pub fn proxy_in_service_namespace(service: &str) -> String {
    fitting(format!("akrobateo-{service}"), "", service)
}

fn fitting(plain: String, namespace: &str, service: &str) -> String {
    if plain.len() <= MAX_LEN { plain } else { closed(&plain, namespace, service) }
}

fn closed(plain: &str, namespace: &str, service: &str) -> String {
    let cut: String = plain.chars().take(MAX_LEN - digest::LEN - 1).collect();
    // '/' is in no name, so that no two pairs give the same text.
    format!("{}-{}", cut.trim_end_matches('-'), digest(&format!("{namespace}/{service}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_says_which_service_it_is_for() {
        assert_eq!(proxy("default", "web"), "akrobateo-default-web");
    }

    #[test]
    fn names_that_would_be_the_same_without_a_digest_differ() {
        assert_ne!(proxy("a-b", "c"), proxy("a", "b-c"));
        assert_eq!(proxy("a", "b-c"), "akrobateo-a-b-c");
        assert!(proxy("a-b", "c").starts_with("akrobateo-a-b-c-"));
    }

    #[test]
    fn a_long_name_is_cut_and_stays_unique_and_valid() {
        let long = "s".repeat(63);
        let names = [proxy("default", &long), proxy(&"n".repeat(63), &long), proxy("other", &long)];
        for name in &names {
            assert!(name.len() <= MAX_LEN, "{name}");
        }
        assert_ne!(names[0], names[2]);
        // A cut that ends on a hyphen must not leave two of them.
        let hyphen_at_cut = format!("{}-{}", "x".repeat(33), "y".repeat(29));
        assert!(!proxy("default", &hyphen_at_cut).contains("--"));
    }

    #[test]
    fn beside_its_service_a_proxy_is_named_after_it_alone() {
        assert_eq!(proxy_in_service_namespace("web"), "akrobateo-web");
        assert_eq!(proxy_in_service_namespace(&"s".repeat(63)).len(), MAX_LEN);
    }
}
