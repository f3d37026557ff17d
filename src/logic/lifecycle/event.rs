//! What the driver tells a [`Lifecycle`](crate::logic::lifecycle::Lifecycle), and what it is told to do.

use crate::logic::history::Memory;
use crate::logic::log::record::Record;
use crate::logic::notify::message::Notification;
use crate::logic::{Exit, Pid, Sender, Usage};
use crate::signal::Signal;

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
        /// The reason, for people.
        reason: String,
        /// Of what kind that is.
        kind: SpawnErrorKind,
    },
    /// The command has ended and is reaped.
    Exited(End),
    /// A signal could not be sent.
    KillFailed {
        /// The signal that was to be sent.
        signal: Signal,
        /// The reason, for people.
        reason: String,
    },
    /// The command is stopped, see [`Effect::CheckStopped`].
    FoundStopped,
    /// The command was stopped while it held the terminal that we were given.
    Stopped {
        /// By which signal.
        signal: Signal,
    },
    /// The kernel has stopped kapo's own group, which we alone do not feel: another process in it wants the terminal.
    SiblingStopped {
        /// TTIN or TTOU.
        signal: Signal,
        /// Who has it instead.
        foreground_owner: ForegroundOwner,
    },
    /// Reading the output of an ended run is over: it has passed through, or was given up.
    Drained {
        /// Which run, as in [`Effect::Drain`].
        run: u64,
        /// Its last lines, where they are kept.
        last_output: Vec<String>,
    },
    /// The answer to [`Effect::CountGroup`].
    GroupCounted {
        /// How many processes are in the group; `None`: at least one, and how many cannot be found out.
        members: Option<usize>,
    },
    /// Children other than the command have ended and are reaped.
    OrphansReaped,
    /// A signal for us, other than CHLD.
    Signal {
        /// Its number.
        signal: Signal,
        /// The process that sent it, or the kernel.
        sender: Sender,
    },
    /// The command has spoken on its NOTIFY_SOCKET.
    Notified(Notification),
    /// kapo has not run for a while, as it was stopped or frozen.
    Resumed,
    /// A request was answered.
    Asked,
    /// What [`crate::logic::lifecycle::Lifecycle::deadline`] named has come.
    Deadline,
    /// Nobody is connected any more who waits for an answer.
    Closed,
}

/// How the command has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// Its exit code or the signal that ended it.
    pub exit: Exit,
    /// What it used.
    pub usage: Usage,
    /// The cgroup counted an OOM kill since it was started.
    pub oom_killed: bool,
    /// Its group was in the foreground of kapo's terminal.
    pub on_terminal: bool,
    /// HUP has ended it, and the terminal that kapo was started on is gone.
    pub hung_up: bool,
    /// The memory of kapo's cgroup, if it can be read.
    pub memory: Option<Memory>,
}

/// Who is in the foreground of kapo's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForegroundOwner {
    /// kapo's own group, by now.
    Own,
    /// The command's, to which kapo has given it.
    Command,
    /// Who has put kapo into the background; or it cannot be told.
    Other,
}

/// Why a command could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnErrorKind {
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
    /// Send a signal; answer with KillFailed if that is not possible. A process that is gone needs none.
    Kill {
        /// Its number.
        signal: Signal,
        /// The process or process group that gets it.
        to: SignalTarget,
        /// What to log once it is sent.
        log: Option<Record>,
    },
    /// Find out whether the command is stopped, by job control or by STOP; answer with FoundStopped if it is.
    CheckStopped(Pid),
    /// Take the terminal back where we gave it away, and stop ourselves until CONT.
    Suspend {
        /// The signal that has stopped the command, or is meant for it: kapo stops by it where it can, so that its parent
        /// sees what it would see without kapo.
        signal: Signal,
        /// And the rest of our process group, which knows nothing of it.
        all: bool,
    },
    /// Give the terminal to this group again where we hold it.
    GiveTerminal(Pid),
    /// Take it back from the command for our own group, and wake that.
    WakeSiblings,
    /// Read what is left in the command's pipes; answer with Drained, at once or later.
    Drain {
        /// The number of the run that has ended, counted from 1.
        run: u64,
    },
    /// Count the processes in the group of a run that has ended; answer with GroupCounted.
    CountGroup {
        /// The process group.
        group: Pid,
        /// The number matters, not only whether there are any.
        exactly: bool,
    },
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
pub enum SignalTarget {
    /// The command alone.
    Process(Pid),
    /// Its process group.
    Group(Pid),
    /// The process that the command has named by MAINPID, and the group of the run.
    Followed {
        /// The process.
        pid: Pid,
        /// The group, which the process may have left. Its number may belong to strangers by now.
        group: Pid,
    },
    /// What is left of the group of a command that is reaped: only while a descendant of ours is in it, as the number
    /// may belong to a stranger otherwise.
    LeftoverGroup(Pid),
}

/// What of a terminal kapo was started to survive, as the signals for it were ignored then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IgnoredAtStart {
    /// HUP was, as by nohup(1): that the terminal is gone ends nothing.
    pub hang_up: bool,
    /// INT and QUIT were, as a shell without job control does for what it starts with `&`: ^C ends nothing.
    pub interrupt: bool,
}

/// What a life depends on beside the options of the job.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// `--hide-args`
    pub hide_args: bool,
    /// SidebindPort of the document.
    pub sidebind_port: u16,
    /// There is a service manager that wants to hear of us.
    pub manager: bool,
    /// What of a terminal does not end kapo.
    pub ignored_at_start: IgnoredAtStart,
    /// kapo writes into a pipe in a script, so it may share the terminal with the rest of a pipeline, and a stop of its
    /// group is one of the script.
    pub piped: bool,
    /// kapo is PID 1, which no signal of its own ends.
    pub is_init: bool,
    /// `--history`
    pub history: usize,
    /// For TTL ranges and jitter.
    pub seed: u64,
}
