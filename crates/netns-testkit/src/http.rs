//! An HTTP client for probes and metrics. Does I/O, in the network namespace of the calling thread.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use crate::tcp::connect;

/// Sends an HTTP GET request and returns the whole response with its header; `None` if there is no response.
pub fn get(ip: IpAddr, port: u16, path: &str, timeout: Duration) -> Option<String> {
    let mut stream = connect(None, (ip, port).into(), timeout).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}

/// Sends an HTTP GET request and returns the status code; `None` if there is no response.
pub fn status(ip: IpAddr, port: u16, path: &str, timeout: Duration) -> Option<u16> {
    get(ip, port, path, timeout)?.split(' ').nth(1)?.parse().ok()
}
