//! One way to a peer: whether it works, from the answers to its probes. Pure.

use std::time::{Duration, Instant};

/// The interval between probes of a way that works, and of a way that does not.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// The time after which an answer counts as missing.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The interval between probes while a decision is near.
const FAST_INTERVAL: Duration = Duration::from_millis(300);
/// The number of missing answers in a row after which a way counts as lost.
const MISSES_UNTIL_LOST: u32 = 3;
/// The number of answers in a row after which a way counts as working.
const ANSWERS_UNTIL_WORKING: u32 = 2;
/// The time without a miss that a way needs after its first loss. It doubles with each further loss.
const FIRST_PENALTY: Duration = Duration::from_secs(5);
/// The largest time without a miss that a way needs.
const MAX_PENALTY: Duration = Duration::from_mins(5);
/// Earlier losses no longer count after a way has worked for this time.
const FORGET_LOSSES_AFTER: Duration = Duration::from_mins(10);

/// A way that keeps the client's address. The earlier way is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Without encapsulation; replies go to the MAC address of the node that has sent the request.
    Direct,
    /// Through the VXLAN device.
    Tunnel,
}

impl Way {
    /// All ways, the preferred way first.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Tunnel];
}

/// The result of the probes of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayResult {
    /// The first probes are not finished.
    Undecided,
    /// Probes are answered.
    Works,
    /// Probes are not answered, or the way does not exist.
    Fails,
}

/// The results of all ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Results([WayResult; 2]);

impl Results {
    pub(super) const fn new(result: WayResult) -> Self {
        Self([result; 2])
    }

    pub(super) const fn get(self, way: Way) -> WayResult {
        self.0[way as usize]
    }

    pub(super) const fn set(&mut self, way: Way, result: WayResult) {
        self.0[way as usize] = result;
    }
}

/// The state of one way to one peer.
#[derive(Clone, Debug)]
pub(super) struct WayState {
    works: bool,
    /// The last full-size probe was not answered, but a small one was.
    pub(super) answers_small: bool,
    misses: u32,
    answers: u32,
    first_answer: Option<Instant>,
    losses: u32,
    works_since: Option<Instant>,
    next_probe: Instant,
    outstanding: Option<Outstanding>,
}

/// A probe without an answer.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    nonce: u64,
    deadline: Instant,
    has_small_answer: bool,
}

impl WayState {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            works: false,
            answers_small: false,
            misses: 0,
            answers: 0,
            first_answer: None,
            losses: 0,
            works_since: None,
            next_probe: now,
            outstanding: None,
        }
    }

    /// Returns the result of this node's probes.
    pub(super) const fn result(&self) -> WayResult {
        if self.works {
            WayResult::Works
        } else if self.misses < MISSES_UNTIL_LOST && self.losses == 0 {
            WayResult::Undecided
        } else {
            WayResult::Fails
        }
    }

    /// Returns true if the last probe was not answered.
    pub(super) const fn has_missed(&self) -> bool {
        self.misses > 0
    }

    /// Returns the time at which the state needs attention: a probe is due, or an answer is missing.
    pub(super) fn next_event(&self) -> Instant {
        self.outstanding.map_or(self.next_probe, |outstanding| outstanding.deadline)
    }

    /// Returns true if a probe is due. The caller sends it and calls [`Self::on_sent`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.outstanding.is_none() && self.next_probe <= now
    }

    /// Requests a probe at once, because something has changed.
    pub(super) const fn probe_now(&mut self, now: Instant) {
        self.next_probe = now;
    }

    pub(super) fn on_sent(&mut self, nonce: u64, now: Instant) {
        let deadline = now + ANSWER_TIMEOUT;
        self.outstanding = Some(Outstanding { nonce, deadline, has_small_answer: false });
    }

    /// Counts a missing answer if its time is over. `is_paused` means that the peer has announced missing answers.
    pub(super) fn on_time(&mut self, now: Instant, is_paused: bool) {
        let Some(outstanding) = self.outstanding.take_if(|outstanding| now >= outstanding.deadline) else {
            return;
        };
        self.answers_small = outstanding.has_small_answer;
        self.answers = 0;
        self.first_answer = None;
        // The first misses are followed by probes at once, so that the decision comes soon.
        self.next_probe = if self.misses < MISSES_UNTIL_LOST { now } else { now + PROBE_INTERVAL };
        if self.works && is_paused {
            self.next_probe = now + FAST_INTERVAL;
            return;
        }
        self.misses = self.misses.saturating_add(1);
        if self.works && self.misses >= MISSES_UNTIL_LOST {
            let has_worked_long =
                self.works_since.is_some_and(|since| now.duration_since(since) >= FORGET_LOSSES_AFTER);
            self.losses = if has_worked_long { 1 } else { self.losses.saturating_add(1) };
            self.works = false;
            self.works_since = None;
        }
    }

    /// Counts an answer of full size. Returns false if it answers no outstanding probe.
    pub(super) fn on_answer(&mut self, nonce: u64, now: Instant) -> bool {
        if self.outstanding.is_none_or(|outstanding| outstanding.nonce != nonce) {
            return false;
        }
        self.outstanding = None;
        self.answers_small = false;
        self.misses = 0;
        self.answers = self.answers.saturating_add(1);
        let first_answer = *self.first_answer.get_or_insert(now);
        let is_stable = now.duration_since(first_answer) >= self.penalty();
        if !self.works && self.answers >= ANSWERS_UNTIL_WORKING && is_stable {
            self.works = true;
            self.works_since = Some(now);
        }
        let is_decided = self.works || !is_stable;
        self.next_probe = now + if is_decided { PROBE_INTERVAL } else { FAST_INTERVAL };
        true
    }

    /// Notes an answer to a small probe. Returns false if it answers no outstanding probe.
    pub(super) fn on_small_answer(&mut self, nonce: u64) -> bool {
        match &mut self.outstanding {
            Some(outstanding) if outstanding.nonce == nonce => outstanding.has_small_answer = true,
            _ => return false,
        }
        true
    }

    fn penalty(&self) -> Duration {
        match self.losses.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_PENALTY.saturating_mul(1 << doublings.min(16)).min(MAX_PENALTY),
        }
    }
}
