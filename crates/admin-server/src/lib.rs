//! The HTTP server for probes and metrics. The server supports only HTTP/1 and the methods GET and HEAD. It limits the
//! number and the duration of connections. Does I/O.
//!
//! The caller accepts connections in a loop, and spawns a task for each connection. This crate spawns no tasks, because
//! only the caller knows whether its tasks may move between threads:
//!
//! ```
//! # async fn run(listener: tokio::net::TcpListener) {
//! use admin_server::{Response, Server};
//!
//! let server = Server::new(listener, &["/readyz"]);
//! loop {
//!     let connection = server.accept().await;
//!     tokio::spawn(connection.serve(|_path| Response::new("ok\n".to_owned())));
//! }
//! # }
//! ```

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

pub use hyper::{Response, StatusCode};

/// The number of connections that may be open at the same time. Every pod of the cluster can connect, and each
/// connection needs memory.
const MAX_CONNECTIONS: usize = 64;
/// The time for one connection, from accept to the end of the response. A probe or a scrape takes far less time.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(2);
/// The pause after a failed accept. Accept usually fails because no file descriptor is free, so an immediate retry
/// would fail too.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// An HTTP server with a fixed list of paths.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    paths: &'static [&'static str],
    connection_permits: Arc<Semaphore>,
}

/// An accepted connection. The client may send one request on the connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    paths: &'static [&'static str],
    /// One of the [`MAX_CONNECTIONS`] permits. Dropping this value releases the permit.
    permit: Option<OwnedSemaphorePermit>,
}

impl Server {
    /// Creates a server that accepts connections from `listener` and serves `paths`.
    #[must_use]
    pub fn new(listener: TcpListener, paths: &'static [&'static str]) -> Self {
        Self { listener, paths, connection_permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Returns the next connection. While 64 connections are open, further clients wait in the kernel's accept queue.
    pub async fn accept(&self) -> Connection {
        // The call fails only if the semaphore is closed. Nothing closes this semaphore.
        let permit = Arc::clone(&self.connection_permits).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Connection { stream, paths: self.paths, permit },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for probes and metrics; will retry");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
}

impl Connection {
    /// Reads one request, sends the response that `respond` returns for the path, and closes the connection.
    ///
    /// Other paths get 404. Methods other than GET and HEAD get 405. A client that takes longer than 2 seconds is
    /// disconnected.
    pub async fn serve(self, respond: impl Fn(&str) -> Response<String>) {
        let Self { stream, paths, permit } = self;
        let service = service_fn(|request| ready(Ok::<_, Infallible>(answer(&request, paths, &respond))));
        let http_connection =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        match timeout(CONNECTION_DEADLINE, http_connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection for probes or metrics failed"),
            Err(_) => tracing::debug!("closed a connection for probes or metrics at its deadline"),
        }
        drop(permit);
    }
}

fn answer(
    request: &Request<Incoming>,
    paths: &[&str],
    respond: impl Fn(&str) -> Response<String>,
) -> Response<String> {
    let path = request.uri().path();
    if !paths.contains(&path) {
        return text_response(
            StatusCode::NOT_FOUND,
            format!("not found; available paths: {}\n", paths.join(", ")),
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; use GET or HEAD\n");
    }
    respond(path)
}

/// Returns a response with this status and text.
#[must_use]
pub fn text_response(status: StatusCode, text: impl Into<String>) -> Response<String> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response
}

/// Returns a successful response with this content type.
#[must_use]
pub fn response_with_content_type(content_type: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Starts a server that answers `/readyz` with 200 and the text "ok".
    async fn start_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let server = Server::new(listener, &["/readyz"]);
            loop {
                let connection = server.accept().await;
                tokio::spawn(connection.serve(|_| text_response(StatusCode::OK, "ok\n")));
            }
        });
        address
    }

    async fn request(address: SocketAddr, request_line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request_line} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn server_answers_get_and_head_of_known_paths_only() {
        let address = start_server().await;
        let response = request(address, "GET /readyz").await;
        assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("\r\n\r\nok\n"), "{response}");
        let response = request(address, "HEAD /readyz").await;
        assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("\r\n\r\n"), "{response}");
        let response = request(address, "POST /readyz").await;
        assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
        let response = request(address, "GET /other").await;
        assert!(response.starts_with("HTTP/1.1 404 ") && response.contains("/readyz"), "{response}");
    }

    #[tokio::test(start_paused = true)]
    async fn server_closes_a_silent_connection_at_its_deadline() {
        let mut stream = TcpStream::connect(start_server().await).await.unwrap();
        let start = tokio::time::Instant::now();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "closed without a response");
        assert_eq!(start.elapsed().as_secs(), CONNECTION_DEADLINE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn client_above_the_connection_limit_waits_until_another_client_is_disconnected() {
        let address = start_server().await;
        let mut silent_clients = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent_clients.push(TcpStream::connect(address).await.unwrap());
        }
        let start = tokio::time::Instant::now();
        let response = request(address, "GET /readyz").await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(start.elapsed() >= CONNECTION_DEADLINE, "answered after {:?}", start.elapsed());
    }
}
