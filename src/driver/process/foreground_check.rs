//! When to check, after a start, whether the command still has the terminal.
//!
//! bash has every process of a pipeline put the job's group into the foreground before its exec. A sibling that runs late
//! does so after kapo has given the terminal to the command, which takes the terminal away from it. No signal reports
//! that, and the command may be stopped as soon as it reads: kapo is not told if the process that reads is not its child.

use std::time::{Duration, Instant};

/// The pause before the first check; each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause. The last check is 1.27 s after the start; a sibling that runs even later is not expected.
const LAST_PAUSE: Duration = Duration::from_millis(640);

/// The next check, if there is one.
#[derive(Debug, Default)]
pub(crate) struct ForegroundCheck(Option<(Instant, Duration)>);

impl ForegroundCheck {
    /// The command has got the terminal with its start.
    pub(crate) fn start(&mut self, now: Instant) {
        self.0 = Some((now + FIRST_PAUSE, FIRST_PAUSE));
    }

    /// No check is needed any more.
    pub(crate) fn stop(&mut self) {
        self.0 = None;
    }

    /// When the next check is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    /// Whether a check is due, and plans the one after it.
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
