//! An HTTP client for probes and metrics. Does I/O, in the network namespace of the calling thread.

use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::tcp::connect;

/// Sends an HTTP GET request and returns the whole response with its header, or `None` if there is no response.
pub fn get(server: impl ToSocketAddrs, path: &str, timeout: Duration) -> Option<String> {
    get_from(None, server, path, timeout)
}

/// Sends an HTTP GET request from the address `local`, as [`get`] does.
pub fn get_from(
    local: Option<SocketAddr>,
    server: impl ToSocketAddrs,
    path: &str,
    timeout: Duration,
) -> Option<String> {
    let mut stream = connect(local, server.to_socket_addrs().ok()?.next()?, timeout).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}

/// Sends an HTTP GET request and returns the status code, or `None` if there is no response.
pub fn status(server: impl ToSocketAddrs, path: &str, timeout: Duration) -> Option<u16> {
    get(server, path, timeout)?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{DEADLINE, Namespace, isolated};

    #[test]
    fn status_code_is_read_from_the_response() {
        isolated(|| {
            Namespace::new().run(|| {
                let listener = TcpListener::bind("127.0.0.1:80").unwrap();
                let server = std::thread::spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = [0; 512];
                    let length = stream.read(&mut request).unwrap();
                    stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
                    String::from_utf8_lossy(&request[..length]).into_owned()
                });
                let status = status(("127.0.0.1", 80), "/readyz", DEADLINE);
                assert_eq!(status, Some(503));
                assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
            });
        });
    }
}
