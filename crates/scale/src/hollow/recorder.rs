//! Records when the tables of all agents contain a changed endpoint. Prints a line for each complete change. Does I/O.

use std::collections::HashMap;
use std::fmt;
use std::io::{Write, stdout};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A changed endpoint that the tables of all agents contain. Its text is one line of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppliedChange {
    /// The number of the change.
    pub(crate) number: u32,
    /// The time since 1970 at which the last agent changed its table.
    pub(crate) time: Duration,
}

impl fmt::Display for AppliedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.time.as_micros())
    }
}

impl FromStr for AppliedChange {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, time) = line.split_once(' ')?;
            Some(Self { number: number.parse().ok()?, time: Duration::from_micros(time.parse().ok()?) })
        };
        parse().ok_or_else(|| format!("{line:?} is not a number and a time"))
    }
}

/// Counts the agents whose tables contain each change.
#[derive(Debug)]
pub(super) struct Recorder {
    agent_count: usize,
    /// The number of agents by the number of the change. A change leaves the map when all agents have it.
    counts: Mutex<HashMap<u32, usize>>,
}

impl Recorder {
    pub(super) fn new(agent_count: usize) -> Self {
        Self { agent_count, counts: Mutex::default() }
    }

    /// Records that one more agent has this change.
    pub(super) fn record(&self, number: u32) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(number).or_default();
        *count += 1;
        if *count < self.agent_count {
            return;
        }
        counts.remove(&number);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // If the measurement has ended, no process reads the line.
        let _ = writeln!(stdout().lock(), "{}", AppliedChange { number, time });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_contains_the_number_and_the_time() {
        let change = AppliedChange { number: 7, time: Duration::from_micros(1_234_567) };
        assert_eq!(change.to_string().parse(), Ok(change));
        assert!("7".parse::<AppliedChange>().unwrap_err().contains("not a number and a time"));
    }

    #[test]
    fn change_is_complete_when_all_agents_have_it() {
        let recorder = Recorder::new(2);
        recorder.record(1);
        recorder.record(2);
        assert_eq!(recorder.counts.lock().unwrap().len(), 2);
        recorder.record(1);
        assert_eq!(recorder.counts.lock().unwrap().keys().collect::<Vec<_>>(), [&2]);
    }
}
