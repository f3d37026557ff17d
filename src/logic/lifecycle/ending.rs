//! Handles the end of a run: its entry in the document and the log, the decision of the restart policy, and kapo's own
//! end.
//!
//! The end is published when the command is reaped. Two things may outlast it independently: output that is still being
//! read, and the rest of the process group. The next start and kapo's own end wait for both.

use std::time::{Duration, Instant};

use super::repeats::MINUTE;
use super::report::with_output;
use super::run_record::RunEnd;
use super::signals::ReceivedSignal;
use super::{
    Deadline, Deadlines, Effect, End, Exit, Leftover, Lifecycle, Linger, MachineState, Now, Policy, Process,
    ProcessId, Record, RunOutcome, Seconds, Signal, SignalTarget, SpawnErrorKind, StopCause, Success,
    Verdict, interruption, is_interrupted,
};
use crate::config::After;
use crate::error;
use crate::logic::history;
use crate::logic::reason::{Reason, is_listed};
use crate::logic::status::reason_name;

/// A run that has ended and whose output is still being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndedRun {
    /// The number of the run, counted from 1.
    run: u64,
    success: bool,
    /// The first line of the termination log for this run.
    termination_message: String,
}

/// What is left of the last run. The next start and kapo's own end wait until nothing is left.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// The run whose output is still being read.
    pub(super) output: Option<EndedRun>,
    /// The process group that may not be empty yet.
    pub(super) group: Option<Leftover>,
}

impl Remains {
    pub(super) fn is_empty(&self) -> bool {
        self.output.is_none() && self.group.is_none()
    }
}

/// How kapo itself ends.
#[derive(Debug, Default)]
pub(super) struct OwnEnd {
    /// No further run follows the present one.
    pub(super) leaving: bool,
    /// The exit code.
    pub(super) code: u8,
    /// The signal that was typed at the terminal and ended the command. `true`: only the command's process group has
    /// received it.
    pub(super) dies_by: Option<(Signal, bool)>,
}

/// The stop of a run by kapo or by a stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// The cause of the stop.
    pub why: StopCause,
    /// When the command was asked to stop.
    pub at: Instant,
    /// The command and its group got SIGKILL because they did not end in time.
    pub killed: bool,
}

impl Lifecycle {
    /// Handles a failed start.
    pub(super) fn not_started(
        &mut self,
        now: Now,
        reason: &str,
        kind: SpawnErrorKind,
        out: &mut Vec<Effect>,
    ) {
        let (code, message) = match kind {
            SpawnErrorKind::NotFound => (error::EXIT_NOT_FOUND, "cannot execute"),
            SpawnErrorKind::NotExecutable => (error::EXIT_CANNOT_EXECUTE, "cannot execute"),
            SpawnErrorKind::Setup => (error::EXIT_SETUP, "cannot start"),
        };
        self.own_end.code = code;
        let episode = self.episode_effect(Reason::ExecFailed, Duration::ZERO);
        self.document.failed(now, code, episode);
        let command =
            if self.document.status.command.is_empty() { "''" } else { &self.document.status.command };
        let text = format!("{message} {command}: {reason}");
        self.remains.output = None;
        self.write_termination_message(self.termination_message(), std::slice::from_ref(&text), out);
        if self.policy.is_none() {
            out.push(Effect::PrintError(text));
            return self.close(out);
        }
        let record = match kind {
            SpawnErrorKind::NotFound | SpawnErrorKind::NotExecutable => Record::error("cannot execute"),
            SpawnErrorKind::Setup => Record::error("cannot start"),
        };
        let record = record.with("command", &self.document.status.command).with("error", reason);
        self.log_end(now, Duration::ZERO, record, out);
        let run = RunOutcome {
            lasted: Duration::ZERO,
            success: false,
            expired: false,
            never_ran: true,
            by_itself: Some(Exit::Code(code)),
        };
        self.next(now, run, out);
    }

    /// Handles the end of a command that was not asked to stop.
    pub(super) fn ended_by_itself(&mut self, now: Now, process: Process, end: End, out: &mut Vec<Effect>) {
        self.handle_hang_up(end.hung_up, out);
        self.own_end.leaving |= end.on_terminal && is_interrupted(end.exit);
        let typed = interruption(end.exit).filter(|_| end.on_terminal);
        self.own_end.dies_by = typed.map(|signal| (signal, true));
        let run = self.ended(now, process, None, end, out);
        let group = process.group;
        if self.job.setsid && self.policy.is_none() && !self.job.single_child {
            out.push(Effect::Kill {
                signal: Signal::TERM,
                to: SignalTarget::LeftoverGroup(group),
                log: None,
            });
        }
        out.push(Effect::Drain { run: self.document.runs.starts() });
        if self.next(now, run, out) && !self.job.single_child {
            self.clear_group(group, out);
        }
    }

    /// Handles the end of a command during its dump. Its group has received no stop signal.
    pub(super) fn ended_in_dump(
        &mut self,
        now: Now,
        process: Process,
        why: StopCause,
        end: End,
        out: &mut Vec<Effect>,
    ) {
        self.handle_hang_up(end.hung_up, out);
        let run = self.ended(now, process, Some(why), end, out);
        if !self.job.single_child {
            self.clear_group(process.group, out);
        }
        out.push(Effect::Drain { run: self.document.runs.starts() });
        self.next(now, run, out);
    }

    /// Handles the end of a command that was asked to stop.
    pub(super) fn ended_by_stop(
        &mut self,
        now: Now,
        process: Process,
        stop: Stop,
        end: End,
        out: &mut Vec<Effect>,
    ) {
        self.handle_hang_up(end.hung_up, out);
        let typed = stop.why == StopCause::StopSignal && self.was_stopped_by_terminal();
        self.own_end.dies_by = interruption(end.exit).filter(|_| typed).map(|signal| (signal, false));
        let run = self.ended(now, process, Some(stop.why), end, out);
        // `--single-child` restricts every signal to the command itself.
        if !self.job.single_child {
            self.wait_for_stopped_group(now, process.group, stop, out);
        }
        out.push(Effect::Drain { run: self.document.runs.starts() });
        self.next(now, run, out);
    }

    /// Publishes and logs the end of a run after the command was reaped.
    fn ended(
        &mut self,
        now: Now,
        process: Process,
        why: Option<StopCause>,
        end: End,
        out: &mut Vec<Effect>,
    ) -> RunOutcome {
        self.leave_running(self.state);
        self.deadlines.stop(Deadline::Kill);
        let lasted = now.mono.saturating_duration_since(process.since);
        self.record_end(now, why, end, lasted);
        self.log_end(now, lasted, self.end_record(process.pid, why, lasted), out);
        let success = self.document.status.reason == Some(Reason::Success);
        let termination_message = self.termination_message();
        self.remains.output =
            Some(EndedRun { run: self.document.runs.starts(), success, termination_message });
        RunOutcome {
            lasted,
            success,
            expired: why == Some(StopCause::Ttl),
            never_ran: false,
            by_itself: why.is_none().then_some(end.exit),
        }
    }

    /// Records the end in the document and sets kapo's exit code.
    fn record_end(&mut self, now: Now, why: Option<StopCause>, end: End, lasted: Duration) {
        let End { exit, usage, memory, .. } = end;
        let reason = reason(&self.job.success_exit, why, end);
        self.own_end.code = match reason {
            Reason::Success => 0,
            Reason::Timeout | Reason::Silent => error::EXIT_TIMEOUT,
            // A supervisor that restarts kapo on failure must not mistake a hung command for a success.
            Reason::Watchdog | Reason::Unhealthy => exit.code().max(1),
            _ => exit.code(),
        };
        let episode = self.episode_effect(reason, lasted);
        self.document.ended(RunEnd { usage, lasted, memory, ..RunEnd::new(now, exit, reason) }, episode);
    }

    /// Returns what an end means for the current series of failures.
    fn episode_effect(&self, reason: Reason, lasted: Duration) -> history::EpisodeEffect {
        match reason {
            // An end by TTL or after a stop signal is planned, so it is not a failure.
            _ if self.own_end.leaving => history::EpisodeEffect::Success,
            Reason::Success | Reason::Timeout => history::EpisodeEffect::Success,
            _ => {
                let stable = self.policy.as_ref().and_then(Policy::stable);
                history::EpisodeEffect::Failure { stable: stable.is_some_and(|stable| lasted >= stable) }
            }
        }
    }

    /// Returns the log record of the end that the document shows.
    fn end_record(&self, pid: ProcessId, why: Option<StopCause>, lasted: Duration) -> Record {
        // A requested or planned end is not a warning, regardless of the command's exit code.
        let expected = self.document.status.reason == Some(Reason::Success)
            || matches!(why, Some(StopCause::StopSignal | StopCause::Ttl));
        let record = if expected { Record::info("exited") } else { Record::warn("exited") };
        let record = record
            .with("command", &self.document.status.command)
            .number("pid", pid)
            .with("reason", reason_name(self.document.status.reason));
        let record = match self.document.status.signal {
            Some(signal) => record.with("signal", signal),
            None => record.number("code", self.document.status.exit_code),
        };
        record.with("lasted", Seconds(lasted))
    }

    /// Handles the end of the drain of a run's output. It is ignored if a later run has ended in the meantime.
    pub(super) fn drained(&mut self, run: u64, last_output: Vec<String>, out: &mut Vec<Effect>) {
        let Some(ended) = self.remains.output.take_if(|ended| ended.run == run) else { return };
        self.write_termination_message(ended.termination_message, &last_output, out);
        if !ended.success && !last_output.is_empty() {
            self.document.drained(last_output);
        }
    }

    /// Decides what follows a run: leave, keep serving the status, or restart. Returns whether another run follows.
    fn next(&mut self, now: Now, run: RunOutcome, out: &mut Vec<Effect>) -> bool {
        let leaving = self.own_end.leaving;
        let verdict = self.policy.as_mut().and_then(|policy| match leaving {
            true => {
                policy.ended_on_request(run);
                None
            }
            false => Some(policy.ended(now.mono, run, &mut self.random)),
        });
        self.update_flapping(now, out);
        if let Some(until) = self.policy.as_ref().and_then(Policy::flapping_until).filter(|at| *at > now.mono)
        {
            self.deadlines.set(Deadline::Flapping, now.mono, until.saturating_duration_since(now.mono));
        }
        // The next end may come late or never.
        if !matches!(verdict, Some(Verdict::Again(pause)) if pause < MINUTE) {
            self.end_series(now, out);
        }
        if self.own_end.leaving {
            self.finish();
            return false;
        }
        match (verdict, &self.job.after) {
            (Some(Verdict::Again(pause)), _) => {
                // Log only pauses that are longer than the usual one, which is known from the options.
                if self.policy.as_ref().is_some_and(|policy| pause > policy.wait()) && !self.left_out_end() {
                    out.push(Effect::Log(Record::info("restarting").with("pause", Seconds(pause))));
                }
                self.state = MachineState::Pausing;
                self.document.status.next_start = now.wall.checked_add(pause);
                self.document.changed = true;
                self.deadlines.set(Deadline::Start, now.mono, pause);
                return true;
            }
            (Some(Verdict::Finished), _) => self.finish(),
            (Some(Verdict::Final), _) => {
                out.push(Effect::Log(
                    Record::info("not restarting")
                        .number("code", self.document.status.exit_code)
                        .with("why", "--no-restart-on lists it"),
                ));
                self.finish();
            }
            (Some(Verdict::GiveUp), _) => {
                out.push(Effect::Log(
                    Record::error("too many restarts").number("restarts", self.document.status.restarts),
                ));
                self.finish();
            }
            (None, After::Once(Linger::Fixed(wait)) | After::Once(Linger::Idle(wait))) if !wait.is_zero() => {
                out.push(Effect::Log(Record::info("lingering").with("wait", Seconds(*wait))));
                self.deadlines.set(Deadline::Linger, now.mono, *wait);
                self.state = MachineState::Lingering;
                self.document.changed = true;
            }
            (None, _) => self.finish(),
        }
        false
    }

    /// Ends the pause. The next start follows as soon as nothing is left of the last run.
    pub(super) fn clear(&mut self) {
        self.state = MachineState::Clearing;
        self.document.clear_next_start();
    }

    /// Starts the next run.
    pub(super) fn start_again(&mut self, out: &mut Vec<Effect>) {
        self.state = MachineState::Starting;
        out.push(Effect::Spawn);
    }

    /// Restarts the idle timeout of `--idle-exit` after a request was answered.
    pub(super) fn extend_linger(&mut self, now: Now) {
        if let After::Once(Linger::Idle(idle)) = self.job.after {
            self.deadlines.set(Deadline::Linger, now.mono, idle);
        }
    }

    /// Ends kapo as soon as nothing is left of the last run.
    pub(super) fn finish(&mut self) {
        self.own_end.leaving = true;
        self.deadlines.stop(Deadline::Start);
        self.deadlines.stop(Deadline::Linger);
        self.state = MachineState::Finishing;
        self.document.clear_next_start();
    }

    /// Stops waiting after a second stop signal, both for a stalled reader of the output and for the rest of the group.
    pub(super) fn give_up_waiting(&mut self, by: ReceivedSignal, out: &mut Vec<Effect>) {
        self.kill_leftover(out);
        self.log_stop_request(by, out);
        if let Some(EndedRun { termination_message, .. }) = self.remains.output.take() {
            self.write_termination_message(termination_message, &[], out);
        }
    }

    /// Closes the server: clients that are connected get their answers, and no new client is accepted.
    pub(super) fn close(&mut self, out: &mut Vec<Effect>) {
        self.own_end.leaving = true;
        self.deadlines = Deadlines::default();
        self.state = MachineState::Closing;
        self.document.clear_next_start();
        self.report_stopping(out);
        out.push(Effect::Close);
    }

    /// Ends kapo.
    pub(super) fn exit(&mut self, out: &mut Vec<Effect>) {
        self.state = MachineState::Done;
        // Log the exit code only if it differs from the command's, which is already in the log.
        if self.document.runs.last_code() != Some(self.own_end.code) {
            out.push(Effect::Log(Record::info("exiting").number("code", self.own_end.code)));
        }
        // If `--success-exit` makes this end a success, the callers of kapo have no reason to stop.
        if let Some((signal, all)) = self.own_end.dies_by
            && self.own_end.code == (Exit::Signal { signal, core_dumped: false }).code()
            && !self.context.is_init
        {
            out.push(Effect::DieBy { signal, all });
        }
        out.push(Effect::Exit(self.own_end.code));
    }

    fn write_termination_message(
        &self,
        termination_message: String,
        last_output: &[String],
        out: &mut Vec<Effect>,
    ) {
        if self.job.termination_log.is_some() {
            out.push(Effect::TerminationLog(with_output(termination_message, last_output)));
        }
    }
}

/// Returns the document's `Reason` for an end.
fn reason(success_exit: &[Success], why: Option<StopCause>, end: End) -> Reason {
    let End { exit, oom_killed, .. } = end;
    let listed = is_listed(success_exit, exit);
    match (why, exit) {
        (Some(StopCause::Ttl), _) if success_exit.contains(&Success::Ttl) => Reason::Success,
        (Some(StopCause::Ttl), _) => Reason::Timeout,
        (Some(StopCause::Watchdog), _) => Reason::Watchdog,
        (Some(StopCause::Silence), _) => Reason::Silent,
        (Some(StopCause::Unhealthy), _) => Reason::Unhealthy,
        (Some(StopCause::StopSignal) | None, _) if listed || exit == Exit::Code(0) => Reason::Success,
        (Some(StopCause::StopSignal) | None, Exit::Signal { signal: Signal::KILL, .. }) if oom_killed => {
            Reason::OomKill
        }
        (Some(StopCause::StopSignal) | None, Exit::Signal { core_dumped: true, .. }) => Reason::CoreDump,
        (Some(StopCause::StopSignal) | None, Exit::Signal { core_dumped: false, .. }) => Reason::Signal,
        (Some(StopCause::StopSignal) | None, Exit::Code(_)) => Reason::ExitCode,
    }
}
