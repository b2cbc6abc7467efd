//! The userspace path: the process itself takes connections and datagrams, and passes them on; no capability needed.
//!
//! [`Proxy`] is its life. Each worker is a thread with sockets of its own on every port, so that none waits for another.

mod arrivals;
mod complaints;
mod connection;
mod datagrams;
mod handover;
mod header;
mod listen;
mod pipes;
mod poller;
mod ports;
mod proxy;
mod relay;
mod settings;
mod shared;
mod slab;
mod stats;
mod transfer;
mod worker;

use std::rc::Rc;

use crate::plan::Plan;
use crate::probe;
use crate::run::{Error, listen};

pub use proxy::{Proxy, UserspaceError};
pub use settings::Settings;

/// Forwards until `told`; then lets nobody in any more, and ends when all connections have.
pub async fn live(plan: Plan, probe_port: u16, told: impl Future<Output = ()>) -> Result<(), Error> {
    let listener = listen(probe_port)?;
    let mut proxy = Proxy::start(&plan, Settings::of_this_machine)?;
    tokio::task::spawn_local(probe::answer(listener, Rc::new(proxy.status())));
    tokio::select! {
        () = told => {}
        ended = proxy.ended() => return Ok(ended?),
    }
    proxy.drain();
    Ok(proxy.ended().await?)
}
