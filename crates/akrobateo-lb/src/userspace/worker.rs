//! A worker: one thread that waits for its sockets and dispatches their events. I/O only.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rustix::io::Errno;

use super::acceptor::{AcceptResult, Acceptor};
use super::drain::Phase;
use super::inbox::Client;
use super::poller::{Events, Readiness, Token};
use super::settings::{Settings, to_milliseconds};
use super::shared_state::SharedState;
use super::sockets::BoundSocket;
use super::stats::WorkerStats;
use super::tcp_sessions::TcpSessions;
use super::udp_sessions::UdpSessions;
use super::worker_context::{MIN_SWEEP_INTERVAL_MS, WorkerContext};

/// Maximum number of clients that one listener accepts before other sockets are served.
const MAX_CLIENTS_PER_BATCH: usize = 64;
/// Time between two checks of the worker's progress in a drain, in milliseconds.
const DRAIN_CHECK_INTERVAL_MS: u64 = 100;
/// Time after which idle pipes are closed, in milliseconds.
const PIPE_IDLE_TIMEOUT_MS: u64 = 1_000;

/// The sockets that a worker binds.
#[derive(Debug, Default)]
pub(super) struct WorkerSockets {
    /// One listener per TCP port.
    pub(super) listeners: Vec<BoundSocket>,
    /// One socket per UDP port.
    pub(super) udp_sockets: Vec<BoundSocket>,
}

/// One thread of a proxy.
#[derive(Debug)]
pub(super) struct Worker {
    context: WorkerContext,
    acceptor: Acceptor,
    tcp: TcpSessions,
    udp: UdpSessions,
    /// Time of the next check whether the worker has completed the draining or the closing phase.
    next_drain_check_at_ms: u64,
    /// See [`Settings::drain_udp_idle_timeout`]; in milliseconds.
    drain_udp_idle_timeout_ms: u64,
    /// See [`Settings::close_idle_timeout`]; in milliseconds.
    close_idle_timeout_ms: u64,
    start_time: Instant,
}

impl Worker {
    /// Creates the worker with this index in [`SharedState::inboxes`] and [`SharedState::wakers`].
    pub(super) fn new(
        shared_state: Arc<SharedState>,
        stats: Arc<WorkerStats>,
        index: usize,
        sockets: WorkerSockets,
        settings: &Settings,
    ) -> Result<Self, Errno> {
        let context = WorkerContext::new(shared_state, stats, index)?;
        Ok(Self {
            acceptor: Acceptor::new(sockets.listeners, &context.poller)?,
            tcp: TcpSessions::new(settings),
            udp: UdpSessions::new(sockets.udp_sockets, settings, &context.poller)?,
            context,
            next_drain_check_at_ms: 0,
            drain_udp_idle_timeout_ms: to_milliseconds(settings.drain_udp_idle_timeout),
            close_idle_timeout_ms: to_milliseconds(settings.close_idle_timeout),
            start_time: Instant::now(),
        })
    }

    /// Forwards until the proxy stops, and then resets the remaining connections.
    pub(super) fn run(mut self) -> Result<(), Errno> {
        let mut events = Events::new();
        loop {
            self.context.poller.wait(&mut events, self.wait_timeout_ms())?;
            self.context.io.now_ms = to_milliseconds(self.start_time.elapsed());
            for (token, readiness) in events.iter() {
                self.dispatch(token, Some(readiness));
            }
            // Objects that enter the run queue during this loop wait for the next round.
            for _ in 0..self.context.queue_length() {
                if let Some(token) = self.context.dequeue() {
                    self.dispatch(token, None);
                }
            }
            for listener_index in self.acceptor.take_stalled_listeners(self.context.now_ms()) {
                self.accept_clients(listener_index);
            }
            self.sweep_if_due();
            self.count_pipes();
            match self.context.phase {
                Phase::Forwarding => {}
                Phase::Draining | Phase::Closing => self.record_drain_progress(),
                Phase::Stopped => {
                    self.tcp.reset_all(&mut self.context);
                    return Ok(());
                }
            }
        }
    }

    /// Returns the timeout of the wait for events, in milliseconds; `None` means no timeout.
    fn wait_timeout_ms(&self) -> Option<u64> {
        if self.context.queue_length() > 0 {
            return Some(0);
        }
        let now_ms = self.context.now_ms();
        let next_drain_check =
            (self.context.phase != Phase::Forwarding).then_some(self.next_drain_check_at_ms);
        let timers = [self.acceptor.retry_at_ms(), next_drain_check, self.context.next_sweep_at_ms()];
        let next_timer = timers.into_iter().flatten().min()?;
        Some(next_timer.saturating_sub(now_ms).max(1))
    }

    /// Handles an event of an object. If `readiness` is `None`, there was no event: the object comes from the run
    /// queue.
    fn dispatch(&mut self, token: Token, readiness: Option<Readiness>) {
        let context = &mut self.context;
        match (token, readiness) {
            (Token::Waker, _) => self.on_wake(),
            (Token::ListenerIndex(index), _) => self.accept_clients(index),
            (Token::UdpSocketIndex(index), _) => self.udp.forward_client_datagrams(index, context),
            (Token::UdpSession(key), _) => self.udp.forward_replies(key, context),
            (Token::Client(key), Some(readiness)) => self.tcp.on_client_ready(key, readiness, context),
            (Token::Target(key), Some(readiness)) => self.tcp.on_target_ready(key, readiness, context),
            (Token::Client(key) | Token::Target(key), None) => self.tcp.resume(key, context),
        }
    }

    /// Serves the clients in the inbox, and enters the proxy's current phase.
    fn on_wake(&mut self) {
        for client in self.context.inbox().take_clients() {
            self.tcp.connect(client, &mut self.context);
        }
        self.context.shared_state.watchdog.record_run(self.context.index());
        if self.context.shared_state.has_waiting_clients.load(Relaxed) {
            self.context.schedule_sweep(self.context.now_ms() + MIN_SWEEP_INTERVAL_MS);
        }
        let (phase, now_ms) = (self.context.shared_state.drain.phase(), self.context.now_ms());
        if phase == self.context.phase {
            return;
        }
        if phase == Phase::Closing {
            self.acceptor.start_closing(now_ms);
        }
        self.udp.begin_phase(phase, now_ms);
        self.context.phase = phase;
        self.next_drain_check_at_ms = now_ms;
    }

    /// Accepts a batch of clients.
    fn accept_clients(&mut self, listener_index: u32) {
        for _ in 0..MAX_CLIENTS_PER_BATCH {
            if !self.accept_client(listener_index) {
                return;
            }
        }
        self.context.enqueue(Token::ListenerIndex(listener_index));
    }

    /// Accepts one client. Returns true if more clients may wait.
    fn accept_client(&mut self, listener_index: u32) -> bool {
        match self.acceptor.accept(listener_index, &self.context) {
            AcceptResult::Accepted(client) => self.serve(client),
            AcceptResult::ClientRejected => {}
            AcceptResult::NoClientNow => return false,
        }
        true
    }

    /// Serves an accepted client in this worker, or passes it to a worker with fewer connections.
    fn serve(&mut self, client: Client) {
        // In the closing phase, another worker could end before it serves the client.
        let client_for_this_worker = if self.context.phase >= Phase::Closing {
            Some(client)
        } else {
            self.context.shared_state.pass_to_least_loaded_worker(self.context.index(), client)
        };
        if let Some(client) = client_for_this_worker {
            self.context.inbox().increment_connection_count();
            self.tcp.connect(client, &mut self.context);
        }
    }

    /// Closes expired connections, expired sessions and idle pipes, and schedules the next sweep. Does nothing if the
    /// sweep is not due yet.
    fn sweep_if_due(&mut self) {
        let now_ms = self.context.now_ms();
        if self.context.next_sweep_at_ms().is_none_or(|next_sweep_at_ms| now_ms < next_sweep_at_ms) {
            return;
        }
        let tcp_expiry = self.tcp.sweep(&mut self.context);
        let udp_expiry = self.udp.sweep(&self.context);
        self.context.io.pipes.close_idle_pipes();
        self.context.on_sweep_end(tcp_expiry.into_iter().chain(udp_expiry).min());
    }

    /// Counts the pipes, and schedules a sweep that closes idle pipes.
    fn count_pipes(&mut self) {
        let pipe_count = self.context.io.pipes.len();
        self.context.stats.pipe_count.store(pipe_count, Relaxed);
        if pipe_count > 0 {
            self.context.schedule_sweep(self.context.now_ms() + PIPE_IDLE_TIMEOUT_MS);
        }
    }

    /// Records whether the worker has completed the proxy's phase. In the closing phase, also closes the listeners
    /// after the handshake timeout.
    fn record_drain_progress(&mut self) {
        let now_ms = self.context.now_ms();
        if now_ms < self.next_drain_check_at_ms {
            return;
        }
        self.next_drain_check_at_ms = now_ms + DRAIN_CHECK_INTERVAL_MS;
        let is_complete = if self.context.phase == Phase::Draining {
            self.tcp.is_drained() && self.udp.is_silent_for(self.drain_udp_idle_timeout_ms, now_ms)
        } else {
            self.close_listeners_if_due();
            self.acceptor.is_closed()
                && self.tcp.is_silent_for(self.close_idle_timeout_ms, now_ms)
                && self.udp.is_silent_for(self.close_idle_timeout_ms, now_ms)
        };
        self.context.shared_state.drain.record_completion(
            self.context.index(),
            self.context.phase,
            is_complete,
        );
    }

    /// Closes the listeners after the handshake timeout. Accepts the waiting clients first.
    fn close_listeners_if_due(&mut self) {
        let listener_indices = self.acceptor.listeners_to_close(self.context.now_ms());
        if listener_indices.is_empty() {
            return;
        }
        for listener_index in listener_indices {
            while self.accept_client(listener_index) {}
        }
        self.acceptor.close_listeners();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_events_do_not_shorten_the_sweep_interval() {
        let shared_state = Arc::new(SharedState::for_test());
        let settings = Settings::for_this_host(0, 0);
        let stats = Arc::new(WorkerStats::new(0));
        let mut worker = Worker::new(shared_state, stats, 0, WorkerSockets::default(), &settings).unwrap();
        let mut sweep_times = Vec::new();
        for now_ms in 0..1_000 {
            worker.context.io.now_ms = now_ms;
            worker.context.schedule_sweep(now_ms);
            if worker.context.next_sweep_at_ms().is_some_and(|next_sweep_at_ms| next_sweep_at_ms <= now_ms) {
                sweep_times.push(now_ms);
            }
            worker.sweep_if_due();
        }
        assert_eq!(sweep_times, [0, 250, 500, 750]);
        // The worker sweeps only after another call of `schedule_sweep`, because nothing can expire before this call.
        worker.context.io.now_ms = 2_000;
        worker.sweep_if_due();
        assert_eq!(worker.context.next_sweep_at_ms(), None);
    }
}
