//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

use crate::measure::Measure;
use crate::variant::{self, Variant};

/// Measures the data plane against its peers, on the real path of a packet in private network namespaces
#[derive(Parser, Clone, Debug)]
#[command(name = "scripts/bench", version)]
pub(crate) struct Cli {
    /// Rounds of loads: in each, every variant takes its turn in a new order; starts take no more than 15
    #[arg(long, value_name = "NUMBER", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,

    /// Length of a sample
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1, value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Measure only these: conn, up, down, udp, requests, start, replacement, footprint
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) measures: Vec<Topic>,

    /// Compare only these variants; their names are in the results
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = variant::named)]
    pub(crate) variants: Vec<Variant>,

    /// Put the tables into this document too, between its marks
    #[arg(long, value_name = "FILE")]
    pub(crate) into: Option<PathBuf>,

    /// Where results.json and results.md go
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub(crate) output: PathBuf,

    /// The data plane's binary
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) lb: PathBuf,

    /// The tree of the peers' packages
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub(crate) packages: PathBuf,
}

/// Something that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// What a load achieves.
    Load(Measure),
    /// How long proxies take to start.
    Start,
    /// What fails while a proxy is replaced.
    Replacement,
    /// What proxies occupy.
    Footprint,
}

impl FromStr for Topic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "start" => Ok(Self::Start),
            "replacement" => Ok(Self::Replacement),
            "footprint" => Ok(Self::Footprint),
            load => load
                .parse()
                .map(Self::Load)
                .map_err(|error| format!("{error}, start, replacement, footprint")),
        }
    }
}

impl Cli {
    /// Whether it is to be measured.
    pub(crate) fn wants(&self, topic: Topic) -> bool {
        self.measures.is_empty() || self.measures.contains(&topic)
    }

    /// The variants that are to be compared.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        if self.variants.is_empty() { variant::all().collect() } else { self.variants.clone() }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let allowed = || format!("{text:?} is not a number from 0.1 to 60");
    text.parse().ok().filter(|seconds| (0.1..=60.0).contains(seconds)).ok_or_else(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Cli, clap::Error> {
        let given = ["bench", "--output=o", "--lb=l", "--packages=p"];
        Cli::try_parse_from(given.iter().chain(args))
    }

    #[test]
    fn everything_is_measured_unless_something_is_chosen() {
        let all = parsed(&[]).unwrap();
        assert!(all.wants(Topic::Start) && all.wants(Topic::Load(Measure::Up)));
        assert_eq!(all.variants().len(), 13);
        let some = parsed(&["--measures=up,start", "--variants=direct,nginx"]).unwrap();
        assert!(some.wants(Topic::Start) && some.wants(Topic::Load(Measure::Up)));
        assert!(!some.wants(Topic::Load(Measure::Down)) && !some.wants(Topic::Footprint));
        assert_eq!(some.variants().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_what_is_allowed() {
        for (wrong, allowed) in [
            ("--measures=tcp", "footprint"),
            ("--variants=envoy", "klipper-nft"),
            ("--seconds=0", "0.1 to 60"),
            ("--rounds=0", "1.."),
        ] {
            let error = parsed(&[wrong]).unwrap_err().to_string();
            assert!(error.contains(allowed), "{error}");
        }
    }
}
