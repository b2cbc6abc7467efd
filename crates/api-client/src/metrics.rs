//! The metrics of requests and watches. Each label has only few possible values. No I/O.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The metrics of requests and watches. Clones share their values.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    /// Requests to the API server by step and result.
    pub calls: Family<CallLabels, Counter>,
    /// The duration of requests to the API server.
    pub call_seconds: Histogram,
    /// Failed lists and watches by kind.
    pub watch_errors: Family<WatchLabels, Counter>,
}

/// Labels of [`ApiMetrics::calls`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CallLabels {
    /// The name of the step that sends the request.
    pub step: &'static str,
    /// The result.
    pub result: CallResult,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum CallResult {
    /// The API server accepted the request.
    Ok,
    /// The API server rejected the request, or was unreachable.
    Failed,
    /// The API server did not answer in time.
    TimedOut,
}

impl EncodeLabelValue for CallResult {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

/// Labels of [`ApiMetrics::watch_errors`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WatchLabels {
    /// The kind of object.
    pub kind: String,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        // The buckets range from 1 ms to 16 s.
        let call_seconds = Histogram::new(exponential_buckets(0.001, 4.0, 8));
        Self { calls: Family::default(), call_seconds, watch_errors: Family::default() }
    }
}

impl ApiMetrics {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "API requests other than watches, by step and result";
        registry.register("api_calls", help, self.calls.clone());
        let help = "Duration of API requests other than watches";
        registry.register_with_unit("api_call_duration", help, Unit::Seconds, self.call_seconds.clone());
        registry.register("watch_errors", "Failed lists and watches by kind", self.watch_errors.clone());
    }
}
