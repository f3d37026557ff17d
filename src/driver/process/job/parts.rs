//! The parts of a [`Job`](super::Job): what changes together.

use std::cell::{OnceCell, RefCell};
use std::time::SystemTime;

use rustix::process::Pid as RawPid;

use crate::driver::notify::notify_socket::NotifySocket;
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::output::capture::Capture;
use crate::driver::proc::process_usage::Sampler;
use crate::driver::process::cgroup::Cgroup;
use crate::driver::process::directory::Directory;
use crate::driver::process::main_pid::MainPid;
use crate::driver::process::oom::OomCounter;
use crate::driver::process::parent_death::ParentWatch;
use crate::driver::process::program::Program;
use crate::driver::process::termination_log::TerminationLog;
use crate::logic::Now;
use crate::signal::Signal;
use crate::sys;

/// What the command is started with.
pub(super) struct Starter {
    pub program: Program,
    pub directory: Directory,
    /// Proof that no signal handler runs meanwhile.
    pub blocked: sys::signal::AllBlocked,
    /// CHLD was ignored at kapo's start.
    pub ignore_chld: bool,
    /// RLIMIT_NOFILE before kapo changed its own.
    pub open_files: Option<(u64, u64)>,
    /// When the latest start had succeeded or failed.
    pub last_start: Option<Now>,
}

/// What the command writes, and what is written about its end.
pub(super) struct CommandOutput {
    pub capture: Capture,
    /// The run whose output is read to its end, or was last.
    pub draining: u64,
    pub termination_log: Option<TerminationLog>,
}

/// The process that started kapo.
pub(super) struct Parent {
    pub pid: Option<RawPid>,
    /// Under `--parent-death-signal`.
    pub watch: Option<ParentWatch>,
}

/// The two ends of sd_notify(3).
pub(super) struct Notify {
    /// kapo's own service manager.
    pub manager: Option<ServiceManager>,
    /// Under `--notify`, where the command speaks to us.
    pub socket: Option<NotifySocket>,
}

/// What is known of the current run. Each start begins with the default.
#[derive(Default)]
pub(super) struct CurrentRun {
    /// The process that the command has named by MAINPID.
    pub main_pid: Option<MainPid>,
    /// A MAINPID was ignored, and logged.
    pub main_pid_ignored: bool,
    /// When the run's first process was born, while another one is followed.
    pub since: Option<u64>,
    /// We sent SIGKILL.
    pub killed: bool,
    /// The command was stopped, and may have been continued.
    pub was_stopped: bool,
}

/// The children of kapo.
pub(super) struct Children {
    /// Some may be left to reap.
    pub unreaped: bool,
    /// How many were reaped that were not the command.
    pub orphans: u64,
}

/// What is measured.
pub(super) struct Measuring {
    /// When kapo started.
    pub started: SystemTime,
    pub oom: OomCounter,
    pub sampler: RefCell<Sampler>,
    /// Looked for at the first scrape.
    pub cgroup: OnceCell<Cgroup>,
}

/// What kapo's own end has come to.
#[derive(Default)]
pub(super) struct Ending {
    /// What is not needed of stdin and stdout is closed already.
    pub standard_closed: bool,
    /// The server was asked to close.
    pub closing: bool,
    /// The signal that kapo dies of; `true`: its whole group gets it.
    pub dies_by: Option<(Signal, bool)>,
}
