//! An operator that runs on this machine, as a developer runs it. Does I/O.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{Failure, Namespace, command};

/// Ends with the test.
pub struct LocalOperator(Child);

impl LocalOperator {
    /// Builds the operator and starts it for the Services of `watched`, with their proxies in `proxies`.
    pub async fn start(watched: &Namespace, proxies: &Namespace) -> Result<Self, Failure> {
        let program = build().await?;
        let environment = &watched.cluster().environment;
        let mut command = Command::new(&program);
        command.arg("--kubeconfig").arg(&environment.kubeconfig).arg("--context").arg(&environment.context);
        command.env("WATCH_NAMESPACE", watched.name()).env("LB_NAMESPACE", proxies.name());
        // Any free port: the default one may be taken on this machine.
        command.env("HEALTH_ADDRESS", "127.0.0.1:0").env_remove("KUBECONFIG");
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

/// The program that cargo has made; quick when there is nothing to do.
async fn build() -> Result<String, Failure> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../akrobateo/Cargo.toml");
    let args = ["build", "--quiet", "--locked", "--message-format=json", "--manifest-path", manifest];
    let words: Vec<_> = [cargo.as_str()].into_iter().chain(args).map(str::to_owned).collect();
    let output = command::output(words.clone()).await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter_map(|message| message["executable"].as_str().map(ToOwned::to_owned));
    programs.next().filter(|_| output.status.success()).ok_or_else(|| {
        Failure::Command(words.join(" "), String::from_utf8_lossy(&output.stderr).into_owned())
    })
}
