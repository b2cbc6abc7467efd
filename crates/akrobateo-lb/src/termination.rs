//! The termination message: the text that Kubernetes shows as the reason why a container ended. I/O only.

use std::fs::OpenOptions;
use std::io::Write;

/// The default of a container's `terminationMessagePath`. The kubelet creates the file.
const TERMINATION_LOG_PATH: &str = "/dev/termination-log";

/// Writes the container's termination message. Does nothing outside of Kubernetes, where the file does not exist.
pub fn write_termination_message(message: &str) {
    // An error is ignored, because the caller logs the same message.
    if let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(TERMINATION_LOG_PATH) {
        let _ = file.write_all(message.as_bytes());
    }
}
