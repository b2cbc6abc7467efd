//! The message that Kubernetes shows as the reason why a container ended. I/O only.

use std::fs::OpenOptions;
use std::io::Write;

/// The default of `terminationMessagePath`; the kubelet makes the file.
const PATH: &str = "/dev/termination-log";

/// Leaves `message` for Kubernetes; does nothing outside of it, where there is no such file.
pub fn leave(message: &str) {
    // Whoever reads the log finds the same sentence there.
    if let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(PATH) {
        let _ = file.write_all(message.as_bytes());
    }
}
