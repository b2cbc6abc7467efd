//! The proxy's probe port: serves readiness and metrics of the data path over HTTP. Does I/O.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use admin_server::{Response, Server, StatusCode, response_with_content_type, text_response};
use akrobateo_core::probe::{HEALTH_PATH, METRICS_PATH, READY_PATH};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, listen as start_listening, socket_with, sockopt,
};
use tokio::net::TcpListener;

use crate::metrics;

/// The maximum number of connections that wait to be accepted. A hostile pod could fill a shorter queue between two
/// accepts.
const BACKLOG: i32 = 1_024;

/// The error for a probe port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("--probe-port {port}: cannot listen: {source}; choose a port that is free in the pod")]
pub struct ProbeError {
    port: u16,
    source: std::io::Error,
}

/// The state of a data path. Each request reads the state again.
pub trait DataPathStatus {
    /// Returns `Ok` if the data path forwards now. The error is one line: the reason why the data path does not
    /// forward.
    fn check_readiness(&self) -> Result<(), String>;
    /// Returns `Ok` if the process works. The error is one line: the reason why a restart is needed.
    fn check_health(&self) -> Result<(), String> {
        Ok(())
    }
    /// Returns one line about a problem that needs attention, although the data path still forwards.
    fn warning(&self) -> Option<String> {
        None
    }
    /// Returns the metrics in Prometheus' text format, written with [`metrics::MetricsText`].
    fn metrics(&self) -> String;
}

/// Listens on `port` for both address families, or only for IPv4 if the kernel has no IPv6.
pub fn listen(port: u16) -> Result<TcpListener, ProbeError> {
    let listener = match open_listener(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
            open_listener(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        result => result,
    };
    let listener = listener.map_err(std::io::Error::from).and_then(TcpListener::from_std);
    listener.map_err(|source| ProbeError { port, source })
}

fn open_listener(family: AddressFamily, address: SocketAddr) -> Result<std::net::TcpListener, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    start_listening(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Serves readiness and metrics; never returns. Must run in a [`tokio::task::LocalSet`].
pub async fn serve(listener: TcpListener, status: Rc<impl DataPathStatus + 'static>) {
    let server = Server::new(listener, &[HEALTH_PATH, READY_PATH], METRICS_PATH);
    loop {
        let connection = server.accept().await;
        let status = Rc::clone(&status);
        tokio::task::spawn_local(connection.serve(move |url_path| respond(url_path, &*status)));
    }
}

fn respond(url_path: &str, status: &impl DataPathStatus) -> Response<String> {
    let result = match url_path {
        METRICS_PATH => return response_with_content_type(metrics::CONTENT_TYPE, status.metrics()),
        HEALTH_PATH => status.check_health().map(|()| None),
        _ => status.check_readiness().map(|()| status.warning()),
    };
    match result {
        Ok(None) => text_response(StatusCode::OK, "ok\n"),
        // A proxy cannot create an event, because a proxy has no access to the API server. The kubelet creates the
        // event instead. If the response is a redirect without a location, the probe succeeds. The kubelet then emits a
        // ProbeWarning event with the response's text (k8s.io/kubernetes/pkg/probe/http/http.go).
        Ok(Some(warning)) => text_response(StatusCode::MULTIPLE_CHOICES, format!("{warning}\n")),
        Err(reason) => text_response(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
