//! Names of Kubernetes objects by RFC 1123, as the API server's validation defines them
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>). Pure.

/// The maximum length of a label, in bytes.
pub const MAX_LABEL_LENGTH: usize = 63;
/// The maximum length of a subdomain, in bytes.
pub const MAX_SUBDOMAIN_LENGTH: usize = 253;

/// Returns true if `text` is a DNS label, for example the name of a namespace or of a Service.
#[must_use]
pub fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL_LENGTH && is_label_of_any_length(text)
}

/// Returns true if `text` is a DNS subdomain, for example the name of a Node or the prefix of a label key.
///
/// The API server limits the length of the whole name, and does not limit the length of each label. `is_subdomain`
/// applies the same limit.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN_LENGTH && text.split('.').all(is_label_of_any_length)
}

fn is_label_of_any_length(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_lower_case_letters_digits_and_inner_hyphens() {
        for label in ["a", "0", "kube-system", &"a".repeat(63)] {
            assert!(is_label(label), "{label:?}");
        }
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", &"a".repeat(64)] {
            assert!(!is_label(text), "{text:?}");
        }
    }

    #[test]
    fn subdomains_are_labels_joined_by_dots() {
        for subdomain in ["a", "system-node-critical", "example.com", &"a".repeat(253)] {
            assert!(is_subdomain(subdomain), "{subdomain:?}");
        }
        for text in ["", ".", "a..b", "a.", "-a.b", "Example.com", &"a".repeat(254)] {
            assert!(!is_subdomain(text), "{text:?}");
        }
    }
}
