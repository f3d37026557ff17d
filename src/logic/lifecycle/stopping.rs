//! The stop of a run: the stop signal and the deadline for SIGKILL.

use std::time::Duration;

use super::{
    Deadline, Effect, Lifecycle, Linger, MachineState, Now, Process, Record, Signal, Stop, StopCause,
};
use crate::config::{After, KILL_AFTER};

impl Lifecycle {
    /// Begins the stop of this run. The caller sends the signal.
    pub(super) fn stop(&mut self, now: Now, process: Process, why: StopCause, out: &mut Vec<Effect>) {
        self.leave_running(MachineState::Stopping(process, Stop { why, at: now.mono, killed: false }));
        let patience = match why {
            StopCause::StopSignal => self.job.kill_after,
            StopCause::Ttl | StopCause::Watchdog | StopCause::Silence | StopCause::Unhealthy => {
                Some(self.job.kill_after.unwrap_or(KILL_AFTER))
            }
        };
        // As with timeout(1), zero means never.
        if let Some(patience) = patience.filter(|patience| !patience.is_zero()) {
            self.deadlines.set(Deadline::Kill, now.mono, patience);
        }
        // Report STOPPING=1 only if kapo ends with the command. The service manager starts its kill timeout at that
        // report, so it must not come before a restart or a linger period.
        if self.job.after == After::Once(Linger::Fixed(Duration::ZERO)) {
            self.report_stopping(out);
        }
    }

    /// Stops the command on kapo's own decision, with `--stop-signal`.
    pub(super) fn send_stop_signal(
        &mut self,
        now: Now,
        process: Process,
        why: StopCause,
        out: &mut Vec<Effect>,
    ) {
        self.stop(now, process, why, out);
        self.kill(self.job.stop_signal, process, None, out);
        // A stopped process does not act on a signal until it is continued.
        self.kill(Signal::CONT, process, None, out);
    }

    /// Stops the command because its TTL has passed.
    pub(super) fn expire(&mut self, now: Now, process: Process, out: &mut Vec<Effect>) {
        let record = Record::info("TTL expired").number("pid", process.pid);
        self.begin_stop(now, process, StopCause::Ttl, record, out);
    }

    /// Kills the command because it has not ended in time.
    pub(super) fn kill_command(&mut self, process: Process, stop: Stop, out: &mut Vec<Effect>) {
        self.state = MachineState::Stopping(process, Stop { killed: true, ..stop });
        let record = Record::warn("stop timed out, killing").number("pid", process.pid);
        self.kill(Signal::KILL, process, Some(record), out);
    }
}
