//! Accepts the TCP clients of one worker, within the limits of connections and of source ranges. I/O only.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::acceptfrom_with;

use super::inbox::Client;
use super::poller::{Poller, Token};
use super::rate_limit::RateLimit;
use super::sockets::{BoundSocket, SOCKET_FLAGS, refuse_new_syns, reset_on_close};
use super::stalled_listeners::StalledListeners;
use super::stats::add;
use super::worker_context::WorkerContext;

/// While closing: time in which a handshake that has begun must be complete, in milliseconds. It covers one
/// retransmission, which clients send after one second.
const HANDSHAKE_TIMEOUT: u64 = 1_500;

/// The result of an attempt to accept one client.
#[derive(Debug)]
pub(super) enum AcceptResult {
    /// The client must be served.
    Client(Client),
    /// The client was refused or is gone. More clients may wait.
    Rejected,
    /// No client can be accepted now.
    Blocked,
}

/// The TCP listeners of one worker.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: Vec<BoundSocket>,
    stalled: StalledListeners,
    /// The connection limit was reached, and no client has been accepted after that.
    at_connection_limit: bool,
    /// While closing: when to close the listeners.
    close_at: Option<u64>,
    stall_log: RateLimit,
}

impl Acceptor {
    pub(super) fn new(listeners: Vec<BoundSocket>, poller: &Poller) -> Result<Self, Errno> {
        for (index, listener) in (0..).zip(&listeners) {
            poller.add(&listener.socket, Token::Listener(index))?;
        }
        Ok(Self {
            listeners,
            stalled: StalledListeners::default(),
            at_connection_limit: false,
            close_at: None,
            stall_log: RateLimit::default(),
        })
    }

    /// Accepts one client. The client takes one place of the connection quota.
    pub(super) fn accept(&mut self, listener: u32, context: &WorkerContext) -> AcceptResult {
        let Some(bound) = self.listeners.get(listener as usize) else { return AcceptResult::Blocked };
        if !context.shared.connections.try_acquire() {
            if !self.at_connection_limit {
                self.at_connection_limit = true;
                add(&context.stats.limit_reached, 1);
            }
            let message = "connection limit reached: new clients wait until a connection is closed; serve the Service from \
                           more nodes, or raise the limit of file descriptors";
            self.stall(listener, context, message);
            return AcceptResult::Blocked;
        }
        match acceptfrom_with(&bound.socket, SOCKET_FLAGS) {
            Ok((socket, address)) => {
                self.at_connection_limit = false;
                let address = address.and_then(|address| address.try_into().ok());
                admit(bound.port_index, socket, address, context)
            }
            Err(error) => {
                context.shared.connections.release();
                self.on_accept_error(listener, error, context)
            }
        }
    }

    fn on_accept_error(&mut self, listener: u32, error: Errno, context: &WorkerContext) -> AcceptResult {
        match error {
            Errno::AGAIN => AcceptResult::Blocked,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                add(&context.stats.out_of_resources, 1);
                let message = "no file descriptor or memory left: new clients wait; raise the limit of file descriptors, \
                               or free memory on the node";
                self.stall(listener, context, message);
                AcceptResult::Blocked
            }
            // The error belongs to one client, which is gone.
            _ => AcceptResult::Rejected,
        }
    }

    fn stall(&mut self, listener: u32, context: &WorkerContext, message: &str) {
        self.stalled.add(listener, context.now());
        if let Some(times) = self.stall_log.permit(context.now()) {
            tracing::warn!(times, connections = context.shared.connections.used(), "{message}");
        }
    }

    /// Returns when to try the stalled listeners again; `None` if there are none.
    pub(super) fn retry_at(&self) -> Option<u64> {
        self.stalled.retry_at()
    }

    /// Removes and returns the stalled listeners, if it is time to try them again.
    pub(super) fn take_stalled(&mut self, now: u64) -> BTreeSet<u32> {
        self.stalled.take(now)
    }

    /// Refuses new clients from now on. Clients whose handshake has begun can still be accepted.
    pub(super) fn start_closing(&mut self, now: u64) {
        for listener in &self.listeners {
            if let Err(error) = refuse_new_syns(&listener.socket) {
                tracing::warn!(%error, "cannot refuse new connections: clients that connect now may be reset");
            }
        }
        self.close_at = Some(now + HANDSHAKE_TIMEOUT);
    }

    /// Returns the listeners to close now; none before the handshake timeout. The caller accepts their last clients
    /// first.
    pub(super) fn listeners_to_close(&self, now: u64) -> std::ops::Range<u32> {
        let is_due = self.close_at.is_some_and(|close_at| close_at <= now);
        0..if is_due { u32::try_from(self.listeners.len()).unwrap_or(u32::MAX) } else { 0 }
    }

    /// Closes the listeners. Keeps them if clients still wait.
    pub(super) fn close_listeners(&mut self) {
        if self.stalled.is_empty() {
            self.listeners = Vec::new();
        }
    }

    /// Returns whether no client can be accepted any more.
    pub(super) const fn is_closed(&self) -> bool {
        self.listeners.is_empty()
    }
}

/// Admits a client if the source ranges allow it. Otherwise resets its connection and releases its place. `address` is
/// `None` if the kernel did not report it.
fn admit(
    port_index: usize,
    socket: OwnedFd,
    address: Option<SocketAddr>,
    context: &WorkerContext,
) -> AcceptResult {
    if let Some(address) = address {
        if context.shared.allows(address.ip()) {
            return AcceptResult::Client(Client { port_index, socket, address });
        }
        add(&context.stats.port(port_index).refused, 1);
        reset_on_close(&socket);
    }
    context.shared.connections.release();
    AcceptResult::Rejected
}
