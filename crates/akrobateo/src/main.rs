//! The program `akrobateo`: runs the operator or an administrator's command. Does I/O.

use std::io::IsTerminal;
use std::process::ExitCode;

use akrobateo::{Invocation, OperatorConfig, run};
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match Invocation::from_args() {
        Invocation::Operator(config) => run_operator(config).await,
        Invocation::Command(command) => command.run().await,
    }
}

async fn run_operator(config: OperatorConfig) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let use_color = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(use_color)
        .with_writer(std::io::stderr)
        .init();
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the operator stopped because of an error"
            );
            ExitCode::FAILURE
        }
    }
}
