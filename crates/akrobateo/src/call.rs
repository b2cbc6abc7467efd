//! A call to the API server: with a deadline, and counted. Does I/O.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::metrics::{CallLabels, CallResult, Metrics};

/// The longest that one call may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// How a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Failed(#[from] kube::Error),
    /// No answer within [`DEADLINE`].
    #[error("no answer within {} s", DEADLINE.as_secs())]
    TimedOut,
}

impl CallError {
    /// Whether the object is not there.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Failed(kube::Error::Api(status)) if status.is_not_found())
    }

    /// Whether somebody else was quicker, or another object has the name by now.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Failed(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists())
    }
}

/// Waits for a call's answer, and counts it under the name of its step.
pub(crate) async fn call<T>(
    metrics: &Metrics,
    step: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    let begin = Instant::now();
    let result = match timeout(DEADLINE, request).await {
        Ok(answer) => answer.map_err(CallError::Failed),
        Err(_) => Err(CallError::TimedOut),
    };
    let outcome = match &result {
        Ok(_) => CallResult::Ok,
        Err(CallError::Failed(_)) => CallResult::Failed,
        Err(CallError::TimedOut) => CallResult::TimedOut,
    };
    metrics.calls.get_or_create(&CallLabels { step, result: outcome }).inc();
    metrics.call_seconds.observe(begin.elapsed().as_secs_f64());
    result
}
