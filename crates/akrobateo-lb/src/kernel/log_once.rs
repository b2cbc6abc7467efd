//! Limits a repeated log message to one per incident. Pure.

/// Permits one log message. Permits another message only after a reset.
#[derive(Debug, Default)]
pub(super) struct LogOnce {
    is_message_logged: bool,
}

impl LogOnce {
    /// Returns true if the message has not been logged since the last reset, and records it as logged.
    pub(super) fn permit_message(&mut self) -> bool {
        !std::mem::replace(&mut self.is_message_logged, true)
    }

    /// Permits the message again, because the incident is over.
    pub(super) fn reset(&mut self) {
        self.is_message_logged = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_once_permits_one_message_until_reset() {
        let mut log_once = LogOnce::default();
        assert_eq!([log_once.permit_message(), log_once.permit_message()], [true, false]);
        log_once.reset();
        assert_eq!([log_once.permit_message(), log_once.permit_message()], [true, false]);
    }
}
