//! The simulated commands: how a child behaves, what it leaves behind, and the state of its run.

use std::time::Duration;

use crate::logic::lifecycle::SpawnErrorKind;
use crate::logic::{Exit, ProcessId};
use crate::signal::Signal;

/// The behaviour of a child.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `Err`: the start fails in this way.
    pub start: Result<(), SpawnErrorKind>,
    /// The child has the terminal when it ends.
    pub on_terminal: bool,
    /// The terminal has hung up by the time the child ends.
    pub hung_up: bool,
    /// How long the child runs until it ends by itself; `None`: it never does.
    pub lasts: Option<Duration>,
    /// The exit status if the child ends by itself.
    pub exit: Exit,
    /// The child ignores every signal except KILL.
    pub ignores_signals: bool,
    /// The child is stopped, and only KILL and CONT have an effect.
    pub stopped: bool,
    /// kapo is not permitted to signal the child.
    pub unreachable: bool,
    /// The exit status if the child is signalled; `None`: it ends by that signal.
    pub exit_on_signal: Option<Exit>,
    /// How long the child takes to end after a signal.
    pub dies_after: Duration,
    /// How long the drain of the output takes.
    pub drains_after: Duration,
    /// The last lines of the output.
    pub last_output: Vec<String>,
    /// The kernel has counted an OOM kill during the run.
    pub oom_killed: bool,
    /// The processes that the child leaves in its process group.
    pub leaves: Option<Leaves>,
}

/// The behaviour of the processes that are left in the group when the command has ended.
#[derive(Clone, Debug)]
pub struct Leaves {
    /// How long the processes take to end after a signal; `None`: only KILL ends them.
    pub ends_after: Option<Duration>,
    /// KILL has no effect, because the processes are blocked in the kernel.
    pub stuck: bool,
    /// The processes are children of kapo, so their end causes SIGCHLD.
    pub is_child: bool,
    /// How many processes there are; `None`: the number is unknown.
    pub members: Option<usize>,
}

impl Leaves {
    /// Returns processes that end this long after the stop signal.
    pub fn obedient(ends_after: Duration) -> Leaves {
        Leaves { ends_after: Some(ends_after), stuck: false, is_child: true, members: Some(2) }
    }

    /// Returns processes that only KILL ends.
    pub fn ignoring_signals() -> Leaves {
        Leaves { ends_after: None, ..Leaves::obedient(Duration::ZERO) }
    }
}

impl Behaviour {
    /// Returns a child that runs until it is signalled, and then ends at once.
    pub fn until_signalled() -> Behaviour {
        Behaviour {
            start: Ok(()),
            on_terminal: false,
            hung_up: false,
            lasts: None,
            exit: Exit::Code(0),
            ignores_signals: false,
            stopped: false,
            unreachable: false,
            exit_on_signal: None,
            dies_after: Duration::ZERO,
            drains_after: Duration::ZERO,
            last_output: Vec::new(),
            oom_killed: false,
            leaves: None,
        }
    }

    /// Returns a child that ends by itself after this time.
    pub fn ends(lasts: Duration, exit: Exit) -> Behaviour {
        Behaviour { lasts: Some(lasts), exit, ..Behaviour::until_signalled() }
    }

    /// Returns a child that only KILL ends.
    pub fn ignoring_signals() -> Behaviour {
        Behaviour { ignores_signals: true, ..Behaviour::until_signalled() }
    }
}

/// The processes that are left of the last run's group.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) leaves: Leaves,
    /// When the processes end; `None`: never.
    pub(super) ends: Option<Duration>,
}

impl Rest {
    pub(super) fn lives(&self, now: Duration) -> bool {
        self.ends.is_none_or(|at| at > now)
    }
}

/// What kapo must do about the rest of a group, computed by the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// The group was asked to end, by the stop of the run or by TERM.
    pub(super) asked: bool,
    /// The group has received TERM.
    pub(super) termed: bool,
    pub(super) killed: bool,
    /// When kapo must kill the group, or stop waiting for it if it was killed already.
    pub(super) due: Option<Duration>,
    /// When the group must be counted next, and the pause after that.
    pub(super) look: Option<(Duration, Duration)>,
}

pub(super) struct Child {
    pub(super) pid: ProcessId,
    pub(super) since: Duration,
    pub(super) behaviour: Behaviour,
    pub(super) ends: Option<(Duration, Exit)>,
    pub(super) group_killed: bool,
    /// The signals that are pending while the child is stopped.
    pub(super) pending: Vec<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopCause {
    Ttl,
    Watchdog,
    Silence,
    Unhealthy,
    Outside,
}

/// What comes before the stop of the present run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// A drain after a stop signal or after the TTL.
    Drain(StopCause),
    /// The command was asked for a dump.
    Dump(StopCause),
}

/// The stop of the present run, or of the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) at: Duration,
    pub(super) why: StopCause,
    pub(super) killed: bool,
}
