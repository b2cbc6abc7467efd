//! The agent's HTTP server for /healthz, /readyz and /metrics. Does I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use admin_server::{Response, Server, StatusCode, response_with_content_type, text_response};
use tokio::net::TcpListener;

use super::metrics::Metrics;

const HEALTH_PATH: &str = "/healthz";
const READY_PATH: &str = "/readyz";
const METRICS_PATH: &str = "/metrics";
const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The part of the agent's state that determines the responses.
pub(super) struct Health {
    /// True after the first rules were applied.
    pub(super) is_ready: AtomicBool,
    pub(super) metrics: Metrics,
}

/// Serves probes and metrics. The function never returns.
pub(super) async fn serve(listener: TcpListener, health: Arc<Health>) {
    let server = Server::new(listener, &[HEALTH_PATH, READY_PATH], METRICS_PATH);
    loop {
        let connection = server.accept().await;
        let health = Arc::clone(&health);
        tokio::spawn(connection.serve(move |path| respond(path, &health)));
    }
}

fn respond(path: &str, health: &Health) -> Response<String> {
    match path {
        METRICS_PATH => match health.metrics.text() {
            Ok(metrics) => response_with_content_type(OPENMETRICS_CONTENT_TYPE, metrics),
            Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        READY_PATH if !health.is_ready.load(Ordering::Relaxed) => {
            text_response(StatusCode::SERVICE_UNAVAILABLE, "waiting for the first rules\n")
        }
        _ => text_response(StatusCode::OK, "ok\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_is_ready_after_the_first_rules() {
        let health = Health { is_ready: AtomicBool::new(false), metrics: Metrics::default() };
        let statuses = || [HEALTH_PATH, READY_PATH].map(|path| respond(path, &health).status());
        assert_eq!(statuses(), [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
        health.is_ready.store(true, Ordering::Relaxed);
        assert_eq!(statuses(), [StatusCode::OK, StatusCode::OK]);
        assert!(respond(METRICS_PATH, &health).body().contains("akrobateo_agent_services"));
    }
}
