//! Why a run has ended: the document's `Reason`, and the label of `kapo_child_exits_total`.

use std::fmt;

use serde::{Serialize, Serializer};

/// See the table in docs/status.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Exit code 0, or an end that `--success-exit` lists.
    Success,
    /// Another exit code.
    ExitCode,
    /// A signal ended it.
    Signal,
    /// A signal ended it and left a core dump.
    CoreDump,
    /// Its TTL had passed.
    Timeout,
    /// The kernel's out-of-memory killer ended it.
    OomKill,
    /// It could not be executed.
    ExecFailed,
    /// It missed a watchdog ping, or asked for its end by WATCHDOG=trigger.
    Watchdog,
}

impl Reason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Reason; 8] = [
        Reason::Success,
        Reason::ExitCode,
        Reason::Signal,
        Reason::CoreDump,
        Reason::Timeout,
        Reason::OomKill,
        Reason::ExecFailed,
        Reason::Watchdog,
    ];

    /// As the document and the metrics show it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_listed_in_order() {
        assert_eq!(Reason::ALL.map(|reason| reason as usize), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
