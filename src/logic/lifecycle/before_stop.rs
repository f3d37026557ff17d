//! What comes before the stop of a run: the drain, in which `/readyz` refuses new traffic, and the dump, in which the
//! command prints its state. Also the silence of the output, which can be the cause of a stop.

use std::time::{Duration, Instant, SystemTime};

use super::signals::ReceivedSignal;
use super::{
    Deadline, Effect, Lifecycle, MachineState, Now, Process, Record, Seconds, Sender, Signal, SignalTarget,
    StopCause, readiness,
};
use crate::config::KILL_AFTER;

/// A drain: the command still runs, but it gets no new traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrafficDrain {
    pub(super) why: DrainCause,
    /// When the command gets its stop signal.
    pub(super) until: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainCause {
    /// kapo has received this signal, which is passed on after the drain.
    Requested(ReceivedSignal),
    /// The TTL has passed.
    Ttl,
}

impl Lifecycle {
    /// Whether a stop by this signal begins with a drain. ^C and ^\\ do not, because a person waits for the end.
    fn drains(&self, by: ReceivedSignal) -> bool {
        let by_person = matches!(by.signal, Signal::INT | Signal::QUIT) || by.sender == Sender::Kernel;
        !self.job.drain.is_zero() && !by_person
    }

    /// Handles a stop signal for the running command.
    pub(super) fn requested_to_stop(
        &mut self,
        now: Now,
        process: Process,
        by: ReceivedSignal,
        out: &mut Vec<Effect>,
    ) {
        if !self.drains(by) {
            return self.stop_by_signal(now, process, StopCause::StopSignal, by, out);
        }
        self.log_stop_request(by, out);
        if self.context.manager {
            // The service manager allows the time of the drain in addition to the time for the stop.
            let time = self.job.drain.saturating_add(self.job.kill_after.unwrap_or(KILL_AFTER));
            out.push(Effect::Notify(format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()).into_bytes()));
        }
        self.drain(now, process, DrainCause::Requested(by), out);
    }

    /// Handles the end of the TTL.
    pub(super) fn ttl_passed(&mut self, now: Now, process: Process, out: &mut Vec<Effect>) {
        match self.job.drain.is_zero() {
            true => self.expire(now, process, out),
            false => self.drain(now, process, DrainCause::Ttl, out),
        }
    }

    fn drain(&mut self, now: Now, process: Process, why: DrainCause, out: &mut Vec<Effect>) {
        let until = now.wall.checked_add(self.job.drain).unwrap_or(now.wall);
        self.leave_running(MachineState::Draining(process, TrafficDrain { why, until }));
        self.deadlines.set(Deadline::Drain, now.mono, self.job.drain);
        let why = match why {
            DrainCause::Requested(_) => "signal",
            DrainCause::Ttl => "ttl",
        };
        let record = Record::info("draining").number("pid", process.pid).with("cause", why);
        out.push(Effect::Log(record.with("wait", Seconds(self.job.drain))));
    }

    /// Handles a stop signal during a drain: it skips the rest of it, unless it is the first one in the drain of a TTL.
    pub(super) fn requested_in_drain(
        &mut self,
        now: Now,
        process: Process,
        drain: TrafficDrain,
        by: ReceivedSignal,
        out: &mut Vec<Effect>,
    ) {
        let first = self.document.status.stop_signal_from.is_none();
        match drain.why {
            DrainCause::Ttl if first && self.drains(by) => self.log_stop_request(by, out),
            DrainCause::Ttl => self.stop_by_signal(now, process, StopCause::Ttl, by, out),
            DrainCause::Requested(_) => self.stop_by_signal(now, process, StopCause::StopSignal, by, out),
        }
    }

    /// Handles the end of a drain: the command gets its stop signal.
    pub(super) fn drain_is_over(
        &mut self,
        now: Now,
        process: Process,
        drain: TrafficDrain,
        out: &mut Vec<Effect>,
    ) {
        let DrainCause::Requested(by) = drain.why else { return self.expire(now, process, out) };
        self.forward_signal(by.signal, process, None, out);
        self.stop(now, process, StopCause::StopSignal, out);
        self.check_stopped(by, process, out);
        let record = Record::info("drain ended").number("pid", process.pid);
        out.push(Effect::Log(self.with_rewrite(by.signal, record.with("signal", by.signal))));
    }

    /// Stops the command on kapo's own decision, after the dump if there is one. The cause is logged at once.
    pub(super) fn begin_stop(
        &mut self,
        now: Now,
        process: Process,
        why: StopCause,
        log: Record,
        out: &mut Vec<Effect>,
    ) {
        let Some(signal) = self.job.dump_signal else {
            self.send_stop_signal(now, process, why, out);
            return out.push(Effect::Log(log.with("signal", self.job.stop_signal)));
        };
        // The command alone: the other processes of its group would end by a QUIT, and so end the command's work.
        let to = SignalTarget::Process(process.pid);
        let log = log.with("signal", signal).with("wait", Seconds(self.job.dump_wait));
        out.push(Effect::Kill { signal, to, log: Some(log) });
        self.leave_running(MachineState::Dumping(process, why));
        self.deadlines.set(Deadline::Dump, now.mono, self.job.dump_wait);
    }

    /// Handles the end of the time for the dump.
    pub(super) fn dump_is_over(&mut self, now: Now, process: Process, why: StopCause, out: &mut Vec<Effect>) {
        self.send_stop_signal(now, process, why, out);
        let record = Record::info("stopping after dump").number("pid", process.pid);
        out.push(Effect::Log(record.with("signal", self.job.stop_signal)));
    }

    /// Leaves the state Running: what can stop a running command is not checked any more.
    pub(super) fn leave_running(&mut self, state: MachineState) {
        self.state = state;
        self.document.changed = true;
        for which in [
            Deadline::Ttl,
            Deadline::Watchdog,
            Deadline::Silence,
            Deadline::Stable,
            Deadline::Drain,
            Deadline::Dump,
        ] {
            self.deadlines.stop(which);
        }
    }

    /// Tells when the command has printed something. The driver calls this before [`Event::Deadline`], also if kapo
    /// did not read the output or if the command is suspended.
    ///
    /// [`Event::Deadline`]: super::Event::Deadline
    pub fn set_output_seen(&mut self, at: Instant) {
        self.output_seen = self.output_seen.max(Some(at));
    }

    /// Whether the driver must call [`Lifecycle::set_output_seen`] before the next deadline.
    pub fn wants_output_seen(&self, now: Instant) -> bool {
        self.deadlines.at(Deadline::Silence).is_some_and(|at| at <= now)
    }

    /// Begins the time of silence again.
    pub(super) fn restart_silence(&mut self, now: Now) {
        if let Some(silence) = self.job.silence {
            self.deadlines.set(Deadline::Silence, now.mono, silence);
        }
    }

    /// Stops the command if it has printed nothing for `--silence`. The deadline is not moved at each output, but only
    /// here, so that a command that prints much causes no more work.
    pub(super) fn silence_is_due(
        &mut self,
        now: Now,
        process: Process,
        late: Duration,
        out: &mut Vec<Effect>,
    ) {
        let Some(silence) = self.job.silence else { return };
        if readiness::is_starved(late, silence) {
            return self.restart_silence(now);
        }
        if let Some(seen) = self.output_seen
            && now.mono.saturating_duration_since(seen) < silence
        {
            return self.deadlines.set(Deadline::Silence, seen, silence);
        }
        let record = Record::warn("no output").number("pid", process.pid).with("silence", Seconds(silence));
        self.begin_stop(now, process, StopCause::Silence, record, out);
    }

    /// Stops the command because its probes have failed.
    pub(super) fn unhealthy(&mut self, now: Now, process: Process, why: &str, out: &mut Vec<Effect>) {
        let record = Record::warn("unhealthy").number("pid", process.pid).with("probe", why);
        self.begin_stop(now, process, StopCause::Unhealthy, record, out);
    }
}
