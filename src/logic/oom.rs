//! Decides whether the kernel killed the command because memory ran out. The only source is the counter of kapo's cgroup,
//! because the command itself gets a plain SIGKILL.
//!
//! Limits: The counter belongs to a cgroup and not to a process. If another process sends SIGKILL to the command within
//! ten seconds after the kernel has killed any process of the cgroup, the reason is wrong. A command that has moved out of
//! kapo's cgroup tree (version 1: out of the cgroup itself) is not counted. The root cgroup of version 2 has no counter.
//! Version 1 sends no notification: its counter is read when a run ends, when an orphan was killed, and at each scrape.
//! The kill of a descendant is logged then, and the ten seconds begin then.

use std::time::{Duration, Instant};

use super::Exit;
use crate::signal::Signal;

/// Longest time between a kill and the end of its victim, because tearing down a large process takes time.
const RECENT: Duration = Duration::from_secs(10);

/// Follows the counter of out-of-memory kills in kapo's cgroup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oom {
    /// The counter at the start of kapo.
    first: u64,
    /// The counter when it was last read.
    last: u64,
    /// When an increase was last seen in this run.
    grown: Option<Instant>,
}

impl Oom {
    /// Begins with the present value of the counter.
    pub(crate) fn new(count: u64) -> Oom {
        Oom { first: count, last: count, grown: None }
    }

    /// Begins a run: earlier kills cannot be the reason of its end. Returns the increase since the last read.
    pub(crate) fn run_started(&mut self, now: Instant, count: u64) -> u64 {
        let more = self.observed(now, count);
        self.grown = None;
        more
    }

    /// Records the value of the counter and returns the increase since the last read.
    pub(crate) fn observed(&mut self, now: Instant, count: u64) -> u64 {
        let more = count.saturating_sub(self.last);
        self.last = count;
        if more > 0 {
            self.grown = Some(now);
        }
        more
    }

    /// Whether the kernel killed the command, which ended with `exit`. Call [`Oom::observed`] first. `ours` means that
    /// kapo itself has sent SIGKILL.
    pub(crate) fn is_cause(&self, now: Instant, exit: Exit, ours: bool) -> bool {
        let killed = matches!(exit, Exit::Signal { signal: Signal::KILL, .. });
        let recent = self.grown.is_some_and(|at| now.saturating_duration_since(at) <= RECENT);
        killed && !ours && recent
    }

    /// Returns the counter when it was last read.
    pub(crate) fn count(&self) -> u64 {
        self.last
    }

    /// Returns the number of kills since the start of kapo, given the present value of the counter; `None` means that
    /// it cannot be read any more.
    pub(crate) fn total_at(&self, count: Option<u64>) -> u64 {
        count.unwrap_or(self.last).saturating_sub(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core_dumped: false };

    #[expect(clippy::disallowed_methods, reason = "a test needs a start time")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_kill_is_by_the_kernel_if_its_counter_has_increased() {
        let now = epoch();
        let mut oom = Oom::new(5);
        assert_eq!(oom.observed(now, 5), 0);
        assert!(!oom.is_cause(now, KILLED, false), "the counter has not grown");
        assert_eq!(oom.observed(now, 7), 2);
        assert!(oom.is_cause(now, KILLED, false));
        assert!(oom.is_cause(now + RECENT, KILLED, false));
        assert!(!oom.is_cause(now, KILLED, true), "kapo killed it");
        assert!(!oom.is_cause(now, Exit::Code(137), false), "a shell reports the kill of its child");
        let term = Exit::Signal { signal: Signal::TERM, core_dumped: false };
        assert!(!oom.is_cause(now, term, false));
        assert!(
            !oom.is_cause(now + RECENT + Duration::from_millis(1), KILLED, false),
            "the increase was too long ago"
        );
        assert_eq!(oom.total_at(None), 2);
    }

    #[test]
    fn kills_in_an_earlier_run_do_not_count() {
        let now = epoch();
        let mut oom = Oom::new(0);
        oom.observed(now, 1);
        assert_eq!(oom.run_started(now, 2), 1);
        assert!(!oom.is_cause(now, KILLED, false));
        assert_eq!(oom.observed(now, 2), 0);
        assert!(!oom.is_cause(now, KILLED, false));
        assert_eq!(oom.total_at(None), 2);
    }
}
