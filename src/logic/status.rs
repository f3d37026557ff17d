//! The status document, which `GET /` answers. It is rendered when the state changes and not for each request. Members
//! are added but never renamed or removed; the first ten are those of the original kapo.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::history::PastRun;
use super::reason::Reason;
use super::{ProcessId, Sender, Usage};
use crate::logic::log::timestamp;
use crate::signal::Signal;

/// One object of the document: the command, or a watched process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// The arguments of the command; `None` if there are none or with `--hide-args`.
    pub arguments: Option<Vec<String>>,
    /// The command as it was given.
    pub command: String,
    /// End of the last run.
    #[serde(serialize_with = "time")]
    pub end_time: Option<SystemTime>,
    /// The exit code of the last run; 0 while the command is running.
    pub exit_code: u8,
    /// See [`ModeName`].
    pub mode: ModeName,
    /// The second port; 0 without `--sidebind`.
    pub sidebind_port: u16,
    /// Start of the current or last run.
    #[serde(serialize_with = "time")]
    pub start_time: Option<SystemTime>,
    /// See [`State`].
    #[serde(rename = "Status")]
    pub state: State,
    /// The TTL of this run, shown in whole seconds and rounded up, as in the original kapo; `None` is shown as 0.
    #[serde(rename = "TTL", serialize_with = "whole_seconds")]
    pub ttl: Option<Duration>,
    /// `--wait`, shown in nanoseconds.
    #[serde(serialize_with = "nanos")]
    pub wait: Option<Duration>,
    /// The pid; `None` is shown as 0.
    #[serde(serialize_with = "pid")]
    pub pid: Option<ProcessId>,
    /// The reason why the last run ended. `None` while a run lasts and before the first one; shown as an empty string.
    #[serde(serialize_with = "reason")]
    pub reason: Option<Reason>,
    /// The signal that ended the last run, such as `SIGKILL`; `None` is shown as an empty string.
    #[serde(serialize_with = "signal")]
    pub signal: Option<Signal>,
    /// Number of starts after the first.
    pub restarts: u64,
    /// Whether `/readyz` reports ready.
    pub ready: bool,
    /// Whether too many runs have failed within `--within`.
    pub flapping: bool,
    /// The time of the next start, during a pause between runs.
    #[serde(serialize_with = "time")]
    pub next_start: Option<SystemTime>,
    /// When the TTL of this run will have passed.
    #[serde(serialize_with = "time")]
    pub expires_at: Option<SystemTime>,
    /// The signal that asked kapo to stop, and its sender.
    pub stop_signal_from: Option<StopSignalFrom>,
    /// The resource usage of the last ended run.
    #[serde(serialize_with = "usage")]
    pub usage: Usage,
    /// The text of `STATUS=` from the command, under `--notify`.
    pub status_text: String,
    /// The last 10 lines of a failed run, under `--tail`.
    pub last_output: Vec<String>,
    /// The counters of captured output; `None` without capture.
    pub output: Option<Output>,
    /// The run before the present one, or the last one if none is running.
    pub last_run: Option<PastRun>,
    /// When the command gets its stop signal, during a drain.
    #[serde(serialize_with = "time")]
    pub stops_at: Option<SystemTime>,
    /// kapo's own probes; `None` without `--probe`.
    pub probes: Option<Vec<ProbeStatus>>,
    /// The name of this kapo.
    pub name: &'static str,
}

/// An element of the member `Probes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProbeStatus {
    /// The given name, or the index.
    pub name: String,
    /// Whether the last check of this run has passed.
    pub up: bool,
    /// How many checks in a row have failed.
    pub failures: usize,
    /// The end of the last check of this run.
    #[serde(serialize_with = "time")]
    pub last_check: Option<SystemTime>,
    /// Why the probe does not pass; empty if it does.
    pub reason: String,
}

/// The member `Mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// A command that is started once.
    Run,
    /// A command that is started again after it has ended.
    Supervise,
    /// Processes that kapo has not started.
    Watch,
}

impl Status {
    /// Returns an object before the first run.
    pub fn blank(mode: ModeName) -> Status {
        Status {
            arguments: None,
            command: String::new(),
            end_time: None,
            exit_code: 0,
            mode,
            sidebind_port: 0,
            start_time: None,
            state: State::Stopped,
            ttl: None,
            wait: None,
            pid: None,
            reason: None,
            signal: None,
            restarts: 0,
            ready: false,
            flapping: false,
            next_start: None,
            expires_at: None,
            stop_signal_from: None,
            usage: Usage::default(),
            status_text: String::new(),
            last_output: Vec::new(),
            output: None,
            last_run: None,
            stops_at: None,
            name: "",
            probes: None,
        }
    }
}

/// The member `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The process is running.
    Running,
    /// No process is running: it has exited or was not started yet.
    Stopped,
    /// A signal has killed the process.
    Killed,
}

/// The member `StopSignalFrom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignalFrom {
    /// The signal.
    pub signal: Signal,
    /// The process that sent it.
    pub sender: Sender,
}

impl Serialize for StopSignalFrom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Shown {
            signal: String,
            pid: i32,
            uid: u32,
        }
        let (pid, uid) = match self.sender {
            Sender::Kernel => (0, 0),
            Sender::Process { pid, uid } => (pid, uid),
        };
        Shown { signal: self.signal.to_string(), pid, uid }.serialize(serializer)
    }
}

/// The member `Output`: the counters of captured output at the last change of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The counters of stdout; `None`, shown as null, if it is not captured.
    pub stdout: Option<Counters>,
    /// The counters of stderr; `None`, shown as null, if it is not captured.
    pub stderr: Option<Counters>,
}

/// The counters of one captured stream since the start of kapo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Counters {
    /// Number of bytes read from the command.
    pub bytes: u64,
    /// Number of lines; counted only with `--stdlog`.
    pub lines: u64,
    /// Number of bytes that were discarded because kapo's own output was closed or full.
    pub discarded_bytes: u64,
}

impl Counters {
    /// Returns the sum of both.
    pub fn and(self, other: Counters) -> Counters {
        Counters {
            bytes: self.bytes + other.bytes,
            lines: self.lines + other.lines,
            discarded_bytes: self.discarded_bytes + other.discarded_bytes,
        }
    }
}

/// Returns the text of the member `Reason`.
pub fn reason_name(reason: Option<Reason>) -> &'static str {
    reason.map_or("", Reason::name)
}

/// Renders the document: a JSON array followed by a newline.
pub fn render(objects: &[Status]) -> Vec<u8> {
    let mut document = serde_json::to_vec(objects).expect("strings, numbers and arrays always serialize");
    document.push(b'\n');
    document
}

pub(super) fn time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&timestamp::rfc3339(*time)),
        None => serializer.serialize_str(timestamp::ZERO),
    }
}

/// Shows a duration like Go's time.Duration, which is an i64 of nanoseconds; a longer one is shown as the longest.
fn nanos<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let nanos = duration.unwrap_or_default().as_nanos();
    serializer.serialize_i64(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Shows whole seconds, rounded up, because 0 means that there is no TTL.
fn whole_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let duration = duration.unwrap_or_default();
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    serializer.serialize_i64(i64::try_from(seconds).unwrap_or(i64::MAX))
}

pub(super) fn pid<S: Serializer>(pid: &Option<ProcessId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i32(pid.map_or(0, ProcessId::get))
}

pub(super) fn reason<S: Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason_name(*reason))
}

pub(super) fn signal<S: Serializer>(signal: &Option<Signal>, serializer: S) -> Result<S::Ok, S::Error> {
    match signal {
        Some(signal) => serializer.collect_str(signal),
        None => serializer.serialize_str(""),
    }
}

pub(super) fn usage<S: Serializer>(usage: &Usage, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shown {
        user_seconds: f64,
        system_seconds: f64,
        max_rss_bytes: u64,
    }
    Shown {
        user_seconds: usage.user.as_secs_f64(),
        system_seconds: usage.system.as_secs_f64(),
        max_rss_bytes: usage.max_rss_bytes,
    }
    .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a command that was not started, which tests change as needed.
    fn blank() -> Status {
        Status {
            arguments: Some(vec!["60".to_owned()]),
            command: "sleep".to_owned(),
            ..Status::blank(ModeName::Run)
        }
    }

    #[test]
    fn the_document_is_rendered_as_documented() {
        let text = String::from_utf8(render(&[blank()])).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"[{"Arguments":["60"],"Command":"sleep","EndTime":"0001-01-01T00:00:00Z","ExitCode":0,"#,
                r#""Mode":"run","SidebindPort":0,"StartTime":"0001-01-01T00:00:00Z","Status":"stopped","#,
                r#""TTL":0,"Wait":0,"Pid":0,"Reason":"","Signal":"","Restarts":0,"Ready":false,"#,
                r#""Flapping":false,"NextStart":"0001-01-01T00:00:00Z","ExpiresAt":"0001-01-01T00:00:00Z","#,
                r#""StopSignalFrom":null,"Usage":{"UserSeconds":0.0,"SystemSeconds":0.0,"MaxRssBytes":0},"#,
                r#""StatusText":"","LastOutput":[],"Output":null,"LastRun":null,"StopsAt":"0001-01-01T00:00:00Z","Probes":null,"Name":""}]"#,
                "\n"
            )
        );
    }

    #[test]
    fn ttl_is_in_whole_seconds_rounded_up_and_wait_in_nanoseconds() {
        for (duration, ttl, wait) in [
            (Duration::ZERO, "0", "0"),
            (Duration::from_nanos(1), "1", "1"),
            (Duration::from_secs(30), "30", "30000000000"),
            (Duration::from_millis(30_001), "31", "30001000000"),
            (Duration::MAX, "9223372036854775807", "9223372036854775807"),
        ] {
            let text = render(&[Status { ttl: Some(duration), wait: Some(duration), ..blank() }]);
            let expected = format!(r#""TTL":{ttl},"Wait":{wait},"#);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains(&expected), "{duration:?}: {text}");
        }
    }
}
