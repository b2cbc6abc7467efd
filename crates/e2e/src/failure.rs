//! The reasons why a test fails, with their messages. Pure.

use std::fmt;
use std::time::Duration;

use crate::environment::EnvironmentError;

/// The reason why a test failed, or why a check has not succeeded yet.
#[derive(thiserror::Error)]
pub enum Failure {
    /// An environment variable is missing.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The kubeconfig or its context cannot be used.
    #[error("cannot use the kubeconfig or its context: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// A request to the API server failed.
    #[error("API request failed: {0}")]
    Api(#[from] kube::Error),
    /// A command on this machine failed. The fields are the command line and the reason.
    #[error("command failed: {0}: {1}")]
    Command(String, String),
    /// A file cannot be read, written or created. The fields are the file's path and the reason.
    #[error("cannot access {0}: {1}")]
    File(String, #[source] std::io::Error),
    /// A check failed. The field describes the observed state.
    #[error("{0}")]
    UnexpectedState(String),
    /// A check did not succeed before the deadline. The fields are the expected state, the deadline, and the last
    /// result of the check.
    #[error("timed out after {1:?} waiting until {0}; last result: {2}")]
    TimedOut(String, Duration, #[source] Box<Failure>),
}

/// Prints the same text as `Display`, because Rust's test runner prints errors with `Debug`.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns an error if the two values differ. The error contains `name`, the name of the compared value.
pub fn ensure_eq<T: PartialEq + fmt::Debug>(name: &str, actual: &T, expected: &T) -> Result<(), Failure> {
    ensure(actual == expected, || format!("{name}: got {actual:?}, expected {expected:?}"))
}

/// Returns an error with the text of `message` if `condition` is false.
pub fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(Failure::UnexpectedState(message())) }
}
