//! Decides when to retry an output that could not be written: at most once a second, because on a full disk each
//! attempt costs a system call that fails.

use std::time::{Duration, Instant};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The state of an output that has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    /// The last attempt; `None` if it was before the clock was read for the first time.
    tried: Option<Instant>,
}

impl Outage {
    /// Begins an outage after a failed attempt.
    pub(crate) fn new(now: Option<Instant>) -> Outage {
        Outage { tried: now }
    }

    /// Whether the next attempt may be made.
    pub(crate) fn is_due(self, now: Option<Instant>) -> bool {
        match (self.tried, now) {
            (Some(tried), Some(now)) => now.saturating_duration_since(tried) >= PAUSE,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_made_at_most_once_a_second() {
        #[expect(clippy::disallowed_methods, reason = "a test needs a start time")]
        let start = Instant::now();
        let outage = Outage::new(Some(start));
        for (milliseconds, due) in [(0, false), (999, false), (1_000, true), (86_400_000, true)] {
            assert_eq!(
                outage.is_due(Some(start + Duration::from_millis(milliseconds))),
                due,
                "{milliseconds}"
            );
        }
        assert!(!outage.is_due(None));
        assert!(!Outage::new(None).is_due(None) && Outage::new(None).is_due(Some(start)));
    }
}
