//! What is said between the table of watched processes and the driver: events in, effects out.

use std::time::SystemTime;

use crate::logic::watch::matching::ProcessNames;
use crate::logic::{Exit, Pid, hash};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEvent<'a> {
    /// The loop turns for the first time.
    Start,
    /// [`Watch::deadline`](crate::logic::watch::Watch::deadline) has passed.
    Deadline,
    /// The running scan met this process; `mark` differs for another process with the same pid.
    Listed {
        pid: Pid,
        /// The inode number of /proc/PID.
        mark: u32,
    },
    /// The running scan is through.
    Scanned,
    /// The running scan could not be finished.
    ScanFailed,
    /// Answers [`WatchEffect::ReadName`]. A process that is gone is not answered for.
    Named {
        pid: Pid,
        /// Its name.
        comm: &'a [u8],
    },
    /// Answers [`WatchEffect::ReadAllNames`].
    AllNames {
        pid: Pid,
        /// Its names.
        names: ProcessNames<'a>,
    },
    /// Answers [`WatchEffect::Open`]: it lives, and all this is of one and the same process.
    Opened {
        pid: Pid,
        /// Its start in ticks since boot.
        ticks: u64,
        /// Which program it executes.
        image: Option<Image>,
        /// The same as a time of the calendar.
        start: SystemTime,
        /// A pidfd will tell its end.
        guarded: bool,
        /// Its names.
        names: ProcessNames<'a>,
    },
    /// Answers [`WatchEffect::Open`]: there is no living process with this pid.
    Vanished { pid: Pid },
    /// Its pidfd tells that it ended; told again once its parent has reaped it.
    Ended {
        pid: Pid,
        /// How, where the kernel says so.
        exit: Option<Exit>,
        /// Nothing more will be told.
        reaped: bool,
    },
    /// `--process-events`: this process was forked.
    Forked { pid: Pid },
    /// `--process-events`: this process executed a program.
    Executed { pid: Pid },
    /// `--process-events`: this process changed its name.
    Renamed { pid: Pid },
    /// `--process-events`: some were lost.
    Missed,
    /// `--process-events` cannot be used.
    EventsUnavailable,
}

/// Tells a process that executed another program from one that only changed its name: equal as long as it executes
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image(u64);

impl Image {
    /// Of what /proc shows: the stack of [`Stat`](crate::logic::proc::stat::Stat) or, to those who may not look, the
    /// arguments. `None` if it shows neither.
    pub(crate) fn of(start_stack: u64, cmdline: &[u8]) -> Option<Image> {
        match (start_stack, cmdline) {
            (0, []) => None,
            (0, cmdline) => Some(Image(hash(cmdline).into())),
            (start_stack, _) => Some(Image(start_stack)),
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEffect {
    /// List all processes, then tell [`WatchEvent::Scanned`].
    Scan,
    /// Tell [`WatchEvent::Named`].
    ReadName(Pid),
    /// Tell [`WatchEvent::AllNames`].
    ReadAllNames(Pid),
    /// Take a pidfd where there is none yet and tell [`WatchEvent::Opened`] or [`WatchEvent::Vanished`].
    Open(Pid),
    /// Give up its pidfd.
    Close(Pid),
    /// For the log.
    Note(Note),
}

/// What the log may want to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A process matches.
    Found(Pid),
    /// It ended, or executed another program; how it ended, as far as it was known at that moment.
    Ended(Pid, Option<Exit>),
    /// There is no process of `--pid`, and none will be waited for.
    Absent(Pid),
    /// `--process-events` cannot be used, for this reason; kapo scans instead.
    Scanning(&'static str),
}
