//! Why a test failed, in words. Pure.

use std::fmt;
use std::time::Duration;

use crate::environment::EnvironmentError;

/// Why a test failed, or why a check does not hold yet.
#[derive(thiserror::Error)]
pub enum Failure {
    /// A variable is missing.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig or context: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server refused, or could not be reached.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// A program that the harness runs did not do its work.
    #[error("{0}: {1}")]
    Command(String, String),
    /// A file could not be read.
    #[error("{0}: {1}")]
    File(String, #[source] std::io::Error),
    /// Something is not as it should be.
    #[error("{0}")]
    Unmet(String),
    /// Something did not become as it should be.
    #[error("gave up after {1:?} waiting for this: {0}; last seen: {2}")]
    GaveUp(String, Duration, #[source] Box<Failure>),
}

/// As `Display`: it is what the test's runner prints.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Holds if both are the same.
pub fn same<T: PartialEq + fmt::Debug>(what: &str, seen: &T, wanted: &T) -> Result<(), Failure> {
    ensure(seen == wanted, || format!("{what}: {seen:?}, wanted: {wanted:?}"))
}

/// Holds if `condition` does; else says what was seen instead.
pub fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(Failure::Unmet(otherwise())) }
}
