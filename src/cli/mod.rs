//! Words and environment in, a Config out: the command line beats the environment, which beats the default. Pure:
//! no file is opened, no variable read but by the function it is given.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{
    After, Capture, Check, Config, Interface, Job, Linger, Listen, Mode, Probe, Restart, Success, Ttl, Wait,
    Watch,
};
use crate::error::Error;
use crate::signal::Signal;

pub mod completions;
pub mod docs;
pub mod help;
pub mod options;
#[cfg(test)]
mod tests;
mod values;
mod words;

use options::{Fallback, Id, OPTIONS, Opt, Verb};
use values::{Wrong, shown};
use words::{Asked, Given};

/// What is to be done now.
#[derive(Debug, PartialEq)]
pub enum Order {
    /// Print this on stdout, newline and all, and exit with 0.
    Print(String),
    /// Go to work.
    Do(Config),
}

/// Reads the words after the program name and the variables of the mode they name. Every error is one line, and names the
/// option or the variable, the value, and what was expected. `check` may exit with 0 or 1 only: what is wrong
/// before or after its name is an [`Error::Unhealthy`].
#[inline(never)] // Its frame must not stay on the stack for kapo's whole life.
pub fn parse(words: Vec<OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Order, Error> {
    let (verb, asked) = words::split(words);
    let order = match asked {
        Ok(Asked::Help { verb, long }) => Ok(Order::Print(help::page(verb, long))),
        Ok(Asked::Version) => Ok(Order::Print(help::version())),
        Ok(Asked::Mode { verb, given, operands }) => {
            merge(verb, given, env).and_then(|draft| draft.finish(verb, operands.into())).map(Order::Do)
        }
        Err(error) => Err(error),
    };
    match order {
        Err(Error::Usage(text)) if verb == Some(Verb::Check) => Err(Error::Unhealthy(text)),
        order => order,
    }
}

/// Where a value came from; the later beats the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Default,
    Environment,
    CommandLine,
}

/// What sets KAPO_PORT to `tcp://10.0.0.1:6666`.
const SERVICE_LINK: &str = "; a Kubernetes Service called kapo sets it so: enableServiceLinks: false";

/// `--port` or `KAPO_PORT`: the name by which people know where to look.
fn label(opt: &Opt, source: Source) -> String {
    match (source, opt.env) {
        (Source::Environment, Some(name)) => name.to_owned(),
        _ => format!("--{}", opt.long),
    }
}

fn merge(verb: Verb, given: Vec<Given>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Draft, Error> {
    let mut draft = Draft::new();
    for Given { opt, value } in given {
        draft.take(opt, Source::CommandLine, value.as_deref().unwrap_or(OsStr::new("true")))?;
    }
    for opt in OPTIONS.iter().filter(|opt| opt.serves(verb)) {
        // What the command line has settled is not looked up: a broken variable can be overridden.
        if draft.source(opt.id) == Source::CommandLine {
            continue;
        }
        // Empty counts as not set: that is what `FOO=` in a unit or a compose file is meant to do.
        match (opt.env.and_then(env).filter(|text| !text.is_empty()), opt.fallback) {
            (Some(text), _) => draft.take(opt, Source::Environment, &text)?,
            (None, Fallback::Text(text)) => draft.take(opt, Source::Default, OsStr::new(text))?,
            (None, Fallback::Unset | Fallback::Shown(_)) => {}
        }
    }
    Ok(draft)
}

/// All that options can say, whatever the mode; `finish` picks what the mode needs.
struct Draft {
    /// What was said at all, and where.
    said: Vec<(&'static Opt, Source)>,
    listen: Listen,
    capture: Capture,
    hide_args: bool,
    max_connections: usize,
    quiet: bool,
    ttl: Option<Ttl>,
    stop_signal: Signal,
    kill_after: Option<Duration>,
    single_child: bool,
    setsid: bool,
    rewrite_signal: Vec<(Signal, Option<Signal>)>,
    success_exit: Vec<Success>,
    parent_death_signal: Option<Signal>,
    orphan_signal: Option<Signal>,
    termination_log: Option<PathBuf>,
    notify: bool,
    watchdog: Option<Duration>,
    wait: Duration,
    idle_exit: Option<Duration>,
    restart: Restart,
    pid: Option<i32>,
    process_events: bool,
    probe: Option<Probe>,
    timeout: Option<Duration>,
}

impl Draft {
    /// Nothing said; what has a default in the table gets it from there.
    fn new() -> Draft {
        Draft {
            said: Vec::new(),
            listen: Listen {
                port: 0,
                interface: Interface::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                sidebind: false,
                socket_activation: false,
            },
            capture: Capture::default(),
            hide_args: false,
            max_connections: 0,
            quiet: false,
            ttl: None,
            stop_signal: Signal::TERM,
            kill_after: None,
            single_child: false,
            setsid: false,
            rewrite_signal: Vec::new(),
            success_exit: Vec::new(),
            parent_death_signal: None,
            orphan_signal: None,
            termination_log: None,
            notify: false,
            watchdog: None,
            wait: Duration::ZERO,
            idle_exit: None,
            restart: Restart {
                wait: Duration::ZERO,
                backoff_max: None,
                stable: Duration::ZERO,
                max_restarts: None,
                within: Duration::ZERO,
                on_failure_only: false,
            },
            pid: None,
            process_events: false,
            probe: None,
            timeout: None,
        }
    }

    fn take(&mut self, opt: &'static Opt, source: Source, text: &OsStr) -> Result<(), Error> {
        if text.as_bytes().contains(&0) {
            return Err(Error::Usage(format!("{}: {} holds a NUL byte", label(opt, source), shown(text))));
        }
        self.said.push((opt, source));
        self.set(opt.id, text).map_err(|wrong| {
            let by_kubernetes =
                opt.id == Id::Port && source == Source::Environment && text.as_bytes().starts_with(b"tcp://");
            let hint = if by_kubernetes { SERVICE_LINK } else { "" };
            Error::Usage(format!("{}: {wrong}{hint}", label(opt, source)))
        })
    }

    /// A later value replaces an earlier one, as with getopt(3); --rewrite-signal collects.
    fn set(&mut self, id: Id, text: &OsStr) -> Result<(), Wrong> {
        match id {
            Id::Port => self.listen.port = values::port(text)?,
            Id::Interface => self.listen.interface = values::interface(text)?,
            Id::Sidebind => self.listen.sidebind = values::boolean(text)?,
            Id::SocketActivation => self.listen.socket_activation = values::boolean(text)?,
            Id::Stdout => self.capture.stdout = values::boolean(text)?,
            Id::Stderr => self.capture.stderr = values::boolean(text)?,
            Id::Stdlog => self.capture.lines = values::boolean(text)?,
            Id::HideArgs => self.hide_args = values::boolean(text)?,
            Id::MaxConnections => self.max_connections = values::connections(text)?,
            Id::Tail => self.capture.tail = values::tail(text)?,
            Id::Quiet => self.quiet = values::boolean(text)?,
            // Answered while the words were split.
            Id::Help | Id::Version => {}
            Id::Ttl => self.ttl = values::ttl(text)?,
            Id::StopSignal => self.stop_signal = values::signal(text)?,
            Id::KillAfter => self.kill_after = Some(values::seconds(text)?),
            Id::SingleChild => self.single_child = values::boolean(text)?,
            Id::Setsid => self.setsid = values::boolean(text)?,
            Id::RewriteSignal => {
                for (from, to) in values::rewrites(text)? {
                    self.rewrite_signal.retain(|(known, _)| *known != from);
                    self.rewrite_signal.push((from, to));
                }
            }
            Id::SuccessExit => self.success_exit = values::successes(text)?,
            Id::ParentDeathSignal => self.parent_death_signal = values::optional_signal(text)?,
            Id::OrphanSignal => self.orphan_signal = values::optional_signal(text)?,
            Id::TerminationLog => self.termination_log = Some(values::path(text)?),
            Id::Notify => self.notify = values::boolean(text)?,
            Id::Watchdog => self.watchdog = values::optional_seconds(text)?,
            Id::Wait => self.wait = values::seconds(text)?,
            Id::IdleExit => self.idle_exit = Some(values::seconds(text)?),
            Id::BackoffMax => self.restart.backoff_max = values::optional_seconds(text)?,
            Id::Stable => self.restart.stable = values::seconds(text)?,
            Id::MaxRestarts => self.restart.max_restarts = values::restarts(text)?,
            Id::Within => self.restart.within = values::seconds(text)?,
            Id::Restart => self.restart.on_failure_only = values::on_failure_only(text)?,
            Id::Pid => self.pid = Some(values::pid(text)?),
            Id::ProcessEvents => self.process_events = values::boolean(text)?,
            Id::Live => return self.probe(Probe::Live, text),
            Id::Ready => return self.probe(Probe::Ready, text),
            Id::Health => return self.probe(Probe::Health, text),
            Id::Timeout => self.timeout = Some(values::seconds(text)?),
        }
        Ok(())
    }

    fn probe(&mut self, probe: Probe, text: &OsStr) -> Result<(), Wrong> {
        match (values::boolean(text)?, self.probe) {
            (true, Some(other)) if other != probe => {
                Err("one of --live, --ready and --health can be given".to_owned())
            }
            (true, _) => {
                self.probe = Some(probe);
                Ok(())
            }
            (false, _) => Ok(()),
        }
    }

    fn source(&self, id: Id) -> Source {
        let sources = self.said.iter().filter(|(opt, _)| opt.id == id).map(|(_, source)| *source);
        sources.max().unwrap_or(Source::Default)
    }

    /// `KAPO_TAIL needs --stdout or --stderr`.
    fn needs(&self, id: Id, what: &str) -> Error {
        let said = self.said.iter().rev().find(|(opt, _)| opt.id == id);
        let name = said.map_or_else(String::new, |(opt, source)| label(opt, *source));
        Error::Usage(format!("{name} needs {what}"))
    }

    fn finish(self, verb: Verb, operands: Vec<OsString>) -> Result<Config, Error> {
        // check and wait serve nobody; they may share the variables of the process that does.
        let serves = !matches!(verb, Verb::Check | Verb::Wait);
        if serves && self.listen.sidebind && !matches!(self.listen.interface, Interface::Ip(_)) {
            return Err(self.needs(Id::Sidebind, "an IP address in --interface: a Unix socket has no ports"));
        }
        let mode = match verb {
            Verb::Run | Verb::Supervise => Mode::Job(Box::new(self.job(verb, operands)?)),
            Verb::Watch => Mode::Watch(self.watch(operands)?),
            Verb::Check => Mode::Check(self.check(operands)?),
            Verb::Wait => Mode::Wait(Wait { url: url(verb, operands)?, timeout: self.timeout }),
        };
        let Draft { listen, capture, hide_args, max_connections, quiet, .. } = self;
        Ok(Config { listen, capture, hide_args, max_connections, quiet, mode })
    }

    fn job(&self, verb: Verb, operands: Vec<OsString>) -> Result<Job, Error> {
        let mut operands = operands.into_iter();
        let Some(command) = operands.next() else {
            let name = verb.row().name;
            return Err(Error::Usage(format!(
                "{name} needs a command: kapo {name} [OPTIONS] [--] COMMAND [ARG...]"
            )));
        };
        // These hold here alone: a health check inside a container shares the variables of the main process, not
        // its command line.
        if !self.capture.stdout && !self.capture.stderr {
            if self.capture.lines {
                return Err(self.needs(Id::Stdlog, "--stdout or --stderr"));
            }
            if self.capture.tail > 0 {
                return Err(self.needs(Id::Tail, "--stdout or --stderr"));
            }
        }
        if self.watchdog.is_some() && !self.notify {
            return Err(self.needs(Id::Watchdog, "--notify"));
        }
        let after = match verb {
            Verb::Supervise => After::Again(Restart { wait: self.wait, ..self.restart.clone() }),
            _ => After::Once(self.linger()?),
        };
        Ok(Job {
            command,
            arguments: operands.collect(),
            ttl: self.ttl,
            stop_signal: self.stop_signal,
            kill_after: self.kill_after,
            single_child: self.single_child,
            setsid: self.setsid,
            rewrite_signal: self.rewrite_signal.clone(),
            success_exit: self.success_exit.clone(),
            parent_death_signal: self.parent_death_signal,
            orphan_signal: self.orphan_signal,
            termination_log: self.termination_log.clone(),
            notify: self.notify,
            watchdog: self.watchdog,
            after,
        })
    }

    /// --wait and --idle-exit exclude each other; but one that was typed beats the other's variable.
    fn linger(&self) -> Result<Linger, Error> {
        let Some(idle) = self.idle_exit else { return Ok(Linger::Fixed(self.wait)) };
        let (idle_by, wait_by) = (self.source(Id::IdleExit), self.source(Id::Wait));
        match idle_by.cmp(&wait_by) {
            std::cmp::Ordering::Greater => Ok(Linger::Idle(idle)),
            std::cmp::Ordering::Less => Ok(Linger::Fixed(self.wait)),
            std::cmp::Ordering::Equal => {
                let names = if idle_by == Source::Environment {
                    ["KAPO_IDLE_EXIT", "KAPO_WAIT"]
                } else {
                    ["--idle-exit", "--wait"]
                };
                let [idle, wait] = names;
                Err(Error::Usage(format!("{idle} goes instead of {wait}: give one of them")))
            }
        }
    }

    fn watch(&self, operands: Vec<OsString>) -> Result<Watch, Error> {
        let name = only(operands, "watch", "NAME")?.unwrap_or_default();
        if name.is_empty() && self.pid.is_none() {
            return Err(Error::Usage("watch needs NAME or --pid".to_owned()));
        }
        Ok(Watch { name, pid: self.pid, wait: self.wait, process_events: self.process_events })
    }

    fn check(&self, operands: Vec<OsString>) -> Result<Check, Error> {
        let timeout = self.timeout.unwrap_or_default();
        if timeout.is_zero() {
            return Err(Error::Usage("--timeout: '0' leaves no time for an answer".to_owned()));
        }
        Ok(Check { probe: self.probe.unwrap_or(Probe::Ready), url: url(Verb::Check, operands)?, timeout })
    }
}

fn url(verb: Verb, operands: Vec<OsString>) -> Result<Option<String>, Error> {
    let Some(word) = only(operands, verb.row().name, "URL")? else { return Ok(None) };
    values::url(&word).map(Some).map_err(|wrong| Error::Usage(format!("URL: {wrong}")))
}

/// The one operand of a mode that takes no command.
fn only(operands: Vec<OsString>, mode: &str, name: &str) -> Result<Option<OsString>, Error> {
    let mut operands = operands.into_iter();
    let first = operands.next();
    match operands.next() {
        None => Ok(first),
        Some(word) if word.as_bytes().starts_with(b"-") => {
            Err(Error::Usage(format!("unexpected word {}: options stand before {name}", shown(&word))))
        }
        Some(word) => Err(Error::Usage(format!("unexpected word {}: {mode} takes one {name}", shown(&word)))),
    }
}
