//! What is measured, and one sample of it. Pure.

use std::time::Duration;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Connections with one request each.
    Connections,
    /// Bytes from clients to the backend.
    Up,
    /// Bytes from the backend to clients.
    Down,
    /// UDP packets, there and back.
    Datagrams,
    /// Requests on open connections.
    Requests,
}

impl Measure {
    /// All of them, in the order in which they are taken.
    pub(crate) const ALL: [Self; 5] =
        [Self::Connections, Self::Up, Self::Down, Self::Datagrams, Self::Requests];

    /// Its name on the command line and in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "conn",
            Self::Up => "up",
            Self::Down => "down",
            Self::Datagrams => "udp",
            Self::Requests => "requests",
        }
    }
}

impl std::str::FromStr for Measure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|measure| measure.name() == text)
            .ok_or_else(|| format!("{text:?} is none of {names}"))
    }
}

/// What one load achieved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// The kind of load.
    pub(crate) measure: Measure,
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// The round in which it was taken: ratios are between samples of one round.
    pub(crate) round: usize,
    /// Units per second: connections, bytes, packets or requests.
    pub(crate) rate: f64,
    /// CPU seconds per unit, of clients, kernel, proxy and backend together.
    pub(crate) cpu: f64,
    /// Seconds from request to answer, median and 99th percentile; of keep-alive requests only.
    pub(crate) latency: Option<[f64; 2]>,
    /// Connections, or datagrams, that failed.
    pub(crate) failed: u64,
    /// The share of the machine's time that others used.
    pub(crate) others: f64,
}

/// A figure of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Units per second.
    Rate(Measure),
    /// CPU seconds per unit.
    Cpu(Measure),
    /// Median latency of requests.
    P50,
    /// 99th percentile of the latency of requests.
    P99,
}

impl Quantity {
    /// The figure, if the sample has it.
    pub(crate) fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Rate(measure) => (sample.measure == measure).then_some(sample.rate),
            Self::Cpu(measure) => (sample.measure == measure).then_some(sample.cpu),
            Self::P50 => sample.latency.map(|[p50, _]| p50),
            Self::P99 => sample.latency.map(|[_, p99]| p99),
        }
    }
}

/// Median and 99th percentile, in seconds.
pub(crate) fn percentiles(mut latencies: Vec<Duration>) -> Option<[f64; 2]> {
    latencies.sort_unstable();
    let at = |percent: usize| {
        latencies.get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1)))
    };
    Some([at(50)?.as_secs_f64(), at(99)?.as_secs_f64()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let latencies = (1..=200).rev().map(Duration::from_secs).collect();
        assert_eq!(percentiles(latencies), Some([101.0, 199.0]));
        assert_eq!(percentiles(vec![Duration::from_secs(3)]), Some([3.0, 3.0]));
        assert_eq!(percentiles(Vec::new()), None);
    }

    #[test]
    fn a_measures_name_is_read_back_and_a_wrong_one_is_told_what_is_allowed() {
        for measure in Measure::ALL {
            assert_eq!(measure.name().parse(), Ok(measure));
        }
        assert!("tcp".parse::<Measure>().unwrap_err().contains("conn, up"));
    }
}
