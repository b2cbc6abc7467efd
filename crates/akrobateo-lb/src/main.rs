//! `akrobateo-lb`: reads the command line, runs, and says why it ended.

use std::process::ExitCode;

use akrobateo_lb::cli::{Command, UsageError, help};
use akrobateo_lb::{ip_forwarding, run, termination};

/// As of most programs whose arguments are wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match Command::read(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => return refuse(&error),
    };
    tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(std::io::stderr).init();
    match act(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            termination::leave(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn act(command: Command) -> Result<(), run::Error> {
    match command {
        Command::Forward(args) => run::run(args)?,
        Command::EnableIpv6Forwarding => {
            let needed = ip_forwarding::ipv6::enable()?;
            tracing::info!(needed, "IPv6 forwarding is on");
        }
        Command::Reserve => run::reserve()?,
        Command::Help => print!("{}", help()),
        Command::Version => println!("akrobateo-lb {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(())
}

fn refuse(error: &UsageError) -> ExitCode {
    eprintln!("akrobateo-lb: {error}");
    termination::leave(&error.to_string());
    ExitCode::from(USAGE)
}
