//! A few digits that stand for a text.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// How many hexadecimal digits it has.
pub(crate) const LEN: usize = 10;

/// The same for the same text, whatever the version or the machine; another one, but for very bad luck, for another.
#[must_use]
pub fn digest(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().take(LEN / 2).fold(String::with_capacity(LEN), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes_since_names_in_clusters_depend_on_it() {
        assert_eq!(digest("kube-system/dns"), "bfd0be7125");
    }
}
