//! Measures the operator and many node agents on a real API server. `scripts/scale` runs this program. Does I/O.

mod agents;
mod audit;
mod cli;
mod cluster;
mod endpoint_changes;
mod error;
mod hollow;
mod measure;
mod objects;
mod operator;
mod percentile;
mod program;
mod prometheus;
mod report;
mod results;
mod run;
mod service_client;
mod service_watch;
mod size;
mod testbed;

use std::process::ExitCode;

use clap::Parser;
use netns_testkit::isolation::isolate_program;

use cli::{Cli, Command};
use error::ScaleError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match (cli.command, cli.measurement) {
        (Some(Command::HollowAgents { kubeconfigs, nodes }), _) => run_hollow_agents(&kubeconfigs, &nodes),
        (None, Some(options)) => {
            if let Some(status) = isolate_program() {
                return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
            run::run(&options)
        }
        (None, None) => {
            Err(ScaleError::UnexpectedState("the options of a measurement are missing".to_owned()))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {}", api_client::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_hollow_agents(kubeconfigs: &std::path::Path, nodes: &[usize]) -> Result<(), ScaleError> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let [first, end] = nodes else {
        return Err(ScaleError::UnexpectedState("--nodes needs two numbers".to_owned()));
    };
    hollow::run_agents(kubeconfigs, *first..*end)
}
