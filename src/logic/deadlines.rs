//! The named deadlines of one command, in an array because they are few.

use std::time::{Duration, Instant};

/// The deadlines in the life of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// The TTL of the run has passed.
    Ttl,
    /// The time for the command or its leftover group to end after the stop signal has passed.
    Kill,
    /// The next check whether the leftover group of the last run is empty.
    CountGroup,
    /// The pause before the next start has passed.
    Start,
    /// The time for which the status is served after the end has passed.
    Linger,
    /// The oldest failed run no longer counts for flapping, because it is older than the time window.
    Flapping,
    /// The run has lasted long enough to end flapping.
    Stable,
    /// The command has missed a watchdog ping.
    Watchdog,
    /// The captured output may have been silent for too long.
    Silence,
    /// The drain is over.
    Drain,
    /// The command has had its time to print its state.
    Dump,
}

const ALL: [Deadline; 11] = [
    Deadline::Ttl,
    Deadline::Kill,
    Deadline::CountGroup,
    Deadline::Start,
    Deadline::Linger,
    Deadline::Flapping,
    Deadline::Stable,
    Deadline::Watchdog,
    Deadline::Silence,
    Deadline::Drain,
    Deadline::Dump,
];

/// At most one time for each [`Deadline`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines([Option<Instant>; ALL.len()]);

impl Deadlines {
    /// Sets a deadline to `now` plus `after`. A time that cannot be represented is never due.
    pub(crate) fn set(&mut self, which: Deadline, now: Instant, after: Duration) {
        if let Some(slot) = self.0.get_mut(which as usize) {
            *slot = now.checked_add(after);
        }
    }

    /// Clears a deadline.
    pub(crate) fn stop(&mut self, which: Deadline) {
        if let Some(slot) = self.0.get_mut(which as usize) {
            *slot = None;
        }
    }

    /// Returns the time of a deadline; `None` if it is not set.
    pub(crate) fn at(&self, which: Deadline) -> Option<Instant> {
        self.0.get(which as usize).copied().flatten()
    }

    /// Whether a deadline is set.
    pub(crate) fn is_set(&self, which: Deadline) -> bool {
        self.0.get(which as usize).is_some_and(Option::is_some)
    }

    /// Returns the earliest deadline; `None` if none is set.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes a deadline that is due, in the order of the enum, and how long it has been due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Deadline, Duration)> {
        let (which, slot) = ALL.iter().zip(&mut self.0).find(|(_, at)| at.is_some_and(|at| at <= now))?;
        Some((*which, now.saturating_duration_since(slot.take()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::tests::epoch;

    #[test]
    fn only_due_deadlines_are_taken() {
        let start = epoch().mono;
        let mut deadlines = Deadlines::default();
        deadlines.set(Deadline::Kill, start, Duration::from_secs(5));
        deadlines.set(Deadline::Ttl, start, Duration::from_secs(9));
        deadlines.set(Deadline::Start, start, Duration::MAX);
        assert_eq!(deadlines.next(), Some(start + Duration::from_secs(5)));
        assert_eq!(deadlines.take_due(start), None);
        let due = deadlines.take_due(start + Duration::from_secs(6));
        assert_eq!(due, Some((Deadline::Kill, Duration::from_secs(1))));
        assert_eq!(deadlines.take_due(start + Duration::from_secs(5)), None);
        deadlines.stop(Deadline::Ttl);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn each_deadline_has_its_own_slot() {
        for (place, which) in ALL.into_iter().enumerate() {
            assert_eq!(which as usize, place);
        }
    }
}
