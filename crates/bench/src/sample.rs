//! One sample of a load. Pure.

use std::time::Duration;

use crate::load::Load;

/// The measured result of one load on one variant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// The kind of load.
    pub(crate) load: Load,
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// The number of the round. A ratio compares two samples of the same round.
    pub(crate) round: usize,
    /// Connections, bytes, packets or requests per second, depending on the load.
    pub(crate) rate_per_second: f64,
    /// CPU seconds per connection, byte, packet or request. This CPU time includes clients, kernel, proxy and backend.
    pub(crate) cpu_seconds_per_unit: f64,
    /// The latencies; only for loads whose exchanges follow one after another.
    pub(crate) latencies: Option<LatencyPercentiles>,
    /// The number of failed connections, or of lost datagrams.
    pub(crate) failure_count: u64,
    /// The share of the machine's CPU time that other programs used, from 0 to 1.
    pub(crate) cpu_share_of_other_programs: f64,
}

/// Percentiles of latencies, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LatencyPercentiles {
    /// The 10th percentile. Interruptions by other programs do not affect this percentile.
    pub(crate) p10: f64,
    /// The median.
    pub(crate) p50: f64,
    /// The 99th percentile.
    pub(crate) p99: f64,
}

impl LatencyPercentiles {
    /// Returns the percentiles, or `None` if there is no latency.
    pub(crate) fn new(mut latencies: Vec<Duration>) -> Option<Self> {
        latencies.sort_unstable();
        let last_index = latencies.len().checked_sub(1)?;
        let percentile =
            |percent: usize| latencies[(latencies.len() * percent / 100).min(last_index)].as_secs_f64();
        Some(Self { p10: percentile(10), p50: percentile(50), p99: percentile(99) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_sorted_latencies() {
        let latencies = (1..=200).rev().map(Duration::from_secs).collect();
        let percentiles = LatencyPercentiles { p10: 21.0, p50: 101.0, p99: 199.0 };
        assert_eq!(LatencyPercentiles::new(latencies), Some(percentiles));
        let percentiles = LatencyPercentiles { p10: 3.0, p50: 3.0, p99: 3.0 };
        assert_eq!(LatencyPercentiles::new(vec![Duration::from_secs(3)]), Some(percentiles));
        assert_eq!(LatencyPercentiles::new(Vec::new()), None);
    }
}
