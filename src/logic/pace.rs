//! Lets small writes gather. A command that writes a line at a time, thousands of them in a row, would have us woken
//! for nearly every one: three system calls for a hundred bytes. Once its lines are seen to follow each other closely, we
//! rest a moment after each batch and find many lines at once; the first of a burst is never held up. A rest is too
//! short to be noticed at the status port or by a reader, and is given up where it gathers nothing: a command that
//! waits for an answer to each of its lines must not be slowed down.

use std::time::{Duration, Instant};

/// Turns that begin this soon after one another are close.
const CLOSE: Duration = Duration::from_micros(250);
/// A turn that brought more gains nothing from a rest.
const LITTLE: usize = 4 * 1024;
/// A rest that gathered less was not worth it.
const WORTH: usize = 1024;
/// A rest is made longer until it gathers this much,
const PLENTY: usize = 32 * 1024;
/// and shorter where it gathers more than this, lest the command finds its pipe full.
const ENOUGH: usize = 48 * 1024;
/// So many close turns before the first rest; after each one that was not worth it twice as many, up to the last.
const PATIENCE: u32 = 8;
const MOST_PATIENCE: u32 = 8 * 1024;
/// The kernel adds its slack of 50 us, and the fastest writers of lines fill half a pipe in that time.
const SHORT: Duration = Duration::from_micros(25);
/// The longest time that the status port may have to wait for it.
const LONG: Duration = Duration::from_micros(400);

/// How one stream's output comes.
#[derive(Debug)]
pub struct Pace {
    /// When the last turn began.
    last: Option<Instant>,
    /// So many turns in a row were close and brought little.
    close: u32,
    patience: u32,
    /// The rest that was asked for last.
    rest: Option<Duration>,
}

impl Default for Pace {
    /// Of a stream that has said nothing.
    fn default() -> Pace {
        Pace { last: None, close: 0, patience: PATIENCE, rest: None }
    }
}

impl Pace {
    /// How long to rest before the next turn, if at all.
    pub fn rest(&self) -> Option<Duration> {
        self.rest
    }

    /// A turn that began at `now` found so many bytes in the pipe.
    pub fn turn(&mut self, now: Instant, bytes: usize) {
        let before = self.last.replace(now);
        self.rest = match self.rest {
            Some(_) if bytes < WORTH => {
                self.patience = (2 * self.patience).min(MOST_PATIENCE);
                None
            }
            Some(rest) => {
                self.patience = PATIENCE;
                match bytes {
                    ..PLENTY => Some((rest * 2).min(LONG)),
                    PLENTY..ENOUGH => Some(rest),
                    _ => Some(rest / 2).filter(|rest| *rest >= SHORT),
                }
            }
            None => {
                let close = before.is_some_and(|before| now.saturating_duration_since(before) < CLOSE);
                self.close = if close && bytes < LITTLE { self.close + 1 } else { 0 };
                (self.close >= self.patience).then_some(SHORT)
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

    /// Turns this far apart that bring so much each: in how many of them it rests.
    fn rests(
        pace: &mut Pace,
        start: Instant,
        turns: u32,
        apart: Duration,
        bytes: impl Fn(bool) -> usize,
    ) -> u32 {
        let (mut rests, mut rested) = (0, false);
        for turn in 1..=turns {
            pace.turn(start + apart * turn, bytes(rested));
            rested = pace.rest().is_some();
            rests += u32::from(rested);
        }
        rests
    }

    fn start() -> Instant {
        epoch().mono
    }

    const SOON: Duration = Duration::from_micros(10);

    #[test]
    fn lines_that_follow_closely_are_gathered_and_the_first_are_not_held_up() {
        let gathers = |rested| if rested { 10_000 } else { 100 };
        assert_eq!(rests(&mut Pace::default(), start(), PATIENCE, SOON, gathers), 0);
        assert_eq!(rests(&mut Pace::default(), start(), 1_000, SOON, gathers), 1_000 - PATIENCE);
    }

    #[test]
    fn lines_that_come_now_and_then_are_passed_on_at_once() {
        assert_eq!(rests(&mut Pace::default(), start(), 1_000, CLOSE, |_| 100), 0);
    }

    #[test]
    fn large_writes_are_passed_on_at_once() {
        assert_eq!(rests(&mut Pace::default(), start(), 1_000, SOON, |_| LITTLE), 0);
    }

    #[test]
    fn a_command_that_waits_for_answers_is_held_up_rarely() {
        // Whatever we do, each turn brings one line.
        let rests = rests(&mut Pace::default(), start(), 100_000, SOON, |_| 100);
        assert!((5..25).contains(&rests), "{rests} rests");
    }

    #[test]
    fn rests_are_as_long_as_it_takes_to_gather_and_bounded() {
        let (mut pace, start) = (Pace::default(), start());
        assert_eq!(rests(&mut pace, start, PATIENCE + 1, SOON, |_| 100), 1);
        let mut after = |bytes| {
            pace.turn(start, bytes);
            pace.rest()
        };
        assert_eq!(after(WORTH), Some(2 * SHORT));
        assert_eq!(after(PLENTY), Some(2 * SHORT));
        for _ in 0..10 {
            after(WORTH);
        }
        assert_eq!(after(WORTH), Some(LONG));
        assert_eq!(after(ENOUGH), Some(LONG / 2));
        for _ in 0..10 {
            after(ENOUGH);
        }
        assert_eq!(after(ENOUGH), None, "it has its fill without a rest");
    }
}
