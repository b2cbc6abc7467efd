//! The command line. Pure.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

use crate::load::Load;
use crate::variant::{self, Variant};

/// Compares the data plane and the node agent with other proxies; packets take their real path through private network
/// namespaces
#[derive(Parser, Clone, Debug)]
#[command(name = "scripts/bench", version)]
pub(crate) struct Cli {
    /// Number of rounds; each round measures all variants under each load, in random order. Start times are measured in
    /// at most 15 rounds, and the node agent in at most 45
    #[arg(long, value_name = "NUMBER", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,

    /// Length of a sample
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1, value_parser = parse_seconds)]
    pub(crate) seconds: f64,

    /// Measure only these subjects: proxy (proxies in pods), agent (the node agent, with two nodes)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) subjects: Vec<Subject>,

    /// Take only these measurements: conn, up, down, udp, requests, single-conn, single-udp, start, replacement,
    /// footprint, neighbours, chains, table
    #[arg(long = "measures", value_name = "LIST", value_delimiter = ',')]
    pub(crate) chosen_measurements: Vec<Measurement>,

    /// Compare only these variants; results.json has their names
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = variant::get)]
    pub(crate) variants: Vec<Variant>,

    /// Also write the result tables into this document, between its results markers
    #[arg(long = "into", value_name = "FILE")]
    pub(crate) results_document: Option<PathBuf>,

    /// The directory of results.json and results.md
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub(crate) output: PathBuf,

    /// The data plane's binary
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) lb: PathBuf,

    /// The directory with the unpacked packages of the other proxies
    #[arg(long = "packages", value_name = "DIRECTORY", hide = true)]
    pub(crate) package_directory: PathBuf,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Proxies in pods, with one node.
    Proxy,
    /// The node agent, with two nodes.
    Agent,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "proxy" => Ok(Self::Proxy),
            "agent" => Ok(Self::Agent),
            _ => Err(format!("unknown subject {text:?}, expected one of proxy, agent")),
        }
    }
}

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measurement {
    /// Rates, CPU time and latencies under a load.
    Load(Load),
    /// The time that proxies need to start.
    Start,
    /// Failed connections while a proxy is replaced.
    Replacement,
    /// Memory, descriptors and image size.
    Footprint,
    /// The CPU time of packets that the agent does not forward.
    Neighbours,
    /// The CPU time that each of the agent's chains adds to these packets.
    Chains,
    /// The times and the memory of the agent's table with many Services.
    NodeTable,
}

impl FromStr for Measurement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "start" => Ok(Self::Start),
            "replacement" => Ok(Self::Replacement),
            "footprint" => Ok(Self::Footprint),
            "neighbours" => Ok(Self::Neighbours),
            "chains" => Ok(Self::Chains),
            "table" => Ok(Self::NodeTable),
            load => load.parse().map(Self::Load).map_err(|error| {
                format!("{error}, start, replacement, footprint, neighbours, chains, table")
            }),
        }
    }
}

impl Cli {
    /// Returns true if the user chose `measurement`, or did not choose measurements.
    pub(crate) fn includes_measurement(&self, measurement: Measurement) -> bool {
        self.chosen_measurements.is_empty() || self.chosen_measurements.contains(&measurement)
    }

    /// Returns true if the user chose `subject`, or did not choose subjects.
    pub(crate) fn includes_subject(&self, subject: Subject) -> bool {
        self.subjects.is_empty() || self.subjects.contains(&subject)
    }

    /// Returns the chosen variants of a subject, or all its variants if the user has not chosen any.
    pub(crate) fn variants(&self, subject: Subject) -> Vec<Variant> {
        if !self.includes_subject(subject) {
            return Vec::new();
        }
        let variants =
            if self.variants.is_empty() { variant::all().collect() } else { self.variants.clone() };
        let has_two_nodes = subject == Subject::Agent;
        variants.into_iter().filter(|variant| variant.has_two_nodes() == has_two_nodes).collect()
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let error = || format!("{text:?} is not a number from 0.1 to 60");
    text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds)).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        let required_args = ["bench", "--output=o", "--lb=l", "--packages=p"];
        Cli::try_parse_from(required_args.iter().chain(args))
    }

    #[test]
    fn all_measurements_are_included_unless_some_are_chosen() {
        let default_cli = parse(&[]).unwrap();
        assert!(
            default_cli.includes_measurement(Measurement::Start)
                && default_cli.includes_measurement(Measurement::Load(Load::Upload))
        );
        assert_eq!(default_cli.variants(Subject::Proxy).len(), 13);
        assert_eq!(default_cli.variants(Subject::Agent).len(), 12);
        let filtered_cli = parse(&["--measures=up,start", "--variants=direct,nginx,agent-local"]).unwrap();
        assert!(
            filtered_cli.includes_measurement(Measurement::Start)
                && filtered_cli.includes_measurement(Measurement::Load(Load::Upload))
        );
        assert!(
            !filtered_cli.includes_measurement(Measurement::Load(Load::Download))
                && !filtered_cli.includes_measurement(Measurement::Footprint)
        );
        assert_eq!(filtered_cli.variants(Subject::Proxy).len(), 2);
        assert_eq!(filtered_cli.variants(Subject::Agent).len(), 1);
    }

    #[test]
    fn subjects_that_the_user_did_not_choose_have_no_variants() {
        let cli = parse(&["--subjects=agent"]).unwrap();
        assert!(cli.variants(Subject::Proxy).is_empty() && !cli.variants(Subject::Agent).is_empty());
    }

    #[test]
    fn errors_list_the_allowed_values() {
        for (argument, allowed) in [
            ("--measures=tcp", "footprint"),
            ("--subjects=node", "agent"),
            ("--variants=envoy", "klipper-nft"),
            ("--seconds=0", "0.1 to 60"),
            ("--rounds=0", "1.."),
        ] {
            let error = parse(&[argument]).unwrap_err().to_string();
            assert!(error.contains(allowed), "{error}");
        }
    }
}
