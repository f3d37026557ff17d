//! The options of the clients.

use super::{CHECK, Completion, LOGS, LS, Opt, STATUS, WAIT, flag, value};
use crate::config::{InstanceState, ListFormat, ListOrder};

pub(super) const CHECKING: &[Opt] = &[
    flag(CHECK, "live")
        .says("/livez: whether kapo answers", "Only one of --live, --ready and --health may be given."),
    flag(CHECK, "ready").says(
        "/readyz: whether the command is ready",
        "This is the default. Only one of --live, --ready and --health may be given.",
    ),
    flag(CHECK, "health").says(
        "/healthz: whether the command is healthy",
        "Only one of --live, --ready and --health may be given.",
    ),
    value(CHECK, "timeout", "SECONDS")
        .otherwise("5")
        .says("exit with 1 after this time", "The time for the whole answer."),
];

pub(super) const WAITING: &[Opt] = &[
    flag(WAIT, "ready").says(
        "wait until /readyz is 200, not for the end",
        "kapo also waits while nothing listens yet: it tries again after 100 ms, and then ever less often, at least once \
             a second. If the job of a `run` ends before that, the exit code is that of the job, or 1 \
             if that is 0; if a kapo has answered and then exits, it is 125. For scripts and init containers that depend on a service.",
    ),
    flag(WAIT, "healthy").says("wait until /healthz is 200, not for the end", "As with --ready."),
    value(WAIT, "timeout", "SECONDS").says(
        "exit with 124 after this time",
        "If the wait is not over by then. With 0, kapo asks once and does not wait.",
    ),
    value(WAIT, "retry", "SECONDS").otherwise("0").says(
        "retry this long while nothing listens",
        "Use this option for a job that starts at the same time, as in a compose file. --ready \
             and --healthy do not need it. If a proxy answers 502, 503 or 504, or cuts the connection, kapo always asks again: until \
             --timeout has passed, or, without --timeout, for 60 s in a row.",
    ),
    flag(WAIT, "verbose").short('v').says(
        "print reason, code, start and last lines",
        "They are printed to stdout when the job has ended: one line in the format of a log \
             record, followed by the LastOutput of the document.",
    ),
];

pub(super) const STATUS_OPTIONS: &[Opt] = &[
    value(STATUS, "output", "FORMAT")
        .short('o')
        .completes(Completion::Words(&["text", "json"]))
        .otherwise("text")
        .says(
            "output format: text or json",
            "json is one object: Status is the document, and Runs is the answer to /runs, or null \
             if that kapo keeps no runs.",
        ),
    value(STATUS, "timeout", "SECONDS").otherwise("5").says(
        "time limit for all requests together",
        "If the document has not arrived by then, the exit code is 3.",
    ),
];

pub(super) const LOGS_OPTIONS: &[Opt] = &[
    flag(LOGS, "follow").short('f').says(
        "also print new output until kapo exits",
        "This continues across restarts of the command. The exit code is then 0.",
    ),
    value(LOGS, "lines", "N").short('n').says(
        "print only the last N lines of the kept output",
        "With 0, none of the kept output is printed, which is useful with --follow.",
    ),
    value(LOGS, "stream", "STREAM").completes(Completion::Words(&["stdout", "stderr"])).says(
        "print only stdout or only stderr",
        "Without this option both streams are printed, in the order of arrival.",
    ),
    value(LOGS, "timeout", "SECONDS").otherwise("5").says(
        "time limit for the answer",
        "With --follow, it limits only the time until the answer begins. If no answer arrives \
             by then, the exit code is 3.",
    ),
];

pub(super) const LS_OPTIONS: &[Opt] = &[
    value(LS, "output", "FORMAT")
        .short('o')
        .completes(Completion::Words(ListFormat::WORDS))
        .otherwise("table")
        .says(
            "table, wide, json, prom or file-sd",
            "prom is for the textfile collector of node_exporter, file-sd for file_sd_configs of \
             Prometheus.",
        ),
    value(LS, "sort", "KEY").completes(Completion::Words(ListOrder::WORDS)).otherwise("state").says(
        "order: state, name, start or restarts",
        "With state, those in trouble come first, and among equal ones the newest start.",
    ),
    value(LS, "state", "STATES")
        .completes(Completion::Words(InstanceState::WORDS))
        .says("list only these: failing,flapping", "The exit code still depends on all."),
    flag(LS, "watch").short('w').says(
        "stay, and show each change",
        "Times are then shown instead of ages. Without a terminal, only the rows that have changed \
             are printed.",
    ),
    value(LS, "fleet", "HOST:PORT").says(
        "with file-sd: reach the kapos through a fleet",
        "For releases of Prometheus that cannot connect to Unix sockets. kapo fleet must serve the same folder there.",
    ),
    flag(LS, "prune").says(
        "remove dead sockets",
        "Nothing listens on a dead socket. It is removed only if the file is still the same.",
    ),
    value(LS, "timeout", "SECONDS")
        .otherwise("5")
        .says("time limit for all answers together", "A socket that has not answered by then is stuck."),
];
