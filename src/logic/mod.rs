//! Logic decides: given events and the time, it answers with effects. It holds no descriptor, reads no clock and
//! makes no system call, and can therefore be tested in microseconds. This page is the vocabulary between logic
//! and driver.

pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod deadlines;
pub(crate) mod endpoints;
pub mod history;
pub mod http;
pub mod lifecycle;
pub(crate) mod log;
pub mod metrics;
pub(crate) mod notify;
pub(crate) mod oom;
pub mod output;
pub mod proc;
pub(crate) mod random;
pub mod reason;
pub(crate) mod restart;
pub mod status;
pub(crate) mod vars;
pub(crate) mod watch;

use std::num::NonZeroI32;
use std::time::{Duration, Instant, SystemTime};

use crate::signal::Signal;

/// The time of one turn of the loop: read once, passed down.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and durations: never jumps, does not count while the machine sleeps.
    pub mono: Instant,
    /// For what people and machines read: may jump.
    pub wall: SystemTime,
}

/// A process id; never 0, which means a group or nobody in most calls.
pub type Pid = NonZeroI32;

/// The 32-bit FNV-1a hash, for telling one text from another; no protection against texts made to collide.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// How a process ended (wait(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this code.
    Code(u8),
    /// A signal ended it.
    Signal {
        /// Its number.
        signal: Signal,
        /// It left a core dump.
        core_dumped: bool,
    },
}

impl Exit {
    /// The code of a shell: the process's own, or 128+n when signal n ended it.
    pub fn code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal { signal, .. } => 128 + signal.number(),
        }
    }
}

/// What an ended run used, its reaped descendants included (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// The largest resident set.
    pub max_rss_bytes: u64,
}

/// Who sent a signal, as the kernel told (sigaction(2), si_code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The kernel itself: a terminal, a broken pipe, a fault.
    Kernel,
    /// A process; pid 0 is one outside our PID namespace.
    Process {
        /// Its pid.
        pid: i32,
        /// Its real user id.
        uid: u32,
    },
}

impl Sender {
    /// Adds to a record who it was, where it was a process.
    pub fn told(self, record: log::record::Record) -> log::record::Record {
        match self {
            Sender::Kernel => record,
            Sender::Process { pid, uid } => record.number("sender_pid", pid).number("sender_uid", uid),
        }
    }
}

/// One of the command's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// Both, stdout first.
    pub const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Where the time of a test begins; everything after it is counted from here.
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other beginning")]
    pub(crate) fn epoch() -> Now {
        use std::sync::OnceLock;
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_793_930);
        Now { mono: *EPOCH.get_or_init(Instant::now), wall }
    }
}
