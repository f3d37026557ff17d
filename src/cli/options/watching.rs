//! The options of `watch`.

use super::{Opt, WATCH, flag, value};

pub(super) const WATCHING: &[Opt] = &[
    value(WATCH, "wait", "SECONDS").short('w').env("KAPO_WAIT").otherwise("5").says(
        "pause between scans of the process list",
        "kapo notices the end of a process at once, without a scan.",
    ),
    value(WATCH, "pid", "PID").short('p').env("KAPO_WATCHPID").says(
        "watch this one process",
        "NAME is then optional and is only shown as Command. If the process does not exist, \
             kapo exits with 125. If its pid is reused, the new process is never taken for the \
             old one.",
    ),
    flag(WATCH, "process-events").env("KAPO_PROCESS_EVENTS").says(
        "learn of new processes from the kernel",
        "This option is meant for a single watcher on a host. Do not use it in containers or \
             for many watchers on one host.",
    ),
];
