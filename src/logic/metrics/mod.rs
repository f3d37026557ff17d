//! Renders /metrics from one table, as Prometheus text 0.0.4 or, if the client asks for it, as OpenMetrics 1.0.

mod families;
mod format;
mod selection;
mod textfile;

use std::io::Write;
use std::time::{Duration, SystemTime};

pub(crate) use families::Value;
use families::{FAMILIES, Family, MetricType, unix};
pub use format::Format;
pub(crate) use selection::Measured;
pub use selection::{Selection, Sources};
pub(crate) use textfile::{earlier_success, render_textfile};

use super::cgroup::CgroupUsage;
use super::history::History;
use super::http::routes::{ROUTES, Route};
use super::reason::Reason;
use super::status::Counters;

/// The values that a scrape shows, about kapo and its command. The metrics of a value that is `None` are left out.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The name of this kapo.
    pub name: &'static str,
    /// The start of kapo.
    pub started: SystemTime,
    /// Whether the command is running; in watch mode, whether at least one process matches.
    pub up: bool,
    /// Whether /readyz reports ready.
    pub ready: bool,
    /// Start of the current or last run.
    pub start_time: Option<SystemTime>,
    /// Number of starts; `None` in watch mode.
    pub starts: Option<u64>,
    /// Number of ended runs by reason; `None` in watch mode.
    pub exits: Option<Exits>,
    /// The exit code of the last run; `None` before the first run has ended.
    pub last_exit_code: Option<u8>,
    /// The end of the last run.
    pub last_end: Option<SystemTime>,
    /// The end of the last successful run.
    pub last_success: Option<SystemTime>,
    /// The duration of the last run that has ended.
    pub last_lasted: Option<Duration>,
    /// Whether runs fail too often; `None` in watch mode.
    pub flapping: Option<bool>,
    /// Number of out-of-memory kills in kapo's cgroup since the start of kapo; `None` if the kernel has no counter.
    pub oom_kills: Option<u64>,
    /// Number of reaped children other than the command; `None` in watch mode.
    pub orphans_reaped: Option<u64>,
    /// The counters of the captured streams, stdout and stderr.
    pub output: [Option<Counters>; 2],
    /// Number of open HTTP connections, including the current one.
    pub connections: usize,
    /// The command and its descendants; in watch mode, the processes that match.
    pub tree: Option<Tree>,
    /// kapo's own process.
    pub own: Option<Own>,
    /// kapo's cgroup.
    pub cgroup: Option<CgroupUsage>,
    /// kapo's own probes.
    pub probes: Vec<ProbeSample>,
    /// The names of `watch` and their values, if there are several.
    pub watched: Vec<(String, Snapshot)>,
}

/// The values of one probe.
#[derive(Clone, Debug)]
pub struct ProbeSample {
    /// The given name, or the index.
    pub label: String,
    /// Whether the last check has passed.
    pub up: bool,
    /// Number of checks that counted as failures.
    pub failures: u64,
    /// The duration of the last check; `None` before the first.
    pub duration: Option<Duration>,
}

impl Snapshot {
    /// Returns the snapshot with the values of the last run.
    pub(crate) fn with_last_run(self, history: &History) -> Snapshot {
        let last = history.last();
        Snapshot {
            last_end: last.and_then(|run| run.end_time),
            last_success: history.last_success(),
            last_lasted: last.map(|run| run.lasted),
            ..self
        }
    }
}

/// Sums over several processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Number of processes.
    pub processes: u64,
    /// CPU time of these processes and of their reaped descendants. `None` if it is unknown, as in watch mode, where
    /// processes come and go and the sum would not be a counter.
    pub cpu: Option<Duration>,
    /// Resident memory; shared pages are counted once per process.
    pub resident_bytes: u64,
    /// Number of open descriptors, of those processes that kapo may inspect.
    pub open_fds: u64,
}

/// kapo's own process, from /proc/self.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// The size of the address space.
    pub virtual_bytes: u64,
    /// The limit of the address space; `u64::MAX` means no limit.
    pub virtual_max_bytes: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// The part of the resident memory that is neither file-backed nor shared.
    pub private_bytes: u64,
    /// The size of the data and stack segments.
    pub data_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// The soft limit of open descriptors; `u64::MAX` means no limit.
    pub max_fds: u64,
}

/// Number of ended runs by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits([u64; Reason::ALL.len()]);

impl Exits {
    /// Counts the end of a run.
    pub fn count(&mut self, reason: Reason) {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n += 1;
        }
    }

    /// Returns each reason with its number of runs.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.0)
    }
}

/// The status codes that the routes use.
const ANSWERS: [u16; 5] = [200, 204, 400, 404, 503];
/// The status codes of requests that were refused before a route was known.
const REFUSALS: [u16; 7] = [400, 405, 414, 431, 500, 501, 505];

/// Number of answered requests by route and status code. Uses 500 bytes and allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    answered: [[u64; ANSWERS.len()]; ROUTES.len()],
    refused: [u64; REFUSALS.len()],
    /// The sum of all counters, kept because every turn of the loop reads it twice.
    total: u64,
    evicted: u64,
}

impl Counts {
    /// Counts an answered request for this route.
    pub fn answered(&mut self, route: Route, code: u16) {
        let row = self.answered.get_mut(route as usize);
        let column = ANSWERS.iter().position(|known| *known == code);
        debug_assert!(column.is_some(), "no counter for {code}");
        if let Some(n) = row.zip(column).and_then(|(row, column)| row.get_mut(column)) {
            *n += 1;
            self.total += 1;
        }
    }

    /// Counts a request that was refused (4xx or 5xx) before its route was known. Its label `path` is `invalid`.
    pub fn refused(&mut self, code: u16) {
        if let Some((_, n)) = REFUSALS.iter().zip(&mut self.refused).find(|(known, _)| **known == code) {
            *n += 1;
            self.total += 1;
        }
    }

    /// Counts an eviction: a connection that was closed to make room for another one.
    pub fn evicted(&mut self) {
        self.evicted += 1;
    }

    /// Returns the number of all requests.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the counters that are not 0: the label `path`, the status code, the number.
    fn seen(&self) -> impl Iterator<Item = (&'static str, u16, u64)> + '_ {
        let answered = ROUTES
            .iter()
            .zip(&self.answered)
            .flat_map(|(row, counts)| ANSWERS.iter().zip(counts).map(move |(code, n)| (row.path, *code, *n)));
        let refused = REFUSALS.iter().zip(&self.refused).map(|(code, n)| ("invalid", *code, *n));
        answered.chain(refused).filter(|(_, _, n)| *n > 0)
    }
}

/// Renders the page with the selected families.
pub fn render(format: Format, selection: Selection, snapshot: &Snapshot, counts: &Counts) -> Vec<u8> {
    let mut out = Vec::with_capacity(if selection == Selection::ALL { 8 << 10 } else { 256 });
    render_families(&mut out, format, selection, snapshot, counts, None);
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
    out
}

fn render_families(
    out: &mut Vec<u8>,
    format: Format,
    selection: Selection,
    snapshot: &Snapshot,
    counts: &Counts,
    name: Option<&str>,
) {
    for (_, family) in FAMILIES.iter().enumerate().filter(|(place, _)| selection.has(*place)) {
        render_family(out, format, family, snapshot, counts, name);
    }
}

fn render_family(
    out: &mut Vec<u8>,
    format: Format,
    family: &Family,
    snapshot: &Snapshot,
    counts: &Counts,
    job: Option<&str>,
) {
    let Family { name, kind, help, labels, read, .. } = family;
    let open = format == Format::OpenMetrics;
    let suffix = kind.suffix();
    // The metadata lines of OpenMetrics contain the name of the family, those of the older format the name of the
    // samples.
    let shown = if open { "" } else { suffix };
    let word = match kind {
        MetricType::Counter => "counter",
        MetricType::Info if open => "info",
        MetricType::Gauge | MetricType::Info => "gauge",
    };
    let mut headed = false;
    // The metrics of the command are shown for each name.
    let watched = if name.starts_with("kapo_child_") { snapshot.watched.as_slice() } else { &[] };
    for at in 0..watched.len().max(1) {
        let (job, snapshot) = match watched.get(at) {
            Some((name, of_name)) => (Some(name.as_str()), of_name),
            None => (job, snapshot),
        };
        read(snapshot, counts, &mut |values, value| {
            // Writing to a Vec cannot fail. A family without samples has no metadata lines either.
            if !headed {
                headed = true;
                let _ = writeln!(out, "# HELP {name}{shown} {help}\n# TYPE {name}{shown} {word}");
                if let Some(unit) = ["seconds", "bytes"].iter().find(|unit| open && name.ends_with(**unit)) {
                    let _ = writeln!(out, "# UNIT {name} {unit}");
                }
            }
            let labels = || {
                let of_family = labels.iter().copied().zip(values.iter().copied());
                job.map(|job| ("name", job)).into_iter().chain(of_family)
            };
            sample(out, name, suffix, &mut labels(), value);
            if open && *kind == MetricType::Counter {
                sample(out, name, "_created", &mut labels(), unix(snapshot.started).into());
            }
        });
    }
}

/// Writes one sample.
pub(crate) fn sample<'a>(
    out: &mut Vec<u8>,
    name: &str,
    suffix: &str,
    labels: &mut dyn Iterator<Item = (&'a str, &'a str)>,
    value: Value,
) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    let mut before = b'{';
    for (label, value) in labels {
        out.push(before);
        before = b',';
        out.extend_from_slice(label.as_bytes());
        out.extend_from_slice(b"=\"");
        escape(out, value);
        out.push(b'"');
    }
    out.extend_from_slice(if before == b'{' { b" " } else { b"} " });
    match value {
        Value::Number(number) => digits(out, number, 1),
        Value::Seconds(duration) => {
            digits(out, duration.as_secs(), 1);
            let nanos = duration.subsec_nanos();
            if nanos > 0 {
                out.push(b'.');
                digits(out, nanos.into(), 9);
                while out.last() == Some(&b'0') {
                    out.pop();
                }
            }
        }
    }
    out.push(b'\n');
}

/// Writes a number with at least `least` digits. A page has about 70 numbers, and `write!` takes several times as long.
fn digits(out: &mut Vec<u8>, mut number: u64, least: usize) {
    let mut text = [b'0'; 20];
    let mut start = text.len();
    for (place, digit) in text.iter_mut().enumerate().rev() {
        if number == 0 && start <= 20 - least {
            break;
        }
        *digit += (number % 10) as u8;
        number /= 10;
        start = place;
    }
    out.extend_from_slice(text.get(start..).unwrap_or_default());
}

/// Escapes the value of a label. Both formats have the same three escapes.
fn escape(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(br"\\"),
            b'"' => out.extend_from_slice(br#"\""#),
            b'\n' => out.extend_from_slice(br"\n"),
            byte => out.push(byte),
        }
    }
}

/// Formats seconds with as many decimals as needed: `3`, `0.25`. Uses no floating point, which would round and is
/// large.
pub fn decimal(duration: Duration) -> String {
    let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns name, labels and help of all metrics, for the manual.
pub fn described() -> impl Iterator<Item = (String, &'static [&'static str], &'static str)> {
    FAMILIES
        .iter()
        .map(|family| (format!("{}{}", family.name, family.kind.suffix()), family.labels, family.help))
}

#[cfg(test)]
mod tests;
