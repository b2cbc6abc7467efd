//! The userspace path: the process itself takes connections and datagrams, and passes them on; no capability needed.
//!
//! [`Proxy`] is its life. Each worker is a thread with sockets of its own on every port, so that none waits for another.

mod accept;
mod connection;
pub mod error;
mod header;
mod inbox;
mod listen;
mod log_limit;
mod pipes;
mod poller;
mod ports;
mod proxy;
mod settings;
mod shared;
mod slab;
mod stats;
mod transfer;
mod udp;
mod udp_sessions;
mod worker;

use std::rc::Rc;

use crate::error::Error;
use crate::forwarding_config::ForwardingConfig;
use crate::probe;

pub use proxy::Proxy;
pub use settings::Settings;
pub use stats::METRICS;

/// Forwards until `shutdown` ends. Then drains: accepts no new connections, and returns when the existing ones end.
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
        ended = proxy.ended() => return Ok(ended?),
    }
    proxy.drain();
    Ok(proxy.ended().await?)
}
