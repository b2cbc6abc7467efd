//! The userspace path: the process itself takes connections and datagrams, and passes them on; no capability needed.
//!
//! [`Proxy`] is its life. Each worker is a thread with sockets of its own on every port, so that none waits for another.

mod accept;
mod connection;
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

use crate::forwarding_config::ForwardingConfig;
use crate::probe;
use crate::run::{Error, listen};

pub use proxy::{Proxy, UserspaceError};
pub use settings::Settings;

/// Forwards until `told`; then lets nobody in any more, and ends when all connections have.
pub async fn live(
    plan: ForwardingConfig,
    probe_port: u16,
    told: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listener = listen(probe_port)?;
    let mut proxy = Proxy::start(&plan, Settings::for_this_host)?;
    tokio::task::spawn_local(probe::answer(listener, Rc::new(proxy.status())));
    tokio::select! {
        () = told => {}
        ended = proxy.ended() => return Ok(ended?),
    }
    proxy.drain();
    Ok(proxy.ended().await?)
}
