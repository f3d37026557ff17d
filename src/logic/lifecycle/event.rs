//! The events that the driver reports to a [`Lifecycle`](crate::logic::lifecycle::Lifecycle), and the effects that it
//! must perform.

use crate::logic::history::CgroupMemory;
use crate::logic::log::record::Record;
use crate::logic::notify::message::Notification;
use crate::logic::{Exit, ProcessId, Sender, Usage};
use crate::signal::Signal;

/// What the driver reports to the lifecycle.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The event loop has started, so the first start is due.
    Start,
    /// The command runs, because its exec has succeeded.
    Spawned {
        /// The pid of the command, which is also the number of its process group.
        pid: ProcessId,
    },
    /// The command could not be started.
    SpawnFailed {
        /// The reason, as text for the log.
        reason: String,
        /// Which step of the start failed.
        kind: SpawnErrorKind,
    },
    /// The command has ended and was reaped.
    Exited(End),
    /// A signal could not be sent.
    KillFailed {
        /// The signal that was to be sent.
        signal: Signal,
        /// The reason, as text for the log.
        reason: String,
    },
    /// The command is stopped. The answer to [`Effect::CheckStopped`].
    FoundStopped,
    /// The command was stopped while it held kapo's terminal.
    Stopped {
        /// The signal that stopped it.
        signal: Signal,
    },
    /// The kernel has stopped the other processes of kapo's group because one of them wants the terminal. kapo itself
    /// blocks that signal.
    SiblingStopped {
        /// TTIN or TTOU.
        signal: Signal,
        /// Which process group has the terminal instead.
        foreground_owner: ForegroundOwner,
    },
    /// The output of an ended run was read to its end or was given up.
    Drained {
        /// The number of the run, as in [`Effect::Drain`].
        run: u64,
        /// The last lines of its output, if they are kept.
        last_output: Vec<String>,
    },
    /// The answer to [`Effect::CountGroup`].
    GroupCounted {
        /// How many processes are in the group. `None`: at least one, but the number is unknown.
        members: Option<usize>,
    },
    /// Children other than the command have ended and were reaped.
    OrphansReaped,
    /// kapo has received a signal other than CHLD.
    Signal {
        /// The signal.
        signal: Signal,
        /// The process that sent it, or the kernel.
        sender: Sender,
    },
    /// A datagram of the command has arrived on its NOTIFY_SOCKET. With `ready` alone it also means that the command has
    /// written the text of `--ready-line`.
    Notified(Notification),
    /// kapo did not run for a while because it was stopped or frozen.
    Resumed,
    /// A probe of this run has failed `--probe-failures` times in a row, and kapo must stop the command.
    Unhealthy {
        /// The number of the run, as in [`Effect::Drain`].
        run: u64,
        /// The failure, as text for the log.
        reason: String,
    },
    /// A request was answered.
    RequestAnswered,
    /// The time that [`crate::logic::lifecycle::Lifecycle::deadline`] returned has come.
    Deadline,
    /// No connected client waits for an answer any more.
    Closed,
}

/// How the command has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// Its exit code or the signal that ended it.
    pub exit: Exit,
    /// The resource usage of the command and its reaped descendants.
    pub usage: Usage,
    /// The cgroup has counted an OOM kill since the start of the command.
    pub oom_killed: bool,
    /// The command's group was in the foreground of kapo's terminal.
    pub on_terminal: bool,
    /// HUP ended the command, and the terminal that kapo was started on has hung up.
    pub hung_up: bool,
    /// The memory of kapo's cgroup, if it can be read.
    pub memory: Option<CgroupMemory>,
}

/// Which process group is in the foreground of kapo's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForegroundOwner {
    /// kapo's own group.
    Own,
    /// The command's group, after kapo has given it the terminal.
    Command,
    /// Another group, such as the shell that has put kapo into the background, or an unknown one.
    Other,
}

/// Why a command could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnErrorKind {
    /// The file does not exist.
    NotFound,
    /// The file cannot be executed.
    NotExecutable,
    /// The exec was not reached: no process or pipe could be created, or the directory could not be entered.
    Setup,
}

/// An effect: what the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start the command. The resulting event is Spawned or SpawnFailed.
    Spawn,
    /// Send a signal. The resulting event is KillFailed if that is not possible. A process that no longer exists is not an
    /// error.
    Kill {
        /// The signal.
        signal: Signal,
        /// The process or process group that gets it.
        to: SignalTarget,
        /// The record to log after the signal was sent.
        log: Option<Record>,
    },
    /// Check whether the command is stopped, by job control or by STOP. The resulting event is FoundStopped if it is.
    CheckStopped(ProcessId),
    /// Take the terminal back from the command, and stop kapo until CONT.
    Suspend {
        /// The signal that stopped the command, or that is meant for it. kapo stops itself with the same signal if
        /// possible, so that its parent sees the same stop as without kapo.
        signal: Signal,
        /// Also stop the rest of kapo's process group, which did not receive the signal.
        all: bool,
    },
    /// Give the terminal to this group again, if kapo has it.
    GiveTerminal(ProcessId),
    /// Take the terminal back from the command for kapo's own group, and continue that group.
    WakeSiblings,
    /// Read what is left in the command's pipes. The resulting event is Drained, at once or later.
    Drain {
        /// The number of the run that has ended, counted from 1.
        run: u64,
    },
    /// Count the processes in the group of a run that has ended. The resulting event is GroupCounted.
    CountGroup {
        /// The process group.
        group: ProcessId,
        /// The exact number is needed, not only whether the group is empty.
        exactly: bool,
    },
    /// Send this datagram to the service manager.
    Notify(Vec<u8>),
    /// Write this log record.
    Log(Record),
    /// Write this line to stderr, as for an error before the start.
    PrintError(String),
    /// Write this to the termination log.
    TerminationLog(Vec<u8>),
    /// Accept no more clients and answer those that are connected. The resulting event is Closed.
    Close,
    /// Make kapo end by this signal at its exit, so that a shell or make that runs it stops, too.
    DieBy {
        /// INT or QUIT.
        signal: Signal,
        /// Also send the signal to the rest of kapo's process group. The terminal sent it only to the command's group,
        /// which was in the foreground.
        all: bool,
    },
    /// Exit with this code at once.
    Exit(u8),
}

/// The target of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalTarget {
    /// The command alone.
    Process(ProcessId),
    /// The command's process group.
    Group(ProcessId),
    /// The process that the command has named by MAINPID, and the group of the run.
    Followed {
        /// The process.
        pid: ProcessId,
        /// The group. The process may have left it, so its number may have been reused.
        group: ProcessId,
    },
    /// What is left of the group of a command that was reaped. The signal is sent only while a descendant of kapo is in
    /// the group, because the number may have been reused otherwise.
    LeftoverGroup(ProcessId),
}

/// The signals of a terminal that were ignored when kapo was started, so that they do not end kapo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IgnoredAtStart {
    /// HUP was ignored, as with nohup(1): the loss of the terminal does not stop kapo.
    pub hang_up: bool,
    /// INT and QUIT were ignored, as for a process that a shell without job control starts with `&`: ^C does not stop
    /// kapo.
    pub interrupt: bool,
}

/// The facts that the lifecycle depends on in addition to the options of the job.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// `--hide-args`: the document does not show the arguments of the command.
    pub hide_args: bool,
    /// SidebindPort of the document.
    pub sidebind_port: u16,
    /// Name of the document.
    pub name: &'static str,
    /// A service manager has set NOTIFY_SOCKET for kapo.
    pub manager: bool,
    /// Which signals of the terminal were ignored when kapo started, and therefore do not end it.
    pub ignored_at_start: IgnoredAtStart,
    /// kapo writes into a pipe of a script. It may share the terminal with the rest of a pipeline, and a stop of its
    /// group also stops the script.
    pub piped: bool,
    /// kapo is PID 1, which cannot end itself by a signal.
    pub is_init: bool,
    /// `--history`: how many ended runs are kept.
    pub history: usize,
    /// The seed of the random numbers for TTL ranges and jitter.
    pub seed: u64,
}
