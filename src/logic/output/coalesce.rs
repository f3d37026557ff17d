//! Lets small pieces of work gather. A command that writes a line at a time, thousands of them in a row, would have us
//! woken for nearly every one: three system calls for a hundred bytes. So would clients that connect one after another,
//! twice each: to be let in, and for a request that is not there yet. Once pieces are seen to follow each other closely,
//! we rest a moment after each batch and find many at once; the first of a burst is never held up. A rest is too short to
//! be noticed by anybody, and is given up where it gathers nothing: who waits for the answer to each piece must not be
//! slowed down.

use std::time::{Duration, Instant};

/// The most that [`CoalesceLimits::patience`] grows to.
const MOST_PATIENCE: u32 = 8 * 1024;

/// How work of one kind is measured. To each rest the kernel adds its slack of 50 us.
#[derive(Debug)]
pub(crate) struct CoalesceLimits {
    /// Turns that begin this soon after one another are close.
    close: Duration,
    /// So many close turns before the first rest; after those that were not worth it twice as many, up to a bound.
    patience: u32,
    /// A turn that brought this much gains nothing from a rest.
    enough_alone: usize,
    /// A rest that gathered less was not worth it;
    worth: usize,
    /// so many of them in a row, and there are no more.
    tries: u32,
    /// A rest is made longer until it gathers this much,
    plenty: usize,
    /// and shorter where it gathers more than this.
    too_much: usize,
    shortest: Duration,
    /// As long as everybody else may have to wait for it.
    longest: Duration,
}

/// Output, in bytes. The fastest writers of lines fill half a pipe in the shortest rest; no command should find its pipe
/// full.
pub(crate) const OUTPUT: CoalesceLimits = CoalesceLimits {
    close: Duration::from_micros(250),
    patience: 8,
    enough_alone: 4 * 1024,
    worth: 1024,
    tries: 1,
    plenty: 32 * 1024,
    too_much: 48 * 1024,
    shortest: Duration::from_micros(25),
    longest: Duration::from_micros(400),
};

/// Pages that are moved between pipes of a mebibyte, in bytes. While the command fills its pipe, or the reader empties
/// his, a move would wait for the lock of that pipe, and wait busily; a pipe is filled in about the time of this rest.
pub(crate) const PAGES: CoalesceLimits = CoalesceLimits {
    close: Duration::from_millis(5),
    patience: 1,
    enough_alone: usize::MAX,
    worth: 16 * 1024,
    tries: 4,
    plenty: 1,
    too_much: usize::MAX,
    shortest: Duration::from_micros(400),
    longest: Duration::from_micros(400),
};

/// Clients that connect. Within one rest the first of them has sent its request. More of it would gather more, and would
/// hold up the few who connect anew as soon as they are answered.
pub(crate) const ARRIVALS: CoalesceLimits = CoalesceLimits {
    close: Duration::from_micros(250),
    patience: 8,
    enough_alone: 64,
    worth: 3,
    tries: 8,
    plenty: 3,
    too_much: 64,
    shortest: Duration::from_micros(100),
    longest: Duration::from_micros(100),
};

/// How work of one kind comes.
#[derive(Debug)]
pub(crate) struct Coalescer {
    measure: &'static CoalesceLimits,
    /// When the last turn began.
    last: Option<Instant>,
    /// So many turns in a row were close and brought little.
    close: u32,
    patience: u32,
    /// The rest that was asked for last.
    rest: Option<Duration>,
    /// So many rests in a row were not worth it.
    idle: u32,
}

impl Coalescer {
    /// Nothing has come yet.
    pub(crate) fn new(measure: &'static CoalesceLimits) -> Coalescer {
        Coalescer { measure, last: None, close: 0, patience: measure.patience, rest: None, idle: 0 }
    }

    /// How long to rest before the next turn, if at all.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.rest
    }

    /// A turn that began at `now` found so much.
    pub(crate) fn turn(&mut self, now: Instant, found: usize) {
        let CoalesceLimits {
            close,
            patience,
            enough_alone,
            worth,
            tries,
            plenty,
            too_much,
            shortest,
            longest,
        } = *self.measure;
        let before = self.last.replace(now);
        self.rest = match self.rest {
            Some(rest) if found < worth => {
                self.idle += 1;
                if self.idle < tries {
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
                if found < plenty {
                    Some((rest * 2).min(longest))
                } else if found < too_much {
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

    /// Turns this far apart that bring so much each: in how many of them it rests.
    fn rests(
        pace: &mut Coalescer,
        start: Instant,
        turns: u32,
        apart: Duration,
        found: impl Fn(bool) -> usize,
    ) -> u32 {
        let (mut rests, mut rested) = (0, false);
        for turn in 1..=turns {
            pace.turn(start + apart * turn, found(rested));
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
        assert_eq!(rests(&mut Coalescer::new(&OUTPUT), start(), OUTPUT.patience, SOON, gathers), 0);
        assert_eq!(
            rests(&mut Coalescer::new(&OUTPUT), start(), 1_000, SOON, gathers),
            1_000 - OUTPUT.patience
        );
    }

    #[test]
    fn lines_that_come_now_and_then_are_passed_on_at_once() {
        assert_eq!(rests(&mut Coalescer::new(&OUTPUT), start(), 1_000, OUTPUT.close, |_| 100), 0);
    }

    #[test]
    fn large_writes_are_passed_on_at_once() {
        assert_eq!(rests(&mut Coalescer::new(&OUTPUT), start(), 1_000, SOON, |_| OUTPUT.enough_alone), 0);
    }

    #[test]
    fn a_command_that_waits_for_answers_is_held_up_rarely() {
        // Whatever we do, each turn brings one line.
        let rests = rests(&mut Coalescer::new(&OUTPUT), start(), 100_000, SOON, |_| 100);
        assert!((5..25).contains(&rests), "{rests} rests");
    }

    #[test]
    fn rests_are_as_long_as_it_takes_to_gather_and_bounded() {
        let (mut pace, start) = (Coalescer::new(&OUTPUT), start());
        assert_eq!(rests(&mut pace, start, OUTPUT.patience + 1, SOON, |_| 100), 1);
        let mut after = |bytes| {
            pace.turn(start, bytes);
            pace.rest()
        };
        assert_eq!(after(OUTPUT.worth), Some(2 * OUTPUT.shortest));
        assert_eq!(after(OUTPUT.plenty), Some(2 * OUTPUT.shortest));
        for _ in 0..10 {
            after(OUTPUT.worth);
        }
        assert_eq!(after(OUTPUT.worth), Some(OUTPUT.longest));
        assert_eq!(after(OUTPUT.too_much), Some(OUTPUT.longest / 2));
        for _ in 0..10 {
            after(OUTPUT.too_much);
        }
        assert_eq!(after(OUTPUT.too_much), None, "it has its fill without a rest");
    }

    #[test]
    fn a_crowd_that_connects_is_gathered_although_some_rests_find_few() {
        let (mut pace, start, mut rests) = (Coalescer::new(&ARRIVALS), start(), 0);
        for turn in 1..=1_000 {
            // Every fourth time there is but one.
            pace.turn(start + SOON * turn, if turn % 4 == 0 { 1 } else { 6 });
            rests += u32::from(pace.rest() == Some(ARRIVALS.shortest));
        }
        assert_eq!(rests, 1_001 - ARRIVALS.patience - 1);
    }

    #[test]
    fn a_few_clients_that_connect_anew_after_each_answer_are_held_up_rarely() {
        for clients in 1..ARRIVALS.worth {
            let rests = rests(&mut Coalescer::new(&ARRIVALS), start(), 100_000, SOON, |_| clients);
            assert!((5 * ARRIVALS.tries..25 * ARRIVALS.tries).contains(&rests), "{rests} rests");
        }
    }

    #[test]
    fn who_connects_now_and_then_is_served_at_once() {
        assert_eq!(rests(&mut Coalescer::new(&ARRIVALS), start(), 1_000, ARRIVALS.close, |_| 40), 0);
    }
}
