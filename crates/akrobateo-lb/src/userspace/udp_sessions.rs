//! The UDP sessions of one worker: forwards datagrams to the targets, and the targets' answers to the clients. I/O
//! only.

use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, recvfrom, send, sendto};

use super::drain::Phase;
use super::poller::{Poller, Token};
use super::settings::{Settings, to_milliseconds};
use super::slab::Key;
use super::sockets::{BoundSocket, connect_udp};
use super::stats::add;
use super::udp_session_table::{UdpSession, UdpSessionTable};
use super::worker_context::WorkerContext;

/// Maximum number of datagrams that one socket forwards before other sockets are served.
const MAX_DATAGRAMS_PER_BATCH: usize = 64;

/// The UDP sockets and sessions of one worker.
#[derive(Debug)]
pub(super) struct UdpSessions {
    sockets: Vec<BoundSocket>,
    sessions: UdpSessionTable,
    /// The part of [`Settings::max_udp_sessions_per_source`] that this worker may use.
    max_sessions_per_source: usize,
    /// Time of the last datagram of a session for which the current phase waits: milliseconds since the worker's start.
    last_activity_ms: u64,
}

impl UdpSessions {
    pub(super) fn new(
        sockets: Vec<BoundSocket>,
        settings: &Settings,
        poller: &Poller,
    ) -> Result<Self, Errno> {
        for (index, bound_socket) in (0..).zip(&sockets) {
            poller.add(&bound_socket.socket, Token::UdpSocketIndex(index))?;
        }
        let unassured_timeout_ms = to_milliseconds(settings.udp_timeout);
        let assured_timeout_ms = to_milliseconds(settings.udp_stream_timeout);
        Ok(Self {
            sockets,
            sessions: UdpSessionTable::new(unassured_timeout_ms, assured_timeout_ms),
            // The kernel distributes the clients of one source among the workers.
            max_sessions_per_source: (settings.max_udp_sessions_per_source / settings.worker_count.max(1))
                .max(1),
            last_activity_ms: 0,
        })
    }

    /// Begins a phase. The draining phase waits only for the sessions that are open now. The closing phase waits for
    /// all sessions.
    pub(super) fn begin_phase(&mut self, phase: Phase, now_ms: u64) {
        match phase {
            Phase::Draining => {
                self.sessions.iter_mut().for_each(|session| session.started_before_drain = true);
            }
            Phase::Closing => self.last_activity_ms = now_ms,
            Phase::Forwarding | Phase::Stopped => {}
        }
    }

    /// Returns true if all sessions for which the current phase waits have been silent for `idle_timeout_ms`, or if
    /// there are no sessions.
    pub(super) const fn is_silent_for(&self, idle_timeout_ms: u64, now_ms: u64) -> bool {
        self.sessions.is_empty() || now_ms >= self.last_activity_ms + idle_timeout_ms
    }

    /// Forwards the datagrams that have arrived at a UDP port.
    pub(super) fn forward_client_datagrams(&mut self, socket_index: u32, context: &mut WorkerContext) {
        for _ in 0..MAX_DATAGRAMS_PER_BATCH {
            let Some(BoundSocket { port_index, socket }) = self.sockets.get(socket_index as usize) else {
                return;
            };
            let port_index = *port_index;
            match recvfrom(socket, &mut context.io.buffer[..], RecvFlags::empty()) {
                Ok((length, _, client)) => {
                    if let Some(client) = client.and_then(|client| client.try_into().ok()) {
                        self.forward_datagram(socket_index, port_index, client, length, context);
                    }
                }
                Err(Errno::AGAIN) => return,
                // The kernel reports an error of an earlier datagram. More datagrams may have arrived.
                Err(_) => {}
            }
        }
        context.enqueue(Token::UdpSocketIndex(socket_index));
    }

    /// Sends the first `length` bytes of the worker's buffer to the target.
    fn forward_datagram(
        &mut self,
        socket_index: u32,
        port_index: usize,
        client: SocketAddr,
        length: usize,
        context: &mut WorkerContext,
    ) {
        if !context.shared_state.allows(client.ip()) {
            return add(&context.stats.port(port_index).refused_connections, 1);
        }
        let key = self
            .sessions
            .find(socket_index, client)
            .or_else(|| self.open_session(socket_index, port_index, client, context));
        let Some(session) = key.and_then(|key| self.sessions.get_mut(key)) else {
            return add(&context.stats.port(port_index).dropped_datagrams, 1);
        };
        session.on_datagram(context.now_ms());
        if phase_waits_for(session, context) {
            self.last_activity_ms = context.now_ms();
        }
        let datagram = &context.io.buffer[..length];
        let mut send_result = send(&session.target_socket, datagram, SendFlags::NOSIGNAL);
        if let Err(error @ (Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH)) = send_result {
            // The kernel reports an error of an earlier datagram, and has not sent the current datagram. The proxy
            // therefore sends the current datagram again.
            send_result = send(&session.target_socket, datagram, SendFlags::NOSIGNAL);
            context.record_dial_failure(port_index, error.into());
        }
        match send_result {
            Ok(_) => add(&context.stats.port(port_index).bytes_in, length as u64),
            Err(_) => add(&context.stats.port(port_index).dropped_datagrams, 1),
        }
    }

    /// Opens a session for a new client. Returns `None` in the closing phase, at the session limit, or if the target
    /// cannot be reached.
    fn open_session(
        &mut self,
        socket_index: u32,
        port_index: usize,
        client: SocketAddr,
        context: &mut WorkerContext,
    ) -> Option<Key> {
        if context.phase >= Phase::Closing {
            return None;
        }
        if self.sessions.count_sessions_of_source(client.ip()) >= self.max_sessions_per_source
            && let Some(evicted_session) = self.sessions.evict_session(Some(client.ip()))
        {
            self.count_closed_session(&evicted_session, context);
        }
        if !context.shared_state.udp_session_quota.try_acquire() {
            let evicted_session = self.sessions.evict_session(None)?;
            self.count_closed_session(&evicted_session, context);
            // Another worker may already have taken the free place.
            if !context.shared_state.udp_session_quota.try_acquire() {
                return None;
            }
        }
        match self.connect(socket_index, port_index, client, context) {
            Ok(key) => {
                let stats = context.stats.port(port_index);
                add(&stats.opened_sessions, 1);
                add(&stats.forwarded_sessions, 1);
                if let Some(expiry) = self.sessions.next_expiry_ms() {
                    context.schedule_sweep(expiry);
                }
                Some(key)
            }
            Err(error) => {
                context.shared_state.udp_session_quota.release();
                context.record_dial_failure(port_index, error.into());
                None
            }
        }
    }

    fn connect(
        &mut self,
        socket_index: u32,
        port_index: usize,
        client: SocketAddr,
        context: &WorkerContext,
    ) -> Result<Key, Errno> {
        let target_socket = connect_udp(context.shared_state.ports[port_index].target)?;
        let last_activity_ms = context.now_ms();
        let session = UdpSession {
            socket_index,
            client,
            target_socket,
            last_activity_ms,
            is_answered: false,
            is_assured: false,
            started_before_drain: false,
        };
        let key = self.sessions.insert(session);
        let session = self.sessions.get_mut(key);
        let add_result =
            session.map(|session| context.poller.add(&session.target_socket, Token::UdpSession(key)));
        if let Some(Err(error)) = add_result {
            self.sessions.remove(key);
            return Err(error);
        }
        Ok(key)
    }

    /// Sends the target's answers to the client.
    pub(super) fn forward_replies(&mut self, key: Key, context: &mut WorkerContext) {
        for _ in 0..MAX_DATAGRAMS_PER_BATCH {
            let Some(session) = self.sessions.get_mut(key) else { return };
            let Some(BoundSocket { port_index, socket }) = self.sockets.get(session.socket_index as usize)
            else {
                return;
            };
            match recv(&session.target_socket, &mut context.io.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    session.on_answer(context.now_ms());
                    if phase_waits_for(session, context) {
                        self.last_activity_ms = context.now_ms();
                    }
                    let datagram = &context.io.buffer[..length];
                    let stats = context.stats.port(*port_index);
                    match sendto(socket, datagram, SendFlags::NOSIGNAL, &session.client) {
                        Ok(_) => add(&stats.bytes_out, length as u64),
                        Err(_) => add(&stats.dropped_datagrams, 1),
                    }
                }
                Err(Errno::AGAIN) => return,
                // The target's host answered with an ICMP error.
                Err(error) => context.record_dial_failure(*port_index, error.into()),
            }
        }
        context.enqueue(Token::UdpSession(key));
    }

    /// Closes expired sessions. Returns the earliest time at which another session can expire.
    pub(super) fn sweep(&mut self, context: &WorkerContext) -> Option<u64> {
        while let Some(session) = self.sessions.remove_expired(context.now_ms()) {
            self.count_closed_session(&session, context);
        }
        self.sessions.next_expiry_ms()
    }

    /// Counts a session as closed, and releases its place in the quota.
    fn count_closed_session(&self, session: &UdpSession, context: &WorkerContext) {
        context.shared_state.udp_session_quota.release();
        if let Some(bound_socket) = self.sockets.get(session.socket_index as usize) {
            add(&context.stats.port(bound_socket.port_index).closed_sessions, 1);
        }
    }
}

/// Returns true if the current phase waits until the session is silent.
fn phase_waits_for(session: &UdpSession, context: &WorkerContext) -> bool {
    session.started_before_drain || context.phase != Phase::Draining
}
