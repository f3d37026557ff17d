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

use std::time::{Duration, Instant, SystemTime};

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

#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
pub mod world;

/// So often siblings get the terminal back before the command has to wait for it: until then it can ask for a password
/// and the like. Two that want it at once may need a few before one of them is content.
const CLAIMS: u32 = 10;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The loop turns; the first start is due.
    Start,
    /// The command runs: its exec has succeeded.
    Spawned {
        /// Also the number of its process group.
        pid: Pid,
    },
    /// It could not be executed.
    SpawnFailed {
        /// Why, for people.
        reason: String,
        /// Of what kind that is.
        obstacle: Obstacle,
    },
    /// The command has ended and is reaped.
    Exited {
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
        /// The cgroup counted an OOM kill since it was started.
        oom_killed: bool,
        /// Its group was in the foreground of kapo's terminal.
        on_terminal: bool,
        /// HUP has ended it, and the terminal that kapo was started on is gone.
        hung_up: bool,
    },
    /// The command was stopped while it held the terminal that we were given.
    Stopped,
    /// The kernel has stopped kapo's own group, which we alone do not feel: another process in it wants the terminal.
    SiblingStopped {
        /// TTIN or TTOU.
        signal: Signal,
        /// Who has it instead.
        holder: Holder,
    },
    /// All that the ended command had written has passed through.
    Drained {
        /// Its last lines, where they are kept.
        last_output: Vec<String>,
    },
    /// A signal for us, other than CHLD.
    Signal {
        /// Which.
        signal: Signal,
        /// Whose.
        sender: Sender,
    },
    /// The command has spoken on its NOTIFY_SOCKET.
    Told(Told),
    /// A request was answered.
    Asked,
    /// What [`Lifecycle::deadline`] named has come.
    Deadline,
    /// Nobody is connected any more who waits for an answer.
    Closed,
}

/// So late a deadline is not on a machine that is merely busy: we were stopped.
const LATE: Duration = Duration::from_millis(100);

/// What the service manager is told of a command that has not said READY=1 yet.
const STARTING: &str = "starting";

/// Who is in the foreground of kapo's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// kapo's own group, by now.
    Own,
    /// The command's, to which kapo has given it.
    Command,
    /// Who has put kapo into the background; or it cannot be told.
    Other,
}

/// Why a command could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No such file.
    NotFound,
    /// A file that cannot be executed.
    NotExecutable,
    /// It did not come to that: no process, pipe or folder was to be had.
    Before,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start the command; answer with Spawned or SpawnFailed.
    Spawn,
    /// Send a signal.
    Kill {
        /// Which.
        signal: Signal,
        /// To whom.
        to: Target,
    },
    /// Take the terminal back where we gave it away, and stop ourselves until CONT.
    Suspend {
        /// And the rest of our process group, which knows nothing of it.
        all: bool,
    },
    /// Give the terminal to this group again where we hold it.
    GiveTerminal(Pid),
    /// Take it back from the command for our own group, and wake that.
    WakeSiblings,
    /// Read what is left in the command's pipes; answer with Drained.
    Drain,
    /// Tell the service manager.
    Notify(Vec<u8>),
    /// A log line.
    Log(Record),
    /// One line for people, as before the start.
    Complain(String),
    /// Write this to the termination log.
    TerminationLog(Vec<u8>),
    /// Accept nobody any more, answer those who are connected, then answer with Closed.
    Close,
    /// Have the end that follows be one by this signal, so that a shell, make and the like stop, too.
    DieBy {
        /// INT or QUIT.
        signal: Signal,
        /// And send it to the rest of our process group, which it has not reached as the terminal was the command's.
        all: bool,
    },
    /// End kapo with this code, at once.
    Exit(u8),
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The command alone.
    Process(Pid),
    /// Its process group.
    Group(Pid),
    /// What is left of the group of a command that is reaped: only while a child of ours is in it, as the number
    /// may belong to a stranger otherwise.
    Remnant(Pid),
}

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

/// What of a terminal kapo was started to survive, as the signals for it were ignored then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survives {
    /// HUP was, as by nohup(1): that the terminal is gone ends nothing.
    pub hang_up: bool,
    /// INT and QUIT were, as a shell without job control does for what it starts with `&`: ^C ends nothing.
    pub interrupt: bool,
}

/// What a life depends on beside the options of the job.
#[derive(Clone, Debug)]
pub struct Setting {
    /// `--hide-args`
    pub hide_args: bool,
    /// SidebindPort of the document.
    pub sidebind_port: u16,
    /// There is a service manager that wants to hear of us.
    pub manager: bool,
    /// What of a terminal does not end kapo.
    pub survives: Survives,
    /// kapo is PID 1, which no signal of its own ends.
    pub is_init: bool,
    /// For TTL ranges and jitter.
    pub seed: u64,
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
    /// Siblings, such as a pager in kapo's pipeline, have wanted the terminal: since then it is theirs, and the
    /// command's only while it asks for it.
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
            shared: false,
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
            (
                State::Running { pid, since },
                Event::Exited { exit, usage, oom_killed, on_terminal, hung_up },
            ) => {
                self.hears_of_hang_up(hung_up, out);
                self.leaving |= on_terminal && is_interrupted(exit);
                self.interrupted = interruption(exit).filter(|_| on_terminal).map(|signal| (signal, true));
                self.ended(now, pid, since, None, exit, usage, oom_killed, out);
            }
            (
                State::Stopping { pid, since, why },
                Event::Exited { exit, usage, oom_killed, on_terminal: _, hung_up },
            ) => {
                self.hears_of_hang_up(hung_up, out);
                let typed = why == Why::Asked && self.was_asked_by_the_terminal();
                self.interrupted = interruption(exit).filter(|_| typed).map(|signal| (signal, false));
                self.ended(now, pid, since, Some(why), exit, usage, oom_killed, out);
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
                Event::Exited { .. } | Event::Stopped | Event::Told(_),
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

    /// `ended: exit-code 3`
    fn last_end(&self) -> String {
        match self.status.signal {
            Some(signal) => format!("ended: {} {signal}", self.status.reason),
            None => format!("ended: {} {}", self.status.reason, self.status.exit_code),
        }
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

    #[expect(clippy::too_many_arguments, reason = "one caller, and each is a fact of the end")]
    fn ended(
        &mut self,
        now: Now,
        pid: Pid,
        since: Instant,
        why: Option<Why>,
        exit: Exit,
        usage: Usage,
        oom_killed: bool,
        out: &mut Vec<Effect>,
    ) {
        for which in [Deadline::Ttl, Deadline::Kill, Deadline::Watchdog] {
            self.deadlines.stop(which);
        }
        let (signal, core_dumped) = match exit {
            Exit::Code(_) => (None, false),
            Exit::Signal { signal, core_dumped } => (Some(signal), core_dumped),
        };
        let listed = self.job.success_exit.iter().any(|success| match (success, exit) {
            (Success::Code(wanted), _) => exit.code() == *wanted,
            (Success::Signal(wanted), Exit::Signal { signal, .. }) => *wanted == signal,
            (Success::Signal(_), Exit::Code(_)) => false,
        });
        let success = listed || exit == Exit::Code(0);
        let reason = match why {
            Some(Why::Ttl) => "timeout",
            Some(Why::Watchdog) => "watchdog",
            _ if success => "success",
            _ if oom_killed && signal == Some(Signal::KILL) => "oom-kill",
            _ if core_dumped => "core-dump",
            _ if signal.is_some() => "signal",
            _ => "exit-code",
        };
        let success = reason == "success";
        self.code = match reason {
            "success" => 0,
            "timeout" => error::EXIT_TIMEOUT,
            // Whoever restarts kapo on failure must not take a hung command for a success.
            "watchdog" => exit.code().max(1),
            _ => exit.code(),
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
        match self.state {
            State::Running { pid, since } => {
                if !stop && is_worth_a_word(signal) {
                    let record = Record::info("passed on").with("signal", signal);
                    out.push(Effect::Log(self.with_rewrite(signal, sender.told(record))));
                }
                self.pass_on(signal, pid, out);
                if signal == Signal::CONT && self.deadlines.is_set(Deadline::Watchdog) {
                    // While it was suspended, with us, it could not ping.
                    self.wait_for_ping(now);
                }
                if stop {
                    self.stop(now, pid, since, Why::Asked, out);
                }
            }
            State::Stopping { pid, .. } => self.pass_on(signal, pid, out),
            State::Pausing | State::Lingering if stop => self.close(out),
            // Whoever insists does not want to wait for a reader of ours that has stalled, or a client.
            State::Draining { .. } if stop && again => {
                self.write_certificate(out);
                self.close(out);
            }
            State::Closing if stop && again => self.exit(out),
            // Should the command never come to be, this is how it would have ended.
            State::Starting if stop => self.code = Exit::Signal { signal, core_dumped: false }.code(),
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

    /// What `--termination-log` gets: a line with reason and code, then as much of the last lines as fits.
    fn certificate(&self) -> Vec<u8> {
        /// What the kubelet reads at most.
        const LENGTH: usize = 4096;
        let mut text = format!("reason={} code={}", self.status.reason, self.status.exit_code);
        if let Some(signal) = self.status.signal {
            text.push_str(&format!(" signal={signal}"));
        }
        text.push('\n');
        let output: String = self.status.last_output.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let from = output.ceil_char_boundary((text.len() + output.len()).saturating_sub(LENGTH));
        text.push_str(output.get(from..).unwrap_or_default());
        text.into_bytes()
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

    /// What `systemctl status` shows.
    fn headline(&self, wall: SystemTime) -> String {
        let mut text = match self.state {
            State::Running { pid, .. } if self.status.ready => format!("running, pid {pid}"),
            State::Running { pid, .. } => format!("{}, pid {pid}", self.unready),
            State::Stopping { pid, .. } => format!("stopping, pid {pid}"),
            State::Pausing => {
                let pause = self.status.next_start.and_then(|at| at.duration_since(wall).ok());
                format!("{}, next start in {} s", self.last_end(), pause.unwrap_or_default().as_secs())
            }
            State::Starting => STARTING.to_owned(),
            State::Draining { .. } | State::Lingering | State::Closing | State::Done => self.last_end(),
        };
        if self.status.restarts > 0 {
            text.push_str(&format!(", {} restarts", self.status.restarts));
        }
        if self.status.flapping {
            text.push_str(", flapping");
        }
        if !self.status.status_text.is_empty() {
            text.push_str(": ");
            text.push_str(&self.status.status_text);
        }
        text
    }
}

/// The signal of ^C or ^\ that has ended a command which does not handle it.
fn interruption(exit: Exit) -> Option<Signal> {
    match exit {
        Exit::Signal { signal: signal @ (Signal::INT | Signal::QUIT), .. } => Some(signal),
        Exit::Signal { .. } | Exit::Code(_) => None,
    }
}

/// Whether INT or QUIT has ended the command, or it has ended with 128+n, which is what shells and many others make of
/// the signal. On a terminal that is the command's ^C and ^\ reach it alone, and mean kapo, too. One that makes another
/// code of them cannot be told from one that is done.
fn is_interrupted(exit: Exit) -> bool {
    [Signal::INT, Signal::QUIT]
        .iter()
        .any(|signal| exit.code() == Exit::Signal { signal: *signal, core_dumped: false }.code())
}

/// Whether the kernel raises this one for the command as well: for whom the terminal belongs to, which the command
/// did not hear of as it is in another group, for all (TERM, by SysRq), or as it was ordered before kapo was executed
/// (ALRM: `alarm(60); exec kapo`). All else that it raises is about kapo's own doing.
fn concerns_the_command(signal: Signal) -> bool {
    const CONCERNS: [Signal; 8] = [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::ALRM,
        Signal::TERM,
        Signal::TSTP,
        Signal::CONT,
        Signal::WINCH,
    ];
    CONCERNS.contains(&signal)
}

/// Whether that it was passed on is told in the log: not what a terminal sends at each turn, nor what programs use to
/// talk to each other by the thousand.
fn is_worth_a_word(signal: Signal) -> bool {
    !job_control(signal) && ![Signal::CONT, Signal::WINCH].contains(&signal) && signal <= Signal::SYS
}

/// What stops a job, and kapo with it.
pub fn job_control(signal: Signal) -> bool {
    matches!(signal, Signal::TSTP | Signal::TTIN | Signal::TTOU)
}

/// Whether kapo is to leave. HUP asks for it when the kernel sends it, as the terminal is gone; daemons reload when a
/// process sends it.
pub fn asks_for_an_end(signal: Signal, sender: Sender, survives: Survives) -> bool {
    match signal {
        // KILL reaches nobody; it is told when it should have come at the death of a parent that is dead already.
        Signal::TERM | Signal::KILL => true,
        Signal::INT | Signal::QUIT => sender != Sender::Kernel || !survives.interrupt,
        Signal::HUP => sender == Sender::Kernel && !survives.hang_up,
        _ => false,
    }
}
