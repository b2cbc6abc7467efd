//! The errors of the benchmark, and a function that runs a program. Does I/O.

use std::io;
use std::process::Command;
use std::time::Duration;

/// The reason why a benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A system call failed.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// A program failed; the second field has its output.
    #[error("{0}: {1}")]
    Command(String, String),
    /// An event did not happen in time.
    #[error("timeout after {1:?}; expected: {0}")]
    Timeout(String, Duration),
    /// The benchmark found an unexpected state, for example a wrong source address.
    #[error("{0}")]
    UnexpectedState(String),
}

/// Adds a description to an I/O error.
pub(crate) trait Context<T> {
    /// Converts the error; `description` names the file, program or operation.
    fn context(self, description: &str) -> Result<T, BenchError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, description: &str) -> Result<T, BenchError> {
        self.map_err(|error| BenchError::Io(description.to_owned(), error.into()))
    }
}

/// Runs a program, and returns its output. Returns an error if the program fails.
pub(crate) fn run_command(command: &mut Command) -> Result<String, BenchError> {
    let program = command.get_program().display().to_string();
    let output = command.output().context(&program)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok([text(&output.stdout), text(&output.stderr)].concat());
    }
    Err(BenchError::Command(program, format!("{}: {}", output.status, text(&output.stderr))))
}
