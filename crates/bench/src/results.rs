//! Everything that a run has measured. Pure.

use crate::footprint::Footprint;
use crate::machine::Machine;
use crate::measure::Sample;
use crate::replacement::Replaced;
use crate::start::Start;

/// Everything that a run has measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Results {
    /// Where.
    pub(crate) machine: Machine,
    /// Rounds that were asked for.
    pub(crate) rounds: usize,
    /// Seconds of each sample.
    pub(crate) seconds: f64,
    /// What the order of the variants came from.
    pub(crate) seed: u64,
    /// Under load.
    pub(crate) samples: Vec<Sample>,
    /// Of proxies.
    pub(crate) starts: Vec<Start>,
    /// Under load.
    pub(crate) replaced: Vec<Replaced>,
    /// Of proxies.
    pub(crate) footprints: Vec<Footprint>,
    /// Bytes of the data plane's binary, and packed.
    pub(crate) image: Option<[u64; 2]>,
}
