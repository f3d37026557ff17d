//! The restart policy of `supervise`: whether and when to start again, with back-off, flapping and giving up.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::Exit;
use super::random::Random;
use super::reason::is_listed;
use crate::config::Restart;
use crate::duration::Seconds;

/// Shortest pause after a failed start, even if `--wait` is shorter, so that a misspelt name does not use up a CPU.
pub(crate) const FAILED_START_PAUSE: Duration = Duration::from_secs(1);

/// The pause that is doubled first if `--wait` is shorter.
const SMALLEST_BACKOFF: Duration = Duration::from_millis(100);

/// Number of failed runs within the window that do not count as flapping yet.
const TOLERATED_FAILURES: u32 = 3;

/// Number of failed runs that are remembered: more than flapping needs, because the probes show the number.
const FAILURES_KEPT: usize = 100;

/// The number of failed runs within `--within`, formatted as `6 failed runs in 5 min`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Number of failed runs, at most 100.
    pub runs: usize,
    /// `--within`.
    pub within: Duration,
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_more = if self.runs >= FAILURES_KEPT { " or more" } else { "" };
        let plural = if self.runs == 1 { "" } else { "s" };
        write!(f, "{}{or_more} failed run{plural} in ", self.runs)?;
        match (self.within.as_secs(), self.within.subsec_nanos()) {
            (seconds, 0) if seconds % 3_600 == 0 => write!(f, "{} h", seconds / 3_600),
            (seconds, 0) if seconds % 60 == 0 => write!(f, "{} min", seconds / 60),
            (seconds, 0) => write!(f, "{seconds} s"),
            _ => write!(f, "{}", Seconds(self.within)),
        }
    }
}

/// What the policy must know about an ended run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunOutcome {
    /// The duration of the run.
    pub lasted: Duration,
    /// Whether it was successful.
    pub success: bool,
    /// Whether it was stopped at its TTL. This is a planned end, which counts neither as a failure nor as a restart.
    pub expired: bool,
    /// Whether the command could not be executed.
    pub never_ran: bool,
    /// How it ended, or the exit code of a failed start; `None` if kapo stopped it or was asked to stop it.
    pub by_itself: Option<Exit>,
}

/// What kapo does after the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start again after this pause.
    Again(Duration),
    /// Do not start again: with `--restart on-failure`, the run was a success.
    Finished,
    /// Do not start again: `--no-restart-on` lists this end.
    Final,
    /// Do not start again: there were more than `--max-restarts` within `--within`.
    GiveUp,
}

/// The policy with its state.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    options: Restart,
    /// Number of short runs in a row.
    short_runs: u32,
    /// No further start is tried although the command has not succeeded.
    gave_up: bool,
    /// The times of the restarts, the latest last, at most `max_restarts` of them.
    restarts: VecDeque<Instant>,
    /// The times of the failures, the latest last, at most [`FAILURES_KEPT`] of them.
    failures: VecDeque<Instant>,
}

impl Policy {
    /// Returns the policy before the first run.
    pub(crate) fn new(options: Restart) -> Policy {
        Policy {
            options,
            short_runs: 0,
            gave_up: false,
            restarts: VecDeque::new(),
            failures: VecDeque::new(),
        }
    }

    /// Returns `--wait`.
    pub(crate) fn wait(&self) -> Duration {
        self.options.wait
    }

    /// Whether the log has each start and each end.
    pub(crate) fn log_repeats(&self) -> bool {
        self.options.log_repeats
    }

    /// Decides what follows a run that ended at `now`.
    pub(crate) fn ended(&mut self, now: Instant, run: RunOutcome, random: &mut Random) -> Verdict {
        if run.lasted >= self.options.stable {
            self.was_stable();
        }
        if !run.success && !run.expired {
            self.failures.push_back(now);
            if self.failures.len() > FAILURES_KEPT {
                self.failures.pop_front();
            }
        }
        if run.by_itself.is_some_and(|exit| is_listed(&self.options.no_restart_on, exit)) {
            self.gave_up = !run.success;
            return Verdict::Final;
        }
        if run.success && self.options.on_failure_only {
            return Verdict::Finished;
        }
        if run.expired {
            self.short_runs = 0;
            return Verdict::Again(self.options.wait);
        }
        if let Some(limit) = self.options.max_restarts {
            let within = self.options.within;
            self.restarts.retain(|at| now.saturating_duration_since(*at) < within);
            if self.restarts.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                self.gave_up = true;
                return Verdict::GiveUp;
            }
            self.restarts.push_back(now);
        }
        self.short_runs =
            if run.lasted < self.options.stable { self.short_runs.saturating_add(1) } else { 0 };
        let pause = self.pause(random);
        Verdict::Again(if run.never_ran { pause.max(FAILED_START_PAUSE) } else { pause })
    }

    /// Takes note of a run that ended because kapo was asked to stop. Its end is no failure, and no restart follows it.
    pub(crate) fn ended_on_request(&mut self, run: RunOutcome) {
        if run.lasted >= self.options.stable {
            self.was_stable();
        }
    }

    /// Whether no further start is tried although the command has not succeeded.
    pub(crate) fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Returns the pause: `--wait` after the first short run and after a stable one, doubled for each further short
    /// run up to the cap. Jitter only lengthens the pause, so that it is never shorter than `--wait`, and never beyond
    /// the cap.
    fn pause(&self, random: &mut Random) -> Duration {
        let wait = self.options.wait;
        let Some(cap) = self.options.backoff_max else { return wait };
        let cap = cap.max(wait);
        let doublings = self.short_runs.saturating_sub(1).min(63);
        if doublings == 0 {
            return wait;
        }
        let factor = u32::try_from(1_u64 << doublings.min(31)).unwrap_or(u32::MAX);
        let pause = wait.max(SMALLEST_BACKOFF).saturating_mul(factor).min(cap);
        random.between(pause, pause.saturating_add(pause / 10)).min(cap)
    }

    /// Returns `--stable`; `None` if it is 0.
    pub(crate) fn stable(&self) -> Option<Duration> {
        Some(self.options.stable).filter(|stable| !stable.is_zero())
    }

    /// Records that a run has lasted for `--stable`, so that earlier failures no longer count as flapping.
    pub(crate) fn was_stable(&mut self) {
        if self.stable().is_some() {
            self.failures.clear();
        }
    }

    /// Returns the number of failed runs within the window that do not count as flapping yet.
    fn tolerated(&self) -> usize {
        let limit = self.options.max_restarts.unwrap_or(TOLERATED_FAILURES).min(TOLERATED_FAILURES);
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// Returns the failed runs within the window that ends now.
    pub(crate) fn failures(&self, now: Instant) -> Failures {
        let within = self.options.within;
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < within;
        Failures { runs: self.failures.iter().filter(recent).count(), within }
    }

    /// Whether too many runs have failed within the window that ends now.
    pub(crate) fn is_flapping(&self, now: Instant) -> bool {
        self.oldest().is_some_and(|oldest| now.saturating_duration_since(oldest) < self.options.within)
    }

    /// Returns when the present failures stop counting as flapping; `None` if there are too few, or if the time cannot
    /// be represented.
    pub(crate) fn flapping_until(&self) -> Option<Instant> {
        self.oldest()?.checked_add(self.options.within)
    }

    /// Returns the earliest of the latest failed runs that together count as flapping.
    fn oldest(&self) -> Option<Instant> {
        let first = self.failures.len().checked_sub(self.tolerated() + 1)?;
        self.failures.get(first).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Success;
    use crate::logic::tests::epoch;
    use crate::signal::Signal;

    const SECOND: Duration = Duration::from_secs(1);

    fn options() -> Restart {
        Restart { wait: SECOND, ..crate::config::tests::restart() }
    }

    fn failed(lasted: Duration) -> RunOutcome {
        let by_itself = Some(Exit::Code(1));
        RunOutcome { lasted, success: false, expired: false, never_ran: false, by_itself }
    }

    fn pauses(policy: &mut Policy, runs: &[RunOutcome]) -> Vec<Verdict> {
        let mut random = Random::new(1);
        runs.iter().map(|run| policy.ended(epoch().mono, *run, &mut random)).collect()
    }

    #[test]
    fn without_back_off_every_pause_is_wait() {
        let mut policy = Policy::new(options());
        assert_eq!(pauses(&mut policy, &[failed(Duration::ZERO); 3]), [Verdict::Again(SECOND); 3]);
    }

    #[test]
    fn short_runs_double_the_pause_and_a_stable_one_resets_it() {
        let mut policy = Policy::new(Restart { backoff_max: Some(10 * SECOND), ..options() });
        let mut random = Random::new(1);
        let mut pause = |lasted| match policy.ended(epoch().mono, failed(lasted), &mut random) {
            Verdict::Again(pause) => pause,
            other => panic!("{other:?}"),
        };
        for (low, high) in [(1.0, 1.0), (2.0, 2.2), (4.0, 4.4), (8.0, 8.8), (10.0, 10.0), (10.0, 10.0)] {
            let pause = pause(SECOND).as_secs_f64();
            assert!((low..=high).contains(&pause), "{pause} is not in {low}..{high}");
        }
        assert_eq!(pause(60 * SECOND), SECOND);
        assert_eq!(pause(SECOND), SECOND);
    }

    #[test]
    fn a_thousand_short_runs_overflow_nothing() {
        let longest = Restart { backoff_max: Some(Duration::MAX), wait: Duration::MAX / 2, ..options() };
        let verdicts = pauses(&mut Policy::new(longest), &[failed(Duration::ZERO); 1_000]);
        assert_eq!(verdicts.last(), Some(&Verdict::Again(Duration::MAX)));
    }

    #[test]
    fn a_failed_start_is_not_retried_at_once() {
        let mut policy = Policy::new(Restart { wait: Duration::ZERO, ..options() });
        let run = RunOutcome { never_ran: true, ..failed(Duration::ZERO) };
        assert_eq!(pauses(&mut policy, &[run]), [Verdict::Again(FAILED_START_PAUSE)]);
        assert_eq!(pauses(&mut policy, &[failed(Duration::ZERO)]), [Verdict::Again(Duration::ZERO)]);
    }

    #[test]
    fn too_many_restarts_within_the_window_end_the_policy() {
        let mut policy = Policy::new(Restart { max_restarts: Some(2), within: 10 * SECOND, ..options() });
        let mut random = Random::new(1);
        let mut at =
            |seconds: u32| policy.ended(epoch().mono + seconds * SECOND, failed(SECOND), &mut random);
        assert_eq!(at(0), Verdict::Again(SECOND));
        assert_eq!(at(4), Verdict::Again(SECOND));
        assert_eq!(at(10), Verdict::Again(SECOND), "the first has left the window");
        assert_eq!(at(12), Verdict::GiveUp);
    }

    #[test]
    fn with_on_failure_a_success_is_the_end() {
        let mut policy = Policy::new(Restart { on_failure_only: true, ..options() });
        let success = RunOutcome { success: true, ..failed(SECOND) };
        assert_eq!(
            pauses(&mut policy, &[failed(SECOND), success]),
            [Verdict::Again(SECOND), Verdict::Finished]
        );
    }

    #[test]
    fn no_start_follows_an_end_that_no_restart_on_lists() {
        let no_restart_on = vec![Success::Code(78), Success::Signal(Signal::SEGV)];
        let listed = |exit| RunOutcome { by_itself: Some(exit), ..failed(SECOND) };
        let segv = Exit::Signal { signal: Signal::SEGV, core_dumped: true };
        let again = Verdict::Again(SECOND);
        for (by_itself, on_failure_only, verdict) in [
            (Some(Exit::Code(78)), false, Verdict::Final),
            (Some(Exit::Code(78)), true, Verdict::Final),
            (Some(segv), false, Verdict::Final),
            (Some(Exit::Code(139)), false, again),
            (Some(Exit::Code(77)), false, again),
            // kapo has stopped it.
            (None, false, again),
        ] {
            let options = Restart { no_restart_on: no_restart_on.clone(), on_failure_only, ..options() };
            let run = RunOutcome { by_itself, ..failed(SECOND) };
            assert_eq!(pauses(&mut Policy::new(options), &[run]), [verdict], "{by_itself:?}");
        }
        // It is no restart, so that --max-restarts has no say in it.
        let mut policy = Policy::new(Restart { no_restart_on, max_restarts: Some(1), ..options() });
        let runs = [failed(SECOND), listed(Exit::Code(78)), failed(SECOND)];
        assert_eq!(pauses(&mut policy, &runs), [again, Verdict::Final, Verdict::GiveUp]);
    }

    #[test]
    fn the_fourth_failure_within_the_window_is_flapping() {
        let mut policy = Policy::new(options());
        let mut random = Random::new(1);
        for second in 0..4_u32 {
            assert!(!policy.is_flapping(epoch().mono + second * SECOND));
            policy.ended(epoch().mono + second * SECOND, failed(SECOND), &mut random);
        }
        assert!(policy.is_flapping(epoch().mono + 299 * SECOND));
        assert_eq!(policy.flapping_until(), Some(epoch().mono + 300 * SECOND));
        assert!(!policy.is_flapping(epoch().mono + 300 * SECOND));
    }

    #[test]
    fn failed_runs_are_counted_within_the_window() {
        let mut policy = Policy::new(options());
        let mut random = Random::new(1);
        for second in 0..6_u32 {
            policy.ended(epoch().mono + second * SECOND, failed(SECOND), &mut random);
        }
        let at = |policy: &Policy, second: u32| policy.failures(epoch().mono + second * SECOND).to_string();
        assert_eq!(at(&policy, 6), "6 failed runs in 5 min");
        assert_eq!(at(&policy, 304), "1 failed run in 5 min");
        pauses(&mut policy, &[failed(SECOND); 200]);
        assert_eq!(policy.failures.len(), FAILURES_KEPT);
        assert_eq!(at(&policy, 0), "100 or more failed runs in 5 min");
    }

    #[test]
    fn the_window_is_shown_in_the_largest_whole_unit() {
        for (within, shown) in [("1h", "1 h"), ("90m", "90 min"), ("90", "90 s"), ("0.5", "0.500s")] {
            let within = crate::duration::parse(within).unwrap();
            assert_eq!(Failures { runs: 4, within }.to_string(), format!("4 failed runs in {shown}"));
        }
    }

    #[test]
    fn in_an_endless_window_flapping_never_ends() {
        let mut policy = Policy::new(Restart { within: Duration::MAX, ..options() });
        pauses(&mut policy, &[failed(SECOND); 4]);
        assert!(policy.is_flapping(epoch().mono));
        assert_eq!(policy.flapping_until(), None);
    }

    #[test]
    fn an_end_by_ttl_resets_the_back_off_and_does_not_count() {
        let options = Restart { backoff_max: Some(60 * SECOND), max_restarts: Some(2), ..options() };
        let mut policy = Policy::new(options);
        let expired = RunOutcome { expired: true, ..failed(SECOND) };
        assert_eq!(pauses(&mut policy, &[expired; 10]), [Verdict::Again(SECOND); 10]);
        let short = failed(SECOND);
        pauses(&mut policy, &[short]);
        let again = Verdict::Again(SECOND);
        assert_eq!(pauses(&mut policy, &[expired, short, expired]), [again; 3], "no back-off, no limit");
        assert_eq!(pauses(&mut policy, &[short]), [Verdict::GiveUp]);
    }

    #[test]
    fn a_stable_run_ends_flapping() {
        let mut policy = Policy::new(options());
        pauses(&mut policy, &[failed(SECOND); 4]);
        assert!(policy.is_flapping(epoch().mono));
        policy.was_stable();
        assert!(!policy.is_flapping(epoch().mono));
        pauses(&mut policy, &[failed(SECOND); 4]);
        assert!(policy.is_flapping(epoch().mono));
        pauses(&mut policy, &[failed(60 * SECOND)]);
        assert!(!policy.is_flapping(epoch().mono), "it has failed, but was stable before");
    }

    #[test]
    fn neither_success_nor_a_planned_end_is_flapping() {
        let mut policy = Policy::new(options());
        let expired = RunOutcome { expired: true, ..failed(SECOND) };
        let success = RunOutcome { success: true, ..failed(SECOND) };
        pauses(&mut policy, &[expired, success].repeat(10));
        assert_eq!(policy.flapping_until(), None);
    }
}
