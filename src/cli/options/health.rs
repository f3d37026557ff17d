//! The options of readiness and health.

use super::{JOB, Opt, flag, value};

pub(super) const HEALTH: &[Opt] = &[
    flag(JOB, "notify").env("KAPO_NOTIFY").says(
        "the command reports with sd_notify when it is ready",
        "kapo sets NOTIFY_SOCKET for the command. The socket is a path if one of the \
             directories $RUNTIME_DIRECTORY, /run, $XDG_RUNTIME_DIR and /tmp is writable, and \
             otherwise an abstract address. /readyz answers 503 until the command sends READY=1.",
    ),
    value(JOB, "watchdog", "SECONDS").env("KAPO_WATCHDOG").otherwise("0").says(
        "interval in which the command must ping; 0: off",
        "Requires --notify. The first interval begins at READY=1. kapo sets WATCHDOG_USEC and \
             WATCHDOG_PID for the command. If a ping is missed, kapo stops the command with \
             Reason watchdog.",
    ),
    value(JOB, "silence", "SECONDS").env("KAPO_SILENCE").otherwise("0").says(
        "stop a command that prints nothing for this long; 0: off",
        "Requires --stdout or --stderr. The run then ends with Reason silent, and kapo exits with 124. Many programs \
             buffer their output when it is not a terminal: use stdbuf -oL, or PYTHONUNBUFFERED=1.",
    ),
    value(JOB, "ready-line", "TEXT").env("KAPO_READY_LINE").says(
        "ready when a line of captured output contains TEXT",
        "Requires --stdout or --stderr. /readyz answers 503 until the command has written TEXT \
             in this run. Case matters. This option cannot be combined with --notify.",
    ),
];
