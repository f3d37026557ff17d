//! The man page and the options of README.md, generated from the options table.

use std::fmt::Write;

use kapo::cli::help::{ABOUT, REMARKS, paragraph, synopsis};
use kapo::cli::options::{GROUPS, MODES, Opt, OptionGroup, Verb, options};
use kapo::error::{
    EXIT_CANNOT_EXECUTE, EXIT_NO_ANSWER, EXIT_NOT_FOUND, EXIT_SETUP, EXIT_TIMEOUT, EXIT_UNHEALTHY, EXIT_USAGE,
};

/// The release date in the man page.
const DATE: &str = "2026-11-23";

const DESCRIPTION: &str = "kapo starts a command, or watches a process that is already running, and serves over HTTP \
         whether it runs, since when, and how it ended. No HTTP request changes anything; kapo is \
         controlled by signals. The command begins at the first word that is not an option, or after --. \
         kapo does not interpret the words after it.";

const VALUES: &str = "SIGNAL is a name or a number: TERM, SIGTERM, 15, RTMIN+3. If an option with a value \
         is repeated, kapo exits with 2, unless the option accepts a list.";

const FILES: &str = "kapo reads no configuration file. It writes no files except those of --termination-log and --textfile. \
         It removes \
         a Unix socket in the file system when it exits. If kapo was killed and left a socket behind, the \
         next start replaces the socket.";

/// The exit codes, in the order of the man page.
const EXIT_CODES: &[(u8, &str, &str)] = &[
    (0, "", "Success; also an end that --success-exit lists, and watch after a stop signal."),
    (
        EXIT_UNHEALTHY,
        "",
        "check: not healthy, no answer, or wrong usage; check has no other exit codes except 0. status: \
         not healthy. logs: no output is kept, or the stream was cut off. ls: a command is not healthy, or \
         a socket does not answer like a kapo. run and supervise: the command missed a --watchdog ping, \
         or its probes failed, and its own exit code is 0.",
    ),
    (EXIT_USAGE, "", "Wrong usage: kapo does not understand an argument or a variable."),
    (EXIT_NO_ANSWER, "", "status, logs: no kapo answers. ls: there is no socket."),
    (EXIT_TIMEOUT, "", "The TTL or --silence ended the command. wait: --timeout has passed."),
    (
        EXIT_SETUP,
        "",
        "kapo itself failed, for example because the port is in use or no socket was inherited. wait: no \
         kapo answers.",
    ),
    (
        EXIT_CANNOT_EXECUTE,
        "",
        "The command was found but could not be executed, or its interpreter or dynamic loader is \
         missing. A script without a #! line is executed by /bin/sh.",
    ),
    (EXIT_NOT_FOUND, "", "The command was not found."),
    (128, "+n", "Signal n ended the command: 137 is KILL, 143 is TERM."),
];

/// The HTTP paths.
const PATHS: &[(&str, &str)] = &[
    ("/", "The status document as JSON. Every path that is not listed here returns it too."),
    ("/runs", "The last runs that ended, as JSON; 404 with --history 0."),
    ("/livez", "200 as long as kapo answers."),
    (
        "/readyz",
        "200 while the command runs, is not being stopped, and is ready (--notify, --ready-line, --probe); \
         otherwise 503 with the reason.",
    ),
    (
        "/healthz",
        "200 while the command runs or after it has ended with success, unless it is flapping or a \
         --probe fails; otherwise 503 with the reason.",
    ),
    ("/metrics", "Metrics for Prometheus; OpenMetrics if the Accept field asks for it."),
    ("/debug/vars", "Numbers as JSON, in the expvar format of Go."),
    ("/wait", "The status document, sent when the run has ended or when ?timeout=SECONDS has passed."),
    (
        "/logs",
        "The last captured output; 404 without --tail. ?stream=stdout or ?stream=stderr selects one \
         stream. ?follow=1 streams new output.",
    ),
    ("/events", "The current document, and then the new document after each change, as text/event-stream."),
];

const SIGNALS: &[&str] = &[
    "kapo forwards every signal that a process sends to it, including real-time signals, to the \
     command's process group. The exceptions are KILL, STOP and CHLD. With --single-child it forwards \
     signals only to the command. --rewrite-signal changes or drops a signal.",
    "TERM, INT and QUIT ask kapo to stop, even if they are rewritten. After one of them kapo starts no \
     new run. While the command runs, a second one is forwarded like the first one. After the end of \
     the command, a second one kills the rest of its process group. A HUP from a process is only \
     forwarded. A HUP that the kernel sends because the terminal is gone asks kapo to stop.",
    "When the TTL has passed, kapo sends --stop-signal to the process group, and KILL after another \
     --kill-after. After a stop signal from outside, kapo sends KILL only if --kill-after was given.",
    "TSTP, TTIN and TTOU stop the command and then kapo; CONT continues both.",
    "If kapo was started with INT and QUIT ignored, as the background jobs of a script are, these \
     signals still ask kapo to stop if a process sends them, although the command ignores them. ^C does \
     not affect such background jobs: they continue, and leave the terminal to the script.",
    "On a terminal, the process group of the command is the foreground process group, so ^C and ^Z \
     reach only the command. If the command then ends by INT or QUIT, or with the exit code 130 or 131, \
     kapo stops too, and supervise starts no new run. If the signal itself ended the command, kapo also \
     sends the signal to its own process group and ends by it, as shells and make expect.",
    "If the command handles ^C itself and ends with another exit code, such as 0, this is an ordinary \
     end, and supervise starts the command again. Another ^C during the pause stops kapo.",
    "In a pipeline of a script, and for a command that a script starts with &, the terminal is shared. \
     The command, or a pager beside kapo, gets the terminal when it uses it.",
    "If ^Z has stopped the command, kapo stops its own process group, because the shell also waits for \
     a script that calls kapo. If no shell could continue them, as in a container, ^Z has no effect.",
    "If the parent has ended before kapo could set up --parent-death-signal, it counts as ended at the \
     start. If the signal is a stop signal or KILL, the command is not started. Any other signal is \
     forwarded to the command right after its start.",
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "The directories in which COMMAND is searched if it contains no slash."),
    (
        "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES",
        "The sockets that systemd passes for --socket-activation. kapo does not pass these variables to the command.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "kapo reports its state to systemd and pings systemd's watchdog. kapo does not pass these \
         variables to the command; with --notify it sets new ones.",
    ),
];

const EXAMPLES: &[(&str, &[&str])] = &[
    ("Wrap a command and query its status:", &["kapo run -- sleep 60 &", "curl localhost:6666/"]),
    (
        "Run kapo as the first process of a container:",
        &["ENTRYPOINT [\"/kapo\", \"run\", \"--\"]", "HEALTHCHECK CMD [\"/kapo\", \"check\"]"],
    ),
    (
        "Restart a worker with a growing pause, and give up after 10 restarts within 10 minutes:",
        &["kapo supervise --backoff-max 1m --max-restarts 10 --within 10m -- worker --queue mail"],
    ),
    ("Report on a process that kapo did not start:", &["kapo --port 6667 watch nginx"]),
    (
        "Stop a job after an hour, and wait for its end in another shell:",
        &["kapo run --ttl 1h --wait 5m -- backup", "kapo wait && echo done"],
    ),
    (
        "Show the state of a command and why it was restarted:",
        &["kapo status", "kapo logs --follow http://worker:6666"],
    ),
    (
        "Use a Unix socket instead of a port:",
        &["kapo -i /run/job.sock run -- job", "curl --unix-socket /run/job.sock http://localhost/"],
    ),
];

/// Generates docs/kapo.1.
pub(crate) fn page() -> String {
    let mut out = String::from(".\\\" Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.\n");
    line(
        &mut out,
        format_args!(".TH KAPO 1 {DATE} \"kapo {}\" \"User Commands\"", env!("CARGO_PKG_VERSION")),
    );
    // Disable hyphenation, because a divided name can be neither found nor copied.
    out.push_str(".nh\n.ad l\n");
    section(&mut out, "Name");
    text(&mut out, "kapo - wrap any command in a status socket");
    section(&mut out, "Synopsis");
    let synopses = MODES.iter().map(|row| synopsis(row.verb));
    let others = ["kapo help [MODE]", "kapo --version"].map(str::to_owned);
    separated(&mut out, ".br\n", synopses.chain(others), |out, words| text(out, &words));
    section(&mut out, "Description");
    separated(&mut out, ".PP\n", [ABOUT, DESCRIPTION], text);
    section(&mut out, "Modes");
    for row in MODES {
        tagged(&mut out, &row.alias.map_or(row.name.to_owned(), |a| format!("{}, {a}", row.name)), row.full);
    }
    section(&mut out, "Options");
    separated(&mut out, ".PP\n", [REMARKS, VALUES], text);
    option_list(&mut out);
    section(&mut out, "Environment");
    environment(&mut out);
    section(&mut out, "Signals");
    separated(&mut out, ".PP\n", SIGNALS, |out, paragraph| text(out, paragraph));
    section(&mut out, "HTTP paths");
    PATHS.iter().for_each(|(path, meaning)| tagged(&mut out, path, meaning));
    section(&mut out, "Exit status");
    text(&mut out, "The command's own code, and:");
    for (code, behind, meaning) in EXIT_CODES {
        tagged(&mut out, &format!("{code}{behind}"), meaning);
    }
    section(&mut out, "Files");
    text(&mut out, FILES);
    section(&mut out, "Examples");
    separated(&mut out, ".PP\n", EXAMPLES, |out, (title, lines)| {
        text(out, title);
        out.push_str(".PP\n.RS 4\n.nf\n");
        lines.iter().for_each(|words| text(out, words));
        out.push_str(".fi\n.RE\n");
    });
    section(&mut out, "See also");
    text(&mut out, "signal(7), timeout(1), systemd.socket(5), sd_notify(3)");
    out
}

fn option_list(out: &mut String) {
    for group in GROUPS {
        line(out, format_args!(".SS {}{}", escaped(group.title), modes(group)));
        for opt in group.options {
            let short = opt.short.map_or(String::new(), |short| format!("-{short}, "));
            tagged(out, &format!("{short}{}", opt.usage()), &described(opt));
        }
    }
}

fn environment(out: &mut String) {
    text(out, "Booleans are 1, t, T, true, TRUE, True and 0, f, F, false, FALSE, False.");
    for (at, opt) in options().enumerate() {
        let Some(env) = opt.env else { continue };
        // Several modes can share a variable. It is described once, with all of these modes.
        if options().position(|first| first.env == opt.env) == Some(at) {
            tagged(out, env, &format!("--{}{}", opt.long, in_modes(env)));
        }
    }
    ENVIRONMENT.iter().for_each(|(name, meaning)| tagged(out, name, meaning));
}

/// Generates the text between the markers of README.md.
pub(crate) fn readme_options() -> String {
    let mut out = String::new();
    for group in GROUPS {
        let (title, modes) = (group.title, modes(group));
        line(
            &mut out,
            format_args!(
                "**{title}**{modes}\n\n| option | environment | default | meaning |\n|---|---|---|---|"
            ),
        );
        for opt in group.options {
            let short = opt.short.map_or(String::new(), |short| format!("`-{short}`, "));
            let env = opt.env.map_or(String::new(), |env| format!("`{env}`"));
            let default = if ["help", "version"].contains(&opt.long) { "" } else { opt.default() };
            let row = format!("{short}`{}` \u{0} {env} \u{0} {default} \u{0} {}", opt.usage(), opt.brief);
            // A bar inside a cell would begin a new cell.
            line(&mut out, format_args!("| {} |", row.replace('|', "\\|").replace('\u{0}', "|")));
        }
        out.push('\n');
    }
    line(&mut out, format_args!("{REMARKS}"));
    out
}

/// Returns the modes of the group in brackets, such as ` (run, supervise)`, or ` (all modes)`.
fn modes(group: &OptionGroup) -> String {
    match group.modes() {
        [] => " (all modes)".to_owned(),
        modes => named(modes.iter()),
    }
}

fn named<'modes>(modes: impl Iterator<Item = &'modes Verb>) -> String {
    let modes: Vec<&str> = modes.map(|verb| verb.row().name).collect();
    if modes.is_empty() { String::new() } else { format!(" ({})", modes.join(", ")) }
}

/// Returns the modes that read the variable, such as ` (run, supervise)`; empty if all modes read it.
fn in_modes(env: &str) -> String {
    named(options().filter(|opt| opt.env == Some(env)).flat_map(|opt| opt.modes))
}

fn described(opt: &Opt) -> String {
    let default = match (opt.long, opt.value) {
        ("help" | "version", _) | (_, None) => String::new(),
        (_, Some(_)) => format!(" Default: {}.", opt.default()),
    };
    paragraph(opt) + &default + &opt.env.map_or(String::new(), |env| format!(" Environment: {env}."))
}

fn line(out: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{words}");
}

/// Formats each item, with `between` any two.
fn separated<T>(
    out: &mut String,
    between: &str,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push_str(between);
        }
        write(out, item);
    }
}

fn section(out: &mut String, title: &str) {
    line(out, format_args!(".SH {}", escaped(&title.to_uppercase())));
}

/// Writes one sentence per line, because troff recognizes the end of a sentence by the end of the line.
fn text(out: &mut String, words: &str) {
    for sentence in words.replace(". ", ".\n").lines() {
        line(out, format_args!("{}", escaped(sentence)));
    }
}

fn tagged(out: &mut String, tag: &str, words: &str) {
    line(out, format_args!(".TP\n.B {}", escaped(tag)));
    text(out, words);
}

/// Escapes characters that are special to troff: a leading dot or quote, the backslash, and those that a UTF-8
/// terminal would display as other characters, so that they could not be pasted.
fn escaped(words: &str) -> String {
    let mut out = String::new();
    if words.starts_with(['.', '\'']) {
        out.push_str("\\&");
    }
    for c in words.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '"' => out.push_str("\\(dq"),
            '`' => out.push_str("\\(ga"),
            '^' => out.push_str("\\(ha"),
            '~' => out.push_str("\\(ti"),
            c => out.push(c),
        }
    }
    out
}
