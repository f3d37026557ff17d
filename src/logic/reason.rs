//! The reason why a run has ended: the member `Reason` of the document, and the label of `kapo_child_exits_total`.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Exit;
use crate::config::Success;

/// The reason of an end; docs/status.md describes each one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Exit code 0, or an end that `--success-exit` lists.
    Success,
    /// Another exit code.
    ExitCode,
    /// A signal killed the command.
    Signal,
    /// A signal killed the command and the kernel wrote a core dump.
    CoreDump,
    /// The TTL has passed.
    Timeout,
    /// The kernel's out-of-memory killer has killed the command.
    OomKill,
    /// The command could not be executed.
    ExecFailed,
    /// The command has missed a watchdog ping, or has requested its end with WATCHDOG=trigger.
    Watchdog,
    /// The command has printed nothing for `--silence`.
    Silent,
    /// The probes of the command have failed, under `--unhealthy stop`.
    Unhealthy,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Reason; 10] = [
        Reason::Success,
        Reason::ExitCode,
        Reason::Signal,
        Reason::CoreDump,
        Reason::Timeout,
        Reason::OomKill,
        Reason::ExecFailed,
        Reason::Watchdog,
        Reason::Silent,
        Reason::Unhealthy,
    ];

    /// Returns the name in the document and in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Success => "success",
            Reason::ExitCode => "exit-code",
            Reason::Signal => "signal",
            Reason::CoreDump => "core-dump",
            Reason::Timeout => "timeout",
            Reason::OomKill => "oom-kill",
            Reason::ExecFailed => "exec-failed",
            Reason::Watchdog => "watchdog",
            Reason::Silent => "silent",
            Reason::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Whether the list contains this end. `TTL` in the list is ignored, because it does not depend on the exit code.
pub(crate) fn is_listed(ends: &[Success], exit: Exit) -> bool {
    ends.iter().any(|end| match (end, exit) {
        (Success::Code(wanted), _) => exit.code() == *wanted,
        (Success::Signal(wanted), Exit::Signal { signal, .. }) => *wanted == signal,
        (Success::Signal(_), Exit::Code(_)) | (Success::Ttl, _) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_listed_in_order() {
        assert_eq!(Reason::ALL.map(|reason| reason as usize), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
