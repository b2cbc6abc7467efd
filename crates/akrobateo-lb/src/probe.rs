//! The probe's port: answers over HTTP whether the data path forwards, and its metrics. I/O only.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::metrics;

/// Longer than a probe takes; then whoever connected is cut off.
const DEADLINE: Duration = Duration::from_secs(2);
/// Connections answered at a time: anybody in the cluster may connect, and each costs memory.
const AT_A_TIME: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// When to try again after a connection could not be accepted.
const RETRY: Duration = Duration::from_millis(100);

/// What a data path tells of itself; asked anew for each answer.
pub trait Status {
    /// Whether it forwards at this moment; if not, why, in one line.
    fn ready(&self) -> Result<(), String>;
    /// What an administrator should know although it forwards, in one line.
    fn warning(&self) -> Option<String> {
        None
    }
    /// Its metrics in Prometheus' text format, written with [`metrics::Text`].
    fn metrics(&self) -> String;
}

/// Listens on the port for both families, or for IPv4 where the kernel has no IPv6.
pub fn listener(port: u16) -> std::io::Result<TcpListener> {
    match bound(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
            Ok(bound(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into())?)
        }
        bound => Ok(bound?),
    }
}

fn bound(family: AddressFamily, address: SocketAddr) -> Result<TcpListener, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Answers whoever asks; never ends. Must run in a [`tokio::task::LocalSet`].
pub async fn answer(listener: tokio::net::TcpListener, status: Rc<impl Status + 'static>) {
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((connection, _)) => {
                let served = serve(connection, Rc::clone(&status));
                tokio::task::spawn_local(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a probe");
                sleep(RETRY).await;
            }
        }
    }
}

/// Answers what comes over one connection, and closes it.
async fn serve(connection: TcpStream, status: Rc<impl Status>) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(respond(&request, &*status))));
    let served = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(connection), service);
    // Who breaks off in the middle of a probe has nothing to be told.
    let _ = timeout(DEADLINE, served).await;
}

fn respond(request: &Request<Incoming>, status: &impl Status) -> Response<String> {
    let known = [akrobateo_core::probe::READY_PATH, akrobateo_core::probe::METRICS_PATH];
    let path = request.uri().path();
    if !known.contains(&path) {
        return response(StatusCode::NOT_FOUND, "not found\n".to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    if path == akrobateo_core::probe::METRICS_PATH {
        let mut response = response(StatusCode::OK, status.metrics());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
        return response;
    }
    match status.ready().map(|()| status.warning()) {
        Ok(None) => response(StatusCode::OK, "ok\n".to_owned()),
        // A redirect that leads nowhere is success for the kubelet, with an event on the pod that says what is in it
        // (ProbeWarning; k8s.io/kubernetes/pkg/probe/http/http.go): the only way to be heard without API access.
        Ok(Some(warning)) => response(StatusCode::MULTIPLE_CHOICES, format!("{warning}\n")),
        Err(reason) => response(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn response(status: StatusCode, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response
}
