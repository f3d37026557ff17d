//! Named deadlines of one life: set, stopped, asked for the next, taken when due. Few enough for an array.

use std::time::{Duration, Instant};

/// What can fall due in the life of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// The run has lasted as long as it may.
    Ttl,
    /// The command, or what it has left of its process group, has ignored the stop signal for long enough.
    Kill,
    /// It is time to look whether the process group of the last run is empty.
    CountGroup,
    /// The pause before the next start is over.
    Start,
    /// The time to answer on after the end is over.
    Linger,
    /// The oldest of the failed runs that make it flapping leaves the window.
    Flapping,
    /// The run has lasted long enough to end flapping.
    Stable,
    /// The command has not pinged.
    Watchdog,
}

const ALL: [Deadline; 8] = [
    Deadline::Ttl,
    Deadline::Kill,
    Deadline::CountGroup,
    Deadline::Start,
    Deadline::Linger,
    Deadline::Flapping,
    Deadline::Stable,
    Deadline::Watchdog,
];

/// At most one moment for each [`Deadline`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Deadlines([Option<Instant>; ALL.len()]);

impl Deadlines {
    /// Due `after` from `now`; what is too far away to be counted is never due.
    pub(crate) fn set(&mut self, which: Deadline, now: Instant, after: Duration) {
        if let Some(slot) = self.0.get_mut(which as usize) {
            *slot = now.checked_add(after);
        }
    }

    /// Not due any more.
    pub(crate) fn stop(&mut self, which: Deadline) {
        if let Some(slot) = self.0.get_mut(which as usize) {
            *slot = None;
        }
    }

    /// When it will be due.
    pub(crate) fn at(&self, which: Deadline) -> Option<Instant> {
        self.0.get(which as usize).copied().flatten()
    }

    /// Whether it will be due some day.
    pub(crate) fn is_set(&self, which: Deadline) -> bool {
        self.0.get(which as usize).is_some_and(Option::is_some)
    }

    /// The earliest; `None`: nothing will ever be due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one that is due, and for how long it has been, the order being that of the enum.
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
    fn the_earliest_comes_first_and_only_what_is_due_is_taken() {
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
    fn each_has_a_place_of_its_own() {
        for (place, which) in ALL.into_iter().enumerate() {
            assert_eq!(which as usize, place);
        }
    }
}
