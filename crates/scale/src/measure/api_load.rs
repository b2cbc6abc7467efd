//! The load of the API server in the steady state, from its metrics. Pure.

use std::collections::BTreeMap;

use crate::prometheus::Samples;
use crate::results::{SizeResults, Unit};

/// Kinds of requests below this rate are not in the results.
const MIN_REQUESTS_PER_SECOND: f64 = 0.5;
/// The metrics with the sizes of requests and answers. The sizes of watches are in `WATCH_SIZE`.
const REQUEST_SIZE: &str = "apiserver_request_body_size_bytes_sum";
const RESPONSE_SIZE: &str = "apiserver_response_sizes_sum";
const WATCH_SIZE: &str = "apiserver_watch_events_sizes_sum";

/// Rates between two reads of the metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ApiLoad {
    /// Requests per second by verb and resource.
    requests: BTreeMap<String, f64>,
    /// Events of watches per second, by resource. Each watch that receives an event counts.
    watch_events: BTreeMap<String, f64>,
    written_megabytes: f64,
    read_megabytes: f64,
    watched_megabytes: f64,
}

impl ApiLoad {
    /// Returns the rates between two reads.
    pub(super) fn between(before: &Samples, after: &Samples, seconds: f64) -> Self {
        let megabytes = |name| (after.sum(name, &[]) - before.sum(name, &[])) / seconds / 1e6;
        Self {
            requests: rates(
                before,
                after,
                "apiserver_request_total",
                &["verb", "resource", "subresource"],
                seconds,
            ),
            watch_events: rates(before, after, "apiserver_watch_events_total", &["resource"], seconds),
            written_megabytes: megabytes(REQUEST_SIZE),
            read_megabytes: megabytes(RESPONSE_SIZE),
            watched_megabytes: megabytes(WATCH_SIZE),
        }
    }

    /// Adds the rates to the results.
    pub(super) fn add_to(&self, results: &mut SizeResults) {
        for (name, rate) in &self.requests {
            results.add(&format!("requests: {name}"), *rate, Unit::PerSecond);
        }
        for (name, rate) in &self.watch_events {
            results.add(&format!("watch events: {name}"), *rate, Unit::PerSecond);
        }
        results.add("bytes in requests", self.written_megabytes, Unit::MegabytesPerSecond);
        results.add("bytes in answers", self.read_megabytes, Unit::MegabytesPerSecond);
        results.add("bytes in watch events", self.watched_megabytes, Unit::MegabytesPerSecond);
    }
}

fn rates(
    before: &Samples,
    after: &Samples,
    name: &str,
    labels: &[&str],
    seconds: f64,
) -> BTreeMap<String, f64> {
    let before = before.sums_by(name, labels);
    let rates = after.sums_by(name, labels).into_iter().map(|(values, sum)| {
        let rate = (sum - before.get(&values).copied().unwrap_or_default()) / seconds;
        let text: Vec<_> = values.iter().filter(|value| !value.is_empty()).map(String::as_str).collect();
        (text.join(" "), rate)
    });
    rates.filter(|(_, rate)| *rate >= MIN_REQUESTS_PER_SECOND).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_per_second() {
        let metrics = |count: u32, bytes: u32| {
            Samples::parse(&format!(
                "apiserver_request_total{{verb=\"PATCH\",resource=\"leases\",subresource=\"\"}} {count}\n\
                 apiserver_request_total{{verb=\"GET\",resource=\"nodes\",subresource=\"\"}} 7\n\
                 {WATCH_SIZE}{{kind=\"Lease\"}} {bytes}\n"
            ))
        };
        let load = ApiLoad::between(&metrics(10, 0), &metrics(30, 4_000_000), 2.0);
        assert_eq!(load.requests, BTreeMap::from([("PATCH leases".to_owned(), 10.0)]));
        assert!((load.watched_megabytes - 2.0).abs() < 1e-9);
    }
}
