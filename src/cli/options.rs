//! The table of the command line: modes, options, variables, defaults and their texts. It is the only source of the
//! parser, the help pages, the man page, the table of options in README.md and the completions.

pub use super::modes::{MODES, ModeRow, Verb};

/// The value of an option that is set neither on the command line nor in the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The option stays unset. The help shows this as `off` for a flag and `none` for a value.
    Unset,
    /// This text, which is parsed like a value that the user has given.
    Text(&'static str),
    /// The option stays unset and its user applies this default, because it matters whether the option was given.
    Shown(&'static str),
}

/// What shell completion offers for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// No completion, for example for a number or a duration.
    None,
    /// The names of signals.
    Signal,
    /// The paths of files.
    Path,
    /// These words.
    Words(&'static [&'static str]),
}

impl Completion {
    /// Returns the allowed words if the value is one of a fixed set of words.
    pub fn words(self) -> Option<&'static [&'static str]> {
        match self {
            Completion::Words(words) => Some(words),
            Completion::None | Completion::Signal | Completion::Path => None,
        }
    }
}

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// The modes that accept the option. An empty list means that the option is global.
    pub modes: &'static [Verb],
    /// The long name, without the dashes.
    pub long: &'static str,
    /// The short name, without the dash.
    pub short: Option<char>,
    /// The name of the value in the help; `None` for a flag.
    pub value: Option<&'static str>,
    /// What shell completion offers for the value.
    pub completion: Completion,
    /// The environment variable that sets the option.
    pub env: Option<&'static str>,
    /// The default value.
    pub fallback: Fallback,
    /// The summary of one line for the help.
    pub brief: &'static str,
    /// The details that the summary leaves out; may be empty.
    pub full: &'static str,
}

impl Opt {
    /// Whether the option is also accepted before the mode.
    pub fn is_global(&self) -> bool {
        self.modes.is_empty()
    }

    /// Whether the option asks for help. Its long and its short name are valid everywhere.
    pub fn is_help(&self) -> bool {
        self.long == "help"
    }

    /// Whether the mode accepts the option on the command line.
    pub fn serves(&self, verb: Verb) -> bool {
        self.is_global() || self.modes.contains(&verb)
    }

    /// Returns the default value as the help shows it.
    pub fn default(&self) -> &'static str {
        match (self.fallback, self.value) {
            (Fallback::Text(text) | Fallback::Shown(text), _) => text,
            (Fallback::Unset, Some(_)) => "none",
            (Fallback::Unset, None) => "off",
        }
    }

    /// Whether the option can be set for the mode. `watch` refuses the options that capture output.
    pub fn is_taken_by(&self, verb: Verb) -> bool {
        self.serves(verb) && !(verb == Verb::Watch && CAPTURE.contains(&self.long))
    }

    /// Whether the option has an effect in the mode. Clients accept every global option, because they may share the
    /// environment of the process that they query, but they use only a few. Some options concern the output or the
    /// arguments of a command, and `watch` has none.
    pub fn matters_to(&self, verb: Verb) -> bool {
        let used = match verb {
            Verb::Run | Verb::Supervise => true,
            Verb::Watch => self.is_taken_by(verb) && self.long != "hide-args",
            Verb::Check | Verb::Wait | Verb::Status | Verb::Logs => {
                matches!(self.long, "port" | "interface" | "help" | "version")
            }
        };
        self.serves(verb) && (used || !self.is_global())
    }

    /// Returns the option as the help shows it, such as `--port PORT`.
    pub fn usage(&self) -> String {
        match self.value {
            Some(value) => format!("--{} {value}", self.long),
            None => format!("--{}", self.long),
        }
    }

    const fn short(mut self, short: char) -> Opt {
        self.short = Some(short);
        self
    }

    const fn env(mut self, name: &'static str) -> Opt {
        self.env = Some(name);
        self
    }

    const fn completes(mut self, completion: Completion) -> Opt {
        self.completion = completion;
        self
    }

    const fn otherwise(mut self, text: &'static str) -> Opt {
        self.fallback = Fallback::Text(text);
        self
    }

    const fn says(mut self, brief: &'static str, full: &'static str) -> Opt {
        self.brief = brief;
        self.full = full;
        self
    }
}

const fn flag(modes: &'static [Verb], long: &'static str) -> Opt {
    let (short, value, env, fallback) = (None, None, None, Fallback::Unset);
    let completion = Completion::None;
    Opt { modes, long, short, value, completion, env, fallback, brief: "", full: "" }
}

const fn value(modes: &'static [Verb], long: &'static str, name: &'static str) -> Opt {
    let mut opt = flag(modes, long);
    opt.value = Some(name);
    opt
}

/// The options for the command's output.
pub(super) const CAPTURE: &[&str] = &["stdout", "stderr", "stdlog", "tail"];

const GLOBAL: &[Verb] = &[];
const JOB: &[Verb] = &[Verb::Run, Verb::Supervise];
const RUN: &[Verb] = &[Verb::Run];
const SUPERVISE: &[Verb] = &[Verb::Supervise];
const WATCH: &[Verb] = &[Verb::Watch];
const CHECK: &[Verb] = &[Verb::Check];
const WAIT: &[Verb] = &[Verb::Wait];
const STATUS: &[Verb] = &[Verb::Status];
const LOGS: &[Verb] = &[Verb::Logs];

/// The groups of the help, in its order: a title and the modes of its options.
pub static GROUPS: &[(&str, &[Verb])] = &[
    ("Global options", GLOBAL),
    ("Options of run and supervise", JOB),
    ("Options of run", RUN),
    ("Options of supervise", SUPERVISE),
    ("Options of watch", WATCH),
    ("Options of check", CHECK),
    ("Options of wait", WAIT),
    ("Options of status", STATUS),
    ("Options of logs", LOGS),
];

/// Every option, in the order of the help.
pub static OPTIONS: &[Opt] = &[
    value(GLOBAL, "port", "PORT").short('p').env("KAPO_PORT").otherwise("6666").says(
        "TCP port to listen on; 0: the kernel chooses one",
        "kapo logs the chosen port. check, wait, status and logs connect to this port of the \
             local host.",
    ),
    value(GLOBAL, "interface", "ADDR")
        .completes(Completion::Path)
        .short('i')
        .env("KAPO_INTERFACE")
        .otherwise("0.0.0.0")
        .says(
            "address to listen on, or a Unix socket: /path or @name",
            "An IPv4 or IPv6 address, an absolute path for a socket in the file system, or @name \
             for a socket in the abstract namespace. A Unix socket does not use --port. Host \
             names are rejected, because their address could change between two starts.",
        ),
    flag(GLOBAL, "sidebind").short('b').env("KAPO_SIDEBIND").says(
        "also listen on the next free port above --port",
        "This port is opened on the address of --interface. The document shows it as \
             SidebindPort.",
    ),
    flag(GLOBAL, "socket-activation").short('s').env("KAPO_SOCKET_ACTIVATION").says(
        "serve on inherited sockets (LISTEN_FDS)",
        "kapo then does not listen on --port, and --port and --interface apply only to \
             --sidebind. LISTEN_PID must be kapo's own pid. If LISTEN_FDS is not set, kapo serves \
             a socket on stdin, as inetd passes it.",
    ),
    flag(GLOBAL, "stdout").short('S').env("KAPO_STDOUT").says(
        "capture the command's stdout and copy it to kapo's",
        "The output is copied byte for byte. Without this option the command inherits stdout, \
             and kapo never reads its output.",
    ),
    flag(GLOBAL, "stderr").short('E').env("KAPO_STDERR").says(
        "capture the command's stderr and copy it to kapo's",
        "The output is copied byte for byte. Without this option the command inherits stderr, \
             and kapo never reads its output.",
    ),
    flag(GLOBAL, "stdlog").short('L').env("KAPO_STDLOG").says(
        "write captured lines as timestamped log records",
        "Requires --stdout or --stderr. If a record would be longer than 32 KiB, the line is \
             split into several records. All except the last one are marked partial=true.",
    ),
    flag(GLOBAL, "hide-args").env("KAPO_HIDE_ARGS").says(
        "hide the command's arguments in all answers and logs",
        "Use this option if arguments contain secrets. The process list of the system still \
             shows them.",
    ),
    value(GLOBAL, "max-connections", "N").env("KAPO_MAX_CONNECTIONS").otherwise("512").says(
        "maximum number of open connections",
        "To accept a new connection at the limit, kapo closes another one, so that a health check is \
             always answered: an unfinished request first, then an idle connection, then a \
             waiting client, the oldest of each. The minimum is 1.",
    ),
    value(GLOBAL, "tail", "BYTES").env("KAPO_TAIL").otherwise("0").says(
        "keep the last bytes of captured output; 0: off",
        "/logs and LastOutput show this output. Requires --stdout or --stderr. The maximum is \
             1048576; values such as 64K and 1M are accepted.",
    ),
    value(GLOBAL, "history", "N").env("KAPO_HISTORY").otherwise("5").says(
        "keep the last N ended runs for /runs; 0: off",
        "kapo also keeps the first failure of the current crash loop, which often shows the \
             cause. The maximum is 100. The member LastRun of the document does not depend on \
             this option.",
    ),
    value(GLOBAL, "log-format", "FORMAT")
        .completes(Completion::Words(&["logfmt", "json"]))
        .env("KAPO_LOG_FORMAT")
        .otherwise("logfmt")
        .says(
            "format of log lines: logfmt or json",
            "With json, each line is one JSON object with the same keys. A captured line is a string \
             in this object, and kapo never parses it.",
        ),
    flag(GLOBAL, "quiet")
        .short('q')
        .env("KAPO_QUIET")
        .says("log only warnings and errors", "With --port 0 the chosen port is still logged."),
    flag(GLOBAL, "help").short('h').says(
        "show help; after a mode, the help of that mode",
        "-h shows one line for each option. --help and `kapo help [MODE]` show everything.",
    ),
    flag(GLOBAL, "version").short('v').says("show the version", ""),
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
            "signal for the command when its TTL has passed",
            "This option does not affect the signals that kapo receives: they are forwarded \
             unchanged, or as --rewrite-signal specifies.",
        ),
    value(JOB, "stop-on", "SIGNALS").env("KAPO_STOP_ON").otherwise("TERM,INT,QUIT").says(
        "signals that ask kapo to stop, separated by commas",
        "All other signals are forwarded and do not stop kapo. Use this option for images \
             with another STOPSIGNAL (WINCH, PWR, RTMIN+3). For a JVM, leave out QUIT, because a \
             JVM prints its threads on QUIT and does not exit. A HUP that the kernel sends \
             because the terminal is gone always asks kapo to stop.",
    ),
    Opt {
        fallback: Fallback::Shown("10"),
        ..value(JOB, "kill-after", "SECONDS").short('k').env("KAPO_KILL_AFTER").says(
            "send SIGKILL this long after the stop signal",
            "0: never. The command gets SIGKILL after its TTL. After a stop signal from outside, \
             the command gets SIGKILL only if this option is given, because container engines and \
             systemd send SIGKILL themselves and a long drain must not be interrupted. After the \
             command has ended, the rest of its process group always gets SIGKILL at this time.",
        )
    },
    flag(JOB, "single-child").env("KAPO_SINGLE_CHILD").says(
        "signal only the command, not its process group",
        "kapo then neither waits for the rest of the process group nor kills it.",
    ),
    flag(JOB, "setsid").env("KAPO_SETSID").says(
        "run the command in a new session",
        "If kapo has a terminal, the new session gets this terminal.",
    ),
    value(JOB, "rewrite-signal", "FROM:TO").env("KAPO_REWRITE_SIGNAL").says(
        "forward TO instead of FROM; TO 0: do not forward FROM",
        "This option may be repeated, and it accepts a list separated by commas. A signal \
             listed in --stop-on asks kapo to stop even if it is rewritten.",
    ),
    value(JOB, "success-exit", "CODES").env("KAPO_SUCCESS_EXIT").says(
        "codes and signals that count as success: 143,TERM",
        "A list separated by commas. If a run ends with one of them, its Reason is success \
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
            "signal for the command if kapo is killed; 0: none",
            "The signal ensures that the command does not run without its port.",
        ),
    value(JOB, "termination-log", "PATH").completes(Completion::Path).env("KAPO_TERMINATION_LOG").says(
        "write reason, code and last output to this file at the end",
        "At most 4096 bytes are written. Kubernetes reads this file as \
             terminationMessagePath.",
    ),
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
    value(RUN, "wait", "SECONDS").short('w').env("KAPO_WAIT").otherwise("0").says(
        "keep answering for this long after the end",
        "A poller can then still see how the command ended.",
    ),
    value(RUN, "idle-exit", "SECONDS").env("KAPO_IDLE_EXIT").says(
        "keep answering until no request came for this long",
        "This option cannot be combined with --wait. If only one of them is given on the \
             command line, the variable of the other is ignored.",
    ),
    value(SUPERVISE, "wait", "SECONDS")
        .short('w')
        .env("KAPO_WAIT")
        .otherwise("5")
        .says(
            "pause between an end and the next start",
            "After a command that could not be executed, the pause is at least 1 s.",
        ),
    value(SUPERVISE, "backoff-max", "SECONDS").env("KAPO_BACKOFF_MAX").otherwise("0").says(
        "double the pause after short runs, up to this limit; 0: off",
        "A run is short if it lasted less than --stable. Doubled pauses are lengthened at random \
         by up to 10 %.",
    ),
    value(SUPERVISE, "stable", "SECONDS")
        .env("KAPO_STABLE")
        .otherwise("60")
        .says("a run of this length resets back-off and Flapping", ""),
    value(SUPERVISE, "max-restarts", "N").env("KAPO_MAX_RESTARTS").otherwise("0").says(
        "give up after N restarts within --within; 0: never",
        "kapo then exits with the command's exit code. Ends by --ttl are not counted.",
    ),
    value(SUPERVISE, "within", "SECONDS")
        .env("KAPO_WITHIN")
        .otherwise("300")
        .says("time window for --max-restarts and for Flapping", ""),
    value(SUPERVISE, "restart", "WHEN")
        .completes(Completion::Words(&["always", "on-failure"]))
        .env("KAPO_RESTART")
        .otherwise("always")
        .says(
            "when to start again: always or on-failure",
            "With on-failure, kapo exits with 0 after the first successful run.",
        ),
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
        "get new processes from the kernel instead of scanning",
        "This option is meant for a single watcher on a host. Do not use it in containers or \
             for many watchers on one host.",
    ),
    flag(CHECK, "live").says(
        "request /livez: whether kapo answers",
        "Only one of --live, --ready and --health may be given.",
    ),
    flag(CHECK, "ready").says(
        "request /readyz: whether the command is ready (default)",
        "Only one of --live, --ready and --health may be given.",
    ),
    flag(CHECK, "health").says(
        "request /healthz: whether the command is healthy",
        "Only one of --live, --ready and --health may be given.",
    ),
    value(CHECK, "timeout", "SECONDS")
        .otherwise("5")
        .says("exit with 1 if no answer arrives within this time", ""),
    flag(WAIT, "ready").says(
        "wait until /readyz is 200 instead of for the end",
        "kapo also waits while nothing listens yet: it tries again after 100 ms, and then ever less often, at least once \
             a second. If the job of a `run` ends before that, the exit code is that of the job, or 1 \
             if that is 0; if a kapo has answered and then exits, it is 125. For scripts and init containers that depend on a service.",
    ),
    flag(WAIT, "healthy").says("wait until /healthz is 200 instead of for the end", "As with --ready."),
    value(WAIT, "timeout", "SECONDS").says(
        "exit with 124 if the wait is not over after this time",
        "With 0, kapo asks once and does not wait.",
    ),
    value(WAIT, "retry", "SECONDS").otherwise("0").says(
        "keep trying for this long if nothing listens",
        "Use this option for a job that starts at the same time, as in a compose file. If a \
             proxy answers 502, 503 or 504, or cuts the connection, kapo always asks again: until \
             --timeout has passed, or, without --timeout, for 60 s in a row.",
    ),
    flag(WAIT, "verbose").short('v').says(
        "print reason, exit code, start time and last lines",
        "They are printed to stdout when the job has ended: one line in the format of a log \
             record, followed by the LastOutput of the document.",
    ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_taken_twice_where_both_could_be_meant() {
        for (at, one) in OPTIONS.iter().enumerate() {
            for other in OPTIONS.iter().skip(at + 1) {
                let meet = MODES.iter().any(|m| one.serves(m.verb) && other.serves(m.verb));
                assert!(!meet || one.long != other.long, "--{}", one.long);
                let both_global = one.is_global() == other.is_global();
                assert!(!meet || !both_global || one.short.is_none() || one.short != other.short, "{one:?}");
                assert!(!meet || one.env.is_none() || one.env != other.env, "{:?}", one.env);
            }
        }
    }

    #[test]
    fn every_option_belongs_to_a_group_and_has_a_short_text() {
        for opt in OPTIONS {
            assert!(GROUPS.iter().any(|(_, modes)| *modes == opt.modes), "--{}", opt.long);
            assert!(!opt.brief.is_empty() && opt.brief.len() <= 60, "--{}: {}", opt.long, opt.brief);
            assert!(!opt.brief.ends_with('.'), "--{}", opt.long);
            assert!(opt.full.is_empty() || opt.full.ends_with('.'), "--{}", opt.long);
        }
    }
}
