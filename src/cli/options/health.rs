//! The options of readiness and health, and of reports about runs.

use super::{Completion, JOB, Opt, flag, value};

pub(super) const HEALTH: &[Opt] = &[
    flag(JOB, "notify").env("KAPO_NOTIFY").says(
        "the command reports READY=1 by sd_notify",
        "kapo sets NOTIFY_SOCKET for the command. The socket is a path if one of the \
             directories $RUNTIME_DIRECTORY, /run, $XDG_RUNTIME_DIR and /tmp is writable, and \
             otherwise an abstract address. /readyz answers 503 until the command sends READY=1.",
    ),
    value(JOB, "watchdog", "SECONDS").env("KAPO_WATCHDOG").otherwise("0").says(
        "longest time between pings; 0: off",
        "Requires --notify. The first interval begins at READY=1. kapo sets WATCHDOG_USEC and \
             WATCHDOG_PID for the command. If a ping is missed, kapo stops the command with \
             Reason watchdog.",
    ),
    value(JOB, "silence", "SECONDS").env("KAPO_SILENCE").otherwise("0").says(
        "longest time without output; 0: off",
        "Requires --stdout or --stderr. The run then ends with Reason silent, and kapo exits with 124. Many programs \
             buffer their output when it is not a terminal: use stdbuf -oL, or PYTHONUNBUFFERED=1.",
    ),
    value(JOB, "ready-line", "TEXT").env("KAPO_READY_LINE").says(
        "ready when an output line contains TEXT",
        "Requires --stdout or --stderr. /readyz answers 503 until the command has written TEXT \
             in this run. Case matters. This option cannot be combined with --notify.",
    ),
    value(JOB, "probe", "PROBE").env("KAPO_PROBE").says(
        "check of the command; all must pass",
        "PROBE is http://HOST:PORT/PATH, unix:/SOCKET[:/PATH], tcp://HOST:PORT or exec:WORDS, with \
             NAME= before it if you like. HOST is an IP address or localhost. The variable has one \
             probe in each line. See docs/health.md.",
    ),
    value(JOB, "probe-interval", "SECONDS")
        .env("KAPO_PROBE_INTERVAL")
        .otherwise("10")
        .says("how old the result of a probe may be", "Until the first success of a run, 1 s."),
    value(JOB, "probe-timeout", "SECONDS")
        .env("KAPO_PROBE_TIMEOUT")
        .otherwise("5")
        .says("how long a probe may take", ""),
    value(JOB, "probe-failures", "N")
        .env("KAPO_PROBE_FAILURES")
        .otherwise("3")
        .says("failures in a row until it is unhealthy", ""),
    value(JOB, "probe-grace", "SECONDS")
        .env("KAPO_PROBE_GRACE")
        .otherwise("0")
        .says("time in which failures do not count", ""),
    value(JOB, "unhealthy", "ACTION")
        .env("KAPO_UNHEALTHY")
        .completes(Completion::Words(&["report", "stop"]))
        .otherwise("report")
        .says(
            "what unhealthy means: report or stop",
            "report runs probes only if a request asks for their results. stop runs them each \
             --probe-interval and stops the command when it is unhealthy, with Reason unhealthy.",
        ),
    value(JOB, "on", "EVENT=COMMAND").says(
        "run a command at an event, such as an alert",
        "May be repeated, once for each event: start, ready, fail, flapping, recovered, give-up, \
             unhealthy, stop, end. The command is split at blanks, without a shell. It gets the \
             document on stdin and KAPO_EVENT, KAPO_REASON, KAPO_EXIT_CODE and others in its \
             environment. The variables are KAPO_ON_START, KAPO_ON_GIVE_UP and so on. See docs/hooks.md.",
    ),
    value(JOB, "on-timeout", "SECONDS")
        .env("KAPO_ON_TIMEOUT")
        .otherwise("10")
        .says("kill a command of --on after this time", "kapo's own end waits for it that long."),
    value(JOB, "textfile", "PATH").completes(Completion::Path).env("KAPO_TEXTFILE").says(
        "write metrics to this file for node_exporter",
        "The file is replaced at each start and end of a run. Its name must end with .prom. Each \
             metric has the label name, the value of --name.",
    ),
];
