//! The events that the driver reports to the table of watched processes, and the effects that the table asks for.

use std::time::SystemTime;

use crate::logic::watch::matching::ProcessNames;
use crate::logic::{Exit, ProcessId, hash};

/// An event that the driver reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEvent<'a> {
    /// The first turn of the loop.
    Start,
    /// [`Watch::deadline`](crate::logic::watch::Watch::deadline) has passed.
    Deadline,
    /// The running scan has listed this process. `mark` differs if the pid now belongs to another process.
    Listed {
        pid: ProcessId,
        /// The inode number of /proc/PID.
        mark: u32,
    },
    /// The running scan has listed all processes.
    Scanned,
    /// The running scan failed before its end.
    ScanFailed,
    /// The answer to [`WatchEffect::ReadName`]. There is no answer if the process is gone.
    Named {
        pid: ProcessId,
        /// The name that the kernel keeps.
        comm: &'a [u8],
    },
    /// The answer to [`WatchEffect::ReadAllNames`].
    AllNames {
        pid: ProcessId,
        /// For how many seconds it has run; 0 if that was not asked for.
        age: u32,
        /// Its name, arguments and executable.
        names: ProcessNames<'a>,
    },
    /// An answer to [`WatchEffect::Open`]: the process lives, and all fields describe the same process.
    Opened {
        pid: ProcessId,
        /// Its start time in clock ticks since boot.
        ticks: u64,
        /// The program that it executes; `None` if that is unknown.
        image: Option<Image>,
        /// Its start time.
        start: SystemTime,
        /// Whether a pidfd will report its end.
        guarded: bool,
        /// Its name, arguments and executable.
        names: ProcessNames<'a>,
    },
    /// An answer to [`WatchEffect::Open`]: no living process has this pid.
    Vanished { pid: ProcessId },
    /// The pidfd reports that the process has ended. The event comes again when the parent has reaped it.
    Ended {
        pid: ProcessId,
        /// How it ended, if the kernel shows that.
        exit: Option<Exit>,
        /// Whether the process was reaped, so that no further event follows.
        reaped: bool,
    },
    /// `--process-events`: a process was forked.
    Forked { pid: ProcessId },
    /// `--process-events`: a process executed a program.
    Executed { pid: ProcessId },
    /// `--process-events`: a process changed its name.
    Renamed { pid: ProcessId },
    /// `--process-events`: some events were lost.
    Missed,
    /// `--process-events` has become unusable.
    EventsUnavailable,
}

/// Identifies one execution of a program. It stays equal if the process only changes its name, and changes with each
/// exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image(u64);

impl Image {
    /// Returns the image from the start of the stack ([`Stat`](crate::logic::proc::stat::Stat)) or, if kapo lacks the
    /// permission to see that, from the arguments. `None` if /proc shows neither.
    pub(crate) fn of(start_stack: u64, cmdline: &[u8]) -> Option<Image> {
        match (start_stack, cmdline) {
            (0, []) => None,
            (0, cmdline) => Some(Image(hash(cmdline).into())),
            (start_stack, _) => Some(Image(start_stack)),
        }
    }
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchEffect {
    /// List all processes, then report [`WatchEvent::Scanned`].
    Scan,
    /// Read the name and report [`WatchEvent::Named`].
    ReadName(ProcessId),
    /// Read name, arguments, executable and, if `age` is set, the age. Report [`WatchEvent::AllNames`].
    ReadAllNames { pid: ProcessId, age: bool },
    /// Open a pidfd if there is none yet, and report [`WatchEvent::Opened`] or [`WatchEvent::Vanished`].
    Open(ProcessId),
    /// Close its pidfd.
    Close(ProcessId),
    /// Write to the log.
    Note(Note),
}

/// Notes for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A process matches the name of this index.
    Found(usize, ProcessId),
    /// A process of the name of this index ended or executed another program. Contains how it ended, if this was known
    /// at that moment.
    Ended(usize, ProcessId, Option<Exit>),
    /// The process of `--pid` does not exist, and kapo does not wait for it.
    Absent(ProcessId),
    /// `--process-events` cannot be used, for this reason. kapo scans instead.
    Scanning(&'static str),
}

impl Note {
    /// Returns the index of the name that the note is about.
    pub(crate) fn name(self) -> usize {
        match self {
            Note::Found(name, _) | Note::Ended(name, ..) => name,
            Note::Absent(_) | Note::Scanning(_) => 0,
        }
    }
}
