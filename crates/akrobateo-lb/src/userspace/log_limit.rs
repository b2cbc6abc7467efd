//! Keeps what happens a thousand times a second from being logged as often. Pure.

/// Shortest time between two lines about the same, in milliseconds.
const PAUSE: u64 = 10_000;

/// Lines about one thing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateLimit {
    /// When the next line may come.
    next: u64,
    kept_back: u64,
}

impl RateLimit {
    /// Whether to log now; if so, how often it happened since the last line.
    pub(super) const fn happened(&mut self, now: u64) -> Option<u64> {
        self.kept_back += 1;
        if now < self.next {
            return None;
        }
        self.next = now + PAUSE;
        let times = self.kept_back;
        self.kept_back = 0;
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let mut complaint = RateLimit::default();
        let told: Vec<_> = [5, 6, 7, 5 + PAUSE, 6 + PAUSE].map(|now| complaint.happened(now)).into();
        assert_eq!(told, [Some(1), None, None, Some(3), None]);
    }
}
