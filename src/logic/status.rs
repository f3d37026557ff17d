//! The status document, member for member: what `GET /` answers. Rendered when the state changes, not when
//! somebody asks. Members are added, never renamed or removed; the first ten are those of the original kapo.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::history::PastRun;
use super::reason::Reason;
use super::{Pid, Sender, Usage};
use crate::logic::log::timestamp;
use crate::signal::Signal;

/// One object of the document: a command of ours, or a watched process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// `None` when there are none or under `--hide-args`.
    pub arguments: Option<Vec<String>>,
    /// As given.
    pub command: String,
    /// End of the last run.
    #[serde(serialize_with = "time")]
    pub end_time: Option<SystemTime>,
    /// Of the last run; 0 while running.
    pub exit_code: u8,
    /// See [`ModeName`].
    pub mode: ModeName,
    /// 0 without `--sidebind`.
    pub sidebind_port: u16,
    /// Start of the current or last run.
    #[serde(serialize_with = "time")]
    pub start_time: Option<SystemTime>,
    /// See [`State`].
    #[serde(rename = "Status")]
    pub state: State,
    /// The TTL of this run, shown in whole seconds, rounded up, as the original kapo shows it; `None`: 0.
    #[serde(rename = "TTL", serialize_with = "whole_seconds")]
    pub ttl: Option<Duration>,
    /// `--wait`, nanoseconds.
    #[serde(serialize_with = "nanos")]
    pub wait: Option<Duration>,
    /// `None`: 0.
    #[serde(serialize_with = "pid")]
    pub pid: Option<Pid>,
    /// Why the last run ended; `None`: it is running, or there was none. Shown as an empty string.
    #[serde(serialize_with = "reason")]
    pub reason: Option<Reason>,
    /// `SIGKILL`, or empty.
    #[serde(serialize_with = "signal")]
    pub signal: Option<Signal>,
    /// Starts after the first.
    pub restarts: u64,
    /// What `/readyz` answers.
    pub ready: bool,
    /// Too many failed runs within `--within`.
    pub flapping: bool,
    /// While pausing between runs.
    #[serde(serialize_with = "time")]
    pub next_start: Option<SystemTime>,
    /// When the TTL passes.
    #[serde(serialize_with = "time")]
    pub expires_at: Option<SystemTime>,
    /// Who asked kapo to stop.
    pub stop_signal_from: Option<StopSignalFrom>,
    /// Of the last ended run.
    #[serde(serialize_with = "usage")]
    pub usage: Usage,
    /// The command's own `STATUS=` under `--notify`.
    pub status_text: String,
    /// Under `--tail`, after a failed run: its last 10 lines.
    pub last_output: Vec<String>,
    /// With capture.
    pub output: Option<Output>,
    /// The run before the present one; when nothing runs, the one that ended.
    pub last_run: Option<PastRun>,
}

/// The member `Mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// A command that is started once.
    Run,
    /// A command that is started again when it has ended.
    Supervise,
    /// Processes that others have started.
    Watch,
}

impl Status {
    /// Nothing has run yet.
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
        }
    }
}

/// The member `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There is a process.
    Running,
    /// There is none, or not yet.
    Stopped,
    /// A signal ended it, whoever sent it.
    Killed,
}

/// The member `StopSignalFrom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignalFrom {
    /// What was sent.
    pub signal: Signal,
    /// By whom.
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

/// The member `Output`: captured output, as of the last change of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// `None` (null) where this stream is not captured.
    pub stdout: Option<Counters>,
    /// The same for stderr.
    pub stderr: Option<Counters>,
}

/// What passed through one captured stream since kapo's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Counters {
    /// Bytes read from the command.
    pub bytes: u64,
    /// Lines, counted with `--stdlog` only.
    pub lines: u64,
    /// Bytes thrown away because our own output was closed or full.
    pub discarded_bytes: u64,
}

impl Counters {
    /// The sum of both.
    pub fn and(self, other: Counters) -> Counters {
        Counters {
            bytes: self.bytes + other.bytes,
            lines: self.lines + other.lines,
            discarded_bytes: self.discarded_bytes + other.discarded_bytes,
        }
    }
}

/// The text of the member `Reason`.
pub fn reason_name(reason: Option<Reason>) -> &'static str {
    reason.map_or("", Reason::name)
}

/// The document: a JSON array and a newline.
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

/// Go's time.Duration is an i64 of nanoseconds; what is longer is shown as the longest.
fn nanos<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let nanos = duration.unwrap_or_default().as_nanos();
    serializer.serialize_i64(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// Rounded up, so that a TTL below one second is not shown as 0, which means that there is none.
fn whole_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let duration = duration.unwrap_or_default();
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    serializer.serialize_i64(i64::try_from(seconds).unwrap_or(i64::MAX))
}

pub(super) fn pid<S: Serializer>(pid: &Option<Pid>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i32(pid.map_or(0, Pid::get))
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

    /// A command that has not started; tests change what they are about.
    fn blank() -> Status {
        Status {
            arguments: Some(vec!["60".to_owned()]),
            command: "sleep".to_owned(),
            ..Status::blank(ModeName::Run)
        }
    }

    #[test]
    fn the_document_reads_as_the_contract_says() {
        let text = String::from_utf8(render(&[blank()])).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"[{"Arguments":["60"],"Command":"sleep","EndTime":"0001-01-01T00:00:00Z","ExitCode":0,"#,
                r#""Mode":"run","SidebindPort":0,"StartTime":"0001-01-01T00:00:00Z","Status":"stopped","#,
                r#""TTL":0,"Wait":0,"Pid":0,"Reason":"","Signal":"","Restarts":0,"Ready":false,"#,
                r#""Flapping":false,"NextStart":"0001-01-01T00:00:00Z","ExpiresAt":"0001-01-01T00:00:00Z","#,
                r#""StopSignalFrom":null,"Usage":{"UserSeconds":0.0,"SystemSeconds":0.0,"MaxRssBytes":0},"#,
                r#""StatusText":"","LastOutput":[],"Output":null,"LastRun":null}]"#,
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
