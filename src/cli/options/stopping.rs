//! The options of the time limit, of signals and of the end of a run.

use super::{Completion, Fallback, JOB, Opt, flag, value};

pub(super) const STOPPING: &[Opt] = &[
    value(JOB, "ttl", "SECONDS|MIN-MAX").short('t').env("KAPO_TTL").otherwise("0").says(
        "stop each run after this time; 0: never",
        "If a range is given, each run gets a random time from it, so that many instances do \
             not restart at the same time. If the TTL has ended the command, kapo exits with 124.",
    ),
    value(JOB, "stop-signal", "SIGNAL")
        .completes(Completion::Signal)
        .env("KAPO_STOP_SIGNAL")
        .otherwise("TERM")
        .says(
            "signal for the command after its TTL",
            "This option does not affect the signals that kapo receives: they are forwarded \
             unchanged, or as --rewrite-signal specifies.",
        ),
    value(JOB, "stop-on", "SIGNALS").env("KAPO_STOP_ON").otherwise("TERM,INT,QUIT").says(
        "signals that ask kapo to stop",
        "A list separated by commas. All other signals are forwarded and do not stop kapo. Use this option for images \
             with another STOPSIGNAL (WINCH, PWR, RTMIN+3). For a JVM, leave out QUIT, because a \
             JVM prints its threads on QUIT and does not exit. A HUP that the kernel sends \
             because the terminal is gone always asks kapo to stop.",
    ),
    Opt {
        fallback: Fallback::Shown("10"),
        ..value(JOB, "kill-after", "SECONDS").short('k').env("KAPO_KILL_AFTER").says(
            "time from the stop signal to SIGKILL",
            "0: never. The command gets SIGKILL after its TTL. After a stop signal from outside, \
             the command gets SIGKILL only if this option is given, because container engines and \
             systemd send SIGKILL themselves and a long drain must not be interrupted. After the \
             command has ended, the rest of its process group always gets SIGKILL at this time.",
        )
    },
    value(JOB, "drain", "SECONDS").env("KAPO_DRAIN").otherwise("0").says(
        "time without new traffic before a stop",
        "After a stop request, and before the stop signal of --ttl, /readyz is 503 for this time, and the command \
             keeps running. A second stop signal skips the rest of the time. INT and QUIT are passed on at once.",
    ),
    value(JOB, "dump-signal", "SIGNAL").completes(Completion::Signal).env("KAPO_DUMP_SIGNAL").says(
        "signal for a dump before a stop by kapo",
        "Use this option for programs that print the stacks of their threads on a signal: QUIT for a JVM or a Go \
             program, ABRT for python3 -X faulthandler. kapo sends it to the command alone, before a stop by --ttl, --silence, \
             --watchdog or --unhealthy.",
    ),
    value(JOB, "dump-wait", "SECONDS").env("KAPO_DUMP_WAIT").otherwise("5").says(
        "time from the dump signal to the stop",
        "",
    ),
    flag(JOB, "single-child").env("KAPO_SINGLE_CHILD").says(
        "signal only the command, not its process group",
        "kapo then neither waits for the rest of the process group nor kills it.",
    ),
    flag(JOB, "setsid").env("KAPO_SETSID").says(
        "run the command in a new session",
        "If kapo has a terminal, the new session gets this terminal.",
    ),
    value(JOB, "rewrite-signal", "FROM:TO").env("KAPO_REWRITE_SIGNAL").says(
        "forward TO instead of FROM; TO 0: nothing",
        "This option may be repeated, and it accepts a list separated by commas. A signal \
             listed in --stop-on asks kapo to stop even if it is rewritten.",
    ),
    value(JOB, "success-exit", "CODES").env("KAPO_SUCCESS_EXIT").says(
        "codes and signals that count as success",
        "A list separated by commas; the option may be repeated. If a run ends with one of them, its Reason is success \
             and kapo exits with 0. TTL stands for an end by --ttl, for jobs that are recycled on \
             purpose.",
    ),
    value(JOB, "parent-death-signal", "SIGNAL")
        .completes(Completion::Signal)
        .env("KAPO_PARENT_DEATH_SIGNAL")
        .says(
            "signal that kapo gets when its own parent ends",
            "0: none. The parent is the process that started kapo. If the kernel provides no \
             pidfd for this process (before Linux 5.3, or if it is outside the PID namespace), \
             the parent is the thread that started kapo.",
        ),
    value(JOB, "orphan-signal", "SIGNAL")
        .completes(Completion::Signal)
        .env("KAPO_ORPHAN_SIGNAL")
        .otherwise("TERM")
        .says(
            "the command's signal if kapo is killed",
            "The signal ensures that the command does not run without its port.",
        ),
    value(JOB, "termination-log", "PATH").completes(Completion::Path).env("KAPO_TERMINATION_LOG").says(
        "write how the run ended to this file",
        "The file then has the reason, the code and the last output. At most 4096 bytes are written. Kubernetes reads this file as \
             terminationMessagePath.",
    ),
];
