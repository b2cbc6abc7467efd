//! Runs the commands `akrobateo` and `kubectl akrobateo` on this machine. Does I/O.

use std::path::Path;

use serde_json::Value;

use crate::command::run_and_get_output;
use crate::environment;
use crate::failure::Failure;
use crate::namespace::Namespace;

/// The result of a command.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// The exit code; `None` if a signal ended the command.
    pub exit_code: Option<i32>,
    /// The text on the standard output.
    pub stdout: String,
    /// The text on the standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// Parses the standard output as JSON. The command must have the arguments `-o json`.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.stdout).map_err(|error| {
            Failure::UnexpectedState(format!("the command printed invalid JSON ({error}): {self:?}"))
        })
    }
}

impl Namespace {
    /// Runs `akrobateo` with these arguments against the cluster under test.
    pub async fn run_akrobateo(&self, arguments: &[&str]) -> Result<CommandOutput, Failure> {
        self.run_program(&environment::OPERATOR_PROGRAM.read_value()?, arguments).await
    }

    /// Runs `akrobateo` as a kubectl plugin, through the symbolic link `kubectl-akrobateo` in `folder`.
    pub async fn run_plugin(&self, folder: &Path, arguments: &[&str]) -> Result<CommandOutput, Failure> {
        let plugin_link = folder.join("kubectl-akrobateo");
        let program = std::fs::canonicalize(environment::OPERATOR_PROGRAM.read_value()?);
        let link_result = program.and_then(|program| std::os::unix::fs::symlink(program, &plugin_link));
        link_result.map_err(|error| Failure::File(plugin_link.display().to_string(), error))?;
        self.run_program(&plugin_link.display().to_string(), arguments).await
    }

    async fn run_program(&self, program: &str, arguments: &[&str]) -> Result<CommandOutput, Failure> {
        let environment = &self.cluster().environment;
        let cluster_flags = [
            "--kubeconfig",
            &environment.kubeconfig_path.to_string_lossy(),
            "--context",
            &environment.kubeconfig_context,
        ]
        .map(str::to_owned);
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        let words = std::iter::once(program.to_owned()).chain(cluster_flags).chain(arguments);
        let output = run_and_get_output(words.collect()).await?;
        let to_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(CommandOutput {
            exit_code: output.status.code(),
            stdout: to_text(&output.stdout),
            stderr: to_text(&output.stderr),
        })
    }
}
