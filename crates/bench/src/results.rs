//! All results of a run. Pure.

use netns_testkit::machine::Machine;

use crate::chain_costs::ChainSample;
use crate::footprint::{BinarySize, Footprint};
use crate::neighbours::NeighbourSample;
use crate::node_table::TableResult;
use crate::program_versions::ProgramVersions;
use crate::replacement::ReplacementResult;
use crate::sample::Sample;
use crate::start::Start;

/// All results of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Results {
    /// The machine that ran the benchmark.
    pub(crate) machine: Machine,
    pub(crate) program_versions: ProgramVersions,
    /// The requested number of rounds.
    pub(crate) rounds: usize,
    /// The length of each sample in seconds.
    pub(crate) seconds: f64,
    /// The seed of the random order of the variants.
    pub(crate) seed: u64,
    /// Samples under load.
    pub(crate) samples: Vec<Sample>,
    /// Start times.
    pub(crate) starts: Vec<Start>,
    /// Results of replacements under load, one entry per variant.
    pub(crate) replacements: Vec<ReplacementResult>,
    /// Memory and descriptors, one entry per variant.
    pub(crate) footprints: Vec<Footprint>,
    /// The CPU times of packets that the agent does not forward.
    pub(crate) neighbours: Vec<NeighbourSample>,
    /// The round trip times with copies of the agent's chains.
    pub(crate) chains: Vec<ChainSample>,
    /// The times and the memory of the agent's table with many Services.
    pub(crate) table: Option<TableResult>,
    /// The size of the data plane's binary.
    pub(crate) binary_size: Option<BinarySize>,
}
