//! Turns arguments and environment variables into a Config. The command line overrides the environment, which
//! overrides the defaults. Pure: opens no file, and reads only the variables that are passed in.

pub mod help;
pub mod modes;
pub mod options;
pub mod parse;

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::config::{
    After, CaptureOptions, CheckOptions, Config, Interface, JobOptions, Linger, Listen, LogsOptions, Mode,
    Probe, Restart, StatusOptions, WaitOptions, WatchOptions,
};
use crate::error::Error;
use crate::target::Address;

mod fleet;
mod hooks;
mod misspelt;
mod probes;
mod settings;
mod similar;
#[cfg(test)]
mod tests;
mod values;

use crate::cli::parse::Invocation;
use options::Verb;
use settings::Settings;
pub use settings::Variables;
use values::shown;

/// The result of parsing a command line.
#[expect(clippy::large_enum_variant, reason = "only one value exists in each start")]
#[derive(Debug, PartialEq)]
pub enum Order {
    /// Print this text on stdout, which includes the final newline, and exit with 0.
    Print(String),
    /// Run this configuration.
    Do(Config),
}

/// Parses the arguments after the program name. Of `variables`, whose names begin with KAPO_, it uses those of the
/// selected mode. Each error is one line that names the option or variable, the value, and what was expected. `check`
/// may exit only with 0 or 1, so each error of a `check` command line is an [`Error::Unhealthy`].
#[inline(never)] // Not inlined, so that its stack frame does not stay for the lifetime of kapo.
pub fn parse(words: Vec<OsString>, variables: Variables<'_>) -> Result<Order, Error> {
    let (verb, asked) = parse::split(words);
    let order = match asked {
        Ok(Invocation::Help { verb, long }) => Ok(Order::Print(help::page(verb, long))),
        Ok(Invocation::Version) => Ok(Order::Print(help::version())),
        Ok(Invocation::Mode { verb, given, operands }) => {
            config(Settings::new(verb, given, variables), operands.into()).map(Order::Do)
        }
        Err(error) => Err(error),
    };
    match order {
        Err(Error::Usage(text)) if verb == Some(Verb::Check) => Err(Error::Unhealthy(text)),
        order => order,
    }
}

/// Builds the configuration. Each mode has one function, which gets the values from [`Settings`] by option name.
fn config(mut settings: Settings<'_>, operands: Vec<OsString>) -> Result<Config, Error> {
    let settings = &mut settings;
    let mut listen = listen(settings)?;
    let name = settings.optional("name", values::name)?;
    let log_name = name.is_some() || listen.run_dir.is_some();
    let capture = capture(settings)?;
    let hide_args = settings.flag("hide-args")?;
    let ui = !settings.flag("no-ui")?;
    let max_connections = settings.value("max-connections", values::connections)?;
    let history = settings.value("history", values::history)?;
    let quiet = settings.flag("quiet")?;
    let log_format = settings.value("log-format", values::log_format)?;
    let mode = match settings.verb() {
        Verb::Run => {
            let after = After::Once(linger(settings)?);
            Mode::Job(Rc::new(job(settings, &capture, after, operands)?))
        }
        Verb::Supervise => {
            let after = After::Again(restart(settings)?);
            Mode::Job(Rc::new(job(settings, &capture, after, operands)?))
        }
        Verb::Watch => {
            captures_nothing(settings, &capture)?;
            Mode::Watch(watch(settings, operands)?)
        }
        Verb::Check => Mode::Check(check(settings, &listen, operands)?),
        Verb::Wait => Mode::Wait(wait(settings, &listen, operands)?),
        Verb::Status => Mode::Status(status(settings, &listen, operands)?),
        Verb::Logs => Mode::Logs(logs(settings, &listen, operands)?),
        Verb::Ls => Mode::List(fleet::list(settings, operands)?),
        Verb::Fleet => {
            captures_nothing(settings, &capture)?;
            Mode::Fleet(fleet::fleet(settings, &mut listen, operands)?)
        }
    };
    let name = name.unwrap_or_else(|| default_name(&mode));
    // Clients do not listen. They may share the variables of a process that does.
    let serves = !settings.verb().is_client();
    if serves && listen.sidebind && !matches!(listen.interface, Interface::Ip(_)) {
        let label = settings.label("sidebind");
        return Err(Error::Usage(format!(
            "{label} needs an IP address in --interface: {} has no port",
            if listen.interface == Interface::None { "none" } else { "a Unix socket" }
        )));
    }
    if serves && listen.socket_activation && listen.interface == Interface::None {
        let [activation, interface] = ["socket-activation", "interface"].map(|name| settings.label(name));
        return Err(Error::Usage(format!("{activation} and {interface} none cannot be combined")));
    }
    if let Some(folder) = listen.run_dir.as_ref().filter(|_| serves) {
        let path = folder.join(format!("{name}.sock"));
        values::socket_name(path.as_os_str(), path.as_os_str().len())
            .map_err(|wrong| Error::Usage(format!("{}: {wrong}", settings.label("run-dir"))))?;
    }
    let misspelt = if serves { misspelt::find(settings.variables()) } else { Vec::new() };
    settings.finish();
    Ok(Config {
        misspelt,
        listen,
        name,
        log_name,
        capture,
        hide_args,
        ui,
        max_connections,
        history,
        quiet,
        log_format,
        mode,
    })
}

fn listen(settings: &mut Settings<'_>) -> Result<Listen, Error> {
    Ok(Listen {
        port: settings.value("port", values::port)?,
        interface: settings.value("interface", values::interface)?,
        further: settings.all("listen", values::endpoints)?,
        run_dir: settings.optional("run-dir", values::folder)?,
        socket_mode: settings.optional("socket-mode", values::socket_mode)?,
        socket_group: settings.optional("socket-group", values::group)?,
        sidebind: settings.flag("sidebind")?,
        socket_activation: settings.flag("socket-activation")?,
        optional: settings.value("bind-failure", values::bind_failure)?,
    })
}

/// Returns the name of a kapo without `--name`: the base name of the command.
fn default_name(mode: &Mode) -> String {
    match mode {
        Mode::Job(job) => values::as_name(&job.command),
        Mode::Watch(WatchOptions { names, pid, .. }) => match (names.first(), pid) {
            (Some(name), _) => values::as_name(name),
            (None, pid) => format!("pid-{}", pid.unwrap_or_default()),
        },
        Mode::Check(_) | Mode::Wait(_) | Mode::Status(_) | Mode::Logs(_) | Mode::List(_) => String::new(),
        Mode::Fleet(_) => "fleet".to_owned(),
    }
}

fn capture(settings: &mut Settings<'_>) -> Result<CaptureOptions, Error> {
    Ok(CaptureOptions {
        stdout: settings.flag("stdout")?,
        stderr: settings.flag("stderr")?,
        lines: settings.flag("stdlog")?,
        tail: settings.value("tail", values::tail)?,
    })
}

fn job(
    settings: &mut Settings<'_>,
    capture: &CaptureOptions,
    after: After,
    operands: Vec<OsString>,
) -> Result<JobOptions, Error> {
    let mut operands = operands.into_iter();
    let Some(command) = operands.next() else {
        let name = settings.verb().row().name;
        return Err(Error::Usage(format!(
            "{name} needs a command: kapo {name} [OPTIONS] [--] COMMAND [ARG...]"
        )));
    };
    let job = JobOptions {
        command,
        arguments: operands.collect(),
        ttl: settings.value("ttl", values::ttl)?,
        stop_signal: settings.value("stop-signal", values::signal)?,
        stop_on: settings.all("stop-on", values::stop_signals)?.into_iter().collect(),
        kill_after: settings.optional("kill-after", values::seconds)?,
        drain: settings.value("drain", values::seconds)?,
        silence: settings.value("silence", values::optional_seconds)?,
        dump_signal: settings.optional("dump-signal", values::dump_signal)?.flatten(),
        dump_wait: settings.value("dump-wait", values::seconds)?,
        single_child: settings.flag("single-child")?,
        setsid: settings.flag("setsid")?,
        rewrite_signal: values::last_of_each(settings.all("rewrite-signal", values::rewrites)?),
        success_exit: settings.all("success-exit", values::successes)?,
        parent_death_signal: settings.optional("parent-death-signal", values::optional_signal)?.flatten(),
        orphan_signal: settings.value("orphan-signal", values::optional_signal)?,
        termination_log: settings.optional("termination-log", values::path)?.map(PathBuf::from),
        textfile: settings.optional("textfile", values::textfile)?.map(PathBuf::from),
        hooks: hooks::commands(settings)?,
        hook_timeout: hooks::timeout(settings)?,
        notify: settings.flag("notify")?,
        watchdog: settings.value("watchdog", values::optional_seconds)?,
        ready_line: settings.optional("ready-line", values::ready_line)?,
        probes: probes::options(settings)?,
        after,
    };
    // These checks apply only to modes that run a command, because a health check inside a container shares the
    // variables of the main process but not its command line.
    if !capture.stdout && !capture.stderr {
        if capture.lines {
            return Err(settings.needs("stdlog", &["stdout", "stderr"]));
        }
        if capture.tail > 0 {
            return Err(settings.needs("tail", &["stdout", "stderr"]));
        }
        if job.silence.is_some() {
            return Err(settings.needs("silence", &["stdout", "stderr"]));
        }
        if job.ready_line.is_some() {
            return Err(settings.needs("ready-line", &["stdout", "stderr"]));
        }
    }
    if job.watchdog.is_some() && !job.notify {
        return Err(settings.needs("watchdog", &["notify"]));
    }
    if job.ready_line.is_some() && job.notify {
        return Err(settings.conflict("ready-line", "notify"));
    }
    Ok(job)
}

/// Reads --wait and --idle-exit, which exclude each other. An option on the command line overrides the variable of the
/// other one.
fn linger(settings: &mut Settings<'_>) -> Result<Linger, Error> {
    let wait = settings.value("wait", values::seconds)?;
    let Some(idle) = settings.optional("idle-exit", values::seconds)? else { return Ok(Linger::Fixed(wait)) };
    match settings.source("idle-exit").cmp(&settings.source("wait")) {
        Ordering::Greater => Ok(Linger::Idle(idle)),
        Ordering::Less => Ok(Linger::Fixed(wait)),
        Ordering::Equal => Err(settings.conflict("idle-exit", "wait")),
    }
}

fn restart(settings: &mut Settings<'_>) -> Result<Restart, Error> {
    let restart = Restart {
        wait: settings.value("wait", values::seconds)?,
        backoff_max: settings.value("backoff-max", values::optional_seconds)?,
        stable: settings.value("stable", values::seconds)?,
        max_restarts: settings.value("max-restarts", values::restarts)?,
        within: settings.value("within", values::seconds)?,
        on_failure_only: settings.value("restart", values::on_failure_only)?,
        no_restart_on: settings.optional("no-restart-on", values::final_ends)?.unwrap_or_default(),
        log_repeats: settings.flag("log-repeats")?,
    };
    if restart.max_restarts.is_some() && restart.within.is_zero() {
        let within = settings.label("within");
        return Err(Error::Usage(format!("{within}: with --max-restarts the time must be longer than 0")));
    }
    Ok(restart)
}

/// Rejects capture options on the command line. Their variables are allowed, because they may be meant for another
/// kapo in the same container.
fn captures_nothing(settings: &Settings<'_>, capture: &CaptureOptions) -> Result<(), Error> {
    let on = [capture.stdout, capture.stderr, capture.lines, capture.tail > 0];
    let mut given = options::CAPTURE.iter().zip(on).filter(|(_, on)| *on).map(|(name, _)| name);
    match given.find(|name| settings.source(name) == settings::ValueSource::CommandLine) {
        Some(name) => Err(Error::Usage(format!(
            "--{name} cannot be used with {}: kapo can capture only the output of a command that it has started",
            settings.verb().row().name
        ))),
        None => Ok(()),
    }
}

fn watch(settings: &mut Settings<'_>, operands: Vec<OsString>) -> Result<WatchOptions, Error> {
    let watch = WatchOptions {
        names: watched_names(operands)?,
        pid: settings.optional("pid", values::pid)?,
        wait: settings.value("wait", values::seconds)?,
        process_events: settings.flag("process-events")?,
    };
    if watch.names.is_empty() && watch.pid.is_none() {
        return Err(Error::Usage("watch needs NAME or --pid".to_owned()));
    }
    if watch.pid.is_some() && watch.names.len() > 1 {
        let pid = settings.label("pid");
        return Err(Error::Usage(format!("{pid} takes only one NAME")));
    }
    Ok(watch)
}

/// The largest number of names that one `watch` takes.
const MOST_NAMES: usize = 200;

fn watched_names(mut names: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    // An empty NAME alone counts as none.
    if matches!(names.as_slice(), [name] if name.is_empty()) {
        names.clear();
    }
    for (at, name) in names.iter().enumerate() {
        let before = names.get(..at).unwrap_or_default();
        let why = if name.is_empty() {
            "is empty"
        } else if at >= MOST_NAMES {
            "is one too many: watch takes at most 200 names"
        } else if at > 0 && name.as_bytes().starts_with(b"-") {
            return Err(late_option(name, "NAME"));
        } else if before.iter().any(|other| other.to_string_lossy() == name.to_string_lossy()) {
            // The names are labels of metrics, which must differ.
            "is given twice"
        } else {
            continue;
        };
        return Err(Error::Usage(format!("NAME {} {why}", shown(name))));
    }
    Ok(names)
}

fn check(
    settings: &mut Settings<'_>,
    listen: &Listen,
    operands: Vec<OsString>,
) -> Result<CheckOptions, Error> {
    let mut probe = None;
    for (name, asked) in [("live", Probe::Live), ("ready", Probe::Ready), ("health", Probe::Health)] {
        if settings.flag(name)? && probe.replace(asked).is_some() {
            return Err(Error::Usage(format!(
                "--{name}: only one of --live, --ready and --health may be given"
            )));
        }
    }
    let timeout = time_for_an_answer(settings)?;
    let url = url(Verb::Check, listen, operands)?;
    let asked = probe.unwrap_or(Probe::Ready);
    let named = url.as_deref().map(|url| named(url, asked)).transpose()?.unwrap_or(asked);
    if probe.is_some() && named != asked {
        let (asked, named) = (asked.path(), named.path());
        return Err(Error::Usage(format!("URL: its path is {named}, but the option asks for {asked}")));
    }
    Ok(CheckOptions { probe: named, url, timeout })
}

fn time_for_an_answer(settings: &mut Settings<'_>) -> Result<Duration, Error> {
    let timeout = settings.value("timeout", values::seconds)?;
    if timeout.is_zero() {
        return Err(Error::Usage("--timeout: the time must be longer than 0".to_owned()));
    }
    Ok(timeout)
}

/// Returns the probe in the path of the URL. Other paths are rejected, because they answer 200 in every state.
fn named(url: &str, otherwise: Probe) -> Result<Probe, Error> {
    let target =
        Address::parse(url, otherwise.path()).map_err(|why| Error::Usage(format!("URL: {url} {why}")))?;
    target.probe().ok_or_else(|| {
        let path = target.path.split('?').next().unwrap_or_default();
        Error::Usage(format!("URL: {path} is not a probe; use /livez, /readyz or /healthz"))
    })
}

fn wait(settings: &mut Settings<'_>, listen: &Listen, operands: Vec<OsString>) -> Result<WaitOptions, Error> {
    let timeout = settings.optional("timeout", values::seconds)?;
    let retry = settings.value("retry", values::seconds)?;
    let verbose = settings.flag("verbose")?;
    let until = match (settings.flag("ready")?, settings.flag("healthy")?) {
        (true, true) => {
            return Err(Error::Usage("--healthy: only one of --ready and --healthy may be given".to_owned()));
        }
        (true, false) => Some(Probe::Ready),
        (false, true) => Some(Probe::Health),
        (false, false) => None,
    };
    Ok(WaitOptions { url: url(Verb::Wait, listen, operands)?, timeout, until, retry, verbose })
}

fn status(
    settings: &mut Settings<'_>,
    listen: &Listen,
    operands: Vec<OsString>,
) -> Result<StatusOptions, Error> {
    let json = settings.value("output", values::json)?;
    let timeout = time_for_an_answer(settings)?;
    Ok(StatusOptions { url: address_alone(Verb::Status, "/", listen, operands)?, json, timeout })
}

fn logs(settings: &mut Settings<'_>, listen: &Listen, operands: Vec<OsString>) -> Result<LogsOptions, Error> {
    let follow = settings.flag("follow")?;
    let lines = settings.optional("lines", values::lines)?;
    let stream = settings.optional("stream", values::stream)?;
    let timeout = time_for_an_answer(settings)?;
    Ok(LogsOptions {
        url: address_alone(Verb::Logs, "/logs", listen, operands)?,
        follow,
        lines,
        stream,
        timeout,
    })
}

/// Parses a URL that has no query, and no path except `/` or the path that the mode requests.
fn address_alone(
    verb: Verb,
    path: &str,
    listen: &Listen,
    operands: Vec<OsString>,
) -> Result<Option<String>, Error> {
    let url = url(verb, listen, operands)?;
    let named = url.as_deref().and_then(|url| Address::parse(url, path).ok()).map(|target| target.path);
    match named {
        Some(named) if named != path => {
            let mode = verb.row().name;
            Err(Error::Usage(format!("URL: unexpected path {named}: {mode} takes an address without a path")))
        }
        _ => Ok(url),
    }
}

/// Returns the URL. A NAME becomes the URL of its socket in the folder of --run-dir, or in /run/kapo, and a path that
/// of the socket.
fn url(verb: Verb, listen: &Listen, operands: Vec<OsString>) -> Result<Option<String>, Error> {
    let Some(mut word) = only(operands, verb.row().name, "URL")? else { return Ok(None) };
    if values::name(&word).is_ok() {
        let folder = listen.run_dir.as_deref().unwrap_or(Path::new("/run/kapo"));
        let parts = [b"unix:", folder.as_os_str().as_bytes(), b"/", word.as_bytes(), b".sock"];
        word = OsString::from_vec(parts.concat());
    } else if word.as_bytes().starts_with(b"/") {
        word = OsString::from_vec([b"unix:", word.as_bytes()].concat());
    }
    values::url(&word).map(Some).map_err(|wrong| Error::Usage(format!("URL: {wrong}")))
}

fn late_option(word: &OsStr, name: &str) -> Error {
    Error::Usage(format!("unexpected argument {}: options must come before {name}", shown(word)))
}

/// Returns the only operand of a mode that takes no command.
fn only(operands: Vec<OsString>, mode: &str, name: &str) -> Result<Option<OsString>, Error> {
    let mut operands = operands.into_iter();
    let first = operands.next();
    match operands.next() {
        None => Ok(first),
        Some(word) if word.as_bytes().starts_with(b"-") => Err(late_option(&word, name)),
        Some(word) => {
            Err(Error::Usage(format!("unexpected argument {}: {mode} takes only one {name}", shown(&word))))
        }
    }
}
