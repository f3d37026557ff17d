//! What the user asked for, as plain data: words and environment in, decisions not yet made. `cli` fills it,
//! `logic` and `driver` read it.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::signal::Signal;

/// Everything that one start of kapo was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to listen, or, for a client, which kapo to ask.
    pub listen: Listen,
    /// Which of the command's outputs pass through kapo, and how.
    pub capture: Capture,
    /// `--hide-args`: the command's arguments appear on no page and in no log line.
    pub hide_args: bool,
    /// `--max-connections`.
    pub max_connections: usize,
    /// `--history`: how many ended runs are kept; 0: none.
    pub history: usize,
    /// `--quiet`: kapo logs only warnings and errors.
    pub quiet: bool,
    /// `--log-format`.
    pub log_format: LogFormat,
    /// Variables that kapo does not know and that were probably meant for it; empty for clients.
    pub misspelt: Vec<Misspelt>,
    /// What to do.
    pub mode: Mode,
}

/// `--log-format`: the format of kapo's own records and of the lines of `--stdlog`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time=... level=info msg="listening" address=0.0.0.0:6666`
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// A variable whose name resembles that of one of kapo's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    /// The name in the environment.
    pub found: String,
    /// The name that was probably meant.
    pub meant: &'static str,
}

/// `--port`, `--interface`, `--sidebind`, `--socket-activation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// 0 lets the kernel choose.
    pub port: u16,
    /// Where to bind it.
    pub interface: Interface,
    /// Also listen on the next free port above `port`.
    pub sidebind: bool,
    /// Serve on inherited descriptors instead of binding `port`.
    pub socket_activation: bool,
}

/// `--interface`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A Unix socket in the file system; an absolute path.
    Path(PathBuf),
    /// A Unix socket in the abstract name space; the name without its leading `@`.
    Abstract(Vec<u8>),
}

/// `--stdout`, `--stderr`, `--stdlog`, `--tail`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Capture the command's stdout.
    pub stdout: bool,
    /// Capture the command's stderr.
    pub stderr: bool,
    /// Emit captured lines as kapo's own log lines instead of raw bytes.
    pub lines: bool,
    /// Keep this many of the last captured bytes; 0: none.
    pub tail: usize,
}

/// The words after the global options.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// `run` and `supervise`.
    Job(Box<Job>),
    /// `watch`.
    Watch(Watch),
    /// `check`.
    Check(Check),
    /// `wait`.
    Wait(Wait),
    /// `status`.
    Status(Status),
    /// `logs`.
    Logs(Logs),
}

/// A command of ours and all that happens to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The command as given.
    pub command: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// `--ttl`; `None`: no limit.
    pub ttl: Option<Ttl>,
    /// `--stop-signal`: what ends the command when its TTL has passed.
    pub stop_signal: Signal,
    /// `--stop-on`: the signals that ask kapo to stop.
    pub stop_on: Vec<Signal>,
    /// `--kill-after`; `None`: not given, which means 10 s after a TTL or missed watchdog and never after a
    /// stop from outside.
    pub kill_after: Option<Duration>,
    /// `--single-child`: signal the command alone, not its process group.
    pub single_child: bool,
    /// `--setsid`.
    pub setsid: bool,
    /// `--rewrite-signal`: FROM, TO; `None`: not forwarded.
    pub rewrite_signal: Vec<(Signal, Option<Signal>)>,
    /// `--success-exit`.
    pub success_exit: Vec<Success>,
    /// `--parent-death-signal`.
    pub parent_death_signal: Option<Signal>,
    /// `--orphan-signal`; `None`: nothing.
    pub orphan_signal: Option<Signal>,
    /// `--termination-log`.
    pub termination_log: Option<PathBuf>,
    /// `--notify`: the command tells by sd_notify(3) when it is ready.
    pub notify: bool,
    /// `--watchdog`: how often it must ping.
    pub watchdog: Option<Duration>,
    /// What follows the end of a run: here `run` and `supervise` differ.
    pub after: After,
}

/// What asks kapo to stop where there is no `--stop-on`.
pub const STOP_ON: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::QUIT];

/// `--kill-after` where it was not given.
pub const KILL_AFTER: Duration = Duration::from_secs(10);

/// `--ttl`: drawn anew for each run, both ends included; equal ends mean a fixed TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// An end that counts as success although it is not exit code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// An exit code.
    Code(u8),
    /// Ended by this signal.
    Signal(Signal),
    /// Ended by its TTL.
    Ttl,
}

/// What follows the end of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum After {
    /// `run`: answer on for this long, then exit.
    Once(Linger),
    /// `supervise`: start again.
    Again(Restart),
}

/// How long `run` answers after the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// `--wait`.
    Fixed(Duration),
    /// `--idle-exit`: until nobody has asked for this long.
    Idle(Duration),
}

/// The options of `supervise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// `--wait`: the pause between an end and the next start.
    pub wait: Duration,
    /// `--backoff-max`; `None`: the pause is always `wait`.
    pub backoff_max: Option<Duration>,
    /// `--stable`: a run this long resets the back-off.
    pub stable: Duration,
    /// `--max-restarts`; `None`: no limit.
    pub max_restarts: Option<u32>,
    /// `--within`: the window for `max_restarts` and for flapping.
    pub within: Duration,
    /// `--restart on-failure`: a successful run ends kapo with 0.
    pub on_failure_only: bool,
}

/// The options of `watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// NAME as given; may be absent with `--pid`.
    pub name: OsString,
    /// `--pid`; positive.
    pub pid: Option<i32>,
    /// `--wait`: the pause between scans.
    pub wait: Duration,
    /// `--process-events`.
    pub process_events: bool,
}

/// Which probe `check` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `--live`.
    Live,
    /// `--ready`, the default.
    Ready,
    /// `--health`.
    Health,
}

impl Probe {
    /// The path at which it is served.
    pub fn path(self) -> &'static str {
        match self {
            Probe::Live => "/livez",
            Probe::Ready => "/readyz",
            Probe::Health => "/healthz",
        }
    }
}

/// The options of `check`.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Which probe: that of the URL's path, if it names one.
    pub probe: Probe,
    /// As [`crate::target::Address::parse`] reads it; `None`: the address that `listen` names.
    pub url: Option<String>,
    /// `--timeout`.
    pub timeout: Duration,
}

/// The options of `wait`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wait {
    /// As [`crate::target::Address::parse`] reads it; `None`: the address that `listen` names.
    pub url: Option<String>,
    /// `--timeout`; `None`: for ever.
    pub timeout: Option<Duration>,
    /// `--retry`: how long to try to connect.
    pub retry: Duration,
    /// `--verbose`.
    pub verbose: bool,
}

/// The options of `status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// As [`crate::target::Address::parse`] reads it, without a path; `None`: the address that `listen` names.
    pub url: Option<String>,
    /// `--output json`.
    pub json: bool,
    /// `--timeout`.
    pub timeout: Duration,
}

/// The options of `logs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Logs {
    /// As [`crate::target::Address::parse`] reads it, without a path; `None`: the address that `listen` names.
    pub url: Option<String>,
    /// `--follow`.
    pub follow: bool,
    /// `--lines`; `None`: all that is kept.
    pub lines: Option<usize>,
    /// `--stream`; `None`: both.
    pub stream: Option<Stream>,
    /// `--timeout`.
    pub timeout: Duration,
}

/// One of the two streams that can be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `kapo run command` with all defaults; tests change what they are about.
    pub(crate) fn job() -> Job {
        Job {
            command: "command".into(),
            arguments: Vec::new(),
            ttl: None,
            stop_signal: Signal::TERM,
            stop_on: STOP_ON.to_vec(),
            kill_after: None,
            single_child: false,
            setsid: false,
            rewrite_signal: Vec::new(),
            success_exit: Vec::new(),
            parent_death_signal: None,
            orphan_signal: Some(Signal::TERM),
            termination_log: None,
            notify: false,
            watchdog: None,
            after: After::Once(Linger::Fixed(Duration::ZERO)),
        }
    }

    /// The defaults of `kapo supervise`.
    pub(crate) fn restart() -> Restart {
        Restart {
            wait: Duration::from_secs(5),
            backoff_max: None,
            stable: Duration::from_secs(60),
            max_restarts: None,
            within: Duration::from_secs(300),
            on_failure_only: false,
        }
    }
}
