//! Derives from the answers to probes whether one path to a peer works. Pure.

use std::time::{Duration, Instant};

/// The interval between probes of a path after the result is known.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// The time after which an answer counts as missing.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The interval between probes while the result is not known yet, and during a pause of the peer.
const PROBE_INTERVAL_WHILE_UNDECIDED: Duration = Duration::from_millis(300);
/// The number of missing answers in a row after which a path is lost.
const MISSING_ANSWERS_UNTIL_LOST: u32 = 3;
/// The number of answers in a row after which a new path works.
const ANSWERS_UNTIL_WORKING: u32 = 2;
/// The time without missing answers after which a path works again, if the path was lost once. Each later loss doubles
/// the time.
const FIRST_PENALTY_TIME: Duration = Duration::from_secs(5);
/// The maximum of the time without missing answers, for a path that was lost often.
const MAX_PENALTY_TIME: Duration = Duration::from_mins(5);
/// The time after which the earlier losses of a working path are forgotten.
const LOSS_RETENTION_TIME: Duration = Duration::from_mins(10);

/// A path to a peer that keeps the client's address. The first variant is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerPath {
    /// Packets are not encapsulated. Replies go to the MAC address of the node that has forwarded the request.
    Direct,
    /// Packets go through the VXLAN device.
    Tunnel,
}

impl PeerPath {
    /// All paths, the preferred path first.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Tunnel];
}

/// The state of a path according to its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathResult {
    /// The first probes are not finished.
    Undecided,
    /// Probes are answered.
    Works,
    /// The path does not exist, or its probes are not answered.
    Fails,
}

/// The results of all paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathResults([PathResult; 2]);

impl PathResults {
    pub(super) const fn new(result: PathResult) -> Self {
        Self([result; 2])
    }

    pub(super) const fn get(self, path: PeerPath) -> PathResult {
        self.0[path as usize]
    }

    pub(super) const fn set(&mut self, path: PeerPath, result: PathResult) {
        self.0[path as usize] = result;
    }
}

/// The state of one path to one peer.
#[derive(Clone, Debug)]
pub(super) struct PathState {
    is_working: bool,
    /// True if the last full-size probe was not answered, but the small probe was answered.
    pub(super) passes_only_small_packets: bool,
    /// The number of missing answers since the last answer.
    missing_answers: u32,
    /// The number of answers since the last missing answer.
    answers_in_a_row: u32,
    /// The time of the first answer since the last missing answer.
    first_answer_at: Option<Instant>,
    loss_count: u32,
    works_since: Option<Instant>,
    next_probe_at: Instant,
    outstanding_probe: Option<OutstandingProbe>,
}

/// A probe whose answer has not arrived yet.
#[derive(Clone, Copy, Debug)]
struct OutstandingProbe {
    nonce: u64,
    deadline: Instant,
    has_small_answer: bool,
}

impl PathState {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            is_working: false,
            passes_only_small_packets: false,
            missing_answers: 0,
            answers_in_a_row: 0,
            first_answer_at: None,
            loss_count: 0,
            works_since: None,
            next_probe_at: now,
            outstanding_probe: None,
        }
    }

    /// Returns the result of this node's probes.
    pub(super) const fn result(&self) -> PathResult {
        if self.is_working {
            PathResult::Works
        } else if self.missing_answers < MISSING_ANSWERS_UNTIL_LOST && self.loss_count == 0 {
            PathResult::Undecided
        } else {
            PathResult::Fails
        }
    }

    /// Returns true if the last probe was not answered.
    pub(super) const fn has_missing_answer(&self) -> bool {
        self.missing_answers > 0
    }

    /// Returns the time at which the next probe is due, or at which the outstanding answer counts as missing.
    pub(super) fn next_event_at(&self) -> Instant {
        self.outstanding_probe.map_or(self.next_probe_at, |outstanding_probe| outstanding_probe.deadline)
    }

    /// Returns true if a probe is due. The caller sends the probe, and then calls [`Self::on_sent`].
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        self.outstanding_probe.is_none() && self.next_probe_at <= now
    }

    /// Makes a probe due at once.
    pub(super) const fn probe_now(&mut self, now: Instant) {
        self.next_probe_at = now;
    }

    pub(super) fn on_sent(&mut self, nonce: u64, now: Instant) {
        let deadline = now + ANSWER_TIMEOUT;
        self.outstanding_probe = Some(OutstandingProbe { nonce, deadline, has_small_answer: false });
    }

    /// Counts a missing answer if the deadline of the outstanding probe has passed. `is_paused` is true if the peer has
    /// announced that its agent stops.
    pub(super) fn on_timer(&mut self, now: Instant, is_paused: bool) {
        let Some(outstanding_probe) =
            self.outstanding_probe.take_if(|outstanding_probe| now >= outstanding_probe.deadline)
        else {
            return;
        };
        self.passes_only_small_packets = outstanding_probe.has_small_answer;
        self.answers_in_a_row = 0;
        self.first_answer_at = None;
        // After the first missing answers the next probe follows at once, so that the result is known soon.
        self.next_probe_at =
            if self.missing_answers < MISSING_ANSWERS_UNTIL_LOST { now } else { now + PROBE_INTERVAL };
        if self.is_working && is_paused {
            self.next_probe_at = now + PROBE_INTERVAL_WHILE_UNDECIDED;
            return;
        }
        self.missing_answers = self.missing_answers.saturating_add(1);
        if self.is_working && self.missing_answers >= MISSING_ANSWERS_UNTIL_LOST {
            let has_worked_long =
                self.works_since.is_some_and(|since| now.duration_since(since) >= LOSS_RETENTION_TIME);
            self.loss_count = if has_worked_long { 1 } else { self.loss_count.saturating_add(1) };
            self.is_working = false;
            self.works_since = None;
        }
    }

    /// Counts an answer of full size. Returns false if the answer does not belong to the outstanding probe.
    pub(super) fn on_answer(&mut self, nonce: u64, now: Instant) -> bool {
        if self.outstanding_probe.is_none_or(|outstanding_probe| outstanding_probe.nonce != nonce) {
            return false;
        }
        self.outstanding_probe = None;
        self.passes_only_small_packets = false;
        self.missing_answers = 0;
        self.answers_in_a_row = self.answers_in_a_row.saturating_add(1);
        let first_answer_at = *self.first_answer_at.get_or_insert(now);
        let is_stable = now.duration_since(first_answer_at) >= self.penalty_time();
        if !self.is_working && self.answers_in_a_row >= ANSWERS_UNTIL_WORKING && is_stable {
            self.is_working = true;
            self.works_since = Some(now);
        }
        let is_decided = self.is_working || !is_stable;
        self.next_probe_at = now + if is_decided { PROBE_INTERVAL } else { PROBE_INTERVAL_WHILE_UNDECIDED };
        true
    }

    /// Records an answer to a small probe. Returns false if the answer does not belong to the outstanding probe.
    pub(super) fn on_small_answer(&mut self, nonce: u64) -> bool {
        match &mut self.outstanding_probe {
            Some(outstanding_probe) if outstanding_probe.nonce == nonce => {
                outstanding_probe.has_small_answer = true;
            }
            _ => return false,
        }
        true
    }

    /// Returns the time without a missing answer after which the path works again.
    fn penalty_time(&self) -> Duration {
        match self.loss_count.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                FIRST_PENALTY_TIME.saturating_mul(1 << doublings.min(16)).min(MAX_PENALTY_TIME)
            }
        }
    }
}
