//! How long the output of a run is read after its end. What the command wrote before it ended is read in any case; what
//! descendants write to the same pipe afterwards, such as `tee` in `exec > >(tee log)`, belongs to the run until the
//! pipe is closed or a limit has passed.

use std::time::{Duration, Instant};

/// The longest silence before the output of the run counts as complete.
const SILENCE: Duration = Duration::from_millis(500);
/// The longest time after the end.
const LONGEST: Duration = Duration::from_secs(2);

/// One pipe whose command has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    /// Bytes that were in the pipe at the end and have not been read.
    left: u64,
    silent: Instant,
    over: Instant,
}

impl Drain {
    /// The command has ended with so many bytes in the pipe.
    pub(crate) fn new(now: Instant, left: u64) -> Drain {
        Drain { left, silent: now + SILENCE, over: now + LONGEST }
    }

    /// So many bytes were read.
    pub(crate) fn read(&mut self, now: Instant, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.silent = now + SILENCE;
    }

    /// The pipe is empty.
    pub(crate) fn emptied(&mut self) {
        self.left = 0;
    }

    /// When [`Drain::is_over`] comes true if nothing more is read; `None`: not before all bytes of the command's own.
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
    fn it_ends_after_a_silence_or_in_any_case_and_never_before_the_commands_own_bytes() {
        #[expect(clippy::disallowed_methods, reason = "a test needs some moment to begin with")]
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
