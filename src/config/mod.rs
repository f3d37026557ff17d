//! The configuration that the command line and the environment give, as plain data. `cli` fills it; `logic` and
//! `driver` read it.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

pub use crate::fleet::{FleetOptions, InstanceState, ListFormat, ListOptions, ListOrder, StateSet};
use crate::signal::{Signal, SignalSet};

mod hooks;
mod probes;

pub use hooks::HookEvent;
pub use probes::{Contact, OwnProbe, ProbeOptions, ProbeTarget};

/// The configuration of one run of kapo.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to listen; for a client, the address of the kapo to query.
    pub listen: Listen,
    /// `--name`, or the default name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Whether log records show the name, because `--name` or `--run-dir` is given.
    pub log_name: bool,
    /// Which outputs of the command are captured, and how.
    pub capture: CaptureOptions,
    /// `--hide-args`: show the command's arguments on no page and in no log record.
    pub hide_args: bool,
    /// Whether browsers get a page; `--no-ui` turns it off.
    pub ui: bool,
    /// `--max-connections`.
    pub max_connections: usize,
    /// `--history`: how many ended runs are kept; 0 keeps none.
    pub history: usize,
    /// `--quiet`: kapo logs only warnings and errors.
    pub quiet: bool,
    /// `--log-format`.
    pub log_format: LogFormat,
    /// Unknown variables that were probably meant for kapo; empty for clients.
    pub misspelt: Vec<Misspelt>,
    /// The mode, with its options.
    pub mode: Mode,
}

/// `--log-format`: the format of kapo's own records and of the lines of `--stdlog`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Like `time=... level=info msg="listening" address=0.0.0.0:6666`.
    #[default]
    Logfmt,
    /// One JSON object per line.
    Json,
}

/// A variable whose name resembles that of a variable of kapo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    /// The name in the environment.
    pub found: String,
    /// The name that was probably meant.
    pub meant: &'static str,
}

/// `--port`, `--interface`, `--listen`, `--run-dir`, `--sidebind`, `--socket-activation`,
/// `--bind-failure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The port; 0 lets the kernel choose one.
    pub port: u16,
    /// The address to bind, or a Unix socket.
    pub interface: Interface,
    /// `--listen`: further addresses, with their ports; the port of a Unix socket is 0.
    pub further: Vec<(Interface, u16)>,
    /// `--run-dir`: the folder with the socket that is named after kapo; an absolute path.
    pub run_dir: Option<PathBuf>,
    /// `--socket-mode`: the mode of socket files; with `None` the umask decides, in `run_dir` it is 0660.
    pub socket_mode: Option<u16>,
    /// `--socket-group`: the group of socket files, a name or a number.
    pub socket_group: Option<String>,
    /// Also listen on the next free port above `port`.
    pub sidebind: bool,
    /// Listen on inherited sockets instead of binding `port`.
    pub socket_activation: bool,
    /// `--bind-failure warn`: kapo continues without an address that it cannot bind.
    pub optional: bool,
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
    /// No listener.
    None,
}

/// `--stdout`, `--stderr`, `--stdlog`, `--tail`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureOptions {
    /// Capture the command's stdout.
    pub stdout: bool,
    /// Capture the command's stderr.
    pub stderr: bool,
    /// Write captured lines as log records of kapo instead of raw bytes.
    pub lines: bool,
    /// How many of the last captured bytes are kept; 0 keeps none.
    pub tail: usize,
}

/// The mode of kapo: the first argument after the global options.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// `run` and `supervise`.
    Job(Rc<JobOptions>),
    /// `watch`.
    Watch(WatchOptions),
    /// `check`.
    Check(CheckOptions),
    /// `wait`.
    Wait(WaitOptions),
    /// `status`.
    Status(StatusOptions),
    /// `logs`.
    Logs(LogsOptions),
    /// `ls`.
    List(ListOptions),
    /// `fleet`.
    Fleet(FleetOptions),
}

/// The options of `run` and `supervise`.
#[derive(Clone, Debug, PartialEq)]
pub struct JobOptions {
    /// The command as given.
    pub command: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// `--ttl`; `None`: no limit.
    pub ttl: Option<Ttl>,
    /// `--stop-signal`: the signal that stops the command when its TTL has passed.
    pub stop_signal: Signal,
    /// `--stop-on`: the signals that ask kapo to stop.
    pub stop_on: SignalSet,
    /// `--kill-after`. `None` if it is not given, which means 10 s after the TTL or a missed watchdog ping, and never
    /// after a stop signal to kapo.
    pub kill_after: Option<Duration>,
    /// `--drain`: how long `/readyz` refuses before the command gets its stop signal; zero: no drain.
    pub drain: Duration,
    /// `--silence`: how long the captured output may be silent; `None`: for ever.
    pub silence: Option<Duration>,
    /// `--dump-signal`: the signal that makes the command print its state before kapo stops it on its own decision.
    pub dump_signal: Option<Signal>,
    /// `--dump-wait`: the time between that signal and the stop signal.
    pub dump_wait: Duration,
    /// `--single-child`: signal the command alone, not its process group.
    pub single_child: bool,
    /// `--setsid`.
    pub setsid: bool,
    /// `--rewrite-signal`: FROM and TO; with `None`, FROM is not forwarded.
    pub rewrite_signal: Vec<(Signal, Option<Signal>)>,
    /// `--success-exit`.
    pub success_exit: Vec<Success>,
    /// `--parent-death-signal`.
    pub parent_death_signal: Option<Signal>,
    /// `--orphan-signal`; `None` sends nothing.
    pub orphan_signal: Option<Signal>,
    /// `--termination-log`.
    pub termination_log: Option<PathBuf>,
    /// `--on`: the words of at most one command for each event.
    pub hooks: Vec<(HookEvent, Vec<OsString>)>,
    /// `--on-timeout`.
    pub hook_timeout: Duration,
    /// `--textfile`.
    pub textfile: Option<PathBuf>,
    /// `--notify`: the command reports its readiness with sd_notify(3).
    pub notify: bool,
    /// `--watchdog`: the longest time between two pings of the command.
    pub watchdog: Option<Duration>,
    /// `--ready-line`: a text in the output that means that the command is ready.
    pub ready_line: Option<OsString>,
    /// `--probe` and its options; `None` without a probe.
    pub probes: Option<Rc<ProbeOptions>>,
    /// What kapo does after the end of a run. This is the difference between `run` and `supervise`.
    pub after: After,
}

impl JobOptions {
    /// Whether the command is not ready before it has reported so.
    pub fn reports_ready(&self) -> bool {
        self.notify || self.ready_line.is_some()
    }
}

/// The signals that ask kapo to stop if `--stop-on` is not given.
pub const STOP_ON: SignalSet = SignalSet::of(&[Signal::TERM, Signal::INT, Signal::QUIT]);

/// The default of `--kill-after`.
pub const KILL_AFTER: Duration = Duration::from_secs(10);

/// `--ttl`: a range, inclusive at both ends, from which each run draws its TTL. Equal ends mean a fixed TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// The shortest TTL.
    pub min: Duration,
    /// The longest TTL.
    pub max: Duration,
}

/// An end of the command that counts as success although it is not exit code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// The command exits with this code.
    Code(u8),
    /// This signal kills the command.
    Signal(Signal),
    /// The command is stopped at its TTL.
    Ttl,
}

/// What kapo does after the end of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum After {
    /// `run`: continue to serve the status for this long, then exit.
    Once(Linger),
    /// `supervise`: start the command again.
    Again(Restart),
}

/// How long `run` serves the status after the command has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// `--wait`.
    Fixed(Duration),
    /// `--idle-exit`: until no request has arrived for this long.
    Idle(Duration),
}

/// The options of `supervise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// `--wait`: the pause between the end of a run and the next start.
    pub wait: Duration,
    /// `--backoff-max`; with `None` the pause is always `wait`.
    pub backoff_max: Option<Duration>,
    /// `--stable`: a run of this length resets the back-off.
    pub stable: Duration,
    /// `--max-restarts`; `None`: no limit.
    pub max_restarts: Option<u32>,
    /// `--within`: the window for `max_restarts` and for flapping.
    pub within: Duration,
    /// `--restart on-failure`: a successful run ends kapo with exit code 0.
    pub on_failure_only: bool,
    /// `--no-restart-on`: no start follows these ends.
    pub no_restart_on: Vec<Success>,
    /// `--log-repeats`: the log has each start and each end.
    pub log_repeats: bool,
}

/// The options of `watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// The names as given, without duplicates; none if only `--pid` is given.
    pub names: Vec<OsString>,
    /// `--pid`, a positive number.
    pub pid: Option<i32>,
    /// `--wait`: the pause between scans.
    pub wait: Duration,
    /// `--process-events`.
    pub process_events: bool,
}

/// The probe that `check` queries.
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
    /// Returns the path at which the probe is served.
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
pub struct CheckOptions {
    /// The probe; if the path of the URL names one, that one.
    pub probe: Probe,
    /// The URL, in the syntax of [`crate::target::Address::parse`]; `None` means the address in `listen`.
    pub url: Option<String>,
    /// `--timeout`.
    pub timeout: Duration,
}

/// The options of `wait`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WaitOptions {
    /// The URL, in the syntax of [`crate::target::Address::parse`]; `None` means the address in `listen`.
    pub url: Option<String>,
    /// `--timeout`; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// `--ready` or `--healthy`: wait until this probe passes instead of waiting for the end.
    pub until: Option<Probe>,
    /// `--retry`: how long to retry connecting.
    pub retry: Duration,
    /// `--verbose`.
    pub verbose: bool,
}

/// The options of `status`.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusOptions {
    /// The URL without a path, in the syntax of [`crate::target::Address::parse`]; `None` means the address in
    /// `listen`.
    pub url: Option<String>,
    /// `--output json`.
    pub json: bool,
    /// `--timeout`.
    pub timeout: Duration,
}

/// The options of `logs`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogsOptions {
    /// The URL without a path, in the syntax of [`crate::target::Address::parse`]; `None` means the address in
    /// `listen`.
    pub url: Option<String>,
    /// `--follow`.
    pub follow: bool,
    /// `--lines`; `None` prints everything that is kept.
    pub lines: Option<usize>,
    /// `--stream`; `None` prints both.
    pub stream: Option<Stream>,
    /// `--timeout`.
    pub timeout: Duration,
}

/// One of the two output streams of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// Both streams, stdout first.
    pub const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// Returns `stdout` or `stderr`.
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

    /// Returns a listener without further options.
    pub(crate) fn listen(interface: Interface, port: u16) -> Listen {
        Listen {
            port,
            interface,
            further: Vec::new(),
            run_dir: None,
            socket_mode: None,
            socket_group: None,
            sidebind: false,
            socket_activation: false,
            optional: false,
        }
    }

    /// Returns the options of `kapo run command` with all defaults.
    pub(crate) fn job() -> JobOptions {
        JobOptions {
            command: "command".into(),
            arguments: Vec::new(),
            ttl: None,
            stop_signal: Signal::TERM,
            stop_on: STOP_ON,
            kill_after: None,
            drain: Duration::ZERO,
            silence: None,
            dump_signal: None,
            dump_wait: Duration::from_secs(5),
            single_child: false,
            setsid: false,
            rewrite_signal: Vec::new(),
            success_exit: Vec::new(),
            parent_death_signal: None,
            orphan_signal: Some(Signal::TERM),
            termination_log: None,
            hooks: Vec::new(),
            hook_timeout: Duration::from_secs(10),
            textfile: None,
            notify: false,
            watchdog: None,
            ready_line: None,
            probes: None,
            after: After::Once(Linger::Fixed(Duration::ZERO)),
        }
    }

    /// Returns the defaults of `kapo supervise`.
    pub(crate) fn restart() -> Restart {
        Restart {
            wait: Duration::from_secs(5),
            backoff_max: None,
            stable: Duration::from_secs(60),
            max_restarts: None,
            within: Duration::from_secs(300),
            on_failure_only: false,
            no_restart_on: Vec::new(),
            log_repeats: false,
        }
    }
}
