//! The administrator's commands, in the operator's binary: what is, what would be, and why.

mod cluster;
mod completions;
mod error;
mod explain;
mod operator_config;
mod output;
mod ports;
mod render;
mod service_report;
mod status;
mod table;

#[cfg(test)]
mod fixtures;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::key::ServiceKey;
use crate::settings::OperatorConfig;
use error::CliError;
use output::Format;

const EXIT_CODES: &str = "\
Exit codes of the commands:
  0  done; what was asked about is as it should be
  1  cannot be done: no cluster, no rights, an unreadable file
  2  wrong arguments
  3  done, but a Service that should have addresses has none, or is refused";
/// The name by which kubectl finds its plugins: `kubectl akrobateo`.
const PLUGIN: &str = "kubectl-akrobateo";
/// The code for trouble with what was asked about, rather than with the asking.
const TROUBLE: u8 = 3;

/// Gives Services of type LoadBalancer the addresses of the cluster's nodes.
///
/// Without a command it is the operator, with the rights of its ServiceAccount in a cluster and those of the kubeconfig
/// elsewhere. The commands look, and change nothing; they take the settings of the operator in the cluster, except for
/// those that are given here before the command.
#[derive(Parser, Debug)]
#[command(name = "akrobateo", version, after_help = EXIT_CODES, subcommand_help_heading = "Commands for administrators")]
struct Cli {
    #[command(flatten)]
    settings: OperatorConfig,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Shows each Service of type LoadBalancer: its ports, proxies and addresses, and why not
    Status {
        /// Of this namespace only
        #[arg(long, short, value_name = "NAMESPACE")]
        namespace: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Explains one Service: what is made for it and why, and who has its ports
    Explain {
        /// The Service
        #[arg(value_name = "NAMESPACE/NAME", value_parser = service_key)]
        service: ServiceKey,
        #[command(flatten)]
        output: Output,
    },
    /// Shows which Service has which port on which nodes, and who waits for it
    Ports {
        #[command(flatten)]
        output: Output,
    },
    /// Prints what would be made for the Services in a file, without a cluster
    Render {
        /// YAML or JSON with Services; - is the standard input
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
        /// How it is printed
        #[arg(long, short, value_name = "FORMAT", default_value = "yaml")]
        output: render::Format,
    },
    /// Prints a script for the shell that completes commands and flags
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args, Clone, Copy, Debug)]
struct Output {
    /// How it is printed
    #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// What the program was called for.
pub enum Invocation {
    /// To be the operator.
    Operator(OperatorConfig),
    /// To do one thing and end.
    Command(Task),
}

/// One command, ready to be done.
pub struct Task {
    command: Command,
    settings: OperatorConfig,
    matches: ArgMatches,
}

impl Invocation {
    /// Reads the command line; ends the process where it asks for help, or is wrong.
    #[must_use]
    pub fn read() -> Self {
        Self::parse(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    fn parse(line: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut definition = definition(line.first().map(OsString::as_os_str));
        let matches = definition.try_get_matches_from_mut(line)?;
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))?;
        Ok(match cli.command {
            None => Self::Operator(cli.settings),
            Some(command) => Self::Command(Task { command, settings: cli.settings, matches }),
        })
    }
}

/// The commands and flags under the name by which the program was called: as kubectl's plugin it is no operator.
fn definition(called: Option<&OsStr>) -> clap::Command {
    let name = called.map(Path::new).and_then(Path::file_stem).and_then(OsStr::to_str);
    if name == Some(PLUGIN) {
        let plugin = Cli::command().name(PLUGIN).bin_name("kubectl akrobateo");
        return plugin.subcommand_required(true).arg_required_else_help(true);
    }
    Cli::command()
}

impl Task {
    /// Does it, and says how it went.
    pub async fn run(self) -> ExitCode {
        match self.answer().await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(TROUBLE),
            Err(error) => {
                eprintln!("akrobateo: {}", error.with_causes());
                ExitCode::FAILURE
            }
        }
    }

    /// Whether what was asked about is as it should be.
    async fn answer(&self) -> Result<bool, CliError> {
        match &self.command {
            Command::Status { namespace, output } => {
                let cluster = cluster::read(&self.settings, &self.matches).await?;
                let rows = status::rows(&cluster, namespace.as_deref());
                output::print(output.format, &rows, |paint| status::text(&rows, paint))?;
                Ok(!rows.iter().any(status::Row::is_trouble))
            }
            Command::Explain { service, output } => {
                let cluster = cluster::read(&self.settings, &self.matches).await?;
                let explanation = explain::explain(&cluster, service)?;
                output::print(output.format, &explanation, |paint| explanation.text(paint))?;
                Ok(!explanation.is_trouble())
            }
            Command::Ports { output } => {
                let cluster = cluster::read(&self.settings, &self.matches).await?;
                let rows = ports::rows(&cluster.subjects, &cluster.nodes);
                output::print(output.format, &rows, |_| ports::text(&rows))?;
                Ok(true)
            }
            Command::Render { file, output } => render::render(&self.settings, file, *output),
            Command::Completions { shell } => completions::print(*shell).map(|()| true),
        }
    }
}

fn service_key(text: &str) -> Result<ServiceKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("a Service is named NAMESPACE/NAME, for example default/web".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Invocation, clap::Error> {
        Invocation::parse(line.iter().map(OsString::from).collect())
    }

    #[test]
    fn without_a_command_it_is_the_operator() {
        assert!(matches!(parse(&["akrobateo"]), Ok(Invocation::Operator(_))));
        assert!(matches!(parse(&["/akrobateo", "--watch-namespace=shop"]), Ok(Invocation::Operator(_))));
    }

    #[test]
    fn as_kubectls_plugin_it_needs_a_command_and_calls_itself_so() {
        let Err(error) = parse(&["/usr/local/bin/kubectl-akrobateo"]) else { panic!("it was an operator") };
        assert!(error.to_string().contains("kubectl akrobateo"), "{error}");
        assert!(matches!(parse(&["kubectl-akrobateo", "status"]), Ok(Invocation::Command(_))));
    }

    #[test]
    fn the_cluster_is_chosen_before_or_after_the_command() {
        for line in [["akrobateo", "--context=kind", "status"], ["akrobateo", "status", "--context=kind"]] {
            let Ok(Invocation::Command(task)) = parse(&line) else { panic!("{line:?} is no command") };
            assert_eq!(task.settings.context.as_deref(), Some("kind"));
        }
    }

    #[test]
    fn a_service_without_its_namespace_is_refused_with_an_example() {
        for wrong in ["web", "/web", "default/", "a/b/c"] {
            let Err(error) = parse(&["akrobateo", "explain", wrong]) else { panic!("{wrong} was taken") };
            assert!(error.to_string().contains("for example default/web"), "{error}");
        }
    }

    #[test]
    fn every_command_takes_its_output_by_the_letter_that_kubectl_has() {
        for line in [
            &["status", "-n", "shop", "-o", "json"][..],
            &["explain", "shop/web", "-o", "json"],
            &["ports", "-o", "yaml"],
            &["render", "-f", "web.yaml", "-o", "json"],
        ] {
            assert!(parse(&[&["akrobateo"], line].concat()).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn help_tells_the_exit_codes() {
        assert!(Cli::command().render_long_help().to_string().contains("Exit codes"));
        Cli::command().debug_assert();
    }
}
