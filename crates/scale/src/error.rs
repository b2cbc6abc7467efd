//! The errors of the measurement. Pure.

use std::io;
use std::time::Duration;

/// The reason why the measurement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    /// A system call failed.
    #[error("{0}")]
    Io(String, #[source] io::Error),
    /// A program failed; the second field has the end of its output.
    #[error("{0} failed: {1}")]
    Program(String, String),
    /// A request to the API server failed.
    #[error("{0}")]
    Request(String, #[source] kube::Error),
    /// The client of the API server cannot be created.
    #[error(transparent)]
    Connect(#[from] api_client::ConnectError),
    /// A node agent failed.
    #[error("the agent of {0} failed")]
    Agent(String, #[source] akrobateo_agent::run::RunError),
    /// The expected state did not come in time.
    #[error("timeout after {limit:?} while waiting for {expected}; found: {found}")]
    Timeout {
        /// The expected state.
        expected: String,
        /// The state at the end.
        found: String,
        /// The time limit.
        limit: Duration,
    },
    /// The measurement found an unexpected state.
    #[error("{0}")]
    UnexpectedState(String),
}

/// Adds a description to an error.
pub(crate) trait Context<T> {
    /// Converts the error; `description` names the file, program or operation.
    fn context(self, description: &str) -> Result<T, ScaleError>;
}

impl<T> Context<T> for Result<T, io::Error> {
    fn context(self, description: &str) -> Result<T, ScaleError> {
        self.map_err(|error| ScaleError::Io(description.to_owned(), error))
    }
}

impl<T> Context<T> for Result<T, rustix::io::Errno> {
    fn context(self, description: &str) -> Result<T, ScaleError> {
        self.map_err(io::Error::from).context(description)
    }
}

impl<T> Context<T> for kube::Result<T> {
    fn context(self, description: &str) -> Result<T, ScaleError> {
        self.map_err(|error| ScaleError::Request(description.to_owned(), error))
    }
}
