//! The HTTP server for probes and metrics. The server supports only HTTP/1 and the methods GET and HEAD. The
//! server limits the number and the duration of connections. Does I/O.
//!
//! Every pod of the cluster can connect. Two rules protect the probes: a new connection can replace a silent
//! connection, and requests for metrics never delay a probe for a long time.
//!
//! The caller accepts connections in a loop, and spawns a task for each connection. The server does not spawn tasks
//! itself, because only the caller knows whether tasks may move between threads:
//!
//! ```
//! # async fn run(listener: tokio::net::TcpListener) {
//! use admin_server::{Response, Server};
//!
//! let server = Server::new(listener, &["/readyz"], "/metrics");
//! loop {
//!     let connection = server.accept().await;
//!     tokio::spawn(connection.serve(|_path| Response::new("ok\n".to_owned())));
//! }
//! # }
//! ```

mod metrics_throttle;
mod open_connections;
pub mod program;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

pub use hyper::{Response, StatusCode};
use metrics_throttle::MetricsThrottle;
use open_connections::OpenConnections;

/// The maximum time from accept to the end of the request. This time is enough for one retransmission.
const HEADER_DEADLINE: Duration = Duration::from_millis(500);
/// The maximum time for one connection, from accept to the end of the response. A request for metrics may wait for
/// earlier requests for metrics.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(5);
/// The pause after a failed accept. Usually the accept fails because no file descriptor is free, and an immediate retry
/// would fail again.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The HTTP paths that a server answers.
#[derive(Clone, Copy, Debug)]
struct Paths {
    probe_paths: &'static [&'static str],
    metrics_path: &'static str,
}

/// The state that a server shares with its connections.
#[derive(Debug)]
struct SharedState {
    paths: Paths,
    /// Each connection has a sender. When the sender is dropped, the connection ends.
    open_connections: Mutex<OpenConnections<oneshot::Sender<()>>>,
    metrics_throttle: MetricsThrottle,
}

/// An HTTP server with a fixed list of paths.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared_state: Arc<SharedState>,
}

/// An accepted connection. The client may send one request on the connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Completes when the connection must end, because a newer connection replaces it.
    eviction_signal: oneshot::Receiver<()>,
    guard: ConnectionGuard,
}

/// An entry in [`SharedState::open_connections`]. Dropping the guard removes the entry.
#[derive(Debug)]
struct ConnectionGuard {
    shared_state: Arc<SharedState>,
    id: u64,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.shared_state.open_connections.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

impl Server {
    /// Creates a server that accepts connections from `listener`, and answers requests for `probe_paths` and
    /// `metrics_path`.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        probe_paths: &'static [&'static str],
        metrics_path: &'static str,
    ) -> Self {
        let paths = Paths { probe_paths, metrics_path };
        let open_connections = Mutex::new(OpenConnections::new());
        Self {
            listener,
            shared_state: Arc::new(SharedState {
                paths,
                open_connections,
                metrics_throttle: MetricsThrottle::new(),
            }),
        }
    }

    /// Returns the next connection. If a limit is reached, closes the oldest connection, and the new connection takes
    /// its place.
    pub async fn accept(&self) -> Connection {
        loop {
            // Lets the task of the previous connection read its request before the next connection is accepted. Without
            // this step, many clients that connect at the same time would evict the previous connection.
            yield_now().await;
            match self.listener.accept().await {
                Ok((stream, source)) => {
                    let (handle, eviction_signal) = oneshot::channel();
                    let shared_state = Arc::clone(&self.shared_state);
                    let (id, _) = shared_state
                        .open_connections
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(source.ip(), handle);
                    return Connection {
                        stream,
                        eviction_signal,
                        guard: ConnectionGuard { shared_state, id },
                    };
                }
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
    /// The response is 404 for an unknown path, and 405 for a method other than GET and HEAD. A client that takes
    /// longer than half a second for its request is disconnected.
    pub async fn serve(self, respond: impl Fn(&str) -> Response<String>) {
        let Self { stream, eviction_signal, guard } = self;
        let (shared_state, respond) = (&*guard.shared_state, &respond);
        let service = service_fn(|request| async move {
            Ok::<_, Infallible>(respond_to_request(&request, shared_state, respond).await)
        });
        let serve_connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            result = timeout(CONNECTION_DEADLINE, serve_connection) => match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection for probes or metrics failed"),
                Err(_) => tracing::debug!("closed a connection for probes or metrics at its deadline"),
            },
            _ = eviction_signal => tracing::debug!("a new connection replaced the oldest connection for probes or metrics"),
        }
    }
}

async fn respond_to_request(
    request: &Request<Incoming>,
    shared_state: &SharedState,
    respond: impl Fn(&str) -> Response<String>,
) -> Response<String> {
    let path = request.uri().path();
    let Paths { probe_paths, metrics_path } = shared_state.paths;
    if path != metrics_path && !probe_paths.contains(&path) {
        let available_paths = [probe_paths, &[metrics_path]].concat().join(", ");
        return text_response(
            StatusCode::NOT_FOUND,
            format!("not found; available paths: {available_paths}\n"),
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; use GET or HEAD\n");
    }
    if path == metrics_path {
        shared_state.metrics_throttle.run(|| respond(path)).await
    } else {
        respond(path)
    }
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
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::open_connections::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE};
    use super::*;

    /// The time that the server needs for a response with metrics.
    const METRICS_RESPONSE_TIME: Duration = Duration::from_millis(20);

    /// Listens on a free port. All connections of a test fit into the accept queue.
    fn listen() -> (TcpListener, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Starts a server that answers `/readyz` with 200 and the text "ok", and `/metrics` slowly. Returns the number of
    /// responses with metrics.
    fn start_server(listener: TcpListener) -> Arc<AtomicUsize> {
        let metrics_count = Arc::new(AtomicUsize::new(0));
        let count_in_server = Arc::clone(&metrics_count);
        tokio::spawn(async move {
            let server = Server::new(listener, &["/readyz"], "/metrics");
            loop {
                let count = Arc::clone(&count_in_server);
                let connection = server.accept().await;
                tokio::spawn(connection.serve(move |path| {
                    if path == "/metrics" {
                        count.fetch_add(1, Relaxed);
                        std::thread::sleep(METRICS_RESPONSE_TIME);
                    }
                    text_response(StatusCode::OK, "ok\n")
                }));
            }
        });
        metrics_count
    }

    /// Connects from the loopback address with this number.
    async fn connect_from(source_number: usize, server: SocketAddr) -> TcpStream {
        let [.., high, low] = source_number.to_be_bytes();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into()).unwrap();
        socket.connect(server).await.unwrap()
    }

    async fn send_request(stream: &mut TcpStream, request_line: &str) {
        stream.write_all(format!("{request_line} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
    }

    async fn read_response(mut stream: TcpStream) -> String {
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    async fn request(address: SocketAddr, request_line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send_request(&mut stream, request_line).await;
        read_response(stream).await
    }

    #[tokio::test]
    async fn server_answers_only_get_and_head_requests_for_known_paths() {
        let (listener, address) = listen();
        start_server(listener);
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
        let (listener, address) = listen();
        start_server(listener);
        let mut stream = TcpStream::connect(address).await.unwrap();
        let start = tokio::time::Instant::now();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "closed without a response");
        assert!(start.elapsed() <= HEADER_DEADLINE + Duration::from_millis(10), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn server_closes_the_connection_if_the_client_reads_no_response() {
        const RESPONSE_LENGTH: usize = 32 << 20;
        let (listener, address) = listen();
        let start = tokio::time::Instant::now();
        let mut client = TcpStream::connect(address).await.unwrap();
        send_request(&mut client, "GET /metrics").await;
        let connection = Server::new(listener, &["/readyz"], "/metrics").accept().await;
        connection.serve(|_| text_response(StatusCode::OK, "x".repeat(RESPONSE_LENGTH))).await;
        let elapsed = start.elapsed();
        assert!(elapsed >= CONNECTION_DEADLINE && elapsed < 2 * CONNECTION_DEADLINE, "{elapsed:?}");
        let mut received_bytes = Vec::new();
        let _ = client.read_to_end(&mut received_bytes).await;
        assert!(received_bytes.len() < RESPONSE_LENGTH, "the client received the whole response");
    }

    #[tokio::test]
    async fn new_client_is_answered_while_silent_connections_reach_the_limit() {
        let (listener, address) = listen();
        start_server(listener);
        let mut silent_clients = Vec::new();
        for _ in 0..4 * MAX_CONNECTIONS {
            silent_clients.push(TcpStream::connect(address).await.unwrap());
        }
        let response = request(address, "GET /readyz").await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        // The number of open connections is at most the limit of one source address.
        let is_open = |stream: TcpStream| {
            let stream = stream.into_std().unwrap();
            matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        };
        let open_count = silent_clients.into_iter().map(is_open).filter(|is_open| *is_open).count();
        assert!(open_count <= MAX_CONNECTIONS_PER_SOURCE, "{open_count} connections are open");
    }

    #[tokio::test]
    async fn client_is_answered_while_clients_with_many_addresses_connect() {
        let (listener, address) = listen();
        let mut silent_clients = Vec::new();
        for number in 0..4 * MAX_CONNECTIONS {
            silent_clients.push(connect_from(number, address).await);
        }
        let mut kubelet = TcpStream::connect(address).await.unwrap();
        send_request(&mut kubelet, "GET /readyz").await;
        for number in 4 * MAX_CONNECTIONS..8 * MAX_CONNECTIONS {
            silent_clients.push(connect_from(number, address).await);
        }
        // The connections are already open and waiting when the server starts.
        start_server(listener);
        let response = read_response(kubelet).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }

    #[tokio::test]
    async fn probe_does_not_wait_until_all_metrics_requests_are_answered() {
        let (listener, address) = listen();
        let metrics_count = start_server(listener);
        // Each request has its own source address. The number of requests is lower than the connection limit.
        let scrapes: Vec<_> = (0..MAX_CONNECTIONS - 8)
            .map(|number| {
                tokio::spawn(async move {
                    let mut stream = connect_from(number, address).await;
                    send_request(&mut stream, "GET /metrics").await;
                    read_response(stream).await
                })
            })
            .collect();
        while metrics_count.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..4 {
            let count_before = metrics_count.load(Relaxed);
            let response = request(address, "GET /readyz").await;
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
            let count = metrics_count.load(Relaxed) - count_before;
            assert!(count < 8, "the probe waited for {count} responses with metrics");
        }
        assert!(scrapes.iter().any(|scrape| !scrape.is_finished()), "no request for metrics waits");
    }
}
