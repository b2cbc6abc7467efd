//! The node agent's command line: runs the agent, applies one configuration, shows the data path, or removes it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use akrobateo_agent::config::{ConfigError, NodeConfig};
use akrobateo_agent::data_path::{DataPath, DataPathError};
use akrobateo_agent::run::{self, RunError};
use akrobateo_agent::settings::RunOptions;
use akrobateo_agent::show;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Forwards the packets of Services of type `LoadBalancer` in the node's network namespace.
///
/// Each command acts on the network namespace in which it runs, and needs the capability `NET_ADMIN`.
#[derive(Parser)]
#[command(name = "akrobateo-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the Services of the cluster on this node until SIGTERM.
    Run(Box<RunOptions>),
    /// Install the rules of a configuration in the kernel. Established connections survive.
    ///
    /// The command changes only rules that differ from the installed rules, and then ends. After that, objects that
    /// other programs delete stay deleted. The configuration names the paths to other nodes, so the command does not
    /// probe them.
    Apply {
        /// The file with the node's configuration in JSON; `-` reads standard input. The repository has an example:
        /// `examples/node-agent/node1.json`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show the Services, endpoints and paths to other nodes in the kernel's rules.
    Show,
    /// Remove everything that the agent has installed.
    Cleanup,
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("cannot read the configuration {path}: {error}")]
    Read { path: String, error: io::Error },
    #[error("{path}: {error}")]
    Config { path: String, error: ConfigError },
    #[error(transparent)]
    DataPath(#[from] DataPathError),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot describe the data path")]
    Describe(#[from] std::fmt::Error),
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .with_writer(io::stderr)
        .init();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A failed write cannot be reported.
            let _ = writeln!(io::stderr(), "error: {}", api_client::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    let text = match command {
        Command::Run(options) => return serve(*options),
        Command::Apply { config } => {
            let mut config = read_config(&config)?;
            let mut data_path = DataPath::open()?;
            data_path.check_kernel()?;
            config.node.has_egress_hook &= data_path.has_egress_hook()?;
            let changes = data_path.apply(&config)?;
            format!(
                "nftables steps: {}, tunnel changes: {}, deleted UDP conntrack entries: {}, deleted affinities: {}\n",
                changes.nftables_steps,
                changes.tunnel_changes,
                changes.deleted_flows,
                changes.deleted_affinities
            )
        }
        Command::Show => show::describe(DataPath::open()?.read_table()?.as_ref())?,
        Command::Cleanup => {
            let changes = DataPath::open()?.cleanup()?;
            format!(
                "nftables steps: {}, tunnel changes: {}\n",
                changes.nftables_steps, changes.tunnel_changes
            )
        }
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn serve(options: RunOptions) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::Runtime)?.block_on(run::run(options))?;
    Ok(())
}

fn read_config(path: &Path) -> Result<NodeConfig, CliError> {
    let read_bytes = || -> io::Result<Vec<u8>> {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        std::fs::read(path)
    };
    let path_text = || path.display().to_string();
    let bytes = read_bytes().map_err(|error| CliError::Read { path: path_text(), error })?;
    NodeConfig::from_json(&bytes).map_err(|error| CliError::Config { path: path_text(), error })
}
