//! Handles the signals that kapo receives: a stop, a signal for the command, or both.

use super::machine::Input;
use super::signal_policy::{is_for_command, is_job_control, is_logged, is_stop_signal};
use super::{Effect, Exit, Lifecycle, Now, Process, Record, Sender, Signal, StopCause, StopSignalFrom};

/// A signal that kapo has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceivedSignal {
    pub(super) signal: Signal,
    pub(super) sender: Sender,
}

impl ReceivedSignal {
    /// Whether the signal was typed at the terminal as ^C or ^\.
    pub(super) fn is_typed(self) -> bool {
        self.sender == Sender::Kernel && matches!(self.signal, Signal::INT | Signal::QUIT)
    }
}

/// The signals that did not reach the command.
#[derive(Debug, Default)]
pub(super) struct Undelivered {
    /// The last signal that arrived before there was a process to forward it to.
    pub(super) before_start: Option<Signal>,
    /// A failure to send a signal was already logged in this run.
    pub(super) unreachable: bool,
}

impl Lifecycle {
    /// Classifies a signal. Returns `None` if it has no effect. A stop signal is never a job-control signal, because
    /// `--stop-on` refuses those.
    pub(super) fn classify(&self, by: ReceivedSignal) -> Option<Input> {
        if by.sender == Sender::Kernel && !is_for_command(by.signal) {
            return None;
        }
        Some(if self.is_stop_request(by.signal, by.sender) {
            match self.document.status.stop_signal_from {
                None => Input::StopRequest(by),
                Some(_) => Input::RepeatedStopRequest(by),
            }
        } else if by.signal == Signal::CONT {
            Input::Continue
        } else if is_job_control(by.signal) {
            Input::JobControl(by.signal)
        } else {
            Input::Forward(by)
        })
    }

    /// Handles a stop signal before the command runs. If the start is abandoned, kapo ends as if the signal had ended
    /// the command.
    pub(super) fn stop_before_start(&mut self, by: ReceivedSignal, out: &mut Vec<Effect>) {
        self.log_stop_request(by, out);
        self.end_by(by.signal);
        self.own_end.dies_by = Some((by.signal, false)).filter(|_| by.is_typed());
    }

    /// Forwards a stop signal to the command and begins the stop.
    pub(super) fn stop_by_signal(
        &mut self,
        now: Now,
        process: Process,
        why: StopCause,
        by: ReceivedSignal,
        out: &mut Vec<Effect>,
    ) {
        let request = self.stop_request(by);
        self.forward_signal(by.signal, process, None, out);
        self.stop(now, process, why, out);
        self.report_stop_request(by, process, request, out);
    }

    /// Forwards a further stop signal to the command.
    pub(super) fn forward_stop(&mut self, process: Process, by: ReceivedSignal, out: &mut Vec<Effect>) {
        let request = self.stop_request(by);
        self.forward_signal(by.signal, process, None, out);
        self.report_stop_request(by, process, request, out);
    }

    /// Handles a stop signal between two runs: no further run follows. ^C and ^\ are meant for every process on the
    /// terminal, so kapo ends by the signal as they do.
    pub(super) fn stop_between_runs(&mut self, by: ReceivedSignal, out: &mut Vec<Effect>) {
        self.log_stop_request(by, out);
        if by.is_typed() {
            self.end_by(by.signal);
            self.own_end.dies_by = Some((by.signal, false));
        }
        self.finish();
    }

    /// Forwards a signal that is not a stop signal to the running command.
    pub(super) fn forward(&self, by: ReceivedSignal, process: Process, out: &mut Vec<Effect>) {
        let record = || {
            self.with_rewrite(
                by.signal,
                by.sender.told(Record::info("signal forwarded").with("signal", by.signal)),
            )
        };
        self.forward_signal(by.signal, process, is_logged(by.signal).then(record), out);
    }

    /// Logs a stop signal and reports the stop to the service manager.
    pub(super) fn log_stop_request(&mut self, by: ReceivedSignal, out: &mut Vec<Effect>) {
        let request = self.stop_request(by);
        out.push(Effect::Log(request));
        self.report_stopping(out);
    }

    /// Logs a stop signal after it was forwarded, so that a slow log does not delay the signal.
    fn report_stop_request(
        &mut self,
        by: ReceivedSignal,
        process: Process,
        request: Record,
        out: &mut Vec<Effect>,
    ) {
        self.check_stopped(by, process, out);
        out.push(Effect::Log(request));
        self.report_stopping(out);
    }

    /// Checks whether the command is stopped, so that it cannot act on the stop signal.
    pub(super) fn check_stopped(&self, by: ReceivedSignal, process: Process, out: &mut Vec<Effect>) {
        if self.rewritten(by.signal).is_some_and(|to| !is_job_control(to)) {
            out.push(Effect::CheckStopped(process.pid));
        }
    }

    /// Sets kapo's exit code as if this signal had ended the command.
    fn end_by(&mut self, signal: Signal) {
        self.own_end.code = Exit::Signal { signal, core_dumped: false }.code();
    }

    pub(super) fn is_stop_request(&self, signal: Signal, sender: Sender) -> bool {
        is_stop_signal(signal, sender, self.context.ignored_at_start, self.job.stop_on)
    }

    /// Records a stop signal and returns its log record.
    pub(super) fn stop_request(&mut self, ReceivedSignal { signal, sender }: ReceivedSignal) -> Record {
        self.own_end.leaving = true;
        self.document.stop_requested(StopSignalFrom { signal, sender });
        let record = Record::info("signal received").with("signal", signal);
        self.with_rewrite(signal, sender.told(record))
    }

    pub(super) fn kill_failed(&mut self, signal: Signal, reason: &str, out: &mut Vec<Effect>) {
        // Log only once in each run, because thousands of signals may be forwarded.
        if !std::mem::replace(&mut self.undelivered.unreachable, true) {
            let record = Record::warn("cannot send signal").with("signal", signal);
            out.push(Effect::Log(record.with("error", reason)));
        }
    }

    /// Handles the loss of the terminal. The kernel reports it only to the session leader and to the foreground process
    /// group. If the command is in the foreground, kapo notices the loss only by the command's end. A further run would
    /// have no usable terminal.
    pub(super) fn handle_hang_up(&mut self, hung_up: bool, out: &mut Vec<Effect>) {
        let by = ReceivedSignal { signal: Signal::HUP, sender: Sender::Kernel };
        if hung_up && self.is_stop_request(by.signal, by.sender) {
            self.log_stop_request(by, out);
        }
    }

    /// Applies `--rewrite-signal`. Returns `None` if the signal is not forwarded.
    pub(super) fn rewritten(&self, signal: Signal) -> Option<Signal> {
        let found = self.job.rewrite_signal.iter().rev().find(|(from, _)| *from == signal);
        found.map_or(Some(signal), |(_, to)| *to)
    }

    /// Adds a field such as `forwarded_as=SIGQUIT` if the signal is rewritten.
    pub(super) fn with_rewrite(&self, signal: Signal, record: Record) -> Record {
        match self.rewritten(signal) {
            Some(same) if same == signal => record,
            Some(other) => record.with("forwarded_as", other),
            None => record.with("forwarded_as", "none"),
        }
    }

    /// Forwards a signal to the command after applying `--rewrite-signal`, then logs `log`.
    pub(super) fn forward_signal(
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
        // In a new session the command's process group is orphaned, and the kernel ignores TSTP for it.
        let signal = if self.job.setsid && is_job_control(signal) { Signal::STOP } else { signal };
        self.kill(signal, process, log, out);
    }

    /// Takes the terminal back, and stops kapo in the same way as its job.
    pub(super) fn suspend(&self, signal: Signal, all: bool, out: &mut Vec<Effect>) {
        out.push(Effect::Suspend { signal, all });
    }

    pub(super) fn kill(&self, signal: Signal, process: Process, log: Option<Record>, out: &mut Vec<Effect>) {
        out.push(Effect::Kill { signal, to: self.target(process), log });
    }
}
