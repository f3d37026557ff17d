//! What a signal for kapo leads to: a stop, a signal for the command, or both.

use super::signal_policy::{asks_for_an_end, concerns_the_command, is_worth_a_word, job_control};
use super::{Effect, Exit, Lifecycle, Now, Pid, Record, Sender, Signal, State, StopCause, StopSignalFrom};

impl Lifecycle {
    pub(super) fn signal(&mut self, now: Now, signal: Signal, sender: Sender, out: &mut Vec<Effect>) {
        if sender == Sender::Kernel && !concerns_the_command(signal) {
            return;
        }
        let stop = self.is_asked_to_stop_by(signal, sender);
        let again = self.status.stop_signal_from.is_some();
        let mut request = stop.then(|| self.stop_request(signal, sender));
        if stop && self.pid().is_none() {
            if self.state == State::Finishing && again {
                self.kill_leftover(out);
            }
            out.extend(request.take().map(Effect::Log));
            self.tell_stopping(out);
        }
        if signal == Signal::CONT {
            self.control.reset_claims();
        }
        let typed = sender == Sender::Kernel && matches!(signal, Signal::INT | Signal::QUIT);
        match self.state {
            State::Running { pid, since } => {
                let told = !stop && is_worth_a_word(signal);
                let log = told.then(|| sender.told(Record::info("passed on").with("signal", signal)));
                self.pass_on(signal, pid, log.map(|record| self.with_rewrite(signal, record)), out);
                if signal == Signal::CONT {
                    self.has_been_suspended(now);
                }
                if stop {
                    self.stop(now, pid, since, StopCause::Asked, out);
                }
            }
            State::Stopping { pid, .. } => self.pass_on(signal, pid, None, out),
            State::Pausing | State::Clearing if stop => {
                if typed {
                    self.code = Exit::Signal { signal, core_dumped: false }.code();
                    self.interrupted = Some((signal, false));
                }
                self.finish(out);
            }
            State::Lingering if stop => self.finish(out),
            // A second stop signal waits neither for a reader that has stalled, nor for the group, nor for a client.
            State::Finishing if stop && again => self.close_at_once(out),
            State::Closing if stop && again => self.exit(out),
            // Should the command never come to be, this is how it would have ended.
            State::Starting if stop => {
                self.code = Exit::Signal { signal, core_dumped: false }.code();
                self.interrupted = Some((signal, false)).filter(|_| typed);
            }
            State::Starting if !job_control(signal) => self.early = Some(signal),
            State::Starting
            | State::Pausing
            | State::Clearing
            | State::Lingering
            | State::Finishing
            | State::Closing
            | State::Done => {}
        }
        // The command has got the signal by now, however long the log takes.
        if let Some(request) = request {
            if let Some(pid) =
                self.pid().filter(|_| self.rewritten(signal).is_some_and(|to| !job_control(to)))
            {
                out.push(Effect::CheckStopped(pid));
            }
            out.push(Effect::Log(request));
            self.tell_stopping(out);
        }
        if job_control(signal) {
            out.push(Effect::Suspend { signal, all: false });
        }
    }

    pub(super) fn is_asked_to_stop_by(&self, signal: Signal, sender: Sender) -> bool {
        asks_for_an_end(signal, sender, self.context.ignored_at_start, &self.job.stop_on)
    }

    /// Notes that kapo was asked to stop; the line for the log.
    pub(super) fn stop_request(&mut self, signal: Signal, sender: Sender) -> Record {
        self.leaving = true;
        if self.status.stop_signal_from.is_none() {
            self.status.stop_signal_from = Some(StopSignalFrom { signal, sender });
            self.changed = true;
        }
        let record = Record::info("asked to stop").with("signal", signal);
        self.with_rewrite(signal, sender.told(record))
    }

    /// The command is stopped, and would not act on the stop signal that it has got. A running command gets exactly the
    /// signals that were sent.
    pub(super) fn found_stopped(&self, out: &mut Vec<Effect>) {
        if let State::Stopping { pid, .. } = self.state {
            self.kill(Signal::CONT, pid, None, out);
        }
    }

    pub(super) fn kill_failed(&mut self, signal: Signal, reason: &str, out: &mut Vec<Effect>) {
        // Once a run: signals that are passed on may come by the thousand.
        if !std::mem::replace(&mut self.unreachable, true) {
            let record = Record::warn("cannot signal the command").with("signal", signal);
            out.push(Effect::Log(record.with("error", reason)));
        }
    }

    /// The kernel tells of a lost terminal only who leads its session or is in its foreground. Where that is the
    /// command, kapo learns of it by its end: the next one would run on a terminal that nobody sees.
    pub(super) fn hears_of_hang_up(&mut self, hung_up: bool, out: &mut Vec<Effect>) {
        if hung_up && self.is_asked_to_stop_by(Signal::HUP, Sender::Kernel) {
            let request = self.stop_request(Signal::HUP, Sender::Kernel);
            out.push(Effect::Log(request));
            self.tell_stopping(out);
        }
    }

    /// What `--rewrite-signal` makes of it; `None`: it is not passed on.
    pub(super) fn rewritten(&self, signal: Signal) -> Option<Signal> {
        let found = self.job.rewrite_signal.iter().rev().find(|(from, _)| *from == signal);
        found.map_or(Some(signal), |(_, to)| *to)
    }

    /// `passed_as=SIGQUIT`, where that is another.
    pub(super) fn with_rewrite(&self, signal: Signal, record: Record) -> Record {
        match self.rewritten(signal) {
            Some(same) if same == signal => record,
            Some(other) => record.with("passed_as", other),
            None => record.with("passed_as", "none"),
        }
    }

    /// Forwards a signal to the command, as `--rewrite-signal` says, and logs `log` after that.
    pub(super) fn pass_on(&self, signal: Signal, pid: Pid, log: Option<Record>, out: &mut Vec<Effect>) {
        let Some(signal) = self.rewritten(signal) else {
            out.extend(log.map(Effect::Log));
            return;
        };
        if signal == Signal::CONT && self.control.gives_terminal() {
            out.push(Effect::GiveTerminal(self.group.unwrap_or(pid)));
        }
        // A group without a parent outside its session is orphaned, and the kernel ignores TSTP for it.
        let signal = if self.job.setsid && job_control(signal) { Signal::STOP } else { signal };
        self.kill(signal, pid, log, out);
    }

    pub(super) fn kill(&self, signal: Signal, pid: Pid, log: Option<Record>, out: &mut Vec<Effect>) {
        out.push(Effect::Kill { signal, to: self.target(pid), log });
    }
}
