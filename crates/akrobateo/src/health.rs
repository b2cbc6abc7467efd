//! /healthz and /readyz. Does I/O.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// Set once the operator has a complete view of the cluster.
pub(crate) type Ready = Arc<AtomicBool>;

/// Answers probes for ever.
pub(crate) async fn serve(listener: TcpListener, ready: Ready) {
    loop {
        // A connection that went away before it was accepted concerns nobody.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let ready = ready.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answer(request.uri().path(), ready.load(Ordering::Relaxed));
            async move { Ok::<_, Infallible>(response) }
        });
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a probe's connection broke");
            }
        });
    }
}

fn answer(path: &str, ready: bool) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/healthz" => (StatusCode::OK, "ok\n"),
        "/readyz" if ready => (StatusCode::OK, "ok\n"),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "still reading the cluster's state\n"),
        _ => (StatusCode::NOT_FOUND, "there are /healthz and /readyz\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
