//! When to check, after a start, whether the command still has the terminal.
//!
//! bash lets every process of a pipeline put the job's group into the foreground before its exec. If a sibling does so
//! after kapo has given the terminal to the command, the command loses the terminal. No signal reports the loss, and
//! the command may be stopped at its next read. kapo does not notice that stop if the process that reads is not its
//! child.

use std::time::{Duration, Instant};

/// The pause before the first check. Each pause is twice as long as the previous one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause. The last check is 1.27 s after the start; by then every sibling should have executed its program.
const LAST_PAUSE: Duration = Duration::from_millis(640);

/// The schedule of the checks.
#[derive(Debug, Default)]
pub(crate) struct ForegroundCheck(Option<(Instant, Duration)>);

impl ForegroundCheck {
    /// Plans the checks after the command has got the terminal at its start.
    pub(crate) fn start(&mut self, now: Instant) {
        self.0 = Some((now + FIRST_PAUSE, FIRST_PAUSE));
    }

    /// Cancels the checks.
    pub(crate) fn stop(&mut self) {
        self.0 = None;
    }

    /// Returns when the next check is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    /// Returns whether a check is due, and plans the next one.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let Some((_, pause)) = self.0.filter(|(at, _)| *at <= now) else { return false };
        let pause = 2 * pause;
        self.0 = (pause <= LAST_PAUSE).then(|| (now + pause, pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::tests::epoch;

    #[test]
    fn the_foreground_is_checked_seven_times_after_a_start() {
        let start = epoch().mono;
        let mut check = ForegroundCheck::default();
        assert!(!check.take_due(start));
        check.start(start);
        assert!(!check.take_due(start));
        let mut moments = Vec::new();
        while let Some(at) = check.deadline() {
            assert!(check.take_due(at));
            moments.push((at - start).as_millis());
        }
        assert_eq!(moments, [10, 30, 70, 150, 310, 630, 1270]);
        check.start(start);
        check.stop();
        assert_eq!(check.deadline(), None);
    }
}
