//! The life of one command under `run` and `supervise`: events in, effects out.
//!
//! | state     | there is a process | leaves it by                                                       |
//! |-----------|--------------------|--------------------------------------------------------------------|
//! | Starting  | not yet            | Spawned, SpawnFailed; Start after a stop signal: Closing           |
//! | Running   | yes                | Exited; a stop signal, the TTL or a missed watchdog ping: Stopping |
//! | Stopping  | yes                | Exited (SIGKILL at the Kill deadline helps)                        |
//! | Draining  | reaped             | Drained: all that it wrote has passed through                      |
//! | Pausing   | no                 | the Start deadline: Starting; a stop signal: Closing               |
//! | Lingering | no                 | the Linger deadline, a stop signal: Closing                        |
//! | Closing   | no                 | Closed: who was connected has been answered                        |
//! | Done      | no                 | never                                                              |
//!
//! Two facts stand beside the state and are not multiplied into it: whether we were asked to leave, and whether the
//! command has said that it is ready. Whoever starts a stop owns its deadline: after a TTL or a missed ping we send
//! SIGKILL ourselves, after a signal from outside only where `--kill-after` was given, as Docker, Kubernetes and
//! systemd kill by themselves and a long drain must not be cut short.

use std::time::{Duration, Instant};

use super::deadlines::{Deadline, Deadlines};
use super::metrics::Exits;
use super::notify::{self, Told};
use super::random::Random;
use super::record::Record;
use super::restart::{Policy, Run, Verdict};
use super::status::{Output, State as Shown, Status, StopSignalFrom};
use super::{Exit, Now, Pid, Sender, Usage};
use crate::config::{After, Job, KILL_AFTER, Linger, Success, Ttl};
use crate::duration::Seconds;
use crate::error;
use crate::signal::Signal;

mod meaning;
mod report;
#[cfg(test)]
mod tests;
mod words;
#[cfg(any(test, fuzzing))]
pub mod world;

pub use meaning::{asks_for_an_end, job_control};
use meaning::{concerns_the_command, interruption, is_interrupted, is_worth_a_word};
pub use words::{Effect, End, Event, Holder, Obstacle, Setting, Survives, Target};

/// So often siblings get the terminal back before the command has to wait for it: until then it can ask for a password
/// and the like. Two that want it at once may need a few before one of them is content.
const CLAIMS: u32 = 10;

/// So late a deadline is not on a machine that is merely busy: we were stopped.
const LATE: Duration = Duration::from_millis(100);

/// What the service manager is told of a command that has not said READY=1 yet.
const STARTING: &str = "starting";

/// Why the command is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
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
    Stopping { pid: Pid, since: Instant, why: Why },
    Draining { run: EndedRun },
    Pausing,
    Lingering,
    Closing,
    Done,
}

/// What the policy must know of a run that is being drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EndedRun {
    lasted: Duration,
    success: bool,
    expired: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Lifecycle {
    job: Box<Job>,
    setting: Setting,
    state: State,
    /// No new run after this one.
    leaving: bool,
    /// What was typed at the terminal and has ended the command; `true`: its group alone has got it.
    interrupted: Option<(Signal, bool)>,
    /// A signal that came before there was anybody to pass it to; the last one, if there were several.
    early: Option<Signal>,
    /// Siblings, such as a pager in kapo's pipeline or the script that has started kapo with `&`, want the terminal or may
    /// want it: it is theirs, and the command's only while it asks for it.
    shared: bool,
    /// How often they have wanted it back from the command since it was started or resumed.
    claims: u32,
    /// The command has said READY=1 in this run, and has not begun to reload or to stop since.
    said_ready: bool,
    /// What it is doing where it is not ready.
    unready: &'static str,
    /// Under `--notify`, how often the command must ping.
    watchdog: Option<Duration>,
    /// The group of a run that was stopped, whose rest is killed when kapo ends or starts anew.
    remnant: Option<Pid>,
    /// What kapo exits with.
    code: u8,
    told_ready: bool,
    told_stopping: bool,
    deadlines: Deadlines,
    policy: Option<Policy>,
    random: Random,
    status: Status,
    starts: u64,
    exits: Exits,
    last_code: Option<u8>,
    changed: bool,
}

impl Lifecycle {
    /// Nothing has happened yet; the first event is [`Event::Start`].
    pub fn new(job: Box<Job>, setting: Setting) -> Lifecycle {
        let (mode, wait, policy) = match &job.after {
            After::Once(Linger::Fixed(wait)) => ("run", Some(*wait), None),
            After::Once(Linger::Idle(_)) => ("run", None, None),
            After::Again(restart) => ("supervise", Some(restart.wait), Some(Policy::new(restart.clone()))),
        };
        let shown = !setting.hide_args && !job.arguments.is_empty();
        let status = Status {
            arguments: shown
                .then(|| job.arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect()),
            command: job.command.to_string_lossy().into_owned(),
            sidebind_port: setting.sidebind_port,
            wait,
            ..Status::blank(mode)
        };
        let random = Random::new(setting.seed);
        Lifecycle {
            state: State::Starting,
            leaving: false,
            interrupted: None,
            early: None,
            // The kernel tells of those who want it by stopping them, which the shell may see first: so it is not given to
            // the command where there may be others.
            shared: setting.piped || setting.survives.interrupt,
            claims: 0,
            said_ready: false,
            unready: STARTING,
            watchdog: job.watchdog,
            remnant: None,
            code: 0,
            told_ready: false,
            told_stopping: false,
            deadlines: Deadlines::default(),
            policy,
            random,
            status,
            starts: 0,
            exits: Exits::default(),
            last_code: None,
            changed: true,
            job,
            setting,
        }
    }

    /// Takes in what happened at `now` and says what to do.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        let changed_before = std::mem::take(&mut self.changed);
        match (self.state, event) {
            // What is over is over, whatever happens.
            (State::Done, _) => {}
            (State::Starting, Event::Start) if self.leaving => self.close(out),
            (State::Starting, Event::Start) => out.push(Effect::Spawn),
            (State::Starting, Event::Spawned { pid }) => self.started(now, pid, out),
            (State::Starting, Event::SpawnFailed { reason, obstacle }) => {
                self.not_started(now, &reason, obstacle, out);
            }
            (State::Running { pid, since }, Event::Exited(end)) => {
                self.hears_of_hang_up(end.hung_up, out);
                self.leaving |= end.on_terminal && is_interrupted(end.exit);
                let typed = interruption(end.exit).filter(|_| end.on_terminal);
                self.interrupted = typed.map(|signal| (signal, true));
                self.ended(now, pid, since, None, end, out);
            }
            (State::Stopping { pid, since, why }, Event::Exited(end)) => {
                self.hears_of_hang_up(end.hung_up, out);
                let typed = why == Why::Asked && self.was_asked_by_the_terminal();
                self.interrupted = interruption(end.exit).filter(|_| typed).map(|signal| (signal, false));
                self.ended(now, pid, since, Some(why), end, out);
            }
            (State::Draining { run }, Event::Drained { last_output }) => {
                self.drained(now, run, last_output, out);
            }
            (_, Event::Signal { signal, sender }) => self.signal(now, signal, sender, out),
            (State::Running { .. } | State::Stopping { .. }, Event::Stopped) => {
                out.push(Effect::Suspend { all: true });
            }
            (_, Event::SiblingStopped { signal, holder }) => self.sibling_stopped(signal, holder, out),
            (State::Running { .. } | State::Stopping { .. }, Event::Told(told)) => self.told(now, told, out),
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
            // A process that is not ours any more, or not yet, has nothing to tell; it starts, and is drained, only
            // when we asked for it; whoever asks matters only at the end.
            (
                State::Starting | State::Draining { .. } | State::Pausing | State::Lingering | State::Closing,
                Event::Exited(_) | Event::Stopped | Event::Told(_),
            )
            | (
                State::Running { .. }
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Pausing
                | State::Lingering
                | State::Closing,
                Event::Start | Event::Spawned { .. } | Event::SpawnFailed { .. },
            )
            | (
                State::Starting
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Pausing
                | State::Lingering
                | State::Closing,
                Event::Drained { .. },
            )
            | (
                State::Starting
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Pausing
                | State::Closing,
                Event::Asked,
            )
            | (
                State::Starting
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Pausing
                | State::Lingering
                | State::Closing,
                Event::Resumed,
            )
            | (
                State::Starting
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Pausing
                | State::Lingering,
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

    /// The object of the document.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Starts so far, those that failed included.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// Ends so far, by reason.
    pub fn exits(&self) -> Exits {
        self.exits
    }

    /// ExitCode of the last run that ended, also while the next one is running.
    pub fn last_exit_code(&self) -> Option<u8> {
        self.last_code
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
            | State::Draining { .. }
            | State::Pausing
            | State::Lingering
            | State::Closing
            | State::Done => None,
        }
    }

    /// The code of the last run, as kapo itself would exit with it, once that run has ended: until then, and again
    /// from the next start on, it is `None` and `/wait` waits.
    pub fn ended_with(&self) -> Option<u8> {
        match self.state {
            State::Draining { .. } | State::Pausing | State::Lingering | State::Closing | State::Done => {
                Some(self.code)
            }
            State::Starting | State::Running { .. } | State::Stopping { .. } => None,
        }
    }

    /// The command is being ended, or kapo is.
    pub fn is_stopping(&self) -> bool {
        self.leaving || matches!(self.state, State::Stopping { .. })
    }

    /// Whether a command gets the terminal with its start, without asking.
    pub fn gives_terminal(&self) -> bool {
        !self.shared
    }

    /// Whether a command that asks for the terminal gets it. One that quarrels over it with its siblings does not for
    /// ever: it waits, as a job in the background would.
    pub fn lends_terminal(&self) -> bool {
        self.claims <= CLAIMS
    }

    /// What was typed there has reached kapo's own group.
    fn was_asked_by_the_terminal(&self) -> bool {
        self.status.stop_signal_from.is_some_and(|StopSignalFrom { signal, sender }| {
            sender == Sender::Kernel && matches!(signal, Signal::INT | Signal::QUIT)
        })
    }

    fn count_start(&mut self) {
        self.status.restarts = self.starts;
        self.starts += 1;
    }

    fn target(&self, pid: Pid) -> Target {
        if self.job.single_child { Target::Process(pid) } else { Target::Group(pid) }
    }

    fn started(&mut self, now: Now, pid: Pid, out: &mut Vec<Effect>) {
        self.count_start();
        let ttl = self.job.ttl.map(|Ttl { min, max }| self.random.between(min, max));
        self.state = State::Running { pid, since: now.mono };
        self.said_ready = false;
        self.unready = STARTING;
        self.claims = 0;
        self.watchdog = self.job.watchdog;
        self.status = Status {
            exit_code: 0,
            start_time: Some(now.wall),
            state: Shown::Running,
            ttl,
            pid: Some(pid),
            reason: "",
            signal: None,
            next_start: None,
            expires_at: ttl.and_then(|ttl| now.wall.checked_add(ttl)),
            status_text: String::new(),
            ..std::mem::replace(&mut self.status, Status::blank(""))
        };
        self.changed = true;
        if let Some(ttl) = ttl {
            self.deadlines.set(Deadline::Ttl, now.mono, ttl);
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
            self.pass_on(signal, pid, out);
            self.stop(now, pid, now.mono, Why::Asked, out);
        }
        if let Some(signal) = self.early.take() {
            self.pass_on(signal, pid, out);
        }
    }

    fn not_started(&mut self, now: Now, reason: &str, obstacle: Obstacle, out: &mut Vec<Effect>) {
        let (code, message) = match obstacle {
            Obstacle::NotFound => (error::EXIT_NOT_FOUND, "cannot execute"),
            Obstacle::NotExecutable => (error::EXIT_CANNOT_EXECUTE, "cannot execute"),
            Obstacle::Before => (error::EXIT_SETUP, "cannot start"),
        };
        self.code = code;
        self.count_start();
        self.status.start_time = Some(now.wall);
        self.status.end_time = Some(now.wall);
        self.status.exit_code = self.code;
        self.last_code = Some(self.code);
        self.status.state = Shown::Stopped;
        self.status.pid = None;
        self.status.reason = "exec-failed";
        self.status.signal = None;
        self.status.next_start = None;
        self.status.ttl = None;
        self.status.expires_at = None;
        self.status.usage = Usage::default();
        self.status.status_text.clear();
        self.status.last_output.clear();
        self.exits.count(self.status.reason);
        self.changed = true;
        let command = if self.status.command.is_empty() { "''" } else { &self.status.command };
        let text = format!("{message} {command}: {reason}");
        self.write_certificate(out);
        if self.policy.is_none() {
            out.push(Effect::Complain(text));
            return self.close(out);
        }
        out.push(Effect::Log(
            Record::error(message).with("command", &self.status.command).with("error", reason),
        ));
        let run = Run { lasted: Duration::ZERO, success: false, expired: false, never_ran: true };
        self.next(now, run, out);
    }

    fn ended(
        &mut self,
        now: Now,
        pid: Pid,
        since: Instant,
        why: Option<Why>,
        end: End,
        out: &mut Vec<Effect>,
    ) {
        let End { exit, usage, .. } = end;
        for which in [Deadline::Ttl, Deadline::Kill, Deadline::Watchdog] {
            self.deadlines.stop(which);
        }
        let reason = reason(&self.job.success_exit, why, end);
        let success = reason == "success";
        self.code = match reason {
            "success" => 0,
            "timeout" => error::EXIT_TIMEOUT,
            // Whoever restarts kapo on failure must not take a hung command for a success.
            "watchdog" => exit.code().max(1),
            _ => exit.code(),
        };
        let signal = match exit {
            Exit::Code(_) => None,
            Exit::Signal { signal, .. } => Some(signal),
        };
        self.last_code = Some(exit.code());
        self.status.end_time = Some(now.wall);
        self.status.exit_code = exit.code();
        self.status.state = if signal.is_some() { Shown::Killed } else { Shown::Stopped };
        self.status.pid = None;
        self.status.reason = reason;
        self.status.signal = signal;
        self.status.expires_at = None;
        self.status.usage = usage;
        self.status.last_output.clear();
        self.exits.count(reason);
        self.changed = true;
        // An end that somebody asked for is no news, however the command took it.
        let expected = success || why == Some(Why::Asked);
        let mut record = if expected { Record::info("ended") } else { Record::warn("ended") };
        record = record.with("command", &self.status.command).with("pid", pid).with("reason", reason);
        record = match signal {
            Some(signal) => record.with("signal", signal),
            None => record.with("code", exit.code()),
        };
        let lasted = now.mono.saturating_duration_since(since);
        out.push(Effect::Log(record.with("lasted", Seconds(lasted))));
        if self.job.single_child {
            // The rest of the group is not ours to end.
        } else if why.is_some() {
            self.remnant = Some(pid);
        } else if self.job.setsid {
            out.push(Effect::Kill { signal: Signal::TERM, to: Target::Remnant(pid) });
        }
        let run = EndedRun { lasted, success, expired: why == Some(Why::Ttl) };
        self.state = State::Draining { run };
        out.push(Effect::Drain);
    }

    fn drained(&mut self, now: Now, run: EndedRun, last_output: Vec<String>, out: &mut Vec<Effect>) {
        if !run.success && !last_output.is_empty() {
            self.status.last_output = last_output;
            self.changed = true;
        }
        self.write_certificate(out);
        let EndedRun { lasted, success, expired } = run;
        self.next(now, Run { lasted, success, expired, never_ran: false }, out);
    }

    /// After a run is over in every respect: leave, answer on, or start again.
    fn next(&mut self, now: Now, run: Run, out: &mut Vec<Effect>) {
        let verdict = self.policy.as_mut().map(|policy| policy.ended(now.mono, run, &mut self.random));
        self.update_flapping(now, out);
        if let Some(until) = self.policy.as_ref().and_then(Policy::flapping_until).filter(|at| *at > now.mono)
        {
            self.deadlines.set(Deadline::Flapping, now.mono, until.saturating_duration_since(now.mono));
        }
        if self.leaving {
            return self.close(out);
        }
        match (verdict, &self.job.after) {
            (Some(Verdict::Again(pause)), _) => {
                // The usual pause is known from the options.
                if self.policy.as_ref().is_some_and(|policy| pause > policy.wait()) {
                    out.push(Effect::Log(Record::info("backing off").with("pause", Seconds(pause))));
                }
                self.state = State::Pausing;
                self.status.next_start = now.wall.checked_add(pause);
                self.changed = true;
                self.deadlines.set(Deadline::Start, now.mono, pause);
            }
            (Some(Verdict::Finished), _) => self.close(out),
            (Some(Verdict::GiveUp), _) => {
                out.push(Effect::Log(
                    Record::error("giving up: too many restarts").with("restarts", self.status.restarts),
                ));
                self.close(out);
            }
            (None, After::Once(Linger::Fixed(wait)) | After::Once(Linger::Idle(wait))) if !wait.is_zero() => {
                out.push(Effect::Log(Record::info("answering on").with("wait", Seconds(*wait))));
                self.deadlines.set(Deadline::Linger, now.mono, *wait);
                self.state = State::Lingering;
                self.changed = true;
            }
            (None, _) => self.close(out),
        }
    }

    fn signal(&mut self, now: Now, signal: Signal, sender: Sender, out: &mut Vec<Effect>) {
        if sender == Sender::Kernel && !concerns_the_command(signal) {
            return;
        }
        let stop = asks_for_an_end(signal, sender, self.setting.survives);
        let again = self.status.stop_signal_from.is_some();
        if stop {
            self.asked(signal, sender, out);
        }
        if signal == Signal::CONT {
            self.claims = 0;
        }
        let typed = sender == Sender::Kernel && matches!(signal, Signal::INT | Signal::QUIT);
        match self.state {
            State::Running { pid, since } => {
                if !stop && is_worth_a_word(signal) {
                    let record = Record::info("passed on").with("signal", signal);
                    out.push(Effect::Log(self.with_rewrite(signal, sender.told(record))));
                }
                self.pass_on(signal, pid, out);
                if signal == Signal::CONT {
                    self.has_been_suspended(now);
                }
                if stop {
                    self.stop(now, pid, since, Why::Asked, out);
                }
            }
            State::Stopping { pid, .. } => self.pass_on(signal, pid, out),
            State::Pausing if stop => {
                if typed {
                    self.code = Exit::Signal { signal, core_dumped: false }.code();
                    self.interrupted = Some((signal, false));
                }
                self.close(out);
            }
            State::Lingering if stop => self.close(out),
            // Whoever insists does not want to wait for a reader of ours that has stalled, or a client.
            State::Draining { .. } if stop && again => {
                self.write_certificate(out);
                self.close(out);
            }
            State::Closing if stop && again => self.exit(out),
            // Should the command never come to be, this is how it would have ended.
            State::Starting if stop => {
                self.code = Exit::Signal { signal, core_dumped: false }.code();
                self.interrupted = Some((signal, false)).filter(|_| typed);
            }
            State::Starting if !job_control(signal) => self.early = Some(signal),
            State::Starting
            | State::Draining { .. }
            | State::Pausing
            | State::Lingering
            | State::Closing
            | State::Done => {}
        }
        if job_control(signal) {
            out.push(Effect::Suspend { all: false });
        }
    }

    fn asked(&mut self, signal: Signal, sender: Sender, out: &mut Vec<Effect>) {
        self.leaving = true;
        if self.status.stop_signal_from.is_none() {
            self.status.stop_signal_from = Some(StopSignalFrom { signal, sender });
            self.changed = true;
        }
        let record = Record::info("asked to stop").with("signal", signal);
        out.push(Effect::Log(self.with_rewrite(signal, sender.told(record))));
        self.tell_stopping(out);
    }

    /// The kernel tells of a lost terminal only who leads its session or is in its foreground. Where that is the
    /// command, kapo learns of it by its end: the next one would run on a terminal that nobody sees.
    fn hears_of_hang_up(&mut self, hung_up: bool, out: &mut Vec<Effect>) {
        if hung_up && asks_for_an_end(Signal::HUP, Sender::Kernel, self.setting.survives) {
            self.asked(Signal::HUP, Sender::Kernel, out);
        }
    }

    fn sibling_stopped(&mut self, signal: Signal, holder: Holder, out: &mut Vec<Effect>) {
        match holder {
            Holder::Own | Holder::Command => {
                self.shared = true;
                self.claims = self.claims.saturating_add(u32::from(holder == Holder::Command));
                out.push(Effect::WakeSiblings);
            }
            // All of the job is stopped then, and the shell resumes it with the terminal.
            Holder::Other => {
                out.push(Effect::Log(Record::info("stopped with its job").with("signal", signal)));
                if let Some(pid) = self.pid() {
                    self.pass_on(signal, pid, out);
                }
                out.push(Effect::Suspend { all: false });
            }
        }
    }

    /// What `--rewrite-signal` makes of it; `None`: it is not passed on.
    fn rewritten(&self, signal: Signal) -> Option<Signal> {
        let found = self.job.rewrite_signal.iter().rev().find(|(from, _)| *from == signal);
        found.map_or(Some(signal), |(_, to)| *to)
    }

    /// `passed_as=SIGQUIT`, where that is another.
    fn with_rewrite(&self, signal: Signal, record: Record) -> Record {
        match self.rewritten(signal) {
            Some(same) if same == signal => record,
            Some(other) => record.with("passed_as", other),
            None => record.with("passed_as", "none"),
        }
    }

    /// To the command, as `--rewrite-signal` says.
    fn pass_on(&self, signal: Signal, pid: Pid, out: &mut Vec<Effect>) {
        let Some(signal) = self.rewritten(signal) else { return };
        if signal == Signal::CONT && !self.shared {
            out.push(Effect::GiveTerminal(pid));
        }
        // A group without a parent outside its session is orphaned, and the kernel ignores TSTP for it.
        let signal = if self.job.setsid && job_control(signal) { Signal::STOP } else { signal };
        self.kill(signal, pid, out);
    }

    fn kill(&self, signal: Signal, pid: Pid, out: &mut Vec<Effect>) {
        out.push(Effect::Kill { signal, to: self.target(pid) });
    }

    /// The end of this run begins; the signal for it is the caller's.
    fn stop(&mut self, now: Now, pid: Pid, since: Instant, why: Why, out: &mut Vec<Effect>) {
        self.state = State::Stopping { pid, since, why };
        self.changed = true;
        self.deadlines.stop(Deadline::Ttl);
        self.deadlines.stop(Deadline::Watchdog);
        let patience = match why {
            Why::Asked => self.job.kill_after,
            Why::Ttl | Why::Watchdog => Some(self.job.kill_after.unwrap_or(KILL_AFTER)),
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

    /// Stops the command of our own accord.
    fn stop_ourselves(&mut self, now: Now, pid: Pid, since: Instant, why: Why, out: &mut Vec<Effect>) {
        self.stop(now, pid, since, why, out);
        self.kill(self.job.stop_signal, pid, out);
        // A stopped process would not act on it.
        self.kill(Signal::CONT, pid, out);
    }

    fn due(&mut self, now: Now, which: Deadline, late: Duration, out: &mut Vec<Effect>) {
        match (which, self.state) {
            (Deadline::Ttl, State::Running { pid, since }) => {
                let record = Record::info("TTL has passed").with("pid", pid);
                out.push(Effect::Log(record.with("signal", self.job.stop_signal)));
                self.stop_ourselves(now, pid, since, Why::Ttl, out);
            }
            (Deadline::Watchdog, State::Running { pid, since }) => {
                // Where we did not run ourselves, as in a frozen cgroup (docker pause), the command did not either.
                if let Some(interval) = self.watchdog.filter(|interval| late > LATE.max(*interval / 4)) {
                    return self.deadlines.set(Deadline::Watchdog, now.mono, interval);
                }
                out.push(Effect::Log(Record::warn("missed a watchdog ping").with("pid", pid)));
                self.stop_ourselves(now, pid, since, Why::Watchdog, out);
            }
            (Deadline::Kill, State::Stopping { pid, .. }) => {
                out.push(Effect::Log(Record::warn("did not end in time, killing it").with("pid", pid)));
                self.kill(Signal::KILL, pid, out);
            }
            (Deadline::Start, State::Pausing) => {
                self.kill_remnant(out);
                self.state = State::Starting;
                out.push(Effect::Spawn);
            }
            (Deadline::Linger, State::Lingering) => self.close(out),
            (Deadline::Flapping, _) => self.update_flapping(now, out),
            // Stopped with the state that they belong to; none of these can be due elsewhere.
            (
                Deadline::Ttl | Deadline::Watchdog | Deadline::Kill | Deadline::Start | Deadline::Linger,
                State::Starting
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Draining { .. }
                | State::Pausing
                | State::Lingering
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
        }
    }

    fn told(&mut self, now: Now, told: Told, out: &mut Vec<Effect>) {
        if let Some(interval) = told.interval {
            self.watchdog = Some(interval).filter(|interval| !interval.is_zero());
        }
        if let Some(text) = told.status {
            self.changed |= text != self.status.status_text;
            self.status.status_text = text;
        }
        if self.setting.manager && !told.forward.is_empty() {
            out.push(Effect::Notify(told.forward));
        }
        // How ready it is matters no more once it is being stopped.
        let State::Running { pid, since } = self.state else { return };
        if told.reloading || told.stopping {
            self.unready = if told.stopping { "stopping by itself" } else { "reloading" };
            self.said_ready = false;
            self.told_ready &= !told.reloading;
        }
        if told.stopping {
            self.deadlines.stop(Deadline::Watchdog);
        }
        if told.ready {
            if !std::mem::replace(&mut self.said_ready, true) && self.job.notify {
                out.push(Effect::Log(Record::info("ready").with("pid", pid)));
            }
            self.tell_ready(out);
        }
        if told.trigger {
            out.push(Effect::Log(Record::warn("asks to be stopped, by WATCHDOG=trigger").with("pid", pid)));
            self.stop_ourselves(now, pid, since, Why::Watchdog, out);
        } else if told.ready || told.ping || told.interval.is_some() {
            self.wait_for_ping(now);
        }
    }

    /// The command could not ping while it was suspended, as we were.
    fn has_been_suspended(&mut self, now: Now) {
        if self.deadlines.is_set(Deadline::Watchdog) {
            self.wait_for_ping(now);
        }
    }

    /// The command has given a sign of life, or could not. Counted from READY=1 on, as systemd does: a slow start is
    /// no missed ping; a reload is no excuse.
    fn wait_for_ping(&mut self, now: Now) {
        match self.watchdog {
            Some(interval) if self.said_ready || self.deadlines.is_set(Deadline::Watchdog) => {
                self.deadlines.set(Deadline::Watchdog, now.mono, interval);
            }
            _ => self.deadlines.stop(Deadline::Watchdog),
        }
    }

    /// Once, and once more after each reload of the command's.
    fn tell_ready(&mut self, out: &mut Vec<Effect>) {
        if self.setting.manager && !self.told_ready && !self.told_stopping {
            out.push(Effect::Notify(b"READY=1".to_vec()));
        }
        self.told_ready = true;
    }

    fn tell_stopping(&mut self, out: &mut Vec<Effect>) {
        if self.setting.manager && !self.told_stopping {
            out.push(Effect::Notify(b"STOPPING=1".to_vec()));
        }
        self.told_stopping = true;
    }

    fn write_certificate(&self, out: &mut Vec<Effect>) {
        if self.job.termination_log.is_some() {
            out.push(Effect::TerminationLog(self.certificate()));
        }
    }

    fn kill_remnant(&mut self, out: &mut Vec<Effect>) {
        if let Some(group) = self.remnant.take() {
            out.push(Effect::Kill { signal: Signal::KILL, to: Target::Remnant(group) });
        }
    }

    fn close(&mut self, out: &mut Vec<Effect>) {
        self.leaving = true;
        self.deadlines = Deadlines::default();
        self.state = State::Closing;
        self.status.next_start = None;
        self.changed = true;
        self.tell_stopping(out);
        out.push(Effect::Close);
    }

    fn exit(&mut self, out: &mut Vec<Effect>) {
        self.kill_remnant(out);
        self.state = State::Done;
        // Where it is another than that of the command, which was told.
        if self.last_code != Some(self.code) {
            out.push(Effect::Log(Record::info("exiting").with("code", self.code)));
        }
        // Who takes that end for a success has no reason to stop.
        if let Some((signal, all)) = self.interrupted
            && self.code == (Exit::Signal { signal, core_dumped: false }).code()
            && !self.setting.is_init
        {
            out.push(Effect::DieBy { signal, all });
        }
        out.push(Effect::Exit(self.code));
    }

    /// Brings what follows from the state up to date, and tells the service manager in words.
    fn refresh(&mut self, now: Now, out: &mut Vec<Effect>) {
        let ready = matches!(self.state, State::Running { .. }) && (!self.job.notify || self.said_ready);
        self.changed |= ready != self.status.ready;
        self.status.ready = ready;
        if self.changed && self.setting.manager && self.state != State::Done {
            out.push(Effect::Notify(notify::status(&self.headline(now.wall))));
        }
    }
}

/// The document's `Reason` for an end.
fn reason(success_exit: &[Success], why: Option<Why>, end: End) -> &'static str {
    let End { exit, oom_killed, .. } = end;
    let listed = success_exit.iter().any(|success| match (success, exit) {
        (Success::Code(wanted), _) => exit.code() == *wanted,
        (Success::Signal(wanted), Exit::Signal { signal, .. }) => *wanted == signal,
        (Success::Signal(_), Exit::Code(_)) => false,
    });
    match (why, exit) {
        (Some(Why::Ttl), _) => "timeout",
        (Some(Why::Watchdog), _) => "watchdog",
        (Some(Why::Asked) | None, _) if listed || exit == Exit::Code(0) => "success",
        (Some(Why::Asked) | None, Exit::Signal { signal: Signal::KILL, .. }) if oom_killed => "oom-kill",
        (Some(Why::Asked) | None, Exit::Signal { core_dumped: true, .. }) => "core-dump",
        (Some(Why::Asked) | None, Exit::Signal { core_dumped: false, .. }) => "signal",
        (Some(Why::Asked) | None, Exit::Code(_)) => "exit-code",
    }
}
