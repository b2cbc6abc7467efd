//! The settings of the soak: its duration and its random seed. Reads the environment.

use std::time::Duration;

use e2e::Failure;
use fastrand::Rng;

/// The environment variable with the random seed. To repeat a failed run, set the variable to the seed of that run.
pub(crate) const SEED_VARIABLE: &str = "AKROBATEO_E2E_SEED";
/// The environment variable with the duration of the changes and faults in minutes.
const MINUTES_VARIABLE: &str = "AKROBATEO_E2E_SOAK_MINUTES";
const DEFAULT_MINUTES: u64 = 30;
/// In a run of the default duration, the memory is measured for the first time after 5 minutes.
const BASELINE_DIVISOR: u32 = 6;
/// The time limit for the preparation, for the changes that take effect late, and for the checks at the end.
const TIME_FOR_CHECKS: Duration = Duration::from_mins(25);

/// The settings of the soak.
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// The duration of the changes and faults.
    pub(crate) duration: Duration,
}

impl Settings {
    pub(crate) fn read() -> Result<Self, Failure> {
        let seed = read_number(SEED_VARIABLE)?.unwrap_or_else(|| Rng::new().u64(..));
        let minutes = read_number(MINUTES_VARIABLE)?.unwrap_or(DEFAULT_MINUTES);
        Ok(Self { seed, duration: Duration::from_mins(minutes) })
    }

    /// Returns the time from the first change to the first measurement of the memory.
    pub(crate) fn time_until_baseline(&self) -> Duration {
        self.duration / BASELINE_DIVISOR
    }

    /// Returns the time limit of the whole test.
    pub(crate) fn time_limit(&self) -> Duration {
        self.duration + TIME_FOR_CHECKS
    }
}

fn read_number(variable: &str) -> Result<Option<u64>, Failure> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    let number = text.parse().map_err(|_| {
        Failure::UnexpectedState(format!("{variable}={text:?} is not a number; expected digits only"))
    })?;
    Ok(Some(number))
}
