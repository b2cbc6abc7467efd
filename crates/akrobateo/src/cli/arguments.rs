//! The command line: commands, their flags and the help text. Pure.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use akrobateo_services::key::ServiceKey;
use clap::{CommandFactory, Parser, Subcommand};

use super::{output, render};
use crate::settings::OperatorConfig;

const EXIT_CODES_HELP: &str = "\
Exit codes of the commands:
  0  success, no problems found
  1  failure: no cluster, missing permissions, or an unreadable file
  2  wrong arguments
  3  success, but a Service is rejected or lacks the addresses that it should have";

/// The file name by which kubectl finds the plugin `kubectl akrobateo`.
const KUBECTL_PLUGIN_FILE_NAME: &str = "kubectl-akrobateo";

/// Gives Services of type LoadBalancer the addresses of the cluster's nodes.
///
/// Without a command, akrobateo runs the operator. In a pod the operator uses the pod's ServiceAccount. Outside a pod
/// the operator uses the kubeconfig.
///
/// The commands only read from the cluster, and use the configuration of the operator that is deployed in the cluster.
/// Operator flags that come before the command override this configuration.
#[derive(Parser, Debug)]
#[command(name = "akrobateo", version, after_help = EXIT_CODES_HELP, subcommand_help_heading = "Commands for administrators")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) config: OperatorConfig,

    /// Namespace of the operator whose configuration the commands use [default: kube-system; in a pod the commands use
    /// the environment variables of the pod]
    #[arg(long, global = true, value_name = "NAMESPACE")]
    pub(super) operator_namespace: Option<String>,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Subcommand, Clone, Debug)]
pub(super) enum Command {
    /// Shows the ports, proxies, addresses and state of each Service of type LoadBalancer
    Status {
        /// Namespace of the Services to show [default: all namespaces]
        #[arg(long, short, value_name = "NAMESPACE")]
        namespace: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Explains one Service: its proxies, each node, and the owners of its ports
    Explain {
        /// Service to explain, for example default/web
        #[arg(value_name = "NAMESPACE/NAME", value_parser = parse_service_key)]
        service: ServiceKey,
        #[command(flatten)]
        output: Output,
    },
    /// Shows which Service owns each port of the nodes, and which Services wait for the port
    Ports {
        #[command(flatten)]
        output: Output,
    },
    /// Shows the agent of each node: its version, its last report, and the Services that it serves and refuses
    Nodes {
        #[command(flatten)]
        output: Output,
    },
    /// Prints the workloads that the operator would create for the Services in a file; needs no cluster
    Render {
        /// Path of a YAML or JSON file with Services; - reads standard input
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
        /// Output format
        #[arg(long, short, value_name = "FORMAT", default_value = "yaml")]
        output: render::Format,
    },
    /// Prints a shell script that completes commands and flags
    Completions {
        /// Shell that runs the script
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Output {
    /// Output format
    #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "text")]
    pub(super) format: output::Format,
}

/// Returns the definition of commands and flags. As a kubectl plugin, the program requires a command, because the
/// plugin never runs the operator.
pub(super) fn command(program: Option<&OsStr>) -> clap::Command {
    let name = program.map(Path::new).and_then(Path::file_stem).and_then(OsStr::to_str);
    if name == Some(KUBECTL_PLUGIN_FILE_NAME) {
        let plugin_command =
            Arguments::command().name(KUBECTL_PLUGIN_FILE_NAME).bin_name("kubectl akrobateo");
        return plugin_command.subcommand_required(true).arg_required_else_help(true);
    }
    Arguments::command()
}

/// Parses `NAMESPACE/NAME`.
fn parse_service_key(text: &str) -> Result<ServiceKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("expected NAMESPACE/NAME, for example default/web".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_the_exit_codes() {
        assert!(Arguments::command().render_long_help().to_string().contains("Exit codes"));
        Arguments::command().debug_assert();
    }
}
