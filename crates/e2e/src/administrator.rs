//! The administrator's commands of the operator's program, run on this machine. Does I/O.

use std::path::Path;

use serde_json::Value;

use crate::command::output;
use crate::{Failure, Namespace, environment};

/// What a command printed.
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// On the standard output.
    pub text: String,
    /// On the standard error.
    pub errors: String,
}

impl Said {
    /// The answer to `-o json`.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.text).map_err(|error| Failure::Unmet(format!("{error} in {self:?}")))
    }
}

impl Namespace {
    /// Runs `akrobateo` with these arguments against the cluster under test.
    pub async fn akrobateo(&self, arguments: &[&str]) -> Result<Said, Failure> {
        self.run_as(&environment::OPERATOR.read()?, arguments).await
    }

    /// The same program under the name by which kubectl finds it, in this folder.
    pub async fn plugin(&self, folder: &Path, arguments: &[&str]) -> Result<Said, Failure> {
        let link = folder.join("kubectl-akrobateo");
        let program = std::fs::canonicalize(environment::OPERATOR.read()?);
        let linked = program.and_then(|program| std::os::unix::fs::symlink(program, &link));
        linked.map_err(|error| Failure::File(link.display().to_string(), error))?;
        self.run_as(&link.display().to_string(), arguments).await
    }

    async fn run_as(&self, program: &str, arguments: &[&str]) -> Result<Said, Failure> {
        let environment = &self.cluster().environment;
        let cluster =
            ["--kubeconfig", &environment.kubeconfig.to_string_lossy(), "--context", &environment.context]
                .map(str::to_owned);
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        let words = std::iter::once(program.to_owned()).chain(cluster).chain(arguments);
        let output = output(words.collect()).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: output.status.code(), text: text(&output.stdout), errors: text(&output.stderr) })
    }
}
