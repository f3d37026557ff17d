//! What a signal for kapo leads to: a stop, a signal for the command, or both.

use super::machine::Input;
use super::signal_policy::{asks_for_an_end, concerns_the_command, is_worth_a_word, job_control};
use super::{Effect, Exit, Lifecycle, Now, Process, Record, Sender, Signal, StopCause, StopSignalFrom};

/// A signal for kapo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) signal: Signal,
    pub(super) sender: Sender,
}

impl Received {
    /// It was typed at the terminal: ^C or ^\.
    pub(super) fn is_typed(self) -> bool {
        self.sender == Sender::Kernel && matches!(self.signal, Signal::INT | Signal::QUIT)
    }
}

/// What did not reach the command.
#[derive(Debug, Default)]
pub(super) struct Undelivered {
    /// A signal that came before there was a process to forward it to; the last one, if there were several.
    pub(super) early: Option<Signal>,
    /// The log says that the command of this run cannot be signalled.
    pub(super) unreachable: bool,
}

impl Lifecycle {
    /// What a signal means; `None`: nothing. No stop signal is one of job control, as `--stop-on` refuses those.
    pub(super) fn classify(&self, by: Received) -> Option<Input> {
        if by.sender == Sender::Kernel && !concerns_the_command(by.signal) {
            return None;
        }
        Some(if self.is_asked_to_stop_by(by.signal, by.sender) {
            match self.document.status.stop_signal_from {
                None => Input::StopRequest(by),
                Some(_) => Input::InsistOnStop(by),
            }
        } else if by.signal == Signal::CONT {
            Input::Continue
        } else if job_control(by.signal) {
            Input::JobControl(by.signal)
        } else {
            Input::Forward(by)
        })
    }

    /// There is no command yet. Should it never come to be, this is how it would have ended.
    pub(super) fn stop_before_start(&mut self, by: Received, out: &mut Vec<Effect>) {
        self.note_stop_request(by, out);
        self.end_by(by.signal);
        self.own_end.dies_by = Some((by.signal, false)).filter(|_| by.is_typed());
    }

    /// The command gets the signal, and its end begins.
    pub(super) fn stop_as_asked(&mut self, now: Now, process: Process, by: Received, out: &mut Vec<Effect>) {
        let request = self.stop_request(by);
        self.pass_on(by.signal, process, None, out);
        self.stop(now, process, StopCause::Asked, out);
        self.report_stop_request(by, process, request, out);
    }

    /// The command gets another stop signal.
    pub(super) fn forward_stop(&mut self, process: Process, by: Received, out: &mut Vec<Effect>) {
        let request = self.stop_request(by);
        self.pass_on(by.signal, process, None, out);
        self.report_stop_request(by, process, request, out);
    }

    /// No other run follows. What was typed meant all that run on the terminal, so kapo ends by it as they do.
    pub(super) fn leave_between_runs(&mut self, by: Received, out: &mut Vec<Effect>) {
        self.note_stop_request(by, out);
        if by.is_typed() {
            self.end_by(by.signal);
            self.own_end.dies_by = Some((by.signal, false));
        }
        self.finish();
    }

    /// A running command gets a signal that is no stop signal.
    pub(super) fn forward(&self, by: Received, process: Process, out: &mut Vec<Effect>) {
        let record = || {
            self.with_rewrite(
                by.signal,
                by.sender.told(Record::info("signal forwarded").with("signal", by.signal)),
            )
        };
        self.pass_on(by.signal, process, is_worth_a_word(by.signal).then(record), out);
    }

    /// Logs a stop request and tells the service manager.
    pub(super) fn note_stop_request(&mut self, by: Received, out: &mut Vec<Effect>) {
        let request = self.stop_request(by);
        out.push(Effect::Log(request));
        self.tell_stopping(out);
    }

    /// The command has got the signal by now, however long the log takes.
    fn report_stop_request(
        &mut self,
        by: Received,
        process: Process,
        request: Record,
        out: &mut Vec<Effect>,
    ) {
        if self.rewritten(by.signal).is_some_and(|to| !job_control(to)) {
            out.push(Effect::CheckStopped(process.pid));
        }
        out.push(Effect::Log(request));
        self.tell_stopping(out);
    }

    /// kapo exits as if this signal had ended it.
    fn end_by(&mut self, signal: Signal) {
        self.own_end.code = Exit::Signal { signal, core_dumped: false }.code();
    }

    pub(super) fn is_asked_to_stop_by(&self, signal: Signal, sender: Sender) -> bool {
        asks_for_an_end(signal, sender, self.context.ignored_at_start, &self.job.stop_on)
    }

    /// Notes that kapo was asked to stop; the line for the log.
    pub(super) fn stop_request(&mut self, Received { signal, sender }: Received) -> Record {
        self.own_end.leaving = true;
        self.document.asked_to_stop(StopSignalFrom { signal, sender });
        let record = Record::info("signal received").with("signal", signal);
        self.with_rewrite(signal, sender.told(record))
    }

    pub(super) fn kill_failed(&mut self, signal: Signal, reason: &str, out: &mut Vec<Effect>) {
        // Once a run: signals that are passed on may come by the thousand.
        if !std::mem::replace(&mut self.undelivered.unreachable, true) {
            let record = Record::warn("cannot send signal").with("signal", signal);
            out.push(Effect::Log(record.with("error", reason)));
        }
    }

    /// The kernel tells of a lost terminal only who leads its session or is in its foreground. Where that is the
    /// command, kapo learns of it by its end: the next one would run on a terminal that nobody sees.
    pub(super) fn hears_of_hang_up(&mut self, hung_up: bool, out: &mut Vec<Effect>) {
        let by = Received { signal: Signal::HUP, sender: Sender::Kernel };
        if hung_up && self.is_asked_to_stop_by(by.signal, by.sender) {
            self.note_stop_request(by, out);
        }
    }

    /// What `--rewrite-signal` makes of it; `None`: it is not passed on.
    pub(super) fn rewritten(&self, signal: Signal) -> Option<Signal> {
        let found = self.job.rewrite_signal.iter().rev().find(|(from, _)| *from == signal);
        found.map_or(Some(signal), |(_, to)| *to)
    }

    /// `forwarded_as=SIGQUIT`, where that is another.
    pub(super) fn with_rewrite(&self, signal: Signal, record: Record) -> Record {
        match self.rewritten(signal) {
            Some(same) if same == signal => record,
            Some(other) => record.with("forwarded_as", other),
            None => record.with("forwarded_as", "none"),
        }
    }

    /// Forwards a signal to the command, as `--rewrite-signal` says, and logs `log` after that.
    pub(super) fn pass_on(
        &self,
        signal: Signal,
        process: Process,
        log: Option<Record>,
        out: &mut Vec<Effect>,
    ) {
        let Some(signal) = self.rewritten(signal) else {
            out.extend(log.map(Effect::Log));
            return;
        };
        if signal == Signal::CONT && self.control.gives_terminal() {
            out.push(Effect::GiveTerminal(process.group));
        }
        // A group without a parent outside its session is orphaned, and the kernel ignores TSTP for it.
        let signal = if self.job.setsid && job_control(signal) { Signal::STOP } else { signal };
        self.kill(signal, process, log, out);
    }

    /// Takes the terminal back and stops kapo as its job was stopped.
    pub(super) fn suspend(&self, signal: Signal, all: bool, out: &mut Vec<Effect>) {
        out.push(Effect::Suspend { signal, all });
    }

    pub(super) fn kill(&self, signal: Signal, process: Process, log: Option<Record>, out: &mut Vec<Effect>) {
        out.push(Effect::Kill { signal, to: self.target(process), log });
    }
}
