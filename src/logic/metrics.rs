//! /metrics, from one table: Prometheus text 0.0.4, or OpenMetrics 1.0 for those who ask for it.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Stream;
use super::http::routes::{ROUTES, Route};
use super::status::Counters;

/// The reasons of an end, as the document's `Reason` has them.
pub const REASONS: [&str; 8] =
    ["success", "exit-code", "signal", "core-dump", "timeout", "oom-kill", "exec-failed", "watchdog"];

/// What kapo knows of itself and its command at the time of a scrape. Each `None` leaves its metrics out.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When kapo started.
    pub started: SystemTime,
    /// The command runs; in watch mode, at least one process matches.
    pub up: bool,
    /// What /readyz answers.
    pub ready: bool,
    /// Start of the current or last run.
    pub start_time: Option<SystemTime>,
    /// Starts so far; `None` in watch mode.
    pub starts: Option<u64>,
    /// Ends so far; `None` in watch mode.
    pub exits: Option<Exits>,
    /// Of the last run, once there is one.
    pub last_exit_code: Option<u8>,
    /// `None` in watch mode.
    pub flapping: Option<bool>,
    /// Kills by the kernel's out-of-memory killer in kapo's cgroup since kapo's start, where the kernel tells.
    pub oom_kills: Option<u64>,
    /// Children reaped that were not the command; `None` in watch mode.
    pub orphans_reaped: Option<u64>,
    /// What passed through the captured outputs: stdout, stderr.
    pub output: [Option<Counters>; 2],
    /// Open HTTP connections, the asking one included.
    pub connections: usize,
    /// The command and its descendants; in watch mode, the processes that match.
    pub tree: Option<Tree>,
    /// kapo's own process.
    pub own: Option<Own>,
}

/// Sums over several processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// How many there are.
    pub processes: u64,
    /// CPU time of all of them and of those that ended and were reaped; `None` where that is not known, as in watch
    /// mode, where a sum over processes that come and go would not be a counter.
    pub cpu: Option<Duration>,
    /// Resident memory; shared pages count once a process.
    pub resident_bytes: u64,
    /// Open descriptors, of those processes that may be looked at.
    pub open_fds: u64,
}

/// kapo's own process, as /proc/self tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Address space.
    pub virtual_bytes: u64,
    /// The limit of the address space; `u64::MAX`: none.
    pub virtual_max_bytes: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// The part of it that is not file-backed or shared.
    pub private_bytes: u64,
    /// Data and stack segments.
    pub data_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// The soft limit of open descriptors; `u64::MAX`: none.
    pub max_fds: u64,
}

/// How often runs ended, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits([u64; REASONS.len()]);

impl Exits {
    /// Counts an end; a reason that is not in [`REASONS`] is not counted.
    pub fn count(&mut self, reason: &str) {
        if let Some((_, n)) = REASONS.iter().zip(&mut self.0).find(|(known, _)| **known == reason) {
            *n += 1;
        }
    }
}

/// The status codes of answers by route.
const ANSWERS: [u16; 4] = [200, 204, 400, 503];
/// The status codes of requests that were refused before a route was known.
const REFUSALS: [u16; 9] = [400, 405, 408, 414, 417, 431, 500, 501, 505];

/// How many requests were answered, by route and status code. 400 bytes, no allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    answered: [[u64; ANSWERS.len()]; ROUTES.len()],
    refused: [u64; REFUSALS.len()],
}

impl Counts {
    /// A request for this route was answered.
    pub fn answered(&mut self, route: Route, code: u16) {
        let row = self.answered.get_mut(route as usize);
        let column = ANSWERS.iter().position(|known| *known == code);
        if let Some(n) = row.zip(column).and_then(|(row, column)| row.get_mut(column)) {
            *n += 1;
        }
    }

    /// A request was refused (4xx or 5xx) before a route was known; the label `path` is `invalid`.
    pub fn refused(&mut self, code: u16) {
        if let Some((_, n)) = REFUSALS.iter().zip(&mut self.refused).find(|(known, _)| **known == code) {
            *n += 1;
        }
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.answered.iter().flatten().chain(&self.refused).sum()
    }

    /// Those that were ever counted: label `path`, code, how many.
    fn seen(&self) -> impl Iterator<Item = (&'static str, u16, u64)> + '_ {
        let answered = ROUTES
            .iter()
            .zip(&self.answered)
            .flat_map(|(row, counts)| ANSWERS.iter().zip(counts).map(move |(code, n)| (row.path, *code, *n)));
        let refused = REFUSALS.iter().zip(&self.refused).map(|(code, n)| ("invalid", *code, *n));
        answered.chain(refused).filter(|(_, _, n)| *n > 0)
    }
}

/// The two forms of /metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What an Accept field asks for (RFC 9110, 12.5.1): OpenMetrics only where it is named, in a version we speak,
    /// and no less wanted than text.
    pub fn accepted(accept: &str) -> Format {
        let mut open = 0;
        // How exactly a range speaks of text/plain, and how much that is wanted: the most exact one counts.
        let mut text = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1_000, None);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let (key, value) = (key.trim(), value.trim().trim_matches('"'));
                if key.eq_ignore_ascii_case("q") {
                    quality = thousandths(value);
                } else if key.eq_ignore_ascii_case("version") {
                    version = Some(value);
                }
            }
            let exact = if name.eq_ignore_ascii_case("text/plain") && version.is_none_or(|v| v == "0.0.4") {
                3
            } else if name.eq_ignore_ascii_case("text/*") {
                2
            } else {
                u8::from(name == "*/*")
            };
            if name.eq_ignore_ascii_case("application/openmetrics-text")
                && version.is_none_or(|v| v == "1.0.0")
            {
                open = open.max(quality);
            } else if exact > text.0 {
                text = (exact, quality);
            }
        }
        if open > 0 && open >= text.1 { Format::OpenMetrics } else { Format::Text }
    }

    /// For the field Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A q-value (`1`, `0.5`, three decimals at most); what is none counts as 0.
fn thousandths(value: &str) -> u32 {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
        return 0;
    }
    format!("{whole}{fraction:0<3}").parse().unwrap_or(0).min(1_000)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    /// Its samples are named with `_total` behind.
    Counter,
    /// Always 1, the labels tell; its sample is named with `_info` behind.
    Info,
}

/// A metric: the table below has one row for each.
pub struct Family {
    /// Without `_total` and `_info`.
    name: &'static str,
    kind: Kind,
    help: &'static str,
    /// The names of its labels.
    labels: &'static [&'static str],
    /// Gives its samples, none where the value is not known.
    read: fn(&Snapshot, &Counts, Samples<'_>),
}

/// Takes samples: the values of the labels, and the value.
type Samples<'a> = &'a mut dyn FnMut(&[&str], Value);

#[derive(Clone, Copy)]
enum Value {
    Number(u64),
    Seconds(Duration),
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Value {
        Value::Seconds(duration)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Value {
        Value::Number(yes.into())
    }
}

/// One sample without labels, where there is a value.
fn one(samples: Samples<'_>, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        samples(&[], value.into());
    }
}

/// One sample a captured stream.
fn streams(samples: Samples<'_>, snapshot: &Snapshot, value: fn(&Counters) -> u64) {
    for (stream, counters) in Stream::BOTH.iter().zip(&snapshot.output) {
        if let Some(counters) = counters {
            samples(&[stream.name()], value(counters).into());
        }
    }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Snapshot, &Counts, Samples<'_>)) -> Family {
    Family { name, kind: Kind::Gauge, help, labels: &[], read }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Snapshot, &Counts, Samples<'_>),
) -> Family {
    Family { name, kind: Kind::Counter, help, labels, read }
}

/// All of them, in the order in which they are shown.
pub const FAMILIES: [Family; 27] = [
    gauge(
        "kapo_child_up",
        "Whether the command runs; in watch mode, whether a process matches.",
        |s, _, out| one(out, Some(s.up)),
    ),
    gauge("kapo_child_ready", "What /readyz answers.", |s, _, out| one(out, Some(s.ready))),
    gauge(
        "kapo_child_start_time_seconds",
        "Start of the current or last run, in seconds since 1970.",
        |s, _, out| one(out, s.start_time.map(unix)),
    ),
    counter("kapo_child_starts", &[], "Starts of the command.", |s, _, out| one(out, s.starts)),
    counter("kapo_child_exits", &["reason"], "Ends of the command.", |s, _, out| {
        for (reason, n) in s.exits.iter().flat_map(|exits| REASONS.iter().zip(&exits.0)) {
            out(&[reason], (*n).into());
        }
    }),
    gauge(
        "kapo_child_last_exit_code",
        "Exit code of the last run, 128+n when signal n ended it.",
        |s, _, out| one(out, s.last_exit_code.map(u64::from)),
    ),
    counter(
        "kapo_child_cpu_seconds",
        &[],
        "CPU time of the command and all its descendants, of all runs.",
        |s, _, out| one(out, s.tree.and_then(|tree| tree.cpu)),
    ),
    gauge(
        "kapo_child_resident_memory_bytes",
        "Resident memory of the command and its descendants; shared pages count in each.",
        |s, _, out| one(out, s.tree.map(|tree| tree.resident_bytes)),
    ),
    gauge("kapo_child_open_fds", "Open descriptors of the command and its descendants.", |s, _, out| {
        one(out, s.tree.map(|tree| tree.open_fds))
    }),
    gauge(
        "kapo_child_processes",
        "The command and its descendants; in watch mode, the processes that match.",
        |s, _, out| one(out, s.tree.map(|tree| tree.processes)),
    ),
    gauge("kapo_flapping", "Whether runs fail too often.", |s, _, out| one(out, s.flapping)),
    counter(
        "kapo_oom_kills",
        &[],
        "Processes of kapo's cgroup that the kernel killed for want of memory.",
        |s, _, out| one(out, s.oom_kills),
    ),
    counter(
        "kapo_orphans_reaped",
        &[],
        "Processes other than the command that ended under kapo.",
        |s, _, out| one(out, s.orphans_reaped),
    ),
    counter("kapo_output_bytes", &["stream"], "Captured output.", |s, _, out| {
        streams(out, s, |counters| counters.bytes);
    }),
    counter("kapo_output_lines", &["stream"], "Captured lines, counted with --stdlog.", |s, _, out| {
        streams(out, s, |counters| counters.lines);
    }),
    counter(
        "kapo_output_discarded_bytes",
        &["stream"],
        "Captured output thrown away because kapo's own output was closed or full.",
        |s, _, out| streams(out, s, |counters| counters.discarded_bytes),
    ),
    counter(
        "kapo_http_requests",
        &["path", "code"],
        "Answered requests; path is the route's name, other for any other path, invalid for what was refused.",
        |_, counts, out| {
            for (path, code, n) in counts.seen() {
                out(&[path, &code.to_string()], n.into());
            }
        },
    ),
    gauge("kapo_http_connections", "Open connections.", |s, _, out| {
        one(out, u64::try_from(s.connections).ok());
    }),
    Family {
        name: "kapo_build",
        kind: Kind::Info,
        help: "The version of kapo.",
        labels: &["version"],
        read: |_, _, out| out(&[env!("CARGO_PKG_VERSION")], Value::Number(1)),
    },
    counter("process_cpu_seconds", &[], "CPU time of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.cpu))
    }),
    gauge("process_open_fds", "Open descriptors of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.open_fds))
    }),
    gauge("process_max_fds", "Most descriptors that kapo may open.", |s, _, out| {
        one(out, s.own.map(|own| own.max_fds))
    }),
    gauge("process_virtual_memory_bytes", "Address space of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.virtual_bytes));
    }),
    gauge("process_virtual_memory_max_bytes", "Most address space that kapo may have.", |s, _, out| {
        one(out, s.own.map(|own| own.virtual_max_bytes));
    }),
    gauge("process_resident_memory_bytes", "Resident memory of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.resident_bytes));
    }),
    gauge("process_heap_bytes", "Data and stack segments of kapo itself.", |s, _, out| {
        one(out, s.own.map(|own| own.data_bytes));
    }),
    gauge("process_start_time_seconds", "Start of kapo itself, in seconds since 1970.", |s, _, out| {
        one(out, Some(unix(s.started)));
    }),
];

/// Since 1970; what was before is 1970.
fn unix(wall: SystemTime) -> Duration {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The whole page.
pub fn render(format: Format, snapshot: &Snapshot, counts: &Counts) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 << 10);
    for family in &FAMILIES {
        render_family(&mut out, format, family, snapshot, counts);
    }
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
    out
}

fn render_family(out: &mut Vec<u8>, format: Format, family: &Family, snapshot: &Snapshot, counts: &Counts) {
    let Family { name, kind, help, labels, read } = family;
    let open = format == Format::OpenMetrics;
    let suffix = match kind {
        Kind::Gauge => "",
        Kind::Counter => "_total",
        Kind::Info => "_info",
    };
    // OpenMetrics names the family in its head, the older text the samples.
    let shown = if open { "" } else { suffix };
    let word = match kind {
        Kind::Counter => "counter",
        Kind::Info if open => "info",
        Kind::Gauge | Kind::Info => "gauge",
    };
    let mut headed = false;
    read(snapshot, counts, &mut |values, value| {
        // Writing to a Vec cannot fail. A family without samples has no head either.
        if !headed {
            headed = true;
            let _ = writeln!(out, "# HELP {name}{shown} {help}\n# TYPE {name}{shown} {word}");
            if let Some(unit) = ["seconds", "bytes"].iter().find(|unit| open && name.ends_with(**unit)) {
                let _ = writeln!(out, "# UNIT {name} {unit}");
            }
        }
        sample(out, name, suffix, labels, values, value);
        if open && *kind == Kind::Counter {
            sample(out, name, "_created", labels, values, unix(snapshot.started).into());
        }
    });
}

fn sample(out: &mut Vec<u8>, name: &str, suffix: &str, labels: &[&str], values: &[&str], value: Value) {
    out.extend([name, suffix].iter().flat_map(|part| part.bytes()));
    let mut before = b'{';
    for (label, value) in labels.iter().zip(values) {
        out.push(before);
        before = b',';
        out.extend_from_slice(label.as_bytes());
        out.extend_from_slice(b"=\"");
        escape(out, value);
        out.push(b'"');
    }
    out.extend_from_slice(if labels.is_empty() { b" " } else { b"} " });
    // Writing to a Vec cannot fail.
    let _ = match value {
        Value::Number(number) => writeln!(out, "{number}"),
        Value::Seconds(duration) => writeln!(out, "{}", decimal(duration)),
    };
}

/// The value of a label: both formats know three escapes.
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

/// Seconds with as many decimals as are needed: `3`, `0.25`. No floating point, which would round and is large.
pub fn decimal(duration: Duration) -> String {
    let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Name, labels and help of all metrics, for the manual.
pub fn described() -> impl Iterator<Item = (String, &'static [&'static str], &'static str)> {
    FAMILIES.iter().map(|family| {
        let suffix = match family.kind {
            Kind::Gauge => "",
            Kind::Counter => "_total",
            Kind::Info => "_info",
        };
        (format!("{}{suffix}", family.name), family.labels, family.help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot in which everything is known.
    pub(crate) fn full() -> Snapshot {
        let mut exits = Exits::default();
        exits.count("oom-kill");
        exits.count("no reason of ours");
        let wall = UNIX_EPOCH + Duration::from_millis(1_763_793_930_250);
        Snapshot {
            started: wall,
            up: true,
            ready: false,
            start_time: Some(wall + Duration::from_secs(1)),
            starts: Some(2),
            exits: Some(exits),
            last_exit_code: Some(137),
            flapping: Some(false),
            oom_kills: Some(1),
            orphans_reaped: Some(20_000),
            output: [Some(Counters { bytes: 100, lines: 2, discarded_bytes: 0 }), None],
            connections: 3,
            tree: Some(Tree {
                processes: 4,
                cpu: Some(Duration::from_millis(1_230)),
                resident_bytes: 4_096,
                open_fds: 12,
            }),
            own: Some(Own {
                cpu: Duration::from_millis(10),
                virtual_bytes: 1 << 20,
                virtual_max_bytes: u64::MAX,
                resident_bytes: 4_096,
                private_bytes: 2_048,
                data_bytes: 1_024,
                open_fds: 9,
                max_fds: 1_024,
            }),
        }
    }

    /// What a watcher knows without /proc.
    fn bare() -> Snapshot {
        Snapshot {
            start_time: None,
            starts: None,
            exits: None,
            last_exit_code: None,
            flapping: None,
            oom_kills: None,
            orphans_reaped: None,
            output: [None, None],
            tree: None,
            own: None,
            ..full()
        }
    }

    fn counts() -> Counts {
        let mut counts = Counts::default();
        counts.answered(Route::Readyz, 200);
        counts.answered(Route::Readyz, 503);
        counts.answered(Route::Readyz, 503);
        counts.answered(Route::Other, 200);
        counts.refused(431);
        counts
    }

    fn text(format: Format, snapshot: &Snapshot) -> String {
        String::from_utf8(render(format, snapshot, &counts())).unwrap()
    }

    #[test]
    fn a_metric_looks_as_each_format_wants_it() {
        let (prometheus, open) = (text(Format::Text, &full()), text(Format::OpenMetrics, &full()));
        for (format, lines) in [
            (
                &prometheus,
                "# HELP kapo_child_cpu_seconds_total CPU time of the command and all its descendants, of all runs.\n\
                 # TYPE kapo_child_cpu_seconds_total counter\nkapo_child_cpu_seconds_total 1.23\n",
            ),
            (
                &open,
                "# HELP kapo_child_cpu_seconds CPU time of the command and all its descendants, of all runs.\n\
                 # TYPE kapo_child_cpu_seconds counter\n# UNIT kapo_child_cpu_seconds seconds\n\
                 kapo_child_cpu_seconds_total 1.23\nkapo_child_cpu_seconds_created 1763793930.25\n",
            ),
            (&prometheus, "\nkapo_child_start_time_seconds 1763793931.25\n"),
            (&prometheus, "\n# TYPE kapo_build_info gauge\n"),
            (&open, "\n# TYPE kapo_build info\n"),
            (&open, concat!("\nkapo_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")),
            (&prometheus, "\nkapo_child_exits_total{reason=\"oom-kill\"} 1\n"),
            (&prometheus, "\nkapo_child_exits_total{reason=\"watchdog\"} 0\n"),
            (&open, "\nkapo_child_exits_created{reason=\"watchdog\"} 1763793930.25\n"),
            (&prometheus, "\nkapo_output_lines_total{stream=\"stdout\"} 2\n"),
            (&prometheus, "\nkapo_http_requests_total{path=\"/readyz\",code=\"503\"} 2\n"),
            (&prometheus, "\nkapo_http_requests_total{path=\"other\",code=\"200\"} 1\n"),
            (&prometheus, "\nkapo_http_requests_total{path=\"invalid\",code=\"431\"} 1\n"),
            (&prometheus, "\nprocess_virtual_memory_max_bytes 18446744073709551615\n"),
        ] {
            assert!(format.contains(lines), "{lines}\n is missing in\n{format}");
        }
        assert!(!prometheus.contains("_created") && !prometheus.contains("# EOF"));
        assert!(!prometheus.contains("stderr"), "a stream that is not captured has no counters");
        assert!(open.ends_with("\n# EOF\n"));
        assert_eq!(open.matches("# EOF").count(), 1);
    }

    #[test]
    fn what_is_not_known_is_not_shown_at_all() {
        let text = text(Format::Text, &bare());
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(
            names,
            [
                "kapo_child_up gauge",
                "kapo_child_ready gauge",
                "kapo_http_requests_total counter",
                "kapo_http_connections gauge",
                "kapo_build_info gauge",
                "process_start_time_seconds gauge",
            ]
        );
    }

    #[test]
    fn every_row_of_the_table_has_samples_with_just_its_labels() {
        let snapshot = full();
        for family in &FAMILIES {
            let mut n = 0;
            (family.read)(&snapshot, &counts(), &mut |values, _| {
                assert_eq!(values.len(), family.labels.len(), "{}", family.name);
                n += 1;
            });
            assert!(n > 0, "{} has no sample", family.name);
        }
    }

    #[test]
    fn accept_decides_which_format_is_sent() {
        use Format::{OpenMetrics, Text};
        for (accept, format) in [
            ("", Text),
            ("*/*", Text),
            ("text/plain", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.1", OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0.000, text/plain;q=0", Text),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.6", Text),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.4,*/*;q=0.9", OpenMetrics),
            ("application/openmetrics-text;q=0.5,text/*;q=0.6,*/*;q=0.1", Text),
            ("application/openmetrics-text;q=1.5", OpenMetrics),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.5", OpenMetrics),
            ("application/openmetrics-text;q=0.5,application/json", OpenMetrics),
            ("application/openmetrics-text;q=NaN", Text),
            ("application/json,text/html", Text),
            // Prometheus 2.42 and 3.0.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn labels_escape_what_would_end_them() {
        let mut out = Vec::new();
        escape(&mut out, "a\\b\"c\nd\u{e9}");
        assert_eq!(String::from_utf8(out).unwrap(), "a\\\\b\\\"c\\nd\u{e9}");
    }

    #[test]
    fn decimals_are_exact_and_short() {
        for (nanos, text) in [
            (0, "0"),
            (1_000_000_000, "1"),
            (250_000_000, "0.25"),
            (1, "0.000000001"),
            (100_000_000_000, "100"),
        ] {
            assert_eq!(decimal(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn promtool_finds_nothing_to_criticize() {
        use std::process::{Command, Stdio};
        for snapshot in [full(), bare()] {
            let child = Command::new("promtool")
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut child = match child {
                Ok(child) => child,
                Err(error) => {
                    println!("not checked: promtool (Debian package prometheus) does not start: {error}");
                    return;
                }
            };
            child.stdin.take().unwrap().write_all(text(Format::Text, &snapshot).as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert_eq!(String::from_utf8_lossy(&said), "");
            assert!(output.status.success());
        }
    }
}
