//! The life of one command under `run` and `supervise`: events in, effects out.
//!
//! | state     | there is a process | leaves it by                                                       |
//! |-----------|--------------------|--------------------------------------------------------------------|
//! | Starting  | not yet            | Spawned, SpawnFailed; Start after a stop signal: Finishing         |
//! | Running   | yes                | Exited; a stop signal, the TTL or a missed watchdog ping: Stopping |
//! | Stopping  | yes                | Exited (SIGKILL at the Kill deadline helps)                        |
//! | Pausing   | no                 | the Start deadline: Clearing; a stop signal: Finishing             |
//! | Clearing  | no                 | nothing is left of the last run: Starting; a stop signal: Finishing |
//! | Lingering | no                 | the Linger deadline, a stop signal: Finishing                      |
//! | Finishing | no                 | nothing is left of the last run: Closing                           |
//! | Closing   | no                 | Closed: every client has been answered                             |
//! | Done      | no                 | never                                                              |
//!
//! Where a run has ended is in `ending`: Exited leads from Running and Stopping to Pausing, Lingering or Finishing. What
//! is left of it, its output and its process group, is kept beside the state, as it may outlast several of them.
//!
//! Two facts stand beside the state and are not multiplied into it: whether we were asked to leave, and whether the
//! command has said that it is ready. Whoever starts a stop owns its deadline: after a TTL or a missed ping we send
//! SIGKILL ourselves, after a signal from outside only where `--kill-after` was given, as Docker, Kubernetes and
//! systemd kill by themselves and a long drain must not be cut short.

pub mod event;
pub mod leftover_group;
pub mod origin;
pub mod signal_policy;

use std::time::{Duration, Instant};

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

mod ending;
mod following;
mod job_control;
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
use ending::{EndedRun, Stop};
use job_control::JobControl;
pub use job_control::{AfterStop, TerminalView};
use readiness::Readiness;
use run_record::Runs;

/// So late a deadline is not on a machine that is merely busy: we were stopped.
const LATE: Duration = Duration::from_millis(100);

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Running { pid: Pid, since: Instant },
    Stopping { pid: Pid, since: Instant, stop: Stop },
    Pausing,
    Clearing,
    Lingering,
    Finishing,
    Closing,
    Done,
}

/// The machine.
#[derive(Debug)]
pub struct Lifecycle {
    job: Box<Job>,
    context: JobContext,
    state: State,
    /// The process group of the last run.
    group: Option<Pid>,
    /// No new run after this one.
    leaving: bool,
    /// What was typed at the terminal and has ended the command; `true`: its group alone has got it.
    interrupted: Option<(Signal, bool)>,
    /// A signal that came before there was anybody to pass it to; the last one, if there were several.
    early: Option<Signal>,
    /// The log says that this command cannot be signalled.
    unreachable: bool,
    /// The output of the last run is still being read.
    draining: Option<EndedRun>,
    /// The process group of the last run may not be empty, and is waited for.
    leftover: Option<Leftover>,
    /// What kapo exits with.
    code: u8,
    readiness: Readiness,
    control: JobControl,
    deadlines: Deadlines,
    policy: Option<Policy>,
    random: Random,
    status: Status,
    history: History,
    runs: Runs,
    changed: bool,
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
            group: None,
            leaving: false,
            interrupted: None,
            early: None,
            unreachable: false,
            draining: None,
            leftover: None,
            code: 0,
            readiness: Readiness::new(job.watchdog),
            control: JobControl::new(context.piped || context.ignored_at_start.interrupt),
            deadlines: Deadlines::default(),
            policy,
            random,
            status,
            history: History::new(context.history),
            runs: Runs::default(),
            changed: true,
            job,
            context,
        }
    }

    /// Takes in what happened at `now` and says what to do.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        let changed_before = std::mem::take(&mut self.changed);
        match (self.state, event) {
            // What is over is over, whatever happens.
            (State::Done, _) => {}
            (State::Starting, Event::Start) if self.leaving => self.finish(out),
            (State::Starting, Event::Start) => out.push(Effect::Spawn),
            (State::Starting, Event::Spawned { pid }) => self.started(now, pid, out),
            (State::Starting, Event::SpawnFailed { reason, kind }) => {
                self.not_started(now, &reason, kind, out);
            }
            (State::Running { pid, since }, Event::Exited(end)) => {
                self.hears_of_hang_up(end.hung_up, out);
                self.leaving |= end.on_terminal && is_interrupted(end.exit);
                let typed = interruption(end.exit).filter(|_| end.on_terminal);
                self.interrupted = typed.map(|signal| (signal, true));
                self.ended(now, (pid, since), None, end, out);
            }
            (State::Stopping { pid, since, stop }, Event::Exited(end)) => {
                self.hears_of_hang_up(end.hung_up, out);
                let typed = stop.why == StopCause::Asked && self.was_asked_by_the_terminal();
                self.interrupted = interruption(end.exit).filter(|_| typed).map(|signal| (signal, false));
                self.ended(now, (pid, since), Some(stop), end, out);
            }
            (_, Event::Drained { run, last_output }) => self.drained(run, last_output, out),
            (_, Event::GroupCounted { members }) => self.group_counted(now, members, out),
            (_, Event::OrphansReaped) => self.look_again(out),
            (_, Event::KillFailed { signal, reason }) => self.kill_failed(signal, &reason, out),
            (_, Event::FoundStopped) => self.found_stopped(out),
            (_, Event::Signal { signal, sender }) => self.signal(now, signal, sender, out),
            (State::Running { .. } | State::Stopping { .. }, Event::Stopped { signal }) => {
                out.push(Effect::Suspend { signal, all: true });
            }
            (_, Event::SiblingStopped { signal, foreground_owner }) => {
                self.sibling_stopped(signal, foreground_owner, out)
            }
            (State::Running { .. } | State::Stopping { .. }, Event::Notified(told)) => {
                self.told(now, told, out)
            }
            (State::Running { .. }, Event::Resumed) => self.has_been_suspended(now),
            (State::Lingering, Event::Asked) => {
                if let After::Once(Linger::Idle(idle)) = self.job.after {
                    self.deadlines.set(Deadline::Linger, now.mono, idle);
                }
            }
            (_, Event::Deadline) => {
                while let Some((which, late)) = self.deadlines.take_due(now.mono) {
                    self.due(now, which, late, out);
                }
            }
            (State::Closing, Event::Closed) => self.exit(out),
            // A process that is not ours any more, or not yet, has nothing to say; it starts only when we asked for it;
            // requests matter only while kapo answers on.
            (
                State::Starting
                | State::Pausing
                | State::Clearing
                | State::Lingering
                | State::Finishing
                | State::Closing,
                Event::Exited(_) | Event::Stopped { .. } | Event::Notified(_),
            )
            | (
                State::Running { .. }
                | State::Stopping { .. }
                | State::Pausing
                | State::Clearing
                | State::Lingering
                | State::Finishing
                | State::Closing,
                Event::Start | Event::Spawned { .. } | Event::SpawnFailed { .. },
            )
            | (
                State::Starting
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Pausing
                | State::Clearing
                | State::Finishing
                | State::Closing,
                Event::Asked,
            )
            | (
                State::Starting
                | State::Stopping { .. }
                | State::Pausing
                | State::Clearing
                | State::Lingering
                | State::Finishing
                | State::Closing,
                Event::Resumed,
            )
            | (
                State::Starting
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Pausing
                | State::Clearing
                | State::Lingering
                | State::Finishing,
                Event::Closed,
            ) => {}
        }
        self.refresh(now, out);
        self.changed |= changed_before;
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
        &self.status
    }

    /// Starts so far, those that failed included.
    pub fn starts(&self) -> u64 {
        self.runs.starts()
    }

    /// Ends so far, by reason.
    pub fn exits(&self) -> Exits {
        self.runs.exits()
    }

    /// Whether kapo answers on after the end of a run, or starts another one.
    pub fn goes_on_after_end(&self) -> bool {
        !matches!(&self.job.after, After::Once(Linger::Fixed(wait)) if wait.is_zero())
    }

    /// The runs that have ended.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// ExitCode of the last run that ended, also while the next one is running.
    pub fn last_exit_code(&self) -> Option<u8> {
        self.runs.last_code()
    }

    /// The document's `Output`; the driver counts, and tells before it renders.
    pub fn set_output(&mut self, output: Option<Output>) {
        self.status.output = output;
    }

    /// Whether the document has changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The process whose end is to be told with [`Event::Exited`].
    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } | State::Stopping { pid, .. } => Some(pid),
            State::Starting
            | State::Pausing
            | State::Clearing
            | State::Lingering
            | State::Finishing
            | State::Closing
            | State::Done => None,
        }
    }

    /// The code of the last run, as kapo itself would exit with it, once that run has ended: until then, and again
    /// from the next start on, it is `None` and `/wait` waits.
    pub fn ended_with(&self) -> Option<u8> {
        match self.state {
            State::Pausing
            | State::Clearing
            | State::Lingering
            | State::Finishing
            | State::Closing
            | State::Done => Some(self.code),
            State::Starting | State::Running { .. } | State::Stopping { .. } => None,
        }
    }

    /// The command is being ended, or kapo is.
    pub fn is_stopping(&self) -> bool {
        self.leaving || matches!(self.state, State::Stopping { .. })
    }

    /// What was typed there has reached kapo's own group.
    fn was_asked_by_the_terminal(&self) -> bool {
        self.status.stop_signal_from.is_some_and(|StopSignalFrom { signal, sender }| {
            sender == Sender::Kernel && matches!(signal, Signal::INT | Signal::QUIT)
        })
    }

    fn started(&mut self, now: Now, pid: Pid, out: &mut Vec<Effect>) {
        let ttl = self.job.ttl.map(|Ttl { min, max }| self.random.between(min, max));
        self.state = State::Running { pid, since: now.mono };
        self.group = Some(pid);
        self.readiness.run_started(self.job.watchdog);
        self.control.reset_claims();
        self.unreachable = false;
        self.runs.started(now, pid, ttl, &mut self.status);
        self.changed = true;
        if let Some(ttl) = ttl {
            self.deadlines.set(Deadline::Ttl, now.mono, ttl);
        }
        let stable = self.policy.as_ref().and_then(Policy::stable);
        if let Some(stable) = stable.filter(|_| self.status.flapping) {
            self.deadlines.set(Deadline::Stable, now.mono, stable);
        }
        let record = Record::info("started").with("command", &self.status.command).with("pid", pid);
        out.push(Effect::Log(match self.status.restarts {
            0 => record,
            restarts => record.with("restarts", restarts),
        }));
        if !self.job.notify {
            self.tell_ready(out);
        }
        // The stop signal came before there was anybody to pass it to.
        if let Some(StopSignalFrom { signal, .. }) = self.status.stop_signal_from {
            self.pass_on(signal, pid, None, out);
            self.stop(now, pid, now.mono, StopCause::Asked, out);
        }
        if let Some(signal) = self.early.take() {
            self.pass_on(signal, pid, None, out);
        }
    }

    fn due(&mut self, now: Now, which: Deadline, late: Duration, out: &mut Vec<Effect>) {
        match (which, self.state) {
            (Deadline::Ttl, State::Running { pid, since }) => {
                let record = Record::info("TTL has passed").with("pid", pid);
                let record = record.with("signal", self.job.stop_signal);
                self.stop_ourselves(now, (pid, since), StopCause::Ttl, record, out);
            }
            (Deadline::Watchdog, State::Running { pid, since }) => {
                // Where we did not run ourselves, as in a frozen cgroup (docker pause), the command did not either.
                if let Some(interval) =
                    self.readiness.watchdog.filter(|interval| late > LATE.max(*interval / 4))
                {
                    return self.deadlines.set(Deadline::Watchdog, now.mono, interval);
                }
                let record = Record::warn("missed a watchdog ping").with("pid", pid);
                self.stop_ourselves(now, (pid, since), StopCause::Watchdog, record, out);
            }
            (Deadline::Kill, State::Stopping { pid, since, stop }) => {
                self.state = State::Stopping { pid, since, stop: Stop { killed: true, ..stop } };
                let record = Record::warn("did not end in time, killing it").with("pid", pid);
                self.kill(Signal::KILL, pid, Some(record), out);
            }
            (Deadline::Kill, _) => self.group_is_due(now, out),
            (Deadline::CountGroup, _) => self.look_again(out),
            (Deadline::Start, State::Pausing) => self.clear(out),
            (Deadline::Linger, State::Lingering) => self.finish(out),
            (Deadline::Flapping, _) => self.update_flapping(now, out),
            (Deadline::Stable, _) => {
                if let Some(policy) = &mut self.policy {
                    policy.was_stable();
                }
                self.update_flapping(now, out);
            }
            // Stopped with the state that they belong to; none of these can be due elsewhere.
            (
                Deadline::Ttl | Deadline::Watchdog | Deadline::Start | Deadline::Linger,
                State::Starting
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Pausing
                | State::Clearing
                | State::Lingering
                | State::Finishing
                | State::Closing
                | State::Done,
            ) => {}
        }
    }

    fn update_flapping(&mut self, now: Now, out: &mut Vec<Effect>) {
        let flapping = self.policy.as_ref().is_some_and(|policy| policy.is_flapping(now.mono));
        if std::mem::replace(&mut self.status.flapping, flapping) != flapping {
            self.changed = true;
            out.push(Effect::Log(match flapping {
                true => Record::warn("flapping").with("restarts", self.status.restarts),
                false => Record::info("not flapping any more"),
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
            matches!(self.state, State::Running { .. }) && (!self.job.notify || self.readiness.said_ready);
        self.changed |= ready != self.status.ready;
        self.status.ready = ready;
        if self.changed && self.context.manager && self.state != State::Done {
            out.push(Effect::Notify(message::status(&self.headline(now.wall))));
        }
    }
}
