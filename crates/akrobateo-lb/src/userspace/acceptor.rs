//! Accepts the TCP clients of one worker, within the connection limit and the source ranges. I/O only.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::acceptfrom_with;

use super::inbox::Client;
use super::poller::{Poller, Token};
use super::rate_limit::RateLimit;
use super::sockets::{BoundSocket, SOCKET_FLAGS, refuse_new_syns, reset_on_close};
use super::stalled_listeners::StalledListeners;
use super::stats::add;
use super::worker_context::WorkerContext;

/// Maximum time for handshakes that have begun before the closing phase, in milliseconds. This time is enough for one
/// retransmission, which clients send after one second.
const HANDSHAKE_TIMEOUT_MS: u64 = 1_500;

/// The result of an attempt to accept one client.
#[derive(Debug)]
pub(super) enum AcceptResult {
    /// A client was accepted, and the worker must serve it.
    Accepted(Client),
    /// The client was refused or is gone. More clients may wait.
    ClientRejected,
    /// No client is waiting, or the worker cannot accept clients now.
    NoClientNow,
}

/// The TCP listeners of one worker.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: Vec<BoundSocket>,
    stalled_listeners: StalledListeners,
    /// True if the connection limit was reached and no client has been accepted since then.
    is_at_connection_limit: bool,
    /// Time at which the closing phase closes the listeners: milliseconds since the worker's start. `None` before the
    /// closing phase.
    close_listeners_at_ms: Option<u64>,
    stall_log_limit: RateLimit,
}

impl Acceptor {
    pub(super) fn new(listeners: Vec<BoundSocket>, poller: &Poller) -> Result<Self, Errno> {
        for (index, listener) in (0..).zip(&listeners) {
            poller.add(&listener.socket, Token::ListenerIndex(index))?;
        }
        Ok(Self {
            listeners,
            stalled_listeners: StalledListeners::default(),
            is_at_connection_limit: false,
            close_listeners_at_ms: None,
            stall_log_limit: RateLimit::default(),
        })
    }

    /// Accepts one client. The client takes one place of the connection quota.
    pub(super) fn accept(&mut self, listener_index: u32, context: &WorkerContext) -> AcceptResult {
        let Some(listener) = self.listeners.get(listener_index as usize) else {
            return AcceptResult::NoClientNow;
        };
        if !context.shared_state.connection_quota.try_acquire() {
            // The connection limit is reached, but no client waits. The next client will cause an event.
            if !has_waiting_client(&listener.socket) {
                return AcceptResult::NoClientNow;
            }
            if !self.is_at_connection_limit {
                self.is_at_connection_limit = true;
                add(&context.stats.connection_limit_reached_count, 1);
            }
            context.shared_state.record_waiting_client();
            let message = "connection limit reached: new clients wait until a connection is closed; \
                           serve the Service from more nodes, or raise the limit of file descriptors";
            self.stall_listener(listener_index, context, message);
            return AcceptResult::NoClientNow;
        }
        match acceptfrom_with(&listener.socket, SOCKET_FLAGS) {
            Ok((socket, address)) => {
                if std::mem::take(&mut self.is_at_connection_limit) {
                    context.shared_state.has_waiting_clients.store(false, Relaxed);
                }
                let address = address.and_then(|address| address.try_into().ok());
                admit(listener.port_index, socket, address, context)
            }
            Err(error) => {
                context.shared_state.connection_quota.release();
                self.on_accept_error(listener_index, error, context)
            }
        }
    }

    fn on_accept_error(
        &mut self,
        listener_index: u32,
        error: Errno,
        context: &WorkerContext,
    ) -> AcceptResult {
        match error {
            Errno::AGAIN => AcceptResult::NoClientNow,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                add(&context.stats.out_of_resources_count, 1);
                let message = "out of file descriptors or memory: new clients wait; \
                               raise the limit of file descriptors, or free memory on the node";
                self.stall_listener(listener_index, context, message);
                AcceptResult::NoClientNow
            }
            // The error concerns only one client, which is gone.
            _ => AcceptResult::ClientRejected,
        }
    }

    fn stall_listener(&mut self, listener_index: u32, context: &WorkerContext, message: &str) {
        self.stalled_listeners.add(listener_index, context.now_ms());
        if let Some(times) = self.stall_log_limit.permit_line(context.now_ms()) {
            tracing::warn!(
                times,
                connections = context.shared_state.connection_quota.used_places(),
                "{message}"
            );
        }
    }

    /// Returns the time of the next attempt to accept from the stalled listeners; `None` if no listener is stalled.
    pub(super) fn retry_at_ms(&self) -> Option<u64> {
        self.stalled_listeners.retry_at_ms()
    }

    /// Removes and returns the stalled listeners if the time of the next attempt has come.
    pub(super) fn take_stalled_listeners(&mut self, now_ms: u64) -> BTreeSet<u32> {
        self.stalled_listeners.take(now_ms)
    }

    /// Refuses new clients from now on, except clients whose handshake has begun.
    pub(super) fn start_closing(&mut self, now_ms: u64) {
        for listener in &self.listeners {
            if let Err(error) = refuse_new_syns(&listener.socket) {
                tracing::warn!(%error, "cannot refuse new connections: clients that connect now may be reset");
            }
        }
        self.close_listeners_at_ms = Some(now_ms + HANDSHAKE_TIMEOUT_MS);
    }

    /// Returns the listeners that must be closed now. The list is empty before the handshake timeout. The caller must
    /// accept the waiting clients of these listeners before it closes the listeners.
    pub(super) fn listeners_to_close(&self, now_ms: u64) -> std::ops::Range<u32> {
        let is_due =
            self.close_listeners_at_ms.is_some_and(|close_listeners_at_ms| close_listeners_at_ms <= now_ms);
        0..if is_due { u32::try_from(self.listeners.len()).unwrap_or(u32::MAX) } else { 0 }
    }

    /// Closes the listeners. Does nothing while a listener is stalled.
    pub(super) fn close_listeners(&mut self) {
        if self.stalled_listeners.is_empty() {
            self.listeners = Vec::new();
        }
    }

    /// Returns true if the listeners are closed, so that no client can be accepted any more.
    pub(super) const fn is_closed(&self) -> bool {
        self.listeners.is_empty()
    }
}

/// Returns true if a client waits in the listener's accept queue.
fn has_waiting_client(listener: &OwnedFd) -> bool {
    let mut listeners = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut listeners, Some(&Timespec::default())) != Ok(0)
}

/// Admits a client if the source ranges allow the client's address. Resets the connection of a denied client, and
/// releases the connection's place in the quota. `address` is `None` if the kernel did not report the client's address.
fn admit(
    port_index: usize,
    socket: OwnedFd,
    address: Option<SocketAddr>,
    context: &WorkerContext,
) -> AcceptResult {
    if let Some(address) = address {
        if context.shared_state.allows(address.ip()) {
            return AcceptResult::Accepted(Client { port_index, socket, address });
        }
        add(&context.stats.port(port_index).refused_connections, 1);
        reset_on_close(&socket);
    }
    context.shared_state.connection_quota.release();
    AcceptResult::ClientRejected
}
