//! Clients arrive: they are accepted or kept out, and their targets dialled. I/O only.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::acceptfrom_with;

use super::connection::{Connection, dial, reset};
use super::inbox::{Client, Inbox, least_loaded};
use super::listen::{FLAGS, refuse_new_syns};
use super::poller::Token;
use super::stats::{DialFailure, add};
use super::worker::{ACCEPT_RETRY, Worker};

/// Clients that are accepted before others have their turn.
const AT_A_TIME: usize = 64;
/// How long a client may take from its first segment to being connected, when nobody else is let in any more, in
/// milliseconds.
const HANDSHAKE: u64 = 1_500;

impl Worker {
    /// Accepts the clients that wait at a listener.
    pub(super) fn accept(&mut self, at: u32) {
        for _ in 0..AT_A_TIME {
            if !self.accept_one(at) {
                return;
            }
        }
        self.again.push_back(Token::Listener(at));
    }

    /// Accepts one client; returns whether there may be more now.
    fn accept_one(&mut self, at: u32) -> bool {
        let Some(listener) = self.listeners.get(at as usize) else { return false };
        let port = listener.port;
        if !self.shared.connections.enter() {
            if !std::mem::replace(&mut self.full, true) {
                add(&self.stats.at_limit, 1);
            }
            self.stall(at, "as many connections as are allowed: clients wait");
            return false;
        }
        match acceptfrom_with(&listener.socket, FLAGS) {
            Ok((client, address)) => {
                self.full = false;
                match address.and_then(|address| address.try_into().ok()) {
                    Some(address) => self.arrived(port, client, address),
                    None => self.shared.connections.left(),
                }
            }
            Err(error) => {
                self.shared.connections.left();
                match error {
                    Errno::AGAIN => return false,
                    Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                        add(&self.stats.out_of_resources, 1);
                        self.stall(at, "descriptors or memory are used up: clients wait");
                        return false;
                    }
                    // Of this one client only, who is gone again.
                    _ => {}
                }
            }
        }
        true
    }

    /// A client has been accepted: serves it, leaves that to another worker, or keeps the client out.
    fn arrived(&mut self, port: usize, client: OwnedFd, address: SocketAddr) {
        if !self.is_allowed(address.ip()) {
            add(&self.stats.port(port).refused, 1);
            reset(&client);
            self.shared.connections.left();
            return;
        }
        if let Some(client) = self.pass_on((port, client, address)) {
            self.desk().begun();
            self.serve(client);
        }
    }

    /// Leaves a client to a worker that has fewer; gives it back if there is none.
    fn pass_on(&self, client: Client) -> Option<Client> {
        let other = if self.draining { None } else { least_loaded(&self.shared.desks, self.number) };
        let Some(other) = other else { return Some(client) };
        let back = self.shared.desks[other].leave(client);
        if back.is_none() {
            self.shared.wake(other);
        }
        back
    }

    /// Serves the clients that others have left to this worker.
    pub(super) fn serve_all(&mut self, clients: Vec<Client>) {
        for client in clients {
            self.serve(client);
        }
    }

    pub(super) fn desk(&self) -> &Inbox {
        &self.shared.desks[self.number]
    }

    /// Dials the target of a client that has been let in.
    fn serve(&mut self, (port, client, address): Client) {
        let failed = match dial(self.shared.ports[port].target) {
            Ok(target) => {
                let connection = Connection::new(port, self.tools.now, (client, address), target);
                match self.dialled(connection) {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => {
                add(&self.stats.port(port).opened, 1);
                add(&self.stats.port(port).closed, 1);
                reset(&client);
                self.shared.connections.left();
                self.desk().ended();
                error
            }
        };
        self.complain(port, DialFailure::from(failed));
    }

    /// Whether a client with this address may come in.
    pub(super) fn is_allowed(&self, client: IpAddr) -> bool {
        self.shared.sources.as_ref().is_none_or(|sources| sources.allows(client))
    }

    fn stall(&mut self, at: u32, why: &str) {
        if self.stalled.is_empty() {
            self.stalled_until = self.tools.now + ACCEPT_RETRY;
        }
        self.stalled.push(at);
        if let Some(times) = self.about_resources.happened(self.tools.now) {
            tracing::warn!(times, connections = self.shared.connections.taken(), "{why}");
        }
    }

    /// Lets nobody in any more but those who are about to be connected.
    pub(super) fn refuse_new_syns(&mut self) {
        for listener in &self.listeners {
            if let Err(error) = refuse_new_syns(&listener.socket) {
                tracing::warn!(%error, "clients that connect now may be reset");
            }
        }
        self.listen_until = self.tools.now + HANDSHAKE;
    }

    /// Closes the listeners, once all who were about to be connected are.
    pub(super) fn stop_listening(&mut self) {
        if self.listeners.is_empty() || self.tools.now < self.listen_until {
            return;
        }
        for at in (0..).take(self.listeners.len()) {
            while self.accept_one(at) {}
        }
        if self.stalled.is_empty() {
            self.listeners = Vec::new();
        }
    }
}
