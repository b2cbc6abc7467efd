//! The userspace path: accepts connections and datagrams and forwards them without any capability. I/O only.
//!
//! Each worker of the [`Proxy`] is a thread with its own sockets on every port, so that no worker waits for another.

mod acceptor;
mod connection;
mod error;
mod header;
#[cfg(test)]
mod header_parser;
mod inbox;
mod io_context;
mod peer;
mod pipes;
mod poller;
mod port;
mod proxy;
mod quota;
mod rate_limit;
mod settings;
mod shared;
mod slab;
mod sockets;
mod stats;
mod tcp_sessions;
mod transfer;
mod udp_session_table;
mod udp_sessions;
mod worker;
mod worker_context;

use std::rc::Rc;

use crate::forwarding_config::ForwardingConfig;
use crate::probe;
use crate::run::{Error, listen};

pub use error::UserspaceError;
pub use proxy::{Proxy, ProxyStatus};
pub use settings::Settings;

/// Forwards until `shutdown` completes. Then refuses new clients, and returns after the last connection has ended.
pub async fn run(
    config: ForwardingConfig,
    probe_port: u16,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listener = listen(probe_port)?;
    let mut proxy = Proxy::start(&config, Settings::for_this_host)?;
    tokio::task::spawn_local(probe::answer(listener, Rc::new(proxy.status())));
    tokio::select! {
        () = shutdown => {}
        result = proxy.join() => return Ok(result?),
    }
    proxy.drain();
    Ok(proxy.join().await?)
}
