//! The benchmark that compares the data plane with other proxies. `scripts/bench` runs it. Does I/O.

mod agent;
mod agent_targets;
mod backend;
mod chain_copies;
mod chain_costs;
mod cli;
mod client;
mod cpu_pin;
mod cpu_time;
mod error;
mod footprint;
mod large_config;
mod layout;
mod load;
mod load_generator;
mod neighbour_network;
mod neighbours;
mod network;
mod nft_program;
mod node_table;
mod program_versions;
mod protocol;
mod proxy;
mod proxy_targets;
mod quantity;
mod quartiles;
mod replacement;
mod report;
mod results;
mod ruleset_watch;
mod run;
mod sample;
mod sampling;
mod set_up;
mod start;
mod target;
mod targets;
mod testbed;
mod two_nodes;
mod variant;

use std::process::ExitCode;

use clap::Parser;
use netns_testkit::isolation::isolate_program;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(node_table::TABLE_PROCESS_ARGUMENT) {
        return exit_code(node_table::apply_table_and_wait());
    }
    let cli = cli::Cli::parse();
    if let Some(status) = isolate_program() {
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    exit_code(set_up::set_up().and_then(|()| run::run(&cli)))
}

/// Prints the error of a failed run.
fn exit_code(result: Result<(), error::BenchError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
