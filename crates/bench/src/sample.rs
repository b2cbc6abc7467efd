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
    /// CPU seconds of clients, kernel, proxy and backend together, per connection, byte, packet or request.
    pub(crate) cpu_seconds_per_unit: f64,
    /// The median and the 99th percentile of the latencies in seconds. `None` for other loads than [`Load::Requests`].
    pub(crate) latency_percentiles: Option<[f64; 2]>,
    /// The number of failed connections. For UDP, the number of lost datagrams.
    pub(crate) failure_count: u64,
    /// The share of the machine's CPU time that other programs used, from 0 to 1.
    pub(crate) cpu_share_of_other_programs: f64,
}

/// Returns the median and the 99th percentile, in seconds.
pub(crate) fn latency_percentiles(mut latencies: Vec<Duration>) -> Option<[f64; 2]> {
    latencies.sort_unstable();
    let last = latencies.len().checked_sub(1)?;
    Some([50, 99].map(|percent| latencies[(latencies.len() * percent / 100).min(last)].as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_sorted_latencies() {
        let latencies = (1..=200).rev().map(Duration::from_secs).collect();
        assert_eq!(latency_percentiles(latencies), Some([101.0, 199.0]));
        assert_eq!(latency_percentiles(vec![Duration::from_secs(3)]), Some([3.0, 3.0]));
        assert_eq!(latency_percentiles(Vec::new()), None);
    }
}
