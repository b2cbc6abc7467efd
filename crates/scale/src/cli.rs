//! The command line. Pure.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::size::Size;

/// Measures the operator and many node agents on a real API server. The nodes have no machines.
#[derive(Parser, Clone, Debug)]
#[command(name = "scripts/scale", version, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) measurement: Option<MeasurementOptions>,
}

/// A program that the measurement itself starts.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Run the agents of many nodes in one process
    #[command(hide = true)]
    HollowAgents {
        /// The directory with a kubeconfig for each agent
        #[arg(long)]
        kubeconfigs: PathBuf,
        /// The numbers of the first node and of the node after the last node
        #[arg(long, num_args = 2)]
        nodes: Vec<usize>,
    },
}

/// The options of a measurement.
#[derive(Args, Clone, Debug)]
pub(crate) struct MeasurementOptions {
    /// Sizes to measure, each as `SERVICESxNODES`; each size has its own cluster
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000x100")]
    pub(crate) sizes: Vec<Size>,

    /// Duration of the steady state
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..))]
    pub(crate) seconds: u64,

    /// The directory of scale.json and scale.md
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub(crate) output: PathBuf,

    /// The operator's binary
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) operator: PathBuf,

    /// The node agent's binary
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) agent: PathBuf,

    /// The binary with all Kubernetes programs
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) kubernetes: PathBuf,

    /// The binary of etcd
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) etcd: PathBuf,

    /// The directory with the manifests of Akrobateo
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub(crate) manifests: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_required_only_for_a_measurement() {
        let programs = [
            "scale",
            "--output=o",
            "--operator=a",
            "--agent=b",
            "--kubernetes=k",
            "--etcd=e",
            "--manifests=m",
        ];
        let sizes = |args: &[&str]| {
            let cli = Cli::try_parse_from(programs.iter().chain(args));
            cli.map(|cli| cli.measurement.unwrap().sizes.iter().map(Size::to_string).collect::<Vec<_>>())
        };
        assert_eq!(sizes(&[]).unwrap(), ["1000x100"]);
        assert_eq!(sizes(&["--sizes=50x10,20x5"]).unwrap(), ["50x10", "20x5"]);
        assert!(sizes(&["--sizes=50"]).unwrap_err().to_string().contains("SERVICESxNODES"));
        assert!(Cli::try_parse_from(["scale"]).is_err());
        let agents = ["scale", "hollow-agents", "--kubeconfigs=d", "--nodes", "0", "9"];
        assert!(Cli::try_parse_from(agents).unwrap().command.is_some());
    }
}
