//! Gives each request to the API server a deadline, and counts the request. Does I/O.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::metrics::{ApiMetrics, CallLabels, CallResult};

/// The deadline of one request. The kube crate does not set a read timeout.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server answered with an error, or was unreachable.
    #[error(transparent)]
    RequestFailed(#[from] kube::Error),
    /// The API server did not answer within [`REQUEST_DEADLINE`].
    #[error("the API server did not answer within {} s", REQUEST_DEADLINE.as_secs())]
    TimedOut,
}

impl CallError {
    /// Returns true if the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::RequestFailed(kube::Error::Api(status)) if status.is_not_found())
    }

    /// Returns true if another client changed the object before this request, or if an object with the same name
    /// exists.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::RequestFailed(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists())
    }
}

/// Waits for the answer to a request, and counts the request in the metrics with the label `step`.
pub async fn call<T>(
    metrics: &ApiMetrics,
    step: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    let start = Instant::now();
    let result = match timeout(REQUEST_DEADLINE, request).await {
        Ok(answer) => answer.map_err(CallError::RequestFailed),
        Err(_) => Err(CallError::TimedOut),
    };
    let result_label = match &result {
        Ok(_) => CallResult::Ok,
        Err(CallError::RequestFailed(_)) => CallResult::Failed,
        Err(CallError::TimedOut) => CallResult::TimedOut,
    };
    metrics.calls.get_or_create(&CallLabels { step, result: result_label }).inc();
    metrics.call_seconds.observe(start.elapsed().as_secs_f64());
    result
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::Api;

    use super::*;
    use crate::scripted_api::scripted_api;

    fn call_count(metrics: &ApiMetrics, result: CallResult) -> u64 {
        metrics.calls.get_or_create(&CallLabels { step: "list", result }).get()
    }

    #[tokio::test(start_paused = true)]
    async fn request_to_an_overloaded_api_server_fails_immediately() {
        let metrics = ApiMetrics::default();
        for (code, reason) in [(429, "TooManyRequests"), (503, "ServiceUnavailable"), (504, "Timeout")] {
            let (client, mut api) = scripted_api();
            let services: Api<Service> = Api::all(client);
            let params = kube::api::ListParams::default();
            let (result, ()) = tokio::join!(call(&metrics, "list", services.list(&params)), async {
                api.next_request().await.answer_error(code, reason);
            });
            let Err(CallError::RequestFailed(kube::Error::Api(status))) = result else { panic!("{code}") };
            assert_eq!(status.code, code);
            api.expect_no_request().await;
        }
        assert_eq!((call_count(&metrics, CallResult::Failed), call_count(&metrics, CallResult::Ok)), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn request_without_an_answer_fails_at_the_deadline() {
        let metrics = ApiMetrics::default();
        let (client, mut api) = scripted_api();
        let services: Api<Service> = Api::all(client);
        let start = tokio::time::Instant::now();
        let params = kube::api::ListParams::default();
        let request = tokio::spawn({
            let metrics = metrics.clone();
            async move { call(&metrics, "list", services.list(&params)).await.map(drop) }
        });
        let unanswered_request = api.next_request().await;
        assert!(matches!(request.await.unwrap(), Err(CallError::TimedOut)));
        assert!(
            start.elapsed() >= REQUEST_DEADLINE
                && start.elapsed() < REQUEST_DEADLINE + Duration::from_secs(1)
        );
        assert_eq!(call_count(&metrics, CallResult::TimedOut), 1);
        drop(unanswered_request);
    }
}
