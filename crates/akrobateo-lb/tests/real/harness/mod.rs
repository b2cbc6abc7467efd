//! The tests' harness: a small network, the proxy under test, traffic and metrics. Does I/O.

pub mod addr;
pub mod conntrack;
pub mod metrics;
pub mod network;
pub mod proxy;
pub mod traffic;

pub use metrics::Metrics;
pub use netns_testkit::{DEADLINE, Namespace, eventually, http, isolated, process};
pub use network::Network;
pub use proxy::Proxy;
