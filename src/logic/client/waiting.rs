//! Decides whether and for how long `kapo wait` repeats its request. It must do so if a proxy ends long requests, or if
//! kapo does not listen yet.

use std::time::{Duration, Instant};

/// How long a proxy may answer instead of kapo, without interruption, if there is no `--timeout`. After that, kapo has
/// ended or is not there.
const PATIENCE: Duration = Duration::from_secs(60);
/// The minimum time from one attempt to the next, and the minimum length of a slice.
const PACE: Duration = Duration::from_secs(1);

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestOutcome {
    /// A kapo has answered without an exit code.
    NoCode,
    /// A proxy has answered instead of kapo (502, 503, 504), or the connection was cut.
    Cut,
    /// No connection was made.
    Unreachable,
    /// Any other result, such as an exit code.
    Final,
}

/// The state of a wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    once: bool,
    limited: bool,
    retry: Duration,
    slice: Option<Duration>,
    /// When the current series of failed requests began.
    failing: Option<Instant>,
}

impl Waiting {
    /// Creates the state from `--timeout` and `--retry`.
    pub(crate) fn new(timeout: Option<Duration>, retry: Duration) -> Waiting {
        let once = timeout == Some(Duration::ZERO);
        Waiting { once, limited: timeout.is_some(), retry, slice: None, failing: None }
    }

    /// Returns how long the next request waits; `None` means until the end of the run. A direct connection to kapo
    /// needs only one request, so that the end of the run cannot fall between two requests.
    pub(crate) fn slice(&self) -> Option<Duration> {
        if self.once { Some(Duration::ZERO) } else { self.slice }
    }

    /// Records the outcome of a request that lasted from `asked` to `now`. Returns the pause before the next request;
    /// `None` if the outcome is final.
    pub(crate) fn next(&mut self, asked: Instant, now: Instant, outcome: RequestOutcome) -> Option<Duration> {
        let lasted = now.saturating_duration_since(asked);
        let patience = match outcome {
            RequestOutcome::Final => return None,
            RequestOutcome::NoCode => {
                self.failing = None;
                // An early answer means that no code will come. The comparison allows for the clock of another
                // machine, which may run faster.
                let running = !self.once && self.slice.is_some_and(|slice| lasted >= slice * 9 / 10);
                return running.then_some(Duration::ZERO);
            }
            RequestOutcome::Unreachable => self.retry,
            RequestOutcome::Cut if self.once => self.retry,
            RequestOutcome::Cut => {
                if lasted > PACE {
                    // Choose a slice that is shorter than the time limit of the proxy.
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

    /// A wait whose requests have given durations and outcomes.
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

        /// Makes one request, and advances the time by the pause after it.
        fn ask(&mut self, lasted: Duration, outcome: RequestOutcome) -> Option<Duration> {
            let asked = self.now;
            let pause = self.waiting.next(asked, asked + lasted, outcome);
            self.now = asked + lasted + pause.unwrap_or_default();
            pause
        }
    }

    #[test]
    fn a_direct_answer_needs_one_request() {
        for (timeout, slice) in
            [(None, None), (Some(SECOND), None), (Some(Duration::ZERO), Some(Duration::ZERO))]
        {
            let mut world = World::new(timeout, Duration::ZERO);
            assert_eq!(world.waiting.slice(), slice);
            assert_eq!(world.ask(9 * SECOND, RequestOutcome::Final), None);
            assert_eq!(world.ask(9 * SECOND, RequestOutcome::NoCode), None);
            assert_eq!(world.ask(Duration::ZERO, RequestOutcome::Unreachable), None);
        }
    }

    #[test]
    fn slices_become_shorter_than_the_limit_of_a_proxy() {
        let mut world = World::new(None, Duration::ZERO);
        assert_eq!(world.ask(3 * SECOND, RequestOutcome::Cut), Some(Duration::ZERO));
        assert_eq!(world.waiting.slice(), Some(2 * SECOND));
        for _ in 0..1_000 {
            assert_eq!(world.ask(2 * SECOND - SECOND / 1_000, RequestOutcome::NoCode), Some(Duration::ZERO));
        }
        // The answer came earlier than requested, so no code will come.
        assert_eq!(world.ask(SECOND, RequestOutcome::NoCode), None);
        // A proxy with a limit of a minute or an hour.
        for minutes in [1, 60] {
            let mut world = World::new(None, Duration::ZERO);
            assert_eq!(world.ask(minutes * 60 * SECOND, RequestOutcome::Cut), Some(Duration::ZERO));
            assert_eq!(world.waiting.slice(), Some(minutes * 40 * SECOND));
            assert_eq!(world.ask(minutes * 40 * SECOND, RequestOutcome::NoCode), Some(Duration::ZERO));
        }
        assert_eq!(
            World::new(Some(Duration::ZERO), Duration::ZERO).ask(3 * SECOND, RequestOutcome::Cut),
            None
        );
    }

    #[test]
    fn a_proxy_without_kapo_is_retried_for_a_minute_or_the_timeout() {
        let attempts = |timeout, retry| {
            let mut world = World::new(timeout, retry);
            let pauses = (0..10_000).map_while(|_| world.ask(SECOND / 4, RequestOutcome::Cut));
            pauses.inspect(|pause| assert_eq!(*pause, SECOND * 3 / 4)).count()
        };
        assert_eq!(attempts(None, Duration::ZERO), 60);
        assert_eq!(attempts(None, 90 * SECOND), 90);
        assert_eq!(attempts(Some(SECOND), Duration::ZERO), 10_000);
        // After an answer of kapo, the limit for failed requests starts again.
        let mut world = World::new(None, Duration::ZERO);
        assert_eq!(world.ask(3 * SECOND, RequestOutcome::Cut), Some(Duration::ZERO));
        for _ in 0..500 {
            assert!(world.ask(SECOND / 4, RequestOutcome::Cut).is_some());
            assert!(world.ask(2 * SECOND, RequestOutcome::NoCode).is_some());
        }
    }

    #[test]
    fn a_refused_connection_is_retried_for_the_time_of_retry() {
        for (timeout, retry, attempts) in
            [(None, 0, 0), (None, 5, 5), (Some(Duration::ZERO), 5, 5), (Some(SECOND), 5, 5)]
        {
            let mut world = World::new(timeout, retry * SECOND);
            let pauses = (0..1_000).map_while(|_| world.ask(Duration::ZERO, RequestOutcome::Unreachable));
            assert_eq!(pauses.inspect(|pause| assert_eq!(*pause, PACE)).count(), attempts);
        }
    }
}
