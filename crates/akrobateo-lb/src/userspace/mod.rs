//! The userspace path: accepts connections and datagrams, and forwards their bytes. Needs no capability. I/O only.
//!
//! Each worker of the [`Proxy`] is a thread with its own sockets on every port, so that no worker waits for another
//! worker.

mod acceptor;
mod connection;
mod drain;
pub mod error;
mod header;
#[cfg(test)]
mod header_parser;
mod inbox;
mod io_context;
mod peer;
mod pipe_pool;
mod poller;
mod port;
mod proxy;
mod quota;
mod rate_limit;
mod settings;
mod shared_state;
mod slab;
mod sockets;
mod stalled_listeners;
mod stats;
mod tcp_sessions;
mod transfer;
mod udp_session_queues;
mod udp_session_table;
mod udp_sessions;
mod watchdog;
mod worker;
mod worker_context;

use std::rc::Rc;

use crate::error::Error;
use crate::forwarding_config::ForwardingConfig;
use crate::probe;

pub use proxy::{Proxy, ProxyStatus};
pub use settings::Settings;
pub use stats::METRICS;

/// Forwards until `shutdown` completes, and then drains, as [`Proxy::drain`] describes.
pub async fn run(
    config: ForwardingConfig,
    probe_port: u16,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listener = probe::listen(probe_port)?;
    let mut proxy = Proxy::start(&config, Settings::for_this_host)?;
    tokio::task::spawn_local(probe::serve(listener, Rc::new(proxy.status())));
    tokio::select! {
        () = shutdown => {}
        result = proxy.join() => return Ok(result?),
    }
    Ok(proxy.drain().await?)
}
