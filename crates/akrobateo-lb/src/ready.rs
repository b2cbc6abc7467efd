//! The readiness probe: answers HTTP on the probe's port. I/O only.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::keeper::Keeper;

/// Longer than a probe takes; then whoever connected is cut off.
const DEADLINE: Duration = Duration::from_secs(2);
/// Connections answered at a time: anybody in the cluster may connect, and each costs memory.
const AT_A_TIME: usize = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// When to try again after a connection could not be accepted.
const RETRY: Duration = Duration::from_millis(100);

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

/// Answers probes; never ends. Must run in a [`tokio::task::LocalSet`].
pub async fn answer_probes(listener: tokio::net::TcpListener, keeper: Rc<Keeper>) {
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((connection, _)) => {
                let served = serve(connection, Rc::clone(&keeper));
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
async fn serve(connection: TcpStream, keeper: Rc<Keeper>) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &keeper))));
    let served = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(connection), service);
    // Who breaks off in the middle of a probe has nothing to be told.
    let _ = timeout(DEADLINE, served).await;
}

fn answer(request: &Request<Incoming>, keeper: &Keeper) -> Response<String> {
    let (status, text) = if request.uri().path() != contract::probe::READY_PATH {
        (StatusCode::NOT_FOUND, "not found\n".to_owned())
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned())
    } else {
        match keeper.intact() {
            Ok(true) => (StatusCode::OK, "ok\n".to_owned()),
            Ok(false) => (StatusCode::SERVICE_UNAVAILABLE, "the rules are not in the kernel\n".to_owned()),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response
}
