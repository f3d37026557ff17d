//! The table of the command line: modes, options, variables, defaults and their texts. The split of the words,
//! the merge, every help page, the man page, the README block and the completions come from here and nowhere else.

pub use super::modes::{MODES, ModeRow, Verb};

/// What holds where neither the command line nor the environment says a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing is set: `off` for a flag, `none` for a value.
    Unset,
    /// This text, read like a given one.
    Text(&'static str),
    /// The option stays unset and its user applies this default, because it matters whether the option was given.
    Shown(&'static str),
}

/// What a shell offers for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Nothing: it is a number, a time or the like.
    None,
    /// The names of signals.
    Signal,
    /// Paths.
    Path,
    /// These words.
    Words(&'static [&'static str]),
}

impl Completion {
    /// The words, if it is a choice of some.
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
    /// The modes it is for; empty: global.
    pub modes: &'static [Verb],
    /// Without the dashes.
    pub long: &'static str,
    /// Without the dash.
    pub short: Option<char>,
    /// How its value is called; `None`: a flag.
    pub value: Option<&'static str>,
    /// What a shell offers for it.
    pub completion: Completion,
    /// Its variable.
    pub env: Option<&'static str>,
    /// Its default.
    pub fallback: Fallback,
    /// One line.
    pub brief: &'static str,
    /// What the line leaves out; may be empty.
    pub full: &'static str,
}

impl Opt {
    /// It stands before the mode, too.
    pub fn is_global(&self) -> bool {
        self.modes.is_empty()
    }

    /// Whether it asks for help, which is understood everywhere by both of its names.
    pub fn is_help(&self) -> bool {
        self.long == "help"
    }

    /// It can be given to that mode.
    pub fn serves(&self, verb: Verb) -> bool {
        self.is_global() || self.modes.contains(&verb)
    }

    /// Its default as people read it.
    pub fn default(&self) -> &'static str {
        match (self.fallback, self.value) {
            (Fallback::Text(text) | Fallback::Shown(text), _) => text,
            (Fallback::Unset, Some(_)) => "none",
            (Fallback::Unset, None) => "off",
        }
    }

    /// It can be set for that mode: `watch` refuses the capture options.
    pub fn is_taken_by(&self, verb: Verb) -> bool {
        self.serves(verb) && !(verb == Verb::Watch && CAPTURE.contains(&self.long))
    }

    /// Whether that mode does something with it. Clients take every global option, because they may share the variables
    /// of the process that they ask, and need few. `watch` has no command, whose output and arguments some are for.
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

    /// `--port PORT`.
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
        "TCP port; 0 lets the kernel choose",
        "The port that was chosen is logged. check, wait, status and logs ask this port of the local host.",
    ),
    value(GLOBAL, "interface", "ADDR").completes(Completion::Path)
        .short('i')
        .env("KAPO_INTERFACE")
        .otherwise("0.0.0.0")
        .says(
            "IPv4 or IPv6 address, or a Unix socket: /path or @name",
            "An absolute path is a socket in the file system, @name one in the abstract name space; --port does \
             not matter then. A host name is not taken: it could change between two starts.",
        ),
    flag(GLOBAL, "sidebind").short('b').env("KAPO_SIDEBIND").says(
        "also listen on the next free port above --port",
        "On the address of --interface. The document shows the port as SidebindPort.",
    ),
    flag(GLOBAL, "socket-activation").short('s').env("KAPO_SOCKET_ACTIVATION").says(
        "serve on inherited sockets (LISTEN_FDS)",
        "Instead of binding --port; --port and --interface then serve only --sidebind. LISTEN_PID must be \
         kapo's own pid. Where LISTEN_FDS is not set, a socket on stdin is served, as inetd hands it over.",
    ),
    flag(GLOBAL, "stdout").short('S').env("KAPO_STDOUT").says(
        "capture the command's stdout and copy it to kapo's",
        "Byte for byte. Without it the command inherits stdout and kapo never sees a byte.",
    ),
    flag(GLOBAL, "stderr").short('E').env("KAPO_STDERR").says(
        "capture the command's stderr and copy it to kapo's",
        "Byte for byte. Without it the command inherits stderr and kapo never sees a byte.",
    ),
    flag(GLOBAL, "stdlog").short('L').env("KAPO_STDLOG").says(
        "emit captured lines as timestamped log lines",
        "Needs --stdout or --stderr. A record over 32 KiB comes in parts marked partial=true.",
    ),
    flag(GLOBAL, "hide-args").env("KAPO_HIDE_ARGS").says(
        "keep the command's arguments off every page and log",
        "For arguments that hold secrets. They still stand in the process list.",
    ),
    value(GLOBAL, "max-connections", "N")
        .env("KAPO_MAX_CONNECTIONS")
        .otherwise("512")
        .says(
            "open connections at most",
            "At the limit the one that has waited longest is closed to let the new one in, so that a fresh \
             health check is always answered. At least 1.",
        ),
    value(GLOBAL, "tail", "BYTES").env("KAPO_TAIL").otherwise("0").says(
        "keep the last bytes of captured output; 0: off",
        "For /logs and LastOutput. Needs --stdout or --stderr. At most 1048576; 64K and 1M are understood.",
    ),
    value(GLOBAL, "history", "N").env("KAPO_HISTORY").otherwise("5").says(
        "keep the last N ended runs for /runs; 0: off",
        "And the first failure of the present crash loop, which tells its cause. At most 100. The member LastRun of \
         the document does not depend on it.",
    ),
    flag(GLOBAL, "quiet").short('q').env("KAPO_QUIET").says(
        "log only warnings and errors",
        "With --port 0 the chosen port is logged nevertheless.",
    ),
    flag(GLOBAL, "help").short('h').says(
        "show help; after a mode, the help of that mode",
        "-h shows one line an option, --help and `kapo help [MODE]` all there is to say.",
    ),
    flag(GLOBAL, "version").short('v').says("show the version", ""),
    value(JOB, "ttl", "SECONDS|MIN-MAX").short('t').env("KAPO_TTL").otherwise("0").says(
        "end each run after this long; 0: never",
        "A range draws at random, anew for each run, so that a fleet does not restart all at once. kapo then \
         exits with 124.",
    ),
    value(JOB, "stop-signal", "SIGNAL").completes(Completion::Signal).env("KAPO_STOP_SIGNAL").otherwise("TERM").says(
        "what ends the command when its TTL has passed",
        "A signal that kapo gets is forwarded as it is; see --rewrite-signal.",
    ),
    value(JOB, "stop-on", "SIGNALS").env("KAPO_STOP_ON").otherwise("TERM,INT,QUIT").says(
        "which signals ask kapo to stop: a comma list",
        "All others are forwarded and end nothing. For images whose STOPSIGNAL is another one (WINCH, PWR, RTMIN+3), \
         and without QUIT for a JVM, which prints its threads and lives on. That the terminal is gone always asks \
         kapo to stop.",
    ),
    Opt {
        fallback: Fallback::Shown("10"),
        ..value(JOB, "kill-after", "SECONDS").short('k').env("KAPO_KILL_AFTER").says(
            "SIGKILL this long after the stop signal",
            "0: never. The command itself is killed after a TTL, and after a signal from outside only when this \
             option was given: container engines and systemd kill by themselves, and a long drain must not be cut \
             short. What is left of its process group after that is always killed at this time.",
        )
    },
    flag(JOB, "single-child").env("KAPO_SINGLE_CHILD").says(
        "signal only the command, not its process group",
        "What is left of its group is then neither waited for nor killed.",
    ),
    flag(JOB, "setsid").env("KAPO_SETSID").says(
        "give the command a session of its own",
        "And the terminal with it, where there is one.",
    ),
    value(JOB, "rewrite-signal", "FROM:TO").env("KAPO_REWRITE_SIGNAL").says(
        "forward FROM as TO; TO 0: do not forward it",
        "Can be given again and again, or as a comma list. What --stop-on lists still asks kapo to stop, \
         whatever it is rewritten to.",
    ),
    value(JOB, "success-exit", "CODES").env("KAPO_SUCCESS_EXIT").says(
        "codes and signals that count as success: 143,TERM",
        "A comma list. Such an end has Reason success and kapo exits with 0. TTL stands for an end by --ttl, for \
         jobs that are meant to be recycled.",
    ),
    value(JOB, "parent-death-signal", "SIGNAL").completes(Completion::Signal)
        .env("KAPO_PARENT_DEATH_SIGNAL")
        .says(
            "get this signal when kapo's own parent dies",
            "0: none. The parent is the process that started kapo, whichever of its threads did; where the kernel gives \
             no pidfd of it (before Linux 5.3, a parent outside the PID namespace), it is the thread.",
        ),
    value(JOB, "orphan-signal", "SIGNAL").completes(Completion::Signal)
        .env("KAPO_ORPHAN_SIGNAL")
        .otherwise("TERM")
        .says("what the command gets when kapo is killed; 0: nothing", "No port, no life."),
    value(JOB, "termination-log", "PATH").completes(Completion::Path).env("KAPO_TERMINATION_LOG").says(
        "at the end write reason, code and last output there",
        "4096 bytes at most. This is the terminationMessagePath of Kubernetes.",
    ),
    flag(JOB, "notify").env("KAPO_NOTIFY").says(
        "the command reports by sd_notify when it is ready",
        "It gets a NOTIFY_SOCKET of kapo's own, by path if a folder is writable ($RUNTIME_DIRECTORY, /run, $XDG_RUNTIME_DIR, /tmp), and otherwise abstract. /readyz is 503 until it says READY=1.",
    ),
    value(JOB, "watchdog", "SECONDS").env("KAPO_WATCHDOG").otherwise("0").says(
        "the command must ping this often; 0: off",
        "Needs --notify; begins at READY=1. The command gets WATCHDOG_USEC and WATCHDOG_PID. A missed ping stops the command with Reason watchdog.",
    ),
    value(RUN, "wait", "SECONDS").short('w').env("KAPO_WAIT").otherwise("0").says(
        "go on answering this long after the end",
        "So that a poller still sees how the command ended.",
    ),
    value(RUN, "idle-exit", "SECONDS").env("KAPO_IDLE_EXIT").says(
        "go on answering until no request came for this long",
        "Instead of --wait: giving both is an error. One on the command line beats the other's variable.",
    ),
    value(SUPERVISE, "wait", "SECONDS")
        .short('w')
        .env("KAPO_WAIT")
        .otherwise("5")
        .says("pause between an end and the next start", ""),
    value(SUPERVISE, "backoff-max", "SECONDS").env("KAPO_BACKOFF_MAX").otherwise("0").says(
        "double the pause after short runs, up to this; 0: off",
        "A run is short when it lasted less than --stable. The pause is varied by 10 %.",
    ),
    value(SUPERVISE, "stable", "SECONDS")
        .env("KAPO_STABLE")
        .otherwise("60")
        .says("a run this long ends back-off and Flapping", ""),
    value(SUPERVISE, "max-restarts", "N").env("KAPO_MAX_RESTARTS").otherwise("0").says(
        "give up after N restarts within --within; 0: never",
        "kapo then exits with the command's code. Ends by --ttl do not count.",
    ),
    value(SUPERVISE, "within", "SECONDS")
        .env("KAPO_WITHIN")
        .otherwise("300")
        .says("the window for --max-restarts and for Flapping", ""),
    value(SUPERVISE, "restart", "WHEN").completes(Completion::Words(&["always", "on-failure"])).env("KAPO_RESTART").otherwise("always").says(
        "when to start again: always or on-failure",
        "With on-failure a successful run ends kapo with 0.",
    ),
    value(WATCH, "wait", "SECONDS").short('w').env("KAPO_WAIT").otherwise("5").says(
        "pause between scans of the process list",
        "Where scanning is needed at all: the end of a process is noticed without.",
    ),
    value(WATCH, "pid", "PID").short('p').env("KAPO_WATCHPID").says(
        "watch this one process",
        "NAME may then be left out and is only what is shown as Command. If there is no such process, kapo \
         exits with 125. A recycled pid is never taken for the old process.",
    ),
    flag(WATCH, "process-events").env("KAPO_PROCESS_EVENTS").says(
        "let the kernel tell of new processes",
        "Instead of scanning. For one watcher on a bare host: not in containers, not by the hundred.",
    ),
    flag(CHECK, "live").says("ask /livez: does kapo answer", "One of --live, --ready and --health."),
    flag(CHECK, "ready")
        .says("ask /readyz: does the command run (this is the default)", "One of --live, --ready and --health."),
    flag(CHECK, "health")
        .says("ask /healthz: is it well", "One of --live, --ready and --health."),
    value(CHECK, "timeout", "SECONDS").otherwise("5").says("no answer by then counts as bad", ""),
    value(WAIT, "timeout", "SECONDS")
        .says("exit with 124 when the job has not ended by then", "0 asks once and does not wait."),
    value(WAIT, "retry", "SECONDS").otherwise("0").says(
        "keep trying this long while nothing listens",
        "For a job that starts at the same time, as in a compose file. A proxy that answers 502, 503 or 504, or \
         cuts the connection, is asked again in any case: until --timeout, or for 60 s in a row without one.",
    ),
    flag(WAIT, "verbose").short('v').says(
        "print reason, code, start and last lines",
        "On stdout, when the job has ended: one line as in a log, and below it the LastOutput of the document.",
    ),
    value(STATUS, "output", "FORMAT").short('o').completes(Completion::Words(&["text", "json"])).otherwise("text").says(
        "text for people, or json",
        "json is one object: Status is the document, Runs is the answer to /runs, null where that kapo keeps no runs.",
    ),
    value(STATUS, "timeout", "SECONDS")
        .otherwise("5")
        .says("limit for all requests together", "Without the document by then the exit code is 3."),
    flag(LOGS, "follow").short('f').says(
        "go on with what comes, until kapo ends",
        "Across restarts of the command. The exit code is then 0.",
    ),
    value(LOGS, "lines", "N").short('n').says(
        "of what is kept only the last lines",
        "0 shows nothing of it, which makes sense with --follow.",
    ),
    value(LOGS, "stream", "STREAM").completes(Completion::Words(&["stdout", "stderr"])).says(
        "only what the command wrote to stdout, or to stderr",
        "Without it both, in the order of their arrival.",
    ),
    value(LOGS, "timeout", "SECONDS").otherwise("5").says(
        "limit for the answer",
        "With --follow for its beginning. Without an answer by then the exit code is 3.",
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
