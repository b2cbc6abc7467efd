//! What the tests stand on: isolation, namespaces, the nodes of a small network, proxies, traffic.

pub mod conntrack;
pub mod isolation;
pub mod metrics;
pub mod namespace;
pub mod network;
pub mod proxy;
pub mod traffic;

use std::time::{Duration, Instant};

pub use isolation::isolated;
pub use metrics::Metrics;
pub use namespace::Namespace;
pub use network::Network;
pub use proxy::Proxy;

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until `found` gives something, for at most [`DEADLINE`].
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
