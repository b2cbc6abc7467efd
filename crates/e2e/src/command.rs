//! Runs programs of this machine. Does I/O.

use std::process::{Command, Output, Stdio};

use tokio::task::spawn_blocking;

use crate::Failure;

/// Runs a program to its end, and gives what it printed whether or not it succeeded.
pub(crate) async fn output(words: Vec<String>) -> Result<Output, Failure> {
    let line = words.join(" ");
    let failed = |reason: String| Failure::Command(line.clone(), reason);
    let run = move || command(&words).stdin(Stdio::null()).output();
    spawn_blocking(run)
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))
}

/// Runs a program that must succeed, and gives what it printed.
pub(crate) async fn run(words: Vec<String>) -> Result<String, Failure> {
    let line = words.join(" ");
    let output = output(words).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Command(line, format!("{}: {}", output.status, printed.trim())))
}

/// A command of words, the first of which is the program.
pub(crate) fn command(words: &[String]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    command
}
