//! Decides how long the output of a run is read after the command has exited. What the command wrote is read in any
//! case. What descendants write to the same pipe afterwards, such as `tee` in `exec > >(tee log)`, belongs to the run
//! until the pipe is closed or a limit has passed.

use std::time::{Duration, Instant};

/// Time without output after which the output of the run counts as complete.
const SILENCE: Duration = Duration::from_millis(500);
/// Longest drain after the command's exit.
const LONGEST: Duration = Duration::from_secs(2);

/// The drain of one pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    /// Number of bytes that were in the pipe at the exit and have not been read.
    left: u64,
    silent: Instant,
    over: Instant,
}

impl Drain {
    /// Begins the drain of a pipe that holds `left` bytes.
    pub(crate) fn new(now: Instant, left: u64) -> Drain {
        Drain { left, silent: now + SILENCE, over: now + LONGEST }
    }

    /// Records that `bytes` bytes were read.
    pub(crate) fn read(&mut self, now: Instant, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.silent = now + SILENCE;
    }

    /// Records that the pipe is empty.
    pub(crate) fn emptied(&mut self) {
        self.left = 0;
    }

    /// Returns when [`Drain::is_over`] becomes true if nothing more is read; `None` while bytes of the command itself
    /// are left.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.left == 0).then_some(self.silent.min(self.over))
    }

    /// Whether the run's output counts as complete although the pipe is open.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_after_a_silence_but_never_before_the_commands_bytes() {
        #[expect(clippy::disallowed_methods, reason = "a test needs a start time")]
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut drain = Drain::new(start, 100);
        assert!(
            drain.deadline().is_none() && !drain.is_over(at(10_000)),
            "the command's own bytes come first"
        );
        drain.read(at(100), 100);
        assert_eq!(drain.deadline(), Some(at(600)));
        assert!(!drain.is_over(at(599)) && drain.is_over(at(600)));
        for time in (500..2_000).step_by(400) {
            drain.read(at(time), 1);
            assert!(!drain.is_over(at(time)));
        }
        assert_eq!(drain.deadline(), Some(at(2_000)), "a pipe that never falls silent");
        let mut unknown = Drain::new(start, u64::MAX);
        unknown.emptied();
        assert_eq!(unknown.deadline(), Some(at(500)));
    }
}
