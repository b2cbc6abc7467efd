//! Why a benchmark could not be taken.

use std::io;
use std::process::Command;
use std::time::Duration;

/// Why a benchmark could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something of this machine refused.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// A program failed; with what it printed.
    #[error("{0}: {1}")]
    Program(String, String),
    /// Something did not happen in time.
    #[error("{0}: not within {1:?}")]
    Late(String, Duration),
    /// What is there is not what should be measured.
    #[error("{0}")]
    Wrong(String),
}

/// Says what was tried when an error of the machine came.
pub(crate) trait Tried<T> {
    /// `what` was tried.
    fn tried(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::Io(what.to_owned(), error.into()))
    }
}

/// Runs a program that must succeed; gives what it printed.
pub(crate) fn printed(command: &mut Command) -> Result<String, Failure> {
    let line = command.get_program().display().to_string();
    let output = command.output().tried(&line)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok([text(&output.stdout), text(&output.stderr)].concat());
    }
    Err(Failure::Program(line, format!("{}: {}", output.status, text(&output.stderr))))
}
