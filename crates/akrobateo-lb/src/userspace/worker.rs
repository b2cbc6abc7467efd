//! A worker: one thread that waits for its sockets and does what they are ready for. I/O only.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::connection::{Connection, Stage, Step};
use super::log_limit::RateLimit;
use super::poller::{Events, Poller, Readiness, Token};
use super::settings::Settings;
use super::shared::Shared;
use super::slab::{Key, Slab};
use super::stats::{DialFailure, WorkerStats, add};
use super::transfer::IoContext;
use super::udp_sessions::Flows;

/// When clients that had to wait, since something was used up, are looked at again, in milliseconds.
pub(super) const ACCEPT_RETRY: u64 = 50;
/// Shortest time between two looks at what has been silent for too long, in milliseconds.
const SWEEP_INTERVAL: u64 = 250;
/// A connection that lives for longer than this is looked at, in milliseconds: keep-alive costs system calls that
/// short ones need not pay for.
const KEEPALIVE_AFTER: u64 = 5_000;
/// How long pipes are kept for the next use, in milliseconds.
const KEEP_PIPES: u64 = 1_000;

/// A socket on which clients of a port arrive.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// The port's place in the list of ports.
    pub(super) port: usize,
    pub(super) socket: OwnedFd,
}

/// Durations of the settings in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    dial: u64,
    idle: u64,
    quiet: u64,
}

/// One thread's share of a proxy.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    /// Its place among the workers.
    pub(super) number: usize,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) poller: Poller,
    pub(super) listeners: Vec<Arrivals>,
    pub(super) datagrams: Vec<Arrivals>,
    pub(super) connections: Slab<Connection>,
    pub(super) flows: Flows,
    pub(super) tools: IoContext,
    /// What could go on, and let others go first.
    pub(super) again: VecDeque<Token>,
    /// Listeners whose clients have to wait until something is free.
    pub(super) stalled: Vec<u32>,
    pub(super) stalled_until: u64,
    pub(super) complaints: Box<[RateLimit]>,
    pub(super) about_resources: RateLimit,
    /// Whether there have been as many connections as are allowed since a client was last let in.
    pub(super) full: bool,
    pub(super) draining: bool,
    /// While draining: until when those who were about to be connected are still let in.
    pub(super) listen_until: u64,
    began: Instant,
    times: Times,
    /// When to look for what has been silent for too long.
    sweep_at: u64,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        stats: Arc<WorkerStats>,
        number: usize,
        (listeners, datagrams): (Vec<Arrivals>, Vec<Arrivals>),
        settings: &Settings,
    ) -> Result<Self, Errno> {
        let poller = Poller::new()?;
        poller.add(&shared.wakers[number], Token::Wake)?;
        for (at, listener) in (0..).zip(&listeners) {
            poller.add(&listener.socket, Token::Listener(at))?;
        }
        for (at, socket) in (0..).zip(&datagrams) {
            poller.add(&socket.socket, Token::Datagrams(at))?;
        }
        let complaints = vec![RateLimit::default(); shared.ports.len()].into();
        let times = Times {
            dial: milliseconds(settings.dial),
            idle: milliseconds(settings.idle),
            quiet: milliseconds(settings.quiet),
        };
        Ok(Self {
            shared,
            number,
            stats,
            poller,
            listeners,
            datagrams,
            connections: Slab::new(),
            flows: Flows::new(milliseconds(settings.unanswered), milliseconds(settings.answered)),
            tools: IoContext::new(),
            again: VecDeque::new(),
            stalled: Vec::new(),
            stalled_until: 0,
            complaints,
            about_resources: RateLimit::default(),
            full: false,
            draining: false,
            listen_until: 0,
            began: Instant::now(),
            times,
            sweep_at: u64::MAX,
        })
    }

    /// Works until it is told to drain and nothing is left.
    pub(super) fn run(mut self) -> Result<(), Errno> {
        let mut events = Events::new();
        loop {
            self.poller.wait(&mut events, self.limit())?;
            self.tools.now = milliseconds(self.began.elapsed());
            for (token, happened) in events.iter() {
                self.act(token, Some(happened));
            }
            for _ in 0..self.again.len() {
                if let Some(token) = self.again.pop_front() {
                    self.act(token, None);
                }
            }
            self.retry_stalled();
            if self.tools.now >= self.sweep_at {
                self.sweep();
            }
            self.stats.pipes.store(self.tools.pipes.len(), Relaxed);
            if self.tools.pipes.len() > 0 {
                self.sweep_by(self.tools.now + KEEP_PIPES);
            }
            if self.draining {
                self.stop_listening();
                if self.drained() {
                    // Whoever still leaves one here gets it back from now on.
                    let late = self.desk().close();
                    if late.is_empty() {
                        return Ok(());
                    }
                    self.serve_all(late);
                }
            }
        }
    }

    /// How long to wait for something to happen, in milliseconds.
    fn limit(&self) -> Option<u64> {
        if !self.again.is_empty() {
            return Some(0);
        }
        let stalled = if self.stalled.is_empty() { u64::MAX } else { self.stalled_until };
        let quiet = if self.draining { self.tools.now + SWEEP_INTERVAL } else { u64::MAX };
        let next = stalled.min(quiet).min(self.sweep_at);
        (next != u64::MAX).then(|| next.saturating_sub(self.tools.now).max(1))
    }

    fn act(&mut self, token: Token, happened: Option<Readiness>) {
        match token {
            Token::Wake => {
                self.serve_all(self.desk().take());
                self.begin_draining();
            }
            Token::Listener(at) => self.accept(at),
            Token::Datagrams(at) => self.receive(at),
            Token::Client(key) | Token::Target(key) => self.connection(key, token, happened),
            Token::Flow(key) => self.answer(key),
        }
    }

    fn connection(&mut self, key: Key, token: Token, happened: Option<Readiness>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.since = if connection.stage == Stage::Open { self.tools.now } else { connection.since };
        let mut step = Step::Waits;
        match (token, happened) {
            (Token::Client(_), Some(happened)) => connection.on_client_ready(happened),
            (_, Some(happened)) => match connection.target_happened(happened) {
                Ok(false) => {}
                Ok(true) => step = self.open(key),
                Err(error) => return self.connect_failed(key, error.into()),
            },
            (_, None) => connection.queued = false,
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.stage == Stage::Connecting {
            return;
        }
        if step == Step::Waits {
            step = connection.pump(&mut self.tools);
        }
        connection.count(self.stats.port(connection.port));
        match step {
            Step::Waits => {}
            Step::Again if connection.queued => {}
            Step::Again => {
                connection.queued = true;
                self.again.push_back(Token::Client(key));
            }
            Step::Over => self.close(key),
        }
    }

    /// The target has answered: the connection goes on with both sides.
    fn open(&mut self, key: Key) -> Step {
        let Some(connection) = self.connections.get_mut(key) else { return Step::Waits };
        connection.since = self.tools.now;
        self.sweep_at = self.sweep_at.min(self.tools.now + KEEPALIVE_AFTER);
        let proxy_protocol_for = self.shared.ports[connection.port].proxy_protocol_for;
        add(&self.stats.port(connection.port).forwarded, 1);
        let step = connection.open(proxy_protocol_for, &mut self.tools);
        match self.poller.add(connection.client_socket(), Token::Client(key)) {
            Ok(()) => step,
            Err(error) => {
                tracing::error!(%error, "cannot wait for a client");
                connection.cut();
                Step::Over
            }
        }
    }

    /// Begins to wait for an answer to a dial.
    pub(super) fn dialled(&mut self, connection: Connection) -> Result<(), Errno> {
        let port = connection.port;
        let key = self.connections.insert(connection);
        self.sweep_at = self.sweep_at.min(self.tools.now + self.times.dial);
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let added = self.poller.add(connection.target_socket(), Token::Target(key));
        add(&self.stats.port(port).opened, 1);
        if let Err(error) = added {
            self.close(key);
            return Err(error);
        }
        Ok(())
    }

    fn connect_failed(&mut self, key: Key, why: DialFailure) {
        if let Some(connection) = self.connections.get_mut(key) {
            let port = connection.port;
            self.complain(port, why);
        }
        self.close(key);
    }

    /// Counts a target that could not be reached, and logs it if that was not just done.
    pub(super) fn complain(&mut self, port: usize, why: DialFailure) {
        self.stats.port(port).failed(why);
        if let Some(times) = self.complaints[port].happened(self.tools.now) {
            let (target, reason) = (self.shared.ports[port].target, why.as_str());
            tracing::warn!(%target, reason, times, "cannot reach the target");
        }
    }

    fn close(&mut self, key: Key) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        let stats = self.stats.port(connection.port);
        connection.count(stats);
        connection.close(&mut self.tools);
        add(&stats.closed, 1);
        self.shared.connections.left();
        self.desk().ended();
    }

    fn retry_stalled(&mut self) {
        if self.stalled.is_empty() || self.tools.now < self.stalled_until {
            return;
        }
        for at in std::mem::take(&mut self.stalled) {
            self.accept(at);
        }
    }

    /// Ends what has been silent for too long, and finds out when to look again.
    fn sweep(&mut self) {
        let now = self.tools.now;
        let mut next = u64::MAX;
        let mut due = Vec::new();
        for (key, connection) in self.connections.iter_mut() {
            let limit = match connection.stage {
                Stage::Connecting => self.times.dial,
                Stage::Open => self.times.idle,
            };
            connection.settle();
            match connection.since + limit {
                end if end <= now => due.push((key, connection.stage)),
                end => next = next.min(end),
            }
        }
        for (key, stage) in due {
            if stage == Stage::Connecting {
                self.connect_failed(key, DialFailure::TimedOut);
            } else if let Some(connection) = self.connections.get_mut(key) {
                connection.cut();
                self.close(key);
            }
        }
        self.expire_flows();
        next = next.min(self.flows.next_expiry().unwrap_or(u64::MAX));
        self.tools.pipes.shrink();
        self.sweep_at = if next == u64::MAX { next } else { next.max(now + SWEEP_INTERVAL) };
    }

    /// Has the next look at silent flows happen in time.
    pub(super) fn sweep_by(&mut self, at: u64) {
        self.sweep_at = self.sweep_at.min(at);
    }

    fn begin_draining(&mut self) {
        if self.draining || !self.shared.draining.load(Acquire) {
            return;
        }
        self.draining = true;
        self.refuse_new_syns();
    }

    fn drained(&self) -> bool {
        let quiet = self.flows.last_used().is_none_or(|last| last + self.times.quiet <= self.tools.now);
        self.listeners.is_empty() && self.connections.len() == 0 && quiet
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
