//! Coalesces small pieces of work. A command that writes thousands of single lines in a row would wake kapo for nearly
//! every line, which costs three system calls for a hundred bytes. Clients that connect one after another would wake
//! it twice each: once for the connection and once for the request, which has not arrived yet. Orphans that end one
//! after another would wake it once each.
//!
//! If pieces follow each other closely, kapo therefore pauses for some microseconds after each batch, so that the next
//! turn finds many at once. The first pieces of a burst are never delayed. The pause is too short to be noticed. It is
//! given up if it gathers nothing, so that a command or client that waits for the answer to each piece is not slowed
//! down.

use std::time::{Duration, Instant};

/// Largest value that [`Coalescer::patience`] grows to.
const MOST_PATIENCE: u32 = 8 * 1024;

/// The limits for one kind of work. The kernel adds its timer slack of 50 us to each pause.
#[derive(Debug)]
pub(crate) struct CoalesceLimits {
    /// Two turns are close if less than this time lies between their beginnings.
    close: Duration,
    /// Number of close turns in a row before the first pause. Doubled, up to a bound, after pauses that gathered too
    /// little.
    patience: u32,
    /// A turn that found this much work needs no pause.
    enough_alone: usize,
    /// A pause that gathers less than this is not worth its cost.
    worthwhile: usize,
    /// After this many pauses in a row that were not worth their cost, there are no more pauses.
    idle_limit: u32,
    /// The pause is lengthened while it gathers less than this.
    lengthen_below: usize,
    /// The pause is shortened if it gathers at least this much.
    shorten_from: usize,
    shortest: Duration,
    /// Longest pause. All other connections and streams wait for it, too.
    longest: Duration,
}

/// Limits for output, in bytes. The fastest writers of lines fill half a pipe during the shortest pause, and a command
/// should never find its pipe full.
pub(crate) const OUTPUT: CoalesceLimits = CoalesceLimits {
    close: Duration::from_micros(250),
    patience: 8,
    enough_alone: 4 * 1024,
    worthwhile: 1024,
    idle_limit: 1,
    lengthen_below: 32 * 1024,
    shorten_from: 48 * 1024,
    shortest: Duration::from_micros(25),
    longest: Duration::from_micros(400),
};

/// Limits for pages that are moved between pipes of one mebibyte, in bytes. While the command fills its pipe or the
/// reader empties the other one, splice would spin on the lock of that pipe. The command fills the pipe in about the
/// time of this pause.
pub(crate) const PAGES: CoalesceLimits = CoalesceLimits {
    close: Duration::from_millis(5),
    patience: 1,
    enough_alone: usize::MAX,
    worthwhile: 16 * 1024,
    idle_limit: 4,
    lengthen_below: 1,
    shorten_from: usize::MAX,
    shortest: Duration::from_micros(400),
    longest: Duration::from_micros(400),
};

/// Limits for connecting clients. The first client has sent its request before the pause is over. A longer pause would
/// gather more, but would delay clients that reconnect as soon as they have their answer.
pub(crate) const ARRIVALS: CoalesceLimits = CoalesceLimits {
    close: Duration::from_micros(250),
    patience: 8,
    enough_alone: 64,
    worthwhile: 3,
    idle_limit: 8,
    lengthen_below: 3,
    shorten_from: 64,
    shortest: Duration::from_micros(100),
    longest: Duration::from_micros(100),
};

/// Limits for orphans. Nobody waits for the end of an orphan, so the pauses are longer than the others. A signal that
/// arrives meanwhile is handled after the pause.
pub(crate) const ORPHANS: CoalesceLimits = CoalesceLimits {
    close: Duration::from_millis(2),
    patience: 8,
    enough_alone: 64,
    worthwhile: 2,
    idle_limit: 3,
    lengthen_below: 64,
    shorten_from: 512,
    shortest: Duration::from_micros(500),
    longest: Duration::from_millis(2),
};

/// Measures the arrival of one kind of work and decides when to pause.
#[derive(Debug)]
pub(crate) struct Coalescer {
    limits: &'static CoalesceLimits,
    /// The beginning of the last turn.
    last: Option<Instant>,
    /// Number of turns in a row that were close and found little.
    close: u32,
    patience: u32,
    /// The current pause; `None`: no pause.
    rest: Option<Duration>,
    /// Number of pauses in a row that were not worth their cost.
    idle: u32,
}

impl Coalescer {
    /// Returns the state before the first turn.
    pub(crate) fn new(limits: &'static CoalesceLimits) -> Coalescer {
        Coalescer { limits, last: None, close: 0, patience: limits.patience, rest: None, idle: 0 }
    }

    /// Returns how long to pause before the next turn; `None`: not at all.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.rest
    }

    /// Records a turn that began at `now` and found `found` units of work.
    pub(crate) fn turn(&mut self, now: Instant, found: usize) {
        let CoalesceLimits {
            close,
            patience,
            enough_alone,
            worthwhile,
            idle_limit,
            lengthen_below,
            shorten_from,
            shortest,
            longest,
        } = *self.limits;
        let before = self.last.replace(now);
        self.rest = match self.rest {
            Some(rest) if found < worthwhile => {
                self.idle += 1;
                if self.idle < idle_limit {
                    Some(rest)
                } else {
                    self.idle = 0;
                    self.patience = (2 * self.patience).min(MOST_PATIENCE);
                    None
                }
            }
            Some(rest) => {
                self.idle = 0;
                self.patience = patience;
                if found < lengthen_below {
                    Some((rest * 2).min(longest))
                } else if found < shorten_from {
                    Some(rest)
                } else {
                    Some(rest / 2).filter(|rest| *rest >= shortest)
                }
            }
            None => {
                let is_close = before.is_some_and(|before| now.saturating_duration_since(before) < close);
                self.close = if is_close && found < enough_alone { self.close + 1 } else { 0 };
                (self.close >= self.patience).then_some(shortest)
            }
        };
        if self.rest.is_some() {
            self.close = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::tests::epoch;

    /// Simulates turns at a fixed interval, each of which finds the same amount of work. Returns the number of turns
    /// with a pause.
    fn pauses(
        pace: &mut Coalescer,
        start: Instant,
        turns: u32,
        apart: Duration,
        found: impl Fn(bool) -> usize,
    ) -> u32 {
        let (mut pauses, mut rested) = (0, false);
        for turn in 1..=turns {
            pace.turn(start + apart * turn, found(rested));
            rested = pace.rest().is_some();
            pauses += u32::from(rested);
        }
        pauses
    }

    fn start() -> Instant {
        epoch().mono
    }

    const SOON: Duration = Duration::from_micros(10);

    #[test]
    fn close_lines_are_gathered_and_the_first_are_not_delayed() {
        let gathers = |rested| if rested { 10_000 } else { 100 };
        assert_eq!(pauses(&mut Coalescer::new(&OUTPUT), start(), OUTPUT.patience, SOON, gathers), 0);
        assert_eq!(
            pauses(&mut Coalescer::new(&OUTPUT), start(), 1_000, SOON, gathers),
            1_000 - OUTPUT.patience
        );
    }

    #[test]
    fn occasional_lines_are_forwarded_at_once() {
        assert_eq!(pauses(&mut Coalescer::new(&OUTPUT), start(), 1_000, OUTPUT.close, |_| 100), 0);
    }

    #[test]
    fn large_writes_are_forwarded_at_once() {
        assert_eq!(pauses(&mut Coalescer::new(&OUTPUT), start(), 1_000, SOON, |_| OUTPUT.enough_alone), 0);
    }

    #[test]
    fn a_command_that_waits_for_answers_is_rarely_delayed() {
        // Each turn finds one line, whether there was a pause or not.
        let pauses = pauses(&mut Coalescer::new(&OUTPUT), start(), 100_000, SOON, |_| 100);
        assert!((5..25).contains(&pauses), "{pauses} pauses");
    }

    #[test]
    fn pauses_are_as_long_as_needed_and_bounded() {
        let (mut pace, start) = (Coalescer::new(&OUTPUT), start());
        assert_eq!(pauses(&mut pace, start, OUTPUT.patience + 1, SOON, |_| 100), 1);
        let mut after = |bytes| {
            pace.turn(start, bytes);
            pace.rest()
        };
        assert_eq!(after(OUTPUT.worthwhile), Some(2 * OUTPUT.shortest));
        assert_eq!(after(OUTPUT.lengthen_below), Some(2 * OUTPUT.shortest));
        for _ in 0..10 {
            after(OUTPUT.worthwhile);
        }
        assert_eq!(after(OUTPUT.worthwhile), Some(OUTPUT.longest));
        assert_eq!(after(OUTPUT.shorten_from), Some(OUTPUT.longest / 2));
        for _ in 0..10 {
            after(OUTPUT.shorten_from);
        }
        assert_eq!(after(OUTPUT.shorten_from), None, "it finds enough without a pause");
    }

    #[test]
    fn a_burst_of_clients_is_gathered_even_if_some_pauses_find_few() {
        let (mut pace, start, mut pauses) = (Coalescer::new(&ARRIVALS), start(), 0);
        for turn in 1..=1_000 {
            // Every fourth time there is only one.
            pace.turn(start + SOON * turn, if turn % 4 == 0 { 1 } else { 6 });
            pauses += u32::from(pace.rest() == Some(ARRIVALS.shortest));
        }
        assert_eq!(pauses, 1_001 - ARRIVALS.patience - 1);
    }

    #[test]
    fn a_few_clients_that_reconnect_are_rarely_delayed() {
        for clients in 1..ARRIVALS.worthwhile {
            let pauses = pauses(&mut Coalescer::new(&ARRIVALS), start(), 100_000, SOON, |_| clients);
            assert!((5 * ARRIVALS.idle_limit..25 * ARRIVALS.idle_limit).contains(&pauses), "{pauses} pauses");
        }
    }

    #[test]
    fn orphans_are_gathered_only_in_a_storm() {
        let mut pace = Coalescer::new(&ORPHANS);
        let gathered = pauses(&mut pace, start(), 100, SOON, |rested| if rested { 40 } else { 1 });
        assert_eq!((gathered, pace.rest()), (101 - ORPHANS.patience - 1, Some(ORPHANS.longest)));
        // The storm is over.
        let after = start() + Duration::from_secs(1);
        assert_eq!(pauses(&mut pace, after, 1_000, ORPHANS.close, |_| 1), ORPHANS.idle_limit - 1);
    }

    #[test]
    fn occasional_connections_are_served_at_once() {
        assert_eq!(pauses(&mut Coalescer::new(&ARRIVALS), start(), 1_000, ARRIVALS.close, |_| 40), 0);
    }
}
