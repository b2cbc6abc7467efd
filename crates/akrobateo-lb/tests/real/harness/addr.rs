//! The addresses in the network of a test, each as IPv4 and IPv6. Does no I/O.

use std::net::{IpAddr, SocketAddr};

/// The three addresses of the client in each family.
pub const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8:1::2"];
pub const CLIENT_2: [&str; 2] = ["192.0.2.130", "2001:db8:1::8002"];
pub const CLIENT_3: [&str; 2] = ["192.0.2.200", "2001:db8:1::c000"];
/// The node's addresses in the client's network.
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:1::1"];
/// The addresses of the proxy pod.
pub const POD: [&str; 2] = ["10.244.0.5", "fd00:244::5"];
/// The node's addresses in the proxy pod's network.
pub(super) const POD_GATEWAY: [&str; 2] = ["10.244.0.1", "fd00:244::1"];
/// The two addresses of the backend in each family. In the tests, these addresses take the place of `ClusterIP`s.
pub const BACKEND: [&str; 2] = ["10.96.3.7", "fd00:96::7"];
pub const BACKEND_2: [&str; 2] = ["10.96.3.8", "fd00:96::8"];
/// The node's addresses in the backend's network.
pub(super) const BACKEND_GATEWAY: [&str; 2] = ["10.96.3.1", "fd00:96::1"];

/// Returns the address and port as text, with the brackets that IPv6 needs.
pub fn with_port(ip: &str, port: u16) -> String {
    SocketAddr::new(parse_ip(ip), port).to_string()
}

pub fn parse_ip(ip: &str) -> IpAddr {
    ip.parse().unwrap()
}
