//! The `akrobateo` program: the operator, or one of the administrator's commands.

use std::io::IsTerminal;
use std::process::ExitCode;

use akrobateo::{Invocation, OperatorConfig, run};
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match Invocation::from_args() {
        Invocation::Operator(settings) => operate(settings).await,
        Invocation::Command(task) => task.run().await,
    }
}

async fn operate(settings: OperatorConfig) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot run");
            ExitCode::FAILURE
        }
    }
}
