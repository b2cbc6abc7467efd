//! An operator that runs as a process on this machine. Does I/O.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::environment;
use crate::failure::Failure;
use crate::namespace::Namespace;

/// A running operator. When a test drops the `LocalOperator`, the process is killed.
pub struct LocalOperator(Child);

impl LocalOperator {
    /// Starts an operator that watches one namespace, with these additional environment variables.
    pub fn start(watched_namespace: &Namespace, variables: &[(&str, &str)]) -> Result<Self, Failure> {
        let program = environment::OPERATOR_PROGRAM.read_value()?;
        let environment = &watched_namespace.cluster().environment;
        let mut command = Command::new(&program);
        command
            .arg("--kubeconfig")
            .arg(&environment.kubeconfig_path)
            .arg("--context")
            .arg(&environment.kubeconfig_context);
        command.env("WATCH_NAMESPACE", watched_namespace.name()).envs(variables.iter().copied());
        // The operator chooses a free port, because another process of this machine may use the default port.
        command.env("HTTP_ADDRESS", "127.0.0.1:0").env_remove("KUBECONFIG");
        let spawn_result = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawn_result.map_err(|error| Failure::File(program, error))?;
        if let Some(log) = child.stderr.take() {
            // A thread of the test prints the log, so that Rust shows the log only if the test fails.
            std::thread::spawn(move || {
                for line in BufReader::new(log).lines().map_while(Result::ok) {
                    eprintln!("local operator: {line}");
                }
            });
        }
        Ok(Self(child))
    }
}

impl Drop for LocalOperator {
    fn drop(&mut self) {
        // Errors are ignored, because the process may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
