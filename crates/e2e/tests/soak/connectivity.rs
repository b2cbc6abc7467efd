//! The connectivity of the node that faults cut, and the requests that may fail because of a cut. Pure.

use std::cell::{Cell, RefCell};

use e2e::{Failure, ensure};
use tokio::time::Instant;

/// The maximum number of failed requests. After more failures, the test ends early.
const MAX_FAILED_REQUESTS: usize = 100;

/// The connectivity of the third node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connectivity {
    Connected,
    Cut,
    /// The node was connected again at this time, and has not answered all requests again yet.
    Recovering(Instant),
}

/// The connectivity of the third node, and the number of its cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectivityState {
    connectivity: Connectivity,
    cut_count: u32,
}

/// The connectivity of the third node, and the results of all requests. The faults and the requests share this object.
pub(crate) struct RequestLog {
    state: Cell<ConnectivityState>,
    /// The time at which the last successful round of requests to the third node started.
    last_successful_round: Cell<Option<Instant>>,
    sent_requests: Cell<usize>,
    failed_requests_during_cuts: Cell<usize>,
    failures: RefCell<Vec<String>>,
}

impl RequestLog {
    pub(crate) fn new() -> Self {
        let state = ConnectivityState { connectivity: Connectivity::Connected, cut_count: 0 };
        Self {
            state: Cell::new(state),
            last_successful_round: Cell::new(None),
            sent_requests: Cell::new(0),
            failed_requests_during_cuts: Cell::new(0),
            failures: RefCell::default(),
        }
    }

    /// Returns the connectivity of the third node.
    pub(crate) fn state(&self) -> ConnectivityState {
        self.state.get()
    }

    /// Records a change of the third node's connectivity.
    pub(crate) fn set_connectivity(&self, connectivity: Connectivity) {
        let cut_count = self.state.get().cut_count + u32::from(connectivity == Connectivity::Cut);
        self.state.set(ConnectivityState { connectivity, cut_count });
    }

    /// Checks that the third node has answered a whole round of requests after its recovery started.
    pub(crate) fn ensure_answers_again(&self) -> Result<(), Failure> {
        let has_answered = match self.state.get().connectivity {
            Connectivity::Recovering(connected_at) => self.last_successful_round.get() > Some(connected_at),
            Connectivity::Connected | Connectivity::Cut => false,
        };
        ensure(has_answered, || "not all requests to the node were answered yet".to_owned())
    }

    /// Records a round of requests to the nodes that are never cut.
    pub(crate) fn record_round(&self, sent_requests: usize, failures: Vec<String>) -> Result<(), Failure> {
        self.sent_requests.set(self.sent_requests.get() + sent_requests);
        for failure in &failures {
            println!("failed request to an untouched Service: {failure}");
        }
        self.failures.borrow_mut().extend(failures);
        ensure(self.failures.borrow().len() <= MAX_FAILED_REQUESTS, || self.describe_failures())
    }

    /// Records a round of requests to the third node. The requests may fail if the node was not connected for the whole
    /// time.
    pub(crate) fn record_round_to_third_node(
        &self,
        (started_at, state_at_start): (Instant, ConnectivityState),
        sent_requests: usize,
        failures: Vec<String>,
    ) -> Result<(), Failure> {
        if failures.is_empty() {
            self.last_successful_round.set(Some(started_at));
        }
        if state_at_start == self.state.get() && state_at_start.connectivity == Connectivity::Connected {
            return self.record_round(sent_requests, failures);
        }
        self.failed_requests_during_cuts.set(self.failed_requests_during_cuts.get() + failures.len());
        self.record_round(sent_requests, Vec::new())
    }

    /// Checks that only requests to a cut node have failed.
    pub(crate) fn ensure_no_unexpected_failure(&self) -> Result<(), Failure> {
        ensure(self.failures.borrow().is_empty(), || self.describe_failures())
    }

    /// Returns the numbers of requests for the summary.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} requests to untouched Services, {} failed during a cut of their node, {} failed otherwise",
            self.sent_requests.get(),
            self.failed_requests_during_cuts.get(),
            self.failures.borrow().len()
        )
    }

    fn describe_failures(&self) -> String {
        let failures = self.failures.borrow();
        format!(
            "{} requests to untouched Services failed, expected none: {}",
            failures.len(),
            failures.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_failure(log: &RequestLog, state_at_start: ConnectivityState) {
        let round = (Instant::now(), state_at_start);
        log.record_round_to_third_node(round, 1, vec!["no answer".to_owned()]).unwrap();
    }

    #[test]
    fn request_fails_unexpectedly_if_its_node_is_connected() {
        let log = RequestLog::new();
        record_failure(&log, log.state());
        assert!(log.ensure_no_unexpected_failure().is_err());
    }

    #[test]
    fn request_may_fail_if_a_cut_starts_or_ends_meanwhile() {
        let log = RequestLog::new();
        let connected = log.state();
        log.set_connectivity(Connectivity::Cut);
        record_failure(&log, connected);
        let cut = log.state();
        log.set_connectivity(Connectivity::Connected);
        record_failure(&log, cut);
        record_failure(&log, connected);
        log.ensure_no_unexpected_failure().unwrap();
        assert_eq!(log.failed_requests_during_cuts.get(), 3);
    }

    #[test]
    fn node_answers_again_after_a_successful_round() {
        let log = RequestLog::new();
        let before_recovery = Instant::now();
        log.set_connectivity(Connectivity::Cut);
        log.set_connectivity(Connectivity::Recovering(Instant::now()));
        let cases = [
            (before_recovery, vec![], false),
            (Instant::now(), vec!["no answer".to_owned()], false),
            (Instant::now(), vec![], true),
        ];
        for (started_at, failures, is_recovered) in cases {
            log.record_round_to_third_node((started_at, log.state()), 1, failures).unwrap();
            assert_eq!(log.ensure_answers_again().is_ok(), is_recovered);
        }
    }
}
