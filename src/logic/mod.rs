//! The layer that decides: it takes events and the time and returns effects. It holds no descriptor, reads no clock
//! and makes no system call, so its tests run in microseconds. This file defines the types that logic and driver
//! share.

pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod deadlines;
pub(crate) mod endpoints;
pub(crate) mod fleet;
pub mod history;
pub(crate) mod hooks;
pub mod http;
pub mod lifecycle;
pub(crate) mod log;
pub mod metrics;
pub(crate) mod notify;
pub(crate) mod oom;
pub mod output;
pub(crate) mod probe;
pub mod proc;
pub(crate) mod random;
pub mod reason;
pub(crate) mod restart;
pub(crate) mod sorted;
pub mod status;
pub(crate) mod trim;
pub(crate) mod vars;
pub(crate) mod watch;

use std::fmt;
use std::num::NonZeroI32;
use std::time::{Duration, Instant, SystemTime};

pub use crate::config::Stream;
use crate::signal::Signal;

/// The time of one turn of the loop, which is read once and passed on.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The monotonic clock, for deadlines and durations. It never jumps, and it stops while the machine is suspended.
    pub mono: Instant,
    /// The wall clock, for output. It may jump.
    pub wall: SystemTime,
}

/// A process id; never 0, which means a group or no process in most calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(NonZeroI32);

impl ProcessId {
    /// An id that no process has: Linux gives none above 2^22.
    pub const NO_PROCESS: ProcessId = ProcessId(NonZeroI32::MAX);

    /// Returns the id with this number; `None` for 0.
    pub const fn new(number: i32) -> Option<ProcessId> {
        match NonZeroI32::new(number) {
            Some(number) => Some(ProcessId(number)),
            None => None,
        }
    }

    /// Returns the number.
    pub const fn get(self) -> i32 {
        self.0.get()
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<NonZeroI32> for ProcessId {
    fn from(number: NonZeroI32) -> ProcessId {
        ProcessId(number)
    }
}

impl From<ProcessId> for i32 {
    fn from(pid: ProcessId) -> i32 {
        pid.get()
    }
}

/// Returns the 32-bit FNV-1a hash, which distinguishes texts but does not protect against deliberate collisions.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// How a process ended (wait(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The process exited with this code.
    Code(u8),
    /// A signal killed the process.
    Signal {
        /// The signal.
        signal: Signal,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
}

impl Exit {
    /// Returns the exit code as a shell reports it: that of the process, or 128+n if signal n killed it.
    pub fn code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal { signal, .. } => 128 + signal.number(),
        }
    }
}

/// The resource usage of an ended run, including reaped descendants (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The largest resident set in bytes.
    pub max_rss_bytes: u64,
}

/// The sender of a signal, as the kernel reports it (sigaction(2), si_code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The kernel itself, because of a terminal, a broken pipe or a fault.
    Kernel,
    /// A process; pid 0 means a process outside kapo's PID namespace.
    Process {
        /// The pid of the sender.
        pid: i32,
        /// The sender's real user id.
        uid: u32,
    },
}

impl Sender {
    /// Adds the sender to a log record if it is a process.
    pub fn told(self, record: log::record::Record) -> log::record::Record {
        match self {
            Sender::Kernel => record,
            Sender::Process { pid, uid } => record.number("sender_pid", pid).number("sender_uid", uid),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the time at which a test begins; all other times are relative to it.
    #[expect(clippy::disallowed_methods, reason = "there is no other way to create an Instant")]
    pub(crate) fn epoch() -> Now {
        use std::sync::OnceLock;
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_793_930);
        Now { mono: *EPOCH.get_or_init(Instant::now), wall }
    }
}
