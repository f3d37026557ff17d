//! The commands of the world: how a child behaves, what it leaves behind, and what the world knows of its run.

use std::time::Duration;

use crate::logic::lifecycle::SpawnErrorKind;
use crate::logic::{Exit, Pid};
use crate::signal::Signal;

/// How a child behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `Err`: it cannot be executed, and whether it was not found.
    pub start: Result<(), SpawnErrorKind>,
    /// It has the terminal when it ends.
    pub on_terminal: bool,
    /// The terminal is gone by then.
    pub hung_up: bool,
    /// It ends of its own accord after this long; `None`: never.
    pub lasts: Option<Duration>,
    /// How it ends then.
    pub exit: Exit,
    /// It ends by no signal but KILL.
    pub deaf: bool,
    /// It is stopped, and feels nothing but KILL and CONT.
    pub stopped: bool,
    /// kapo may not signal it.
    pub unreachable: bool,
    /// How it ends when it is signalled; `None`: by that signal.
    pub answer: Option<Exit>,
    /// How long it takes to end when it is signalled.
    pub dies_after: Duration,
    /// How long what it wrote takes to pass through.
    pub drains_after: Duration,
    /// What it wrote last.
    pub last_output: Vec<String>,
    /// The kernel counted an OOM kill while it ran.
    pub oom_killed: bool,
    /// What it leaves behind in its process group.
    pub leaves: Option<Leaves>,
}

/// How the rest of a process group behaves once the command has ended.
#[derive(Clone, Debug)]
pub struct Leaves {
    /// How long it takes to end when it was asked to; `None`: it ends by KILL alone.
    pub ends_after: Option<Duration>,
    /// Not even KILL ends it, as the kernel holds it up.
    pub stuck: bool,
    /// kapo's SIGCHLD tells of its end.
    pub is_child: bool,
    /// How many processes there are; `None`: it cannot be told.
    pub members: Option<usize>,
}

impl Leaves {
    /// Ends this long after the stop signal.
    pub fn obedient(ends_after: Duration) -> Leaves {
        Leaves { ends_after: Some(ends_after), stuck: false, is_child: true, members: Some(2) }
    }

    /// Ends by KILL alone.
    pub fn deaf() -> Leaves {
        Leaves { ends_after: None, ..Leaves::obedient(Duration::ZERO) }
    }
}

impl Behaviour {
    /// Runs until it is signalled, and does then what is asked at once.
    pub fn patient() -> Behaviour {
        Behaviour {
            start: Ok(()),
            on_terminal: false,
            hung_up: false,
            lasts: None,
            exit: Exit::Code(0),
            deaf: false,
            stopped: false,
            unreachable: false,
            answer: None,
            dies_after: Duration::ZERO,
            drains_after: Duration::ZERO,
            last_output: Vec::new(),
            oom_killed: false,
            leaves: None,
        }
    }

    /// Ends like this after that long.
    pub fn ends(lasts: Duration, exit: Exit) -> Behaviour {
        Behaviour { lasts: Some(lasts), exit, ..Behaviour::patient() }
    }

    /// Ends by KILL alone.
    pub fn deaf() -> Behaviour {
        Behaviour { deaf: true, ..Behaviour::patient() }
    }
}

/// The rest of the last run's process group.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) leaves: Leaves,
    /// When it ends, as things stand; `None`: never.
    pub(super) ends: Option<Duration>,
}

impl Rest {
    pub(super) fn lives(&self, now: Duration) -> bool {
        self.ends.is_none_or(|at| at > now)
    }
}

/// What kapo does about the rest of a group, as the world works it out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// It has been asked to end, by the stop of the run or by TERM.
    pub(super) asked: bool,
    /// It was asked by TERM.
    pub(super) termed: bool,
    pub(super) killed: bool,
    /// When it is killed, or given up after that.
    pub(super) due: Option<Duration>,
    /// When it is looked at next, and the pause after that.
    pub(super) look: Option<(Duration, Duration)>,
}

pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) since: Duration,
    pub(super) behaviour: Behaviour,
    pub(super) ends: Option<(Duration, Exit)>,
    pub(super) group_killed: bool,
    /// What it has got while it was stopped.
    pub(super) pending: Vec<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopCause {
    Ttl,
    Watchdog,
    Outside,
}

/// The stop of the run that there is, or of the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) at: Duration,
    pub(super) why: StopCause,
    pub(super) killed: bool,
}
