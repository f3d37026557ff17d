//! Groups the fields of a [`Job`](super::Job) that change together.

use std::cell::{OnceCell, RefCell};
use std::time::SystemTime;

use rustix::process::Pid as RawPid;

use crate::driver::notify::notify_socket::NotifySocket;
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::output::capture::Capture;
use crate::driver::proc::process_usage::Sampler;
use crate::driver::process::cgroup::Cgroup;
use crate::driver::process::directory::Directory;
use crate::driver::process::helper::{Helpers, Surroundings};
use crate::driver::process::main_pid::MainPid;
use crate::driver::process::oom::OomCounter;
use crate::driver::process::parent_death::ParentWatch;
use crate::driver::process::program::Program;
use crate::driver::process::termination_log::TerminationLog;
use crate::driver::process::textfile::Textfile;
use crate::logic::Now;
use crate::logic::output::coalesce::{self, Coalescer};
use crate::signal::Signal;
use crate::sys;

/// What is needed to start the command.
pub(super) struct Starter {
    pub program: Program,
    pub directory: Directory,
    /// Proof that all signals are blocked, so that no signal handler runs between fork and exec.
    pub blocked: sys::signal::AllBlocked,
    /// CHLD was ignored when kapo was started.
    pub ignore_chld: bool,
    /// RLIMIT_NOFILE before kapo changed its own limit.
    pub open_files: Option<(u64, u64)>,
    /// When the last start succeeded or failed.
    pub last_start: Option<Now>,
}

impl Starter {
    /// Returns what a helper has in common with the command.
    pub(super) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            blocked: self.blocked,
            ignore_chld: self.ignore_chld,
            open_files: self.open_files,
            directory: self.program.directory(),
        }
    }
}

/// The command's output, and the files about its runs.
pub(super) struct CommandOutput {
    pub capture: Capture,
    /// The number of the run whose output is being drained, or was drained last.
    pub draining: u64,
    pub termination_log: Option<TerminationLog>,
    pub textfile: Option<Textfile>,
}

/// The process that started kapo.
pub(super) struct Parent {
    pub pid: Option<RawPid>,
    /// Set under `--parent-death-signal`.
    pub watch: Option<ParentWatch>,
}

/// Both directions of sd_notify(3).
pub(super) struct Notify {
    /// The service manager that kapo itself reports to.
    pub manager: Option<ServiceManager>,
    /// The socket on which the command reports to kapo, set under `--notify`.
    pub socket: Option<NotifySocket>,
}

/// The facts about the current run. Each start resets them to the default.
#[derive(Default)]
pub(super) struct CurrentRun {
    /// The process that the command has named by MAINPID.
    pub main_pid: Option<MainPid>,
    /// A MAINPID of this run was ignored and logged.
    pub main_pid_ignored: bool,
    /// The start time of the run's first process, set while another process is followed.
    pub since: Option<u64>,
    /// kapo has sent SIGKILL.
    pub killed: bool,
    /// The command was stopped at least once. It may have been continued since.
    pub was_stopped: bool,
}

/// The children of kapo.
pub(super) struct Children {
    /// There may be children left to reap.
    pub unreaped: bool,
    /// How many children other than the command and the helpers were reaped.
    pub orphans: u64,
    /// Measures how fast orphans end, so that many are reaped at once.
    pub coalescer: Coalescer,
    /// The programs that kapo has started beside the command.
    pub helpers: Helpers,
}

impl Default for Children {
    fn default() -> Children {
        Children {
            // A program that was replaced by kapo through exec may have left children that have already ended.
            unreaped: true,
            orphans: 0,
            coalescer: Coalescer::new(&coalesce::ORPHANS),
            helpers: Helpers::default(),
        }
    }
}

/// The sources of the metrics.
pub(super) struct Measuring {
    /// When kapo started.
    pub started: SystemTime,
    pub oom: OomCounter,
    pub sampler: RefCell<Sampler>,
    /// The cgroup of kapo. Empty before the first scrape.
    pub cgroup: OnceCell<Cgroup>,
}

/// The progress of kapo's own end.
#[derive(Default)]
pub(super) struct Ending {
    /// The parts of stdin and stdout that are not needed any more are closed.
    pub standard_closed: bool,
    /// The server was asked to close.
    pub closing: bool,
    /// The signal that ends kapo. `true`: the signal is also sent to kapo's whole process group.
    pub dies_by: Option<(Signal, bool)>,
}
