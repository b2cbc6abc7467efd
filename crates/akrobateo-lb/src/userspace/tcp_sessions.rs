//! The TCP connections of one worker: connects, dispatches events, and closes expired connections. I/O only.

use std::sync::atomic::Ordering::Relaxed;

use super::connection::{Connection, Stage};
use super::inbox::Client;
use super::poller::{Readiness, Token};
use super::settings::{Settings, to_milliseconds};
use super::slab::{Key, Slab};
use super::sockets::{connect_tcp, reset_on_close};
use super::stats::{DialFailure, add};
use super::transfer::Progress;
use super::worker_context::WorkerContext;

/// Time from the opening of a connection to the sweep that enables keep-alive probes to its target, in milliseconds.
/// Most short connections end before this sweep, and need no system calls for keep-alive.
const KEEPALIVE_DELAY_MS: u64 = 5_000;

/// The TCP connections of one worker.
#[derive(Debug)]
pub(super) struct TcpSessions {
    connections: Slab<Connection>,
    /// See [`Settings::connect_timeout`]; in milliseconds.
    connect_timeout_ms: u64,
    /// See [`Settings::idle_timeout`]; in milliseconds.
    idle_timeout_ms: u64,
    /// See [`Settings::idle_timeout_at_connection_limit`]; in milliseconds.
    idle_timeout_at_connection_limit_ms: u64,
    /// Number of open connections that started before the proxy started to drain.
    pre_drain_connection_count: usize,
}

impl TcpSessions {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            connections: Slab::new(),
            connect_timeout_ms: to_milliseconds(settings.connect_timeout),
            idle_timeout_ms: to_milliseconds(settings.idle_timeout),
            idle_timeout_at_connection_limit_ms: to_milliseconds(settings.idle_timeout_at_connection_limit),
            pre_drain_connection_count: 0,
        }
    }

    /// Returns true if all connections that started before the drain have ended.
    pub(super) const fn is_drained(&self) -> bool {
        self.pre_drain_connection_count == 0
    }

    /// Returns true if all connections have been silent for `idle_timeout_ms`, or if there are no connections.
    pub(super) fn is_silent_for(&mut self, idle_timeout_ms: u64, now_ms: u64) -> bool {
        self.connections
            .iter_mut()
            .all(|(_, connection)| now_ms >= connection.last_activity_ms + idle_timeout_ms)
    }

    /// Resets all connections.
    pub(super) fn reset_all(&mut self, context: &mut WorkerContext) {
        let mark_aborted = |(key, connection): (Key, &mut Connection)| {
            connection.mark_aborted();
            key
        };
        let keys: Vec<_> = self.connections.iter_mut().map(mark_aborted).collect();
        for key in keys {
            self.close(key, context);
        }
    }

    /// Starts to connect an accepted client to its target.
    pub(super) fn connect(&mut self, client: Client, context: &mut WorkerContext) {
        let port_index = client.port_index;
        add(&context.stats.port(port_index).opened_sessions, 1);
        let target = match connect_tcp(context.shared_state.ports[port_index].target) {
            Ok(target) => target,
            Err(error) => {
                reset_on_close(&client.socket);
                count_closed_connection(port_index, context);
                return context.record_dial_failure(port_index, error.into());
            }
        };
        let connection = Connection::new(client, target, context.phase, context.now_ms());
        self.pre_drain_connection_count += usize::from(connection.started_before_drain());
        let key = self.connections.insert(connection);
        context.schedule_sweep(context.now_ms() + self.connect_timeout_ms);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Err(error) = context.poller.add(connection.target_socket(), Token::Target(key)) {
            context.record_dial_failure(port_index, error.into());
            self.close(key, context);
        }
    }

    /// Handles an event of a connection's client.
    pub(super) fn on_client_ready(&mut self, key: Key, readiness: Readiness, context: &mut WorkerContext) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.on_client_ready(readiness);
        if move_bytes(key, connection, context) == Progress::Finished {
            self.close(key, context);
        }
    }

    /// Handles an event of a connection's target.
    pub(super) fn on_target_ready(&mut self, key: Key, readiness: Readiness, context: &mut WorkerContext) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.on_target_ready(readiness);
        let progress = match connection.stage() {
            Stage::Open | Stage::Resetting { .. } => move_bytes(key, connection, context),
            Stage::Connecting => match connection.check_connected(readiness) {
                Ok(true) => start_forwarding(key, connection, context),
                Ok(false) => Progress::Blocked,
                Err(error) => {
                    context.record_dial_failure(connection.port_index, error.into());
                    Progress::Finished
                }
            },
        };
        if progress == Progress::Finished {
            self.close(key, context);
        }
    }

    /// Continues a connection from the run queue.
    pub(super) fn resume(&mut self, key: Key, context: &mut WorkerContext) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_in_run_queue = false;
        if move_bytes(key, connection, context) == Progress::Finished {
            self.close(key, context);
        }
    }

    /// Closes expired connections. Returns the earliest time at which another connection can expire.
    pub(super) fn sweep(&mut self, context: &mut WorkerContext) -> Option<u64> {
        let now_ms = context.now_ms();
        let has_waiting_clients = context.shared_state.has_waiting_clients.load(Relaxed);
        let idle_timeout_ms =
            if has_waiting_clients { self.idle_timeout_at_connection_limit_ms } else { self.idle_timeout_ms };
        let mut next_expiry_ms: Option<u64> = None;
        let mut expired_keys = Vec::new();
        for (key, connection) in self.connections.iter_mut() {
            connection.enable_target_keepalive();
            let expiry = match connection.stage() {
                Stage::Connecting => connection.last_activity_ms + self.connect_timeout_ms,
                Stage::Open => connection.last_activity_ms + idle_timeout_ms,
                Stage::Resetting { reset_at_ms } => reset_at_ms,
            };
            if expiry > now_ms {
                next_expiry_ms = Some(next_expiry_ms.map_or(expiry, |next| next.min(expiry)));
                continue;
            }
            if connection.stage() == Stage::Connecting {
                context.record_dial_failure(connection.port_index, DialFailure::TimedOut);
            }
            connection.mark_aborted();
            expired_keys.push(key);
        }
        for key in expired_keys {
            self.close(key, context);
        }
        next_expiry_ms
    }

    fn close(&mut self, key: Key, context: &mut WorkerContext) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.pre_drain_connection_count -= usize::from(connection.started_before_drain());
        let port_index = connection.port_index;
        connection.count_bytes(context.stats.port(port_index));
        connection.close(&mut context.io);
        count_closed_connection(port_index, context);
    }
}

/// Starts to forward bytes after the target has accepted the connection, and moves the first bytes.
fn start_forwarding(key: Key, connection: &mut Connection, context: &mut WorkerContext) -> Progress {
    connection.last_activity_ms = context.now_ms();
    context.schedule_sweep(context.now_ms() + KEEPALIVE_DELAY_MS);
    add(&context.stats.port(connection.port_index).forwarded_sessions, 1);
    let proxy_protocol = context.shared_state.ports[connection.port_index].proxy_protocol;
    let progress = connection.start_forwarding(proxy_protocol, &mut context.io);
    if let Err(error) = context.poller.add(connection.client_socket(), Token::Client(key)) {
        tracing::error!(%error, "cannot watch a client's socket, so the proxy closes the connection");
        connection.mark_aborted();
        return Progress::Finished;
    }
    if progress == Progress::Finished { progress } else { move_bytes(key, connection, context) }
}

/// Moves the bytes of an open connection. Puts the connection into the run queue if more bytes are ready.
fn move_bytes(key: Key, connection: &mut Connection, context: &mut WorkerContext) -> Progress {
    connection.last_activity_ms = context.now_ms();
    let progress = connection.move_bytes(&mut context.io);
    connection.count_bytes(context.stats.port(connection.port_index));
    if let Stage::Resetting { reset_at_ms } = connection.stage() {
        context.schedule_sweep(reset_at_ms);
    }
    if progress == Progress::BudgetSpent && !connection.is_in_run_queue {
        connection.is_in_run_queue = true;
        context.enqueue(Token::Client(key));
    }
    progress
}

/// Counts a connection as closed, and releases its place in the quota.
fn count_closed_connection(port_index: usize, context: &WorkerContext) {
    add(&context.stats.port(port_index).closed_sessions, 1);
    context.shared_state.connection_quota.release();
    context.inbox().decrement_connection_count();
}
