//! The lifecycle of one command under `run` and `supervise`: it takes events and returns effects.
//!
//! The states, and what follows from each event in each state, are one table in `machine`. The methods that it calls
//! are in the other files: those up to the end of a run in `signals` and `stopping`, the later ones in `ending` and
//! `leftover_group`.
//!
//! Two facts are kept beside the state because they vary independently of it: whether kapo was asked to stop, and
//! whether the command has reported that it is ready. The process that starts a stop is responsible for its deadline.
//! After a TTL or a missed ping kapo sends SIGKILL itself. After a signal from outside kapo does so only with
//! `--kill-after`, because Docker, Kubernetes and systemd send SIGKILL themselves and a long drain must not be cut
//! short.

pub mod event;
pub mod leftover_group;
pub mod origin;
pub mod signal_policy;

use std::rc::Rc;
use std::time::Instant;

use super::deadlines::{Deadline, Deadlines};
use super::metrics::Exits;
use super::random::Random;
use super::restart::{Failures, Policy, RunOutcome, Verdict};
use super::status::{Output, ProbeStatus, Status, StopSignalFrom};
use super::{Exit, Now, ProcessId, Sender};
use crate::config::{After, JobOptions, Linger, Success, Ttl};
use crate::duration::Seconds;
use crate::logic::history::History;
use crate::logic::hooks::HookFacts;
use crate::logic::log::record::Record;
use crate::logic::notify::message;
use crate::logic::notify::message::Notification;
use crate::logic::reason::Reason;
use crate::logic::status::ModeName;
use crate::signal::Signal;

mod before_stop;
mod document;
mod ending;
mod following;
pub(crate) mod foreground_check;
mod job_control;
mod machine;
mod readiness;
mod repeats;
mod report;
pub mod run_record;
mod signals;
mod stopping;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
pub mod world;

pub use crate::logic::lifecycle::event::{
    Effect, End, Event, ForegroundOwner, IgnoredAtStart, JobContext, SignalTarget, SpawnErrorKind,
};
use crate::logic::lifecycle::leftover_group::Leftover;
use crate::logic::lifecycle::signal_policy::{interruption, is_interrupted};
pub use crate::logic::lifecycle::signal_policy::{is_job_control, is_stop_signal};
use document::Document;
use ending::{OwnEnd, Remains, Stop};
use job_control::JobControl;
pub use job_control::{AfterStop, TerminalView};
use machine::{MachineState, Process};
use readiness::Readiness;
use repeats::Repeats;
use run_record::Runs;
use signals::Undelivered;

/// The cause of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopCause {
    /// The TTL has passed.
    Ttl,
    /// The command has missed a watchdog ping.
    Watchdog,
    /// The command has printed nothing for `--silence`.
    Silence,
    /// The probes of the command have failed.
    Unhealthy,
    /// kapo has received a stop signal.
    StopSignal,
}

/// The lifecycle of one command.
#[derive(Debug)]
pub struct Lifecycle {
    job: Rc<JobOptions>,
    context: JobContext,
    state: MachineState,
    own_end: OwnEnd,
    undelivered: Undelivered,
    remains: Remains,
    readiness: Readiness,
    control: JobControl,
    deadlines: Deadlines,
    /// The restart policy; `None` under `run`.
    policy: Option<Policy>,
    random: Random,
    document: Document,
    repeats: Repeats,
    /// When this run has printed something, or when kapo did not read its output.
    output_seen: Option<Instant>,
}

impl Lifecycle {
    /// Creates a lifecycle before its first event, which must be [`Event::Start`].
    pub fn new(job: Rc<JobOptions>, context: JobContext) -> Lifecycle {
        let (mode, wait, policy) = match &job.after {
            After::Once(Linger::Fixed(wait)) => (ModeName::Run, Some(*wait), None),
            After::Once(Linger::Idle(_)) => (ModeName::Run, None, None),
            After::Again(restart) => {
                (ModeName::Supervise, Some(restart.wait), Some(Policy::new(restart.clone())))
            }
        };
        let shown = !context.hide_args && !job.arguments.is_empty();
        let status = Status {
            arguments: shown
                .then(|| job.arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect()),
            command: job.command.to_string_lossy().into_owned(),
            sidebind_port: context.sidebind_port,
            name: context.name,
            wait,
            ..Status::blank(mode)
        };
        let random = Random::new(context.seed);
        Lifecycle {
            state: MachineState::Starting,
            own_end: OwnEnd::default(),
            undelivered: Undelivered::default(),
            remains: Remains::default(),
            readiness: Readiness::new(job.watchdog),
            control: JobControl::new(context.piped || context.ignored_at_start.interrupt),
            deadlines: Deadlines::default(),
            policy,
            random,
            document: Document::new(status, Runs::new(context.history)),
            repeats: Repeats::default(),
            output_seen: None,
            job,
            context,
        }
    }

    /// Returns when the next [`Event::Deadline`] is due, or `None` if no deadline is set.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Returns when the pause between two runs or the drain ends, so that a client knows when to ask again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.deadlines.at(Deadline::Start).or_else(|| self.deadlines.at(Deadline::Drain))
    }

    /// Returns the failed runs within `--within`; none under `run`.
    pub fn failures(&self, now: Instant) -> Failures {
        self.policy.as_ref().map(|policy| policy.failures(now)).unwrap_or_default()
    }

    /// Returns the status document.
    pub fn status(&self) -> &Status {
        &self.document.status
    }

    /// Returns the number of starts so far, including failed ones.
    pub fn starts(&self) -> u64 {
        self.document.runs.starts()
    }

    /// Returns the number of ended runs, by reason.
    pub fn exits(&self) -> Exits {
        self.document.runs.exits()
    }

    /// Returns the facts whose changes are events for `--on`, apart from the probes.
    pub(crate) fn hook_facts(&self) -> HookFacts {
        let status = &self.document.status;
        let ended =
            |wanted| self.exits().iter().filter(|(reason, _)| *reason == wanted).map(|(_, n)| n).sum();
        // Under `supervise`, an end by the TTL is planned.
        let expired = if self.policy.is_none() { ended(Reason::Timeout) } else { 0 };
        HookFacts {
            executed: self.starts() - ended(Reason::ExecFailed),
            ready: status.ready,
            failed: self.document.runs.failed_runs() + expired,
            unhealthy: 0,
            flapping: status.flapping,
            stopping: status.stop_signal_from.is_some(),
            gave_up: self.policy.as_ref().is_some_and(Policy::gave_up),
        }
    }

    /// Whether kapo keeps serving its status after the end of a run, or starts another run.
    pub fn goes_on_after_end(&self) -> bool {
        !matches!(&self.job.after, After::Once(Linger::Fixed(wait)) if wait.is_zero())
    }

    /// Returns the runs that have ended.
    pub fn history(&self) -> &History {
        self.document.runs.history()
    }

    /// Returns the exit code of the last run that ended, even while the next one is running.
    pub fn last_exit_code(&self) -> Option<u8> {
        self.document.runs.last_code()
    }

    /// Sets the document's `Output`. The driver counts the output and sets this before it renders the document.
    pub fn set_output(&mut self, output: Option<Output>) {
        self.document.status.output = output;
    }

    /// Sets the document's `Probes`, which decide about readiness.
    pub fn set_probes(&mut self, now: Now, probes: Vec<ProbeStatus>, out: &mut Vec<Effect>) {
        self.document.status.probes = Some(probes);
        self.document.changed = true;
        self.refresh(now, out);
    }

    /// Whether the command has been ready in this run.
    pub fn has_been_ready(&self) -> bool {
        self.readiness.has_been_ready && self.pid().is_some()
    }

    /// Returns whether the document has changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.document.changed)
    }

    /// Returns the process whose end the driver must report with [`Event::Exited`].
    pub fn pid(&self) -> Option<ProcessId> {
        self.state.process().map(|process| process.pid)
    }

    /// Returns the exit code that kapo would return for the last run, from the end of that run until the next start.
    /// Otherwise it is `None`, and `/wait` waits.
    pub fn ended_with(&self) -> Option<u8> {
        self.state.is_after_end().then_some(self.own_end.code)
    }

    /// Whether the command is being stopped, or kapo is about to end.
    pub fn is_stopping(&self) -> bool {
        self.own_end.leaving
            || !matches!(self.state, MachineState::Running(_)) && self.state.process().is_some()
    }

    /// Whether the stop signal was typed at the terminal, and so has reached kapo's whole process group.
    fn was_stopped_by_terminal(&self) -> bool {
        self.document.status.stop_signal_from.is_some_and(|StopSignalFrom { signal, sender }| {
            sender == Sender::Kernel && matches!(signal, Signal::INT | Signal::QUIT)
        })
    }

    fn started(&mut self, now: Now, pid: ProcessId, out: &mut Vec<Effect>) {
        let ttl = self.job.ttl.map(|Ttl { min, max }| self.random.between(min, max));
        let process = Process { pid, group: pid, since: now.mono };
        self.state = MachineState::Running(process);
        self.readiness.run_started(self.job.watchdog);
        self.control.reset_reclaims();
        self.undelivered.unreachable = false;
        self.document.started(now, pid, ttl);
        if let Some(ttl) = ttl {
            self.deadlines.set(Deadline::Ttl, now.mono, ttl);
        }
        self.output_seen = None;
        self.restart_silence(now);
        let record =
            Record::info("started").with("command", &self.document.status.command).number("pid", pid);
        let record = match self.document.status.restarts {
            0 => record,
            restarts => record.number("restarts", restarts),
        };
        let left_out = self.log_start(now, record, out);
        let stable = self.policy.as_ref().and_then(Policy::stable);
        // With --stable 0 no run ends flapping, but the start of a run that lasts must be logged.
        if let Some(stable) = stable.or(left_out.then_some(repeats::MINUTE))
            && (left_out || self.document.status.flapping)
        {
            self.deadlines.set(Deadline::Stable, now.mono, stable);
        }
        if !self.job.reports_ready() {
            self.report_ready(out);
        }
        // The stop signal arrived before there was a process to forward it to.
        if let Some(StopSignalFrom { signal, .. }) = self.document.status.stop_signal_from {
            self.forward_signal(signal, process, None, out);
            self.stop(now, process, StopCause::StopSignal, out);
        }
        if let Some(signal) = self.undelivered.before_start.take() {
            self.forward_signal(signal, process, None, out);
        }
    }

    /// Ends flapping and a series of equal ends, because the run has lasted for `--stable`.
    fn become_stable(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.end_series(now, out);
        // Earlier failures stay in the answers of the probes unless they count as flapping.
        if let Some(policy) = self.policy.as_mut().filter(|_| self.document.status.flapping) {
            policy.was_stable();
        }
        self.update_flapping(now, out);
    }

    fn update_flapping(&mut self, now: Now, out: &mut Vec<Effect>) {
        let flapping = self.policy.as_ref().is_some_and(|policy| policy.is_flapping(now.mono));
        if std::mem::replace(&mut self.document.status.flapping, flapping) != flapping {
            self.document.changed = true;
            if !flapping {
                self.end_series(now, out);
            }
            out.push(Effect::Log(match flapping {
                true => Record::warn("flapping").number("restarts", self.document.status.restarts),
                false => Record::info("flapping ended"),
            }));
            if !flapping {
                self.deadlines.stop(Deadline::Flapping);
                self.deadlines.stop(Deadline::Stable);
            }
        }
    }

    /// Updates what depends on the state, and sends the service manager a new `STATUS=`.
    fn refresh(&mut self, now: Now, out: &mut Vec<Effect>) {
        let ready = matches!(self.state, MachineState::Running(_))
            && (!self.job.reports_ready() || self.readiness.command_ready)
            && self.document.status.probes.iter().flatten().all(|probe| probe.up);
        self.readiness.has_been_ready |= ready;
        self.document.changed |= ready != self.document.status.ready;
        self.document.status.ready = ready;
        self.document.status.stops_at = match self.state {
            MachineState::Draining(_, drain) => Some(drain.until),
            _ => None,
        };
        if self.document.changed && self.context.manager && self.state != MachineState::Done {
            out.push(Effect::Notify(message::status(&self.headline(now.wall))));
        }
    }
}
