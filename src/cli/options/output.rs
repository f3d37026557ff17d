//! The options of the command's output and of kapo's own log.

use super::{Completion, GLOBAL, Opt, flag, value};

pub(super) const OUTPUT: &[Opt] = &[
    flag(GLOBAL, "stdout").short('S').env("KAPO_STDOUT").says(
        "capture the command's stdout and copy it",
        "The output is copied byte for byte. Without this option the command inherits stdout, \
             and kapo never reads its output.",
    ),
    flag(GLOBAL, "stderr").short('E').env("KAPO_STDERR").says(
        "capture the command's stderr and copy it",
        "The output is copied byte for byte. Without this option the command inherits stderr, \
             and kapo never reads its output.",
    ),
    flag(GLOBAL, "stdlog").short('L').env("KAPO_STDLOG").says(
        "write captured lines as timestamped log records",
        "Requires --stdout or --stderr. If a record would be longer than 32 KiB, the line is \
             split into several records. All except the last one are marked partial=true.",
    ),
    value(GLOBAL, "tail", "BYTES").env("KAPO_TAIL").otherwise("0").says(
        "keep the last bytes of output; 0: off",
        "/logs and LastOutput show this output. Requires --stdout or --stderr. The maximum is \
             1048576; values such as 64K and 1M are accepted.",
    ),
];

pub(super) const LOG: &[Opt] = &[
    flag(GLOBAL, "quiet")
        .short('q')
        .env("KAPO_QUIET")
        .says("log only warnings and errors", "With --port 0 the chosen port is still logged."),
    value(GLOBAL, "log-format", "FORMAT")
        .completes(Completion::Words(&["logfmt", "json"]))
        .env("KAPO_LOG_FORMAT")
        .otherwise("logfmt")
        .says(
            "format of log lines: logfmt or json",
            "With json, each line is one JSON object with the same keys. A captured line is a string \
             in this object, and kapo never parses it.",
        ),
    flag(GLOBAL, "help").short('h').says(
        "show help; after a mode, the help of that mode",
        "-h shows one line for each option. --help and `kapo help [MODE]` show everything.",
    ),
    flag(GLOBAL, "version").short('v').says("show the version", ""),
];
