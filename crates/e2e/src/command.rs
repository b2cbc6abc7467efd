//! Runs programs on this machine. Does I/O.

use std::process::{Command, Output, Stdio};

use tokio::task::spawn_blocking;

use crate::failure::Failure;

/// Runs a program until it exits, and returns its output. A nonzero exit code is not an error.
pub(crate) async fn run_and_get_output(words: Vec<String>) -> Result<Output, Failure> {
    let command_line = words.join(" ");
    let to_failure = |reason: String| Failure::Command(command_line.clone(), reason);
    let run = move || build_command(&words).stdin(Stdio::null()).output();
    spawn_blocking(run)
        .await
        .map_err(|error| to_failure(error.to_string()))?
        .map_err(|error| to_failure(error.to_string()))
}

/// Runs a program that must succeed, and returns its standard output.
pub(crate) async fn run(words: Vec<String>) -> Result<String, Failure> {
    let command_line = words.join(" ");
    let output = run_and_get_output(words).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Command(command_line, format!("{}: {}", output.status, stderr.trim())))
}

/// Returns the command with these words. The first word is the program.
pub(crate) fn build_command(words: &[String]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    command
}
