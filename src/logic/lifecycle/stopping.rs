//! The stop of a run: from the signal for it on there is a deadline for SIGKILL.

use std::time::Duration;

use super::{Deadline, Effect, Lifecycle, Linger, Now, Process, Record, Signal, State, Stop, StopCause};
use crate::config::{After, KILL_AFTER};

impl Lifecycle {
    /// The end of this run begins; the signal for it is the caller's.
    pub(super) fn stop(&mut self, now: Now, process: Process, why: StopCause, out: &mut Vec<Effect>) {
        self.state = State::Stopping(process, Stop { why, at: now.mono, killed: false });
        self.document.changed = true;
        self.deadlines.stop(Deadline::Ttl);
        self.deadlines.stop(Deadline::Watchdog);
        self.deadlines.stop(Deadline::Stable);
        let patience = match why {
            StopCause::Asked => self.job.kill_after,
            StopCause::Ttl | StopCause::Watchdog => Some(self.job.kill_after.unwrap_or(KILL_AFTER)),
        };
        // As with timeout(1), zero means never.
        if let Some(patience) = patience.filter(|patience| !patience.is_zero()) {
            self.deadlines.set(Deadline::Kill, now.mono, patience);
        }
        // Where the command's end is ours too. A manager that hears of an end counts down to killing us, so one that
        // is followed by another start, or by answering on, is not told yet.
        if self.job.after == After::Once(Linger::Fixed(Duration::ZERO)) {
            self.tell_stopping(out);
        }
    }

    /// Stops the command of our own accord, and logs `log` after that.
    pub(super) fn stop_ourselves(
        &mut self,
        now: Now,
        process: Process,
        why: StopCause,
        log: Record,
        out: &mut Vec<Effect>,
    ) {
        self.stop(now, process, why, out);
        self.kill(self.job.stop_signal, process, None, out);
        // A stopped process would not act on it.
        self.kill(Signal::CONT, process, None, out);
        out.push(Effect::Log(log));
    }

    /// The run has lasted as long as it may.
    pub(super) fn expire(&mut self, now: Now, process: Process, out: &mut Vec<Effect>) {
        let record = Record::info("TTL expired").number("pid", process.pid);
        let record = record.with("signal", self.job.stop_signal);
        self.stop_ourselves(now, process, StopCause::Ttl, record, out);
    }

    /// The command has not ended in time.
    pub(super) fn kill_command(&mut self, process: Process, stop: Stop, out: &mut Vec<Effect>) {
        self.state = State::Stopping(process, Stop { killed: true, ..stop });
        let record = Record::warn("stop timed out, killing").number("pid", process.pid);
        self.kill(Signal::KILL, process, Some(record), out);
    }
}
