//! `akrobateo-lb`: reads the command line, runs the command, and reports errors. Does I/O.

use std::process::ExitCode;

use akrobateo_lb::cli::{Command, UsageError, help};
use akrobateo_lb::error::Error;
use akrobateo_lb::ip_forwarding::ipv6;
use akrobateo_lb::run;
use akrobateo_lb::termination::write_termination_message;

/// The exit code for a wrong command line. Most programs use 2 for a wrong command line.
const USAGE_ERROR_EXIT_CODE: u8 = 2;

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => return report_usage_error(&error),
    };
    tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(std::io::stderr).init();
    match execute(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            write_termination_message(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<(), Error> {
    match command {
        Command::Forward(args) => run::run(args)?,
        Command::EnableIpv6Forwarding => enable_ipv6_forwarding(),
        Command::ReserveHostPorts => run::reserve_host_ports()?,
        Command::Help => print!("{}", help()),
        Command::Version => println!("akrobateo-lb {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(())
}

/// Switches IPv6 forwarding on. Reports a failure, but does not exit with an error, because a failed init container
/// would prevent the proxy from serving IPv4. If the proxy forwards only IPv6, the proxy itself reports the failure and
/// exits.
fn enable_ipv6_forwarding() {
    match ipv6::enable() {
        Ok(changed) => tracing::info!(changed, "IPv6 forwarding is on"),
        Err(error) => {
            tracing::warn!("{error}");
            write_termination_message(&error.to_string());
        }
    }
}

fn report_usage_error(error: &UsageError) -> ExitCode {
    eprintln!("akrobateo-lb: {error}");
    write_termination_message(&error.to_string());
    ExitCode::from(USAGE_ERROR_EXIT_CODE)
}
