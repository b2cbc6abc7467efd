//! A short digest of a text. Pure.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Length of a digest, in hexadecimal digits.
const DIGEST_LENGTH: usize = 10;

/// Returns the first digits of the text's SHA-256. The result is the same in every version and on every machine.
///
/// The digest has 40 bits. These bits distinguish the objects of one cluster, but do not prevent a deliberate
/// collision.
#[must_use]
pub fn digest(text: &str) -> String {
    digest_of_length(text, DIGEST_LENGTH)
}

/// Returns the first `length` digits of the text's SHA-256. If an untrusted author chooses the text, the caller needs
/// more digits than [`digest`] returns.
pub(crate) fn digest_of_length(text: &str, length: usize) -> String {
    let hash = Sha256::digest(text);
    hash.iter().take(length / 2).fold(String::with_capacity(length), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of objects in existing clusters contain digests, so a digest must never change.
    #[test]
    fn digest_stays_the_same_in_every_version() {
        assert_eq!(digest("kube-system/dns"), "bfd0be7125");
    }
}
