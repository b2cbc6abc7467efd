//! An operator that runs on this machine, as a developer runs it. Does I/O.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::{Failure, Namespace, environment};

/// Ends with the test.
pub struct LocalOperator(Child);

impl LocalOperator {
    /// Starts it for the Services of one namespace, with further variables of its environment.
    pub fn start(watched: &Namespace, variables: &[(&str, &str)]) -> Result<Self, Failure> {
        let program = environment::OPERATOR.read()?;
        let environment = &watched.cluster().environment;
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(&environment.kubeconfig).arg("--context").arg(&environment.context);
        command.env("WATCH_NAMESPACE", watched.name()).envs(variables.iter().copied());
        // Any free port: the default one may be taken on this machine.
        command.env("HTTP_ADDRESS", "127.0.0.1:0").env_remove("KUBECONFIG");
        let spawned = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| Failure::File(program, error))?;
        if let Some(log) = child.stderr.take() {
            // Printed by a thread of the test, it is shown if the test fails.
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
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
