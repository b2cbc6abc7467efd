//! Benchmarks of the data plane against its peers; `scripts/bench` runs them.

mod backend;
mod cli;
mod client;
mod cpu;
mod failure;
mod footprint;
mod isolation;
mod load;
mod machine;
mod measure;
mod namespace;
mod network;
mod pin;
mod protocol;
mod proxy;
mod replacement;
mod report;
mod results;
mod route;
mod run;
mod sampling;
mod shuffle;
mod start;
mod stats;
mod targets;
mod variant;
mod watch;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let ended = if isolation::inside() {
        isolation::settle().and_then(|()| run::run(&cli)).map(|()| ExitCode::SUCCESS)
    } else {
        isolation::enter()
    };
    ended.unwrap_or_else(|failure| {
        eprintln!("bench: {failure}");
        ExitCode::FAILURE
    })
}
