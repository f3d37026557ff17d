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

/// Between the counting of a kill and the end of its victim: tearing down a large process takes time.
const RECENT: Duration = Duration::from_secs(10);

/// Follows the counter of kapo's cgroup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oom {
    /// At kapo's start.
    first: u64,
    /// When last looked at.
    last: u64,
    /// When it was last seen to have grown, in this run.
    grown: Option<Instant>,
}

impl Oom {
    /// Begins with the counter of now.
    pub(crate) fn new(count: u64) -> Oom {
        Oom { first: count, last: count, grown: None }
    }

    /// A new run begins: what was killed before is no explanation for its end.
    pub(crate) fn run_started(&mut self, now: Instant, count: u64) -> u64 {
        let more = self.observed(now, count);
        self.grown = None;
        more
    }

    /// The counter was looked at: says by how much it has grown since the last time.
    pub(crate) fn observed(&mut self, now: Instant, count: u64) -> u64 {
        let more = count.saturating_sub(self.last);
        self.last = count;
        if more > 0 {
            self.grown = Some(now);
        }
        more
    }

    /// The command has ended like this, and the counter has just been [`Oom::observed`]: was it the kernel?
    /// `ours`: kapo itself sent SIGKILL.
    pub(crate) fn is_cause(&self, now: Instant, exit: Exit, ours: bool) -> bool {
        let killed = matches!(exit, Exit::Signal { signal: Signal::KILL, .. });
        let recent = self.grown.is_some_and(|at| now.saturating_duration_since(at) <= RECENT);
        killed && !ours && recent
    }

    /// Kills since kapo's start, where the counter stands at `count` now; `None`: it cannot be read any more.
    pub(crate) fn total_at(&self, count: Option<u64>) -> u64 {
        count.unwrap_or(self.last).saturating_sub(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal { signal: Signal::KILL, core_dumped: false };

    #[expect(clippy::disallowed_methods, reason = "a test needs some moment to begin with")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_kill_is_the_kernel_s_when_its_counter_has_just_grown_and_nobody_of_ours_killed() {
        let now = epoch();
        let mut oom = Oom::new(5);
        assert_eq!(oom.observed(now, 5), 0);
        assert!(!oom.is_cause(now, KILLED, false), "the counter has not grown");
        assert_eq!(oom.observed(now, 7), 2);
        assert!(oom.is_cause(now, KILLED, false));
        assert!(oom.is_cause(now + RECENT, KILLED, false));
        assert!(!oom.is_cause(now, KILLED, true), "kapo killed it");
        assert!(!oom.is_cause(now, Exit::Code(137), false), "a shell tells of its child");
        let term = Exit::Signal { signal: Signal::TERM, core_dumped: false };
        assert!(!oom.is_cause(now, term, false));
        assert!(!oom.is_cause(now + RECENT + Duration::from_millis(1), KILLED, false), "long ago");
        assert_eq!(oom.total_at(None), 2);
    }

    #[test]
    fn what_was_killed_in_an_earlier_run_does_not_count() {
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
