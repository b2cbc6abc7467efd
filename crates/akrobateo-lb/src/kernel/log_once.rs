//! Limits a repeated log message to one per incident. Pure.

/// Permits one log message. Permits another message only after a reset.
#[derive(Debug, Default)]
pub(super) struct LogOnce {
    is_logged: bool,
}

impl LogOnce {
    /// Returns true if the message has not been logged since the last reset, and records it as logged.
    pub(super) fn permit(&mut self) -> bool {
        !std::mem::replace(&mut self.is_logged, true)
    }

    /// Permits the message again, because the incident is over.
    pub(super) fn reset(&mut self) {
        self.is_logged = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_once_permits_one_message_until_reset() {
        let mut log_once = LogOnce::default();
        assert_eq!([log_once.permit(), log_once.permit()], [true, false]);
        log_once.reset();
        assert_eq!([log_once.permit(), log_once.permit()], [true, false]);
    }
}
