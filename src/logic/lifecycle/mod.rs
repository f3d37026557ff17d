//! The life of one command under `run` and `supervise`: events in, effects out.
//!
//! The states, and what follows from which event in which state, are one table in `machine`. The methods that it calls
//! are in the other files: `signals` and `stopping` up to the end of a run, `ending` and `leftover_group` from there on.
//!
//! Two facts stand beside the state and are not multiplied into it: whether we were asked to leave, and whether the
//! command has said that it is ready. Whoever starts a stop owns its deadline: after a TTL or a missed ping we send
//! SIGKILL ourselves, after a signal from outside only where `--kill-after` was given, as Docker, Kubernetes and
//! systemd kill by themselves and a long drain must not be cut short.

pub mod event;
pub mod leftover_group;
pub mod origin;
pub mod signal_policy;

use std::time::Instant;

use super::deadlines::{Deadline, Deadlines};
use super::metrics::Exits;
use super::random::Random;
use super::restart::{Failures, Policy, Run, Verdict};
use super::status::{Output, Status, StopSignalFrom};
use super::{Exit, Now, Pid, Sender};
use crate::config::{After, Job, Linger, Success, Ttl};
use crate::duration::Seconds;
use crate::logic::history::History;
use crate::logic::log::record::Record;
use crate::logic::notify::message;
use crate::logic::notify::message::Notification;
use crate::logic::status::ModeName;
use crate::signal::Signal;

mod document;
mod ending;
mod following;
mod job_control;
mod machine;
mod readiness;
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
pub use crate::logic::lifecycle::signal_policy::{asks_for_an_end, job_control};
use crate::logic::lifecycle::signal_policy::{interruption, is_interrupted};
use document::Document;
use ending::{OwnEnd, Remains, Stop};
use job_control::JobControl;
pub use job_control::{AfterStop, TerminalView};
use machine::{Process, State};
use readiness::Readiness;
use run_record::Runs;
use signals::Undelivered;

/// Why the command is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopCause {
    /// Its TTL has passed.
    Ttl,
    /// It has missed a ping.
    Watchdog,
    /// Somebody sent kapo a stop signal.
    Asked,
}

/// The machine.
#[derive(Debug)]
pub struct Lifecycle {
    job: Box<Job>,
    context: JobContext,
    state: State,
    own_end: OwnEnd,
    undelivered: Undelivered,
    remains: Remains,
    readiness: Readiness,
    control: JobControl,
    deadlines: Deadlines,
    /// `None` under `run`.
    policy: Option<Policy>,
    random: Random,
    document: Document,
}

impl Lifecycle {
    /// Nothing has happened yet; the first event is [`Event::Start`].
    pub fn new(job: Box<Job>, context: JobContext) -> Lifecycle {
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
            wait,
            ..Status::blank(mode)
        };
        let random = Random::new(context.seed);
        Lifecycle {
            state: State::Starting,
            own_end: OwnEnd::default(),
            undelivered: Undelivered::default(),
            remains: Remains::default(),
            readiness: Readiness::new(job.watchdog),
            control: JobControl::new(context.piped || context.ignored_at_start.interrupt),
            deadlines: Deadlines::default(),
            policy,
            random,
            document: Document::new(status, Runs::new(context.history)),
            job,
            context,
        }
    }

    /// When to send [`Event::Deadline`]; `None`: never, as things stand.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// When the pause between two runs is over.
    pub fn next_start(&self) -> Option<Instant> {
        self.deadlines.at(Deadline::Start)
    }

    /// The failed runs within `--within`; none under `run`.
    pub fn failures(&self, now: Instant) -> Failures {
        self.policy.as_ref().map(|policy| policy.failures(now)).unwrap_or_default()
    }

    /// The object of the document.
    pub fn status(&self) -> &Status {
        &self.document.status
    }

    /// Starts so far, those that failed included.
    pub fn starts(&self) -> u64 {
        self.document.runs.starts()
    }

    /// Ends so far, by reason.
    pub fn exits(&self) -> Exits {
        self.document.runs.exits()
    }

    /// Whether kapo answers on after the end of a run, or starts another one.
    pub fn goes_on_after_end(&self) -> bool {
        !matches!(&self.job.after, After::Once(Linger::Fixed(wait)) if wait.is_zero())
    }

    /// The runs that have ended.
    pub fn history(&self) -> &History {
        self.document.runs.history()
    }

    /// ExitCode of the last run that ended, also while the next one is running.
    pub fn last_exit_code(&self) -> Option<u8> {
        self.document.runs.last_code()
    }

    /// The document's `Output`; the driver counts, and tells before it renders.
    pub fn set_output(&mut self, output: Option<Output>) {
        self.document.status.output = output;
    }

    /// Whether the document has changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.document.changed)
    }

    /// The process whose end is to be told with [`Event::Exited`].
    pub fn pid(&self) -> Option<Pid> {
        self.state.process().map(|process| process.pid)
    }

    /// The code of the last run, as kapo itself would exit with it, once that run has ended: until then, and again
    /// from the next start on, it is `None` and `/wait` waits.
    pub fn ended_with(&self) -> Option<u8> {
        self.state.is_after_end().then_some(self.own_end.code)
    }

    /// The command is being ended, or kapo is.
    pub fn is_stopping(&self) -> bool {
        self.own_end.leaving || matches!(self.state, State::Stopping(..))
    }

    /// What was typed there has reached kapo's own group.
    fn was_asked_by_the_terminal(&self) -> bool {
        self.document.status.stop_signal_from.is_some_and(|StopSignalFrom { signal, sender }| {
            sender == Sender::Kernel && matches!(signal, Signal::INT | Signal::QUIT)
        })
    }

    fn started(&mut self, now: Now, pid: Pid, out: &mut Vec<Effect>) {
        let ttl = self.job.ttl.map(|Ttl { min, max }| self.random.between(min, max));
        let process = Process { pid, group: pid, since: now.mono };
        self.state = State::Running(process);
        self.readiness.run_started(self.job.watchdog);
        self.control.reset_claims();
        self.undelivered.unreachable = false;
        self.document.started(now, pid, ttl);
        if let Some(ttl) = ttl {
            self.deadlines.set(Deadline::Ttl, now.mono, ttl);
        }
        let stable = self.policy.as_ref().and_then(Policy::stable);
        if let Some(stable) = stable.filter(|_| self.document.status.flapping) {
            self.deadlines.set(Deadline::Stable, now.mono, stable);
        }
        let record =
            Record::info("started").with("command", &self.document.status.command).number("pid", pid);
        out.push(Effect::Log(match self.document.status.restarts {
            0 => record,
            restarts => record.number("restarts", restarts),
        }));
        if !self.job.notify {
            self.tell_ready(out);
        }
        // The stop signal came before there was anybody to pass it to.
        if let Some(StopSignalFrom { signal, .. }) = self.document.status.stop_signal_from {
            self.pass_on(signal, process, None, out);
            self.stop(now, process, StopCause::Asked, out);
        }
        if let Some(signal) = self.undelivered.early.take() {
            self.pass_on(signal, process, None, out);
        }
    }

    /// The run has lasted long enough to end flapping.
    fn become_stable(&mut self, now: Now, out: &mut Vec<Effect>) {
        if let Some(policy) = &mut self.policy {
            policy.was_stable();
        }
        self.update_flapping(now, out);
    }

    fn update_flapping(&mut self, now: Now, out: &mut Vec<Effect>) {
        let flapping = self.policy.as_ref().is_some_and(|policy| policy.is_flapping(now.mono));
        if std::mem::replace(&mut self.document.status.flapping, flapping) != flapping {
            self.document.changed = true;
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

    /// Brings what follows from the state up to date, and tells the service manager in words.
    fn refresh(&mut self, now: Now, out: &mut Vec<Effect>) {
        let ready =
            matches!(self.state, State::Running(_)) && (!self.job.notify || self.readiness.said_ready);
        self.document.changed |= ready != self.document.status.ready;
        self.document.status.ready = ready;
        if self.document.changed && self.context.manager && self.state != State::Done {
            out.push(Effect::Notify(message::status(&self.headline(now.wall))));
        }
    }
}
