//! The options of what follows the end of a run.

use super::{Completion, Opt, RUN, SUPERVISE, flag, value};

pub(super) const AFTER_RUN: &[Opt] = &[
    value(RUN, "wait", "SECONDS").short('w').env("KAPO_WAIT").otherwise("0").says(
        "keep answering for this long after the end",
        "A poller can then still see how the command ended.",
    ),
    value(RUN, "idle-exit", "SECONDS").env("KAPO_IDLE_EXIT").says(
        "answer until no request came for this long",
        "This option cannot be combined with --wait. If only one of them is given on the \
             command line, the variable of the other is ignored.",
    ),
];

pub(super) const RESTARTING: &[Opt] = &[
    value(SUPERVISE, "wait", "SECONDS").short('w').env("KAPO_WAIT").otherwise("5").says(
        "pause between an end and the next start",
        "After a command that could not be executed, the pause is at least 1 s.",
    ),
    value(SUPERVISE, "backoff-max", "SECONDS").env("KAPO_BACKOFF_MAX").otherwise("0").says(
        "double the pause up to this; 0: off",
        "A run is short if it lasted less than --stable. Doubled pauses are lengthened at random \
         by up to 10 %.",
    ),
    value(SUPERVISE, "stable", "SECONDS")
        .env("KAPO_STABLE")
        .otherwise("60")
        .says("a run of this length resets the back-off", "It also ends Flapping."),
    value(SUPERVISE, "max-restarts", "N").env("KAPO_MAX_RESTARTS").otherwise("0").says(
        "give up after N restarts; 0: never",
        "kapo then exits with the command's exit code. Ends by --ttl are not counted.",
    ),
    value(SUPERVISE, "within", "SECONDS")
        .env("KAPO_WITHIN")
        .otherwise("300")
        .says("time window for restarts and failures", "For --max-restarts and for Flapping."),
    value(SUPERVISE, "restart", "WHEN")
        .completes(Completion::Words(&["always", "on-failure"]))
        .env("KAPO_RESTART")
        .otherwise("always")
        .says(
            "start again: always or on-failure",
            "With on-failure, kapo exits with 0 after the first successful run.",
        ),
    value(SUPERVISE, "no-restart-on", "CODES").env("KAPO_NO_RESTART_ON").says(
        "codes and signals that are final: 78,SEGV",
        "A list separated by commas, for errors that another start cannot repair. kapo exits \
             with the command's exit code, or with 0 if --success-exit lists it too. 126 and 127 \
             mean a command that cannot be executed. Ends that kapo itself caused (--ttl, --watchdog, \
             --silence) are not compared.",
    ),
    flag(SUPERVISE, "log-repeats").env("KAPO_LOG_REPEATS").says(
        "log each start and end of a crash storm",
        "Without this option, after three equal ends in a row one end a minute is logged, with the \
             number of runs that were left out.",
    ),
];
