//! Limits how often a repeated message is logged. Pure.

/// Shortest time between two log lines with the same message, in milliseconds.
const MIN_LOG_INTERVAL_MS: u64 = 10_000;

/// The rate limit of one message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateLimit {
    /// The earliest time of the next log line.
    next_log_line_at_ms: u64,
    /// Number of occurrences after the last logged line.
    occurrence_count: u64,
}

impl RateLimit {
    /// Counts one occurrence at the time `now_ms`, in milliseconds. If a line may be logged now, returns the number of
    /// occurrences since the previous logged line. This number includes the current occurrence.
    pub(super) const fn permit_line(&mut self, now_ms: u64) -> Option<u64> {
        self.occurrence_count += 1;
        if now_ms < self.next_log_line_at_ms {
            return None;
        }
        self.next_log_line_at_ms = now_ms + MIN_LOG_INTERVAL_MS;
        let occurrence_count = self.occurrence_count;
        self.occurrence_count = 0;
        Some(occurrence_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_permits_the_first_line_and_counts_the_suppressed_lines() {
        let mut limit = RateLimit::default();
        let permit_results: Vec<_> = [5, 6, 7, 5 + MIN_LOG_INTERVAL_MS, 6 + MIN_LOG_INTERVAL_MS]
            .map(|now_ms| limit.permit_line(now_ms))
            .into();
        assert_eq!(permit_results, [Some(1), None, None, Some(3), None]);
    }
}
