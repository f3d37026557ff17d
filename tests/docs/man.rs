//! The man page and the options of README.md, generated from the options table.

use std::fmt::Write;

use kapo::cli::help::{ABOUT, REMARKS, paragraph, synopsis};
use kapo::cli::options::{GROUPS, MODES, OPTIONS, Opt};
use kapo::error::{
    EXIT_CANNOT_EXECUTE, EXIT_NO_ANSWER, EXIT_NOT_FOUND, EXIT_SETUP, EXIT_TIMEOUT, EXIT_UNHEALTHY, EXIT_USAGE,
};

/// The day of the release that the man page describes.
const DATE: &str = "2026-11-23";

const DESCRIPTION: &str = "kapo starts the command, or watches one that runs already, and answers over HTTP whether it lives, since \
         when, and how it ended. It is read-only: no request can change anything; control is by signals. The command \
         begins at the first word that is not an option, or after --; nothing after it is taken by kapo.";

const VALUES: &str = "SECONDS is a number such as 30 or 0.5, or one with units: 500ms, 30s, 5m, 6h, 2d, 1w, 1m30s. SIGNAL is a name or a \
         number: TERM, SIGTERM, 15, RTMIN+3. When an option is repeated the last one counts.";

const FILES: &str = "kapo reads no configuration file, and writes none but that of --termination-log. A Unix socket in the file system \
         is removed at the end; one that a kill has left behind is replaced by the next start.";

/// Exit codes, as people look them up.
const EXIT_CODES: &[(u8, &str, &str)] = &[
    (0, "", "Success; also an end that --success-exit names, and watch after a stop signal."),
    (
        EXIT_UNHEALTHY,
        "",
        "check: not healthy, or nobody answered, or wrong usage. check knows no other code. status: not healthy. logs: no output is kept. run and \
         supervise: a missed --watchdog ping, where the command's own code is 0.",
    ),
    (EXIT_USAGE, "", "Wrong usage: a word or a variable that kapo does not understand."),
    (EXIT_NO_ANSWER, "", "status, logs: no kapo answers."),
    (EXIT_TIMEOUT, "", "The TTL ended the command; wait: its own --timeout passed."),
    (EXIT_SETUP, "", "kapo itself could not work: port taken, no inherited socket; wait: nobody answers."),
    (
        EXIT_CANNOT_EXECUTE,
        "",
        "The command was found but could not be executed; or its interpreter or dynamic loader is missing. A script \
         without a #! line is executed by /bin/sh.",
    ),
    (EXIT_NOT_FOUND, "", "The command was not found."),
    (128, "+n", "Signal n ended the command: 137 is KILL, 143 is TERM."),
];

/// What can be asked for over HTTP.
const PATHS: &[(&str, &str)] = &[
    ("/", "The status document, JSON. Any path that is not listed here gives it, too."),
    ("/livez", "200 as long as kapo answers."),
    (
        "/readyz",
        "200 while the command runs (with --notify: is ready) and is not being stopped; else 503 and why.",
    ),
    ("/healthz", "200 while the command runs and is not flapping, or ended with success; else 503 and why."),
    ("/metrics", "Metrics for Prometheus; OpenMetrics when Accept asks for it."),
    ("/debug/vars", "The same as JSON, in the form of Go's expvar."),
    (
        "/wait",
        "Does not answer until the run has ended or ?timeout=SECONDS has passed; then the status document.",
    ),
    (
        "/logs",
        "With --tail: the last captured output, else 404. ?stream=stdout or stderr for one, ?follow=1 to go on.",
    ),
    ("/events", "The document now and at each change, as text/event-stream."),
];

const SIGNALS: &[&str] = &[
    "Every signal but KILL, STOP and CHLD that a process sends to kapo is forwarded to the command's process \
     group, real-time signals included; with --single-child to the command alone. --rewrite-signal changes or \
     drops it.",
    "TERM, INT and QUIT ask for an end, whatever they are rewritten to: after one of them no new run is started. While the command runs, a \
     second one is forwarded like the first; after its end a second one kills the rest of its process group. HUP \
     from a process is only forwarded; HUP from the kernel, when the terminal is gone, asks for an end.",
    "After the TTL kapo sends --stop-signal and, --kill-after later, KILL to the group. After a signal from outside \
     it does so only when --kill-after was given.",
    "TSTP, TTIN and TTOU stop the command and then kapo; CONT wakes both.",
    "INT and QUIT that a process sends ask for an end even where kapo was started with them ignored, as the background \
     jobs of a script are, and the command does not heed them. ^C is not for these: they go on, and leave the terminal \
     to the script.",
    "On a terminal the command has the foreground: ^C and ^Z reach it alone. If it ends by INT or QUIT then, or with the \
     exit code 130 or 131, kapo is meant, too, and supervise starts nothing any more; where the signal has ended it, kapo \
     sends that to its own process group, too, and dies of it, as shells and make expect. A command that handles ^C \
     itself and ends with another code, 0 for instance, has ended like any other, so supervise starts it again; ^C once \
     more during the pause ends kapo. In a pipeline of a script, and for a command that a script starts with &, the terminal is shared: \
     the command, or a pager beside kapo, gets it when it wants it. \
     When ^Z has stopped the command, kapo stops all of its own process group, as the shell waits for a script that \
     calls kapo, too; where no shell would wake them, as in a container, ^Z does nothing.",
    "A parent that was dead before --parent-death-signal could be asked for counts as dying at the start: what asks for \
     an end, and KILL, then prevents the start, and any other signal is forwarded to the command right after it.",
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "Where COMMAND is looked for when it holds no slash."),
    (
        "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES",
        "The sockets that systemd passes, for --socket-activation. The command does not get them.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "kapo tells systemd of its state and pings its watchdog. The command does not get them; with --notify it \
         gets its own.",
    ),
];

const EXAMPLES: &[(&str, &[&str])] = &[
    ("Wrap a command and look at it:", &["kapo run -- sleep 60 &", "curl localhost:6666/"]),
    (
        "The first process of a container:",
        &["ENTRYPOINT [\"/kapo\", \"run\", \"--\"]", "HEALTHCHECK CMD [\"/kapo\", \"check\"]"],
    ),
    (
        "Restart a worker with a growing pause, and give up when it keeps falling over:",
        &["kapo supervise --backoff-max 1m --max-restarts 10 --within 10m -- worker --queue mail"],
    ),
    ("Report on a process that somebody else started:", &["kapo --port 6667 watch nginx"]),
    (
        "End a job after an hour, and wait for it elsewhere:",
        &["kapo run --ttl 1h --wait 5m -- backup", "kapo wait && echo done"],
    ),
    ("See what it does and why it was restarted:", &["kapo status", "kapo logs --follow http://worker:6666"]),
    (
        "A Unix socket instead of a port:",
        &["kapo -i /run/job.sock run -- job", "curl --unix-socket /run/job.sock http://localhost/"],
    ),
];

/// docs/kapo.1.
pub(crate) fn page() -> String {
    let mut out = String::from(".\\\" Generated from src/cli by UPDATE_DOCS=1 cargo test --test docs.\n");
    line(
        &mut out,
        format_args!(".TH KAPO 1 {DATE} \"kapo {}\" \"User Commands\"", env!("CARGO_PKG_VERSION")),
    );
    // No word is parted at a line's end: a name could then not be searched for or pasted.
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
    options(&mut out);
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

fn options(out: &mut String) {
    for (title, modes) in GROUPS {
        line(out, format_args!(".SS {}", escaped(title)));
        for opt in OPTIONS.iter().filter(|opt| opt.modes == *modes) {
            let short = opt.short.map_or(String::new(), |short| format!("-{short}, "));
            tagged(out, &format!("{short}{}", opt.usage()), &described(opt));
        }
    }
}

fn environment(out: &mut String) {
    text(out, "Booleans are 1, t, T, true, TRUE, True and 0, f, F, false, FALSE, False.");
    for (at, opt) in OPTIONS.iter().enumerate() {
        let Some(env) = opt.env else { continue };
        // Several modes can share a name and its variable; it is told once, with all of them.
        if OPTIONS.iter().position(|first| first.env == opt.env) == Some(at) {
            tagged(out, env, &format!("--{}{}", opt.long, in_modes(env)));
        }
    }
    ENVIRONMENT.iter().for_each(|(name, meaning)| tagged(out, name, meaning));
}

/// Between the markers of README.md.
pub(crate) fn readme_options() -> String {
    let mut out = String::new();
    for (title, modes) in GROUPS {
        line(
            &mut out,
            format_args!("**{title}**\n\n| option | environment | default | meaning |\n|---|---|---|---|"),
        );
        for opt in OPTIONS.iter().filter(|opt| opt.modes == *modes) {
            let short = opt.short.map_or(String::new(), |short| format!("`-{short}`, "));
            let env = opt.env.map_or(String::new(), |env| format!("`{env}`"));
            let default = if ["help", "version"].contains(&opt.long) { "" } else { opt.default() };
            let row = format!("{short}`{}` \u{0} {env} \u{0} {default} \u{0} {}", opt.usage(), opt.brief);
            // A bar inside a cell would begin a new one.
            line(&mut out, format_args!("| {} |", row.replace('|', "\\|").replace('\u{0}', "|")));
        }
        out.push('\n');
    }
    line(&mut out, format_args!("{REMARKS}"));
    out
}

/// ` (run, supervise)`: the modes that read that variable; nothing where all do.
fn in_modes(env: &str) -> String {
    let modes = OPTIONS.iter().filter(|opt| opt.env == Some(env)).flat_map(|opt| opt.modes);
    let modes: Vec<&str> = modes.map(|verb| verb.row().name).collect();
    if modes.is_empty() { String::new() } else { format!(" ({})", modes.join(", ")) }
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

/// Each item, and `between` any two.
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

/// One sentence a line, as troff likes it: it knows the end of a sentence by the end of the line.
fn text(out: &mut String, words: &str) {
    for sentence in words.replace(". ", ".\n").lines() {
        line(out, format_args!("{}", escaped(sentence)));
    }
}

fn tagged(out: &mut String, tag: &str, words: &str) {
    line(out, format_args!(".TP\n.B {}", escaped(tag)));
    text(out, words);
}

/// Characters that mean something to troff: a leading dot or quote, the backslash, and those that a UTF-8 terminal
/// would show as something that cannot be pasted back.
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
