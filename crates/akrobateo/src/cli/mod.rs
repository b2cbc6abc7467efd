//! The commands for administrators in the operator's program. Each command has a module of the same name. This module
//! does the command's I/O.

mod arguments;
mod cluster;
mod completions;
mod config_map_settings;
mod error;
mod explain;
mod nodes;
mod operator_config;
mod output;
mod ports;
mod render;
mod service_report;
mod status;
mod table;

#[cfg(test)]
mod fixtures;

use std::ffi::OsString;
use std::process::ExitCode;

use api_client::error_chain;
use clap::{ArgMatches, FromArgMatches};

use crate::settings::OperatorConfig;
use arguments::{Arguments, Command};
use cluster::Cluster;
use error::CliError;

/// The exit code of a command that succeeded but found a failing Service.
const FAILING_SERVICE_EXIT_CODE: u8 = 3;

/// The task that the command line selects: the operator or a command.
pub enum Invocation {
    /// Run the operator.
    Operator(OperatorConfig),
    /// Run one command and exit.
    Command(ParsedCommand),
}

/// A command with its arguments, ready to run.
pub struct ParsedCommand {
    command: Command,
    config: OperatorConfig,
    operator_namespace: Option<String>,
    matches: ArgMatches,
}

impl Invocation {
    /// Parses the command line of this process. Exits after `--help`, `--version` and errors.
    #[must_use]
    pub fn from_args() -> Self {
        Self::parse(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    fn parse(command_line: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut definition = arguments::command(command_line.first().map(OsString::as_os_str));
        let matches = definition.try_get_matches_from_mut(command_line)?;
        let arguments =
            Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))?;
        Ok(match arguments.command {
            None => Self::Operator(arguments.config),
            Some(command) => Self::Command(ParsedCommand {
                command,
                config: arguments.config,
                operator_namespace: arguments.operator_namespace,
                matches,
            }),
        })
    }
}

impl ParsedCommand {
    /// Runs the command and returns the exit code of the process.
    pub async fn run(self) -> ExitCode {
        match self.execute().await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(FAILING_SERVICE_EXIT_CODE),
            Err(error) => {
                eprintln!("akrobateo: {}", error_chain(&error));
                ExitCode::FAILURE
            }
        }
    }

    async fn read_cluster(&self) -> Result<Cluster, CliError> {
        Cluster::read(&self.config, self.operator_namespace.as_deref(), &self.matches).await
    }

    /// Runs the command. Returns false if a Service fails.
    async fn execute(&self) -> Result<bool, CliError> {
        match &self.command {
            Command::Status { namespace, output } => {
                let cluster = self.read_cluster().await?;
                let rows = status::status_rows(&cluster, namespace.as_deref());
                output::print(output.format, &rows, |style| status::format_rows(&rows, style))?;
                Ok(!rows.iter().any(status::StatusRow::is_failing))
            }
            Command::Explain { service, output } => {
                let cluster = self.read_cluster().await?;
                let explanation = explain::explain(&cluster, service)?;
                output::print(output.format, &explanation, |style| explanation.format(style))?;
                Ok(!explanation.is_failing())
            }
            Command::Ports { output } => {
                let cluster = self.read_cluster().await?;
                let rows = ports::port_rows(&cluster.service_reports, &cluster.nodes);
                output::print(output.format, &rows, |_| ports::format_rows(&rows))?;
                Ok(true)
            }
            Command::Nodes { output } => {
                let cluster = self.read_cluster().await?;
                let rows = nodes::node_rows(&cluster);
                output::print(output.format, &rows, |style| nodes::format_rows(&rows, style))?;
                Ok(true)
            }
            Command::Render { file, output } => render::render(&self.config, file, *output),
            Command::Completions { shell } => {
                completions::print_script(arguments::command(None), *shell).map(|()| true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Invocation, clap::Error> {
        Invocation::parse(line.iter().map(OsString::from).collect())
    }

    #[test]
    fn program_without_a_command_runs_the_operator() {
        assert!(matches!(parse(&["akrobateo"]), Ok(Invocation::Operator(_))));
        assert!(matches!(parse(&["/akrobateo", "--watch-namespace=shop"]), Ok(Invocation::Operator(_))));
    }

    #[test]
    fn kubectl_plugin_requires_a_command_and_shows_its_name() {
        let Err(error) = parse(&["/usr/local/bin/kubectl-akrobateo"]) else {
            panic!("the plugin ran the operator")
        };
        assert!(error.to_string().contains("kubectl akrobateo"), "{error}");
        assert!(matches!(parse(&["kubectl-akrobateo", "status"]), Ok(Invocation::Command(_))));
    }

    #[test]
    fn context_flag_is_accepted_before_and_after_the_command() {
        for line in [["akrobateo", "--context=kind", "status"], ["akrobateo", "status", "--context=kind"]] {
            let Ok(Invocation::Command(parsed_command)) = parse(&line) else {
                panic!("{line:?} is no command")
            };
            assert_eq!(parsed_command.config.connection.context.as_deref(), Some("kind"));
        }
    }

    #[test]
    fn invalid_service_name_is_rejected_with_an_example() {
        for name in ["web", "/web", "default/", "a/b/c"] {
            let Err(error) = parse(&["akrobateo", "explain", name]) else { panic!("{name} was accepted") };
            assert!(error.to_string().contains("for example default/web"), "{error}");
        }
    }

    #[test]
    fn commands_accept_the_short_flags_of_kubectl() {
        for line in [
            &["status", "-n", "shop", "-o", "json"][..],
            &["explain", "shop/web", "-o", "json"],
            &["ports", "-o", "yaml"],
            &["nodes", "-o", "json"],
            &["render", "-f", "web.yaml", "-o", "json"],
        ] {
            assert!(parse(&[&["akrobateo"], line].concat()).is_ok(), "{line:?}");
        }
    }
}
