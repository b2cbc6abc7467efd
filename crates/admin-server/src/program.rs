//! The HTTP server of a program with probes and metrics: /healthz, /readyz and /metrics. Does I/O.

use std::fmt;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use tokio::net::TcpListener;

use crate::{Server, response_with_content_type, text_response};

const HEALTH_PATH: &str = "/healthz";
const READY_PATH: &str = "/readyz";
const METRICS_PATH: &str = "/metrics";
const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The part of a program's state that determines the HTTP responses.
pub trait ProgramState: Send + Sync + 'static {
    /// Returns the reason why the program is not ready; `None` if it is ready.
    fn not_ready_reason(&self) -> Option<&'static str>;

    /// Returns the metrics in the `OpenMetrics` text format.
    fn metrics_text(&self) -> Result<String, fmt::Error>;
}

/// Serves probes and metrics. Spawns a task for each connection. The function never returns.
pub async fn serve_program(listener: TcpListener, state: Arc<impl ProgramState>) {
    let server = Server::new(listener, &[HEALTH_PATH, READY_PATH], METRICS_PATH);
    loop {
        let connection = server.accept().await;
        let state = Arc::clone(&state);
        tokio::spawn(connection.serve(move |path| respond(path, state.as_ref())));
    }
}

fn respond(path: &str, state: &impl ProgramState) -> Response<String> {
    match (path, state.not_ready_reason()) {
        (METRICS_PATH, _) => match state.metrics_text() {
            Ok(metrics) => response_with_content_type(OPENMETRICS_CONTENT_TYPE, metrics),
            Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        (READY_PATH, Some(reason)) => text_response(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        _ => text_response(StatusCode::OK, "ok\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct State(Option<&'static str>);

    impl ProgramState for State {
        fn not_ready_reason(&self) -> Option<&'static str> {
            self.0
        }

        fn metrics_text(&self) -> Result<String, fmt::Error> {
            Ok("# EOF\n".to_owned())
        }
    }

    #[test]
    fn only_readyz_depends_on_readiness() {
        let statuses = |state| [HEALTH_PATH, READY_PATH].map(|path| respond(path, &State(state)).status());
        assert_eq!(statuses(Some("waiting")), [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
        assert_eq!(statuses(None), [StatusCode::OK, StatusCode::OK]);
        assert_eq!(respond(READY_PATH, &State(Some("waiting"))).body(), "waiting\n");
    }

    #[test]
    fn metrics_are_served_as_openmetrics() {
        let response = respond(METRICS_PATH, &State(Some("waiting")));
        assert_eq!(response.headers()["content-type"], OPENMETRICS_CONTENT_TYPE);
        assert_eq!(response.body(), "# EOF\n");
    }
}
