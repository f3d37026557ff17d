//! Decides whether `kapo wait` asks again, and for how long: through proxies that cut long requests, and before a kapo
//! listens.

use std::time::{Duration, Instant};

/// How long a proxy may answer for kapo in a row if no `--timeout` limits it: kapo has ended by then, or is not there.
const PATIENCE: Duration = Duration::from_secs(60);
/// There is no more than one attempt in this time, and no slice is shorter.
const PACE: Duration = Duration::from_secs(1);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A kapo answered, without an exit code.
    NoCode,
    /// A proxy answered for it (502, 503, 504), or the connection was cut.
    Cut,
    /// No connection was made.
    Unreachable,
    /// Anything else, such as an exit code.
    Final,
}

/// The state of a wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    once: bool,
    limited: bool,
    retry: Duration,
    slice: Option<Duration>,
    /// When the first request in a row failed.
    failing: Option<Instant>,
}

impl Waiting {
    /// Takes `--timeout` and `--retry`.
    pub(crate) fn new(timeout: Option<Duration>, retry: Duration) -> Waiting {
        let once = timeout == Some(Duration::ZERO);
        Waiting { once, limited: timeout.is_some(), retry, slice: None, failing: None }
    }

    /// For how long the next request asks; `None`: until the end of the run. A kapo that is asked directly is asked once,
    /// so that no end falls between two requests.
    pub(crate) fn slice(&self) -> Option<Duration> {
        if self.once { Some(Duration::ZERO) } else { self.slice }
    }

    /// A request from `asked` to `now` ended so: the pause before the next one, or `None` if the outcome is the result.
    pub(crate) fn next(&mut self, asked: Instant, now: Instant, outcome: Outcome) -> Option<Duration> {
        let lasted = now.saturating_duration_since(asked);
        let patience = match outcome {
            Outcome::Final => return None,
            Outcome::NoCode => {
                self.failing = None;
                // An answer before its time means that no code will come. The clock of another machine may run faster.
                let running = !self.once && self.slice.is_some_and(|slice| lasted >= slice * 9 / 10);
                return running.then_some(Duration::ZERO);
            }
            Outcome::Unreachable => self.retry,
            Outcome::Cut if self.once => self.retry,
            Outcome::Cut => {
                if lasted > PACE {
                    // Shorter than what the proxy allows.
                    self.slice = Some((lasted * 2 / 3).max(PACE));
                }
                if self.limited { Duration::MAX } else { self.retry.max(PATIENCE) }
            }
        };
        let failing = *self.failing.get_or_insert(now);
        (now.saturating_duration_since(failing) < patience).then_some(PACE.saturating_sub(lasted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A wait whose requests last so long and end so.
    struct World {
        waiting: Waiting,
        now: Instant,
    }

    impl World {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where these tests take their epoch from"
        )]
        fn new(timeout: Option<Duration>, retry: Duration) -> World {
            World { waiting: Waiting::new(timeout, retry), now: Instant::now() }
        }

        /// One request; the pause after it has passed.
        fn ask(&mut self, lasted: Duration, outcome: Outcome) -> Option<Duration> {
            let asked = self.now;
            let pause = self.waiting.next(asked, asked + lasted, outcome);
            self.now = asked + lasted + pause.unwrap_or_default();
            pause
        }
    }

    #[test]
    fn a_kapo_that_answers_is_asked_once() {
        for (timeout, slice) in
            [(None, None), (Some(SECOND), None), (Some(Duration::ZERO), Some(Duration::ZERO))]
        {
            let mut world = World::new(timeout, Duration::ZERO);
            assert_eq!(world.waiting.slice(), slice);
            assert_eq!(world.ask(9 * SECOND, Outcome::Final), None);
            assert_eq!(world.ask(9 * SECOND, Outcome::NoCode), None);
            assert_eq!(world.ask(Duration::ZERO, Outcome::Unreachable), None);
        }
    }

    #[test]
    fn a_proxy_that_cuts_is_asked_in_shorter_slices_for_ever() {
        let mut world = World::new(None, Duration::ZERO);
        assert_eq!(world.ask(3 * SECOND, Outcome::Cut), Some(Duration::ZERO));
        assert_eq!(world.waiting.slice(), Some(2 * SECOND));
        for _ in 0..1_000 {
            assert_eq!(world.ask(2 * SECOND - SECOND / 1_000, Outcome::NoCode), Some(Duration::ZERO));
        }
        // Not as late as asked for: nothing will come.
        assert_eq!(world.ask(SECOND, Outcome::NoCode), None);
        // One of a minute or an hour.
        for minutes in [1, 60] {
            let mut world = World::new(None, Duration::ZERO);
            assert_eq!(world.ask(minutes * 60 * SECOND, Outcome::Cut), Some(Duration::ZERO));
            assert_eq!(world.waiting.slice(), Some(minutes * 40 * SECOND));
            assert_eq!(world.ask(minutes * 40 * SECOND, Outcome::NoCode), Some(Duration::ZERO));
        }
        assert_eq!(World::new(Some(Duration::ZERO), Duration::ZERO).ask(3 * SECOND, Outcome::Cut), None);
    }

    #[test]
    fn a_proxy_without_a_kapo_is_given_up_unless_a_timeout_limits_it() {
        let attempts = |timeout, retry| {
            let mut world = World::new(timeout, retry);
            let pauses = (0..10_000).map_while(|_| world.ask(SECOND / 4, Outcome::Cut));
            pauses.inspect(|pause| assert_eq!(*pause, SECOND * 3 / 4)).count()
        };
        assert_eq!(attempts(None, Duration::ZERO), 60);
        assert_eq!(attempts(None, 90 * SECOND), 90);
        assert_eq!(attempts(Some(SECOND), Duration::ZERO), 10_000);
        // An answer of a kapo begins anew.
        let mut world = World::new(None, Duration::ZERO);
        assert_eq!(world.ask(3 * SECOND, Outcome::Cut), Some(Duration::ZERO));
        for _ in 0..500 {
            assert!(world.ask(SECOND / 4, Outcome::Cut).is_some());
            assert!(world.ask(2 * SECOND, Outcome::NoCode).is_some());
        }
    }

    #[test]
    fn a_kapo_that_does_not_listen_yet_is_asked_again_for_the_time_of_retry() {
        for (timeout, retry, attempts) in
            [(None, 0, 0), (None, 5, 5), (Some(Duration::ZERO), 5, 5), (Some(SECOND), 5, 5)]
        {
            let mut world = World::new(timeout, retry * SECOND);
            let pauses = (0..1_000).map_while(|_| world.ask(Duration::ZERO, Outcome::Unreachable));
            assert_eq!(pauses.inspect(|pause| assert_eq!(*pause, PACE)).count(), attempts);
        }
    }
}
