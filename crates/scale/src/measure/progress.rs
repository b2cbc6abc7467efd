//! Reports the progress of a measurement. Does I/O.

/// Prints a line on the standard error.
pub(super) fn say(text: &str) {
    eprintln!("scale: {text}");
}
