//! `akrobateo-lb`: reads the command line, runs, and says why it ended.

use std::process::ExitCode;

use akrobateo_lb::cli::{Cli, Command};
use akrobateo_lb::{forwarding, run, termination};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(std::io::stderr).init();
    match act(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            termination::leave(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> Result<(), run::Error> {
    match cli {
        Cli { command: Some(Command::EnableIpv6Forwarding), .. } => {
            let needed = forwarding::ipv6::switch_on()?;
            tracing::info!(needed, "IPv6 forwarding is on");
            Ok(())
        }
        Cli { command: Some(Command::Reserve), .. } => run::reserve(),
        Cli { proxy: Some(args), .. } => run::run(&args),
        // The command line's own rules exclude it.
        Cli { command: None, proxy: None } => Ok(()),
    }
}

/// Prints what is wrong with the arguments, or the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        termination::leave(&error.to_string());
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
