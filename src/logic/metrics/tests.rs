//! Tests of the page that scrapers get, also with promtool.

use std::time::UNIX_EPOCH;

use super::*;
use crate::logic::reason::Reason;

impl Snapshot {
    /// Returns a snapshot without any known values, which tests change as needed.
    pub(crate) fn blank() -> Snapshot {
        Snapshot {
            name: "web",
            started: UNIX_EPOCH,
            up: false,
            ready: false,
            start_time: None,
            starts: None,
            exits: None,
            last_exit_code: None,
            last_end: None,
            last_success: None,
            last_lasted: None,
            flapping: None,
            oom_kills: None,
            orphans_reaped: None,
            output: [None, None],
            connections: 0,
            tree: None,
            own: None,
            cgroup: None,
            watched: Vec::new(),
            probes: Vec::new(),
        }
    }
}

/// Returns a snapshot with all values known.
fn full() -> Snapshot {
    let mut exits = Exits::default();
    exits.count(Reason::OomKill);
    let wall = UNIX_EPOCH + Duration::from_millis(1_763_793_930_250);
    Snapshot {
        name: "web",
        started: wall,
        up: true,
        ready: false,
        start_time: Some(wall + Duration::from_secs(1)),
        starts: Some(2),
        exits: Some(exits),
        last_exit_code: Some(137),
        last_end: Some(wall + Duration::from_secs(5)),
        last_success: Some(wall + Duration::from_secs(3)),
        last_lasted: Some(Duration::from_millis(1_500)),
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
        watched: Vec::new(),
        probes: vec![ProbeSample {
            label: "web".to_owned(),
            up: true,
            failures: 3,
            duration: Some(Duration::from_millis(20)),
        }],
        cgroup: Some(CgroupUsage {
            memory_bytes: Some(1 << 20),
            memory_limit: Some(4 << 20),
            memory_peak: Some(2 << 20),
            cpu_throttled: Some(Duration::from_micros(1_500)),
            cpu_limit: Some(Duration::from_millis(1_500)),
            pids: Some(5),
            pids_limit: Some(100),
            pressure: vec![("memory", "full", Duration::from_micros(7))],
        }),
    }
}

/// Returns what watch mode knows without /proc.
fn bare() -> Snapshot {
    let Snapshot { started, up, ready, connections, .. } = full();
    Snapshot { started, up, ready, connections, ..Snapshot::blank() }
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
    String::from_utf8(render(format, Selection::ALL, snapshot, &counts())).unwrap()
}

#[test]
fn a_metric_is_rendered_in_each_format() {
    let (prometheus, open) = (text(Format::Text, &full()), text(Format::OpenMetrics, &full()));
    for (format, lines) in [
        (
            &prometheus,
            "# HELP kapo_child_cpu_seconds_total CPU time of the command and its descendants, summed over all runs.\n\
             # TYPE kapo_child_cpu_seconds_total counter\nkapo_child_cpu_seconds_total 1.23\n",
        ),
        (
            &open,
            "# HELP kapo_child_cpu_seconds CPU time of the command and its descendants, summed over all runs.\n\
             # TYPE kapo_child_cpu_seconds counter\n# UNIT kapo_child_cpu_seconds seconds\n\
             kapo_child_cpu_seconds_total 1.23\nkapo_child_cpu_seconds_created 1763793930.25\n",
        ),
        (&prometheus, "\nkapo_child_start_time_seconds 1763793931.25\n"),
        (&prometheus, "\n# TYPE kapo_build_info gauge\n"),
        (&open, "\n# TYPE kapo_build info\n"),
        (&open, concat!("\nkapo_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",name=\"web\"} 1\n")),
        (&prometheus, "\nkapo_child_exits_total{reason=\"oom-kill\"} 1\n"),
        (&prometheus, "\nkapo_child_exits_total{reason=\"watchdog\"} 0\n"),
        (&open, "\nkapo_child_exits_created{reason=\"watchdog\"} 1763793930.25\n"),
        (&prometheus, "\nkapo_output_lines_total{stream=\"stdout\"} 2\n"),
        (&prometheus, "\nkapo_http_requests_total{path=\"/readyz\",code=\"503\"} 2\n"),
        (&prometheus, "\nkapo_http_requests_total{path=\"other\",code=\"200\"} 1\n"),
        (&prometheus, "\nkapo_http_requests_total{path=\"invalid\",code=\"431\"} 1\n"),
        (&prometheus, "\nkapo_child_last_run_seconds 1.5\n"),
        (&prometheus, "\nkapo_cgroup_cpu_throttled_seconds_total 0.0015\n"),
        (&prometheus, "\nkapo_cgroup_cpu_limit_cores 1.5\n"),
        (&prometheus, "\nkapo_cgroup_pressure_seconds_total{resource=\"memory\",kind=\"full\"} 0.000007\n"),
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
fn unknown_values_are_not_shown() {
    let text = text(Format::Text, &bare());
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(
        names,
        [
            "kapo_child_up gauge",
            "kapo_child_ready gauge",
            "kapo_http_requests_total counter",
            "kapo_http_connections gauge",
            "kapo_http_connections_evicted_total counter",
            "kapo_build_info gauge",
            "process_start_time_seconds gauge",
        ]
    );
}

#[test]
fn only_the_selected_families_are_shown() {
    let selection = Selection::of(Some("name[]=kapo_child_up&name[]=kapo_cgroup_pids"));
    let text = String::from_utf8(render(Format::Text, selection, &full(), &counts())).unwrap();
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(samples, ["kapo_child_up 1", "kapo_cgroup_pids 5"]);
    let text = render(Format::OpenMetrics, Selection::of(Some("name[]=other")), &full(), &counts());
    assert_eq!(text, b"# EOF\n");
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
fn accept_selects_the_format() {
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
        // The most specific range counts, at any position.
        ("text/plain;q=0.2, text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.5", Text),
        ("text/plain;version=0.0.4;q=0.9, text/plain;q=0.2, application/openmetrics-text;q=0.5", Text),
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
fn label_values_are_escaped() {
    let mut out = Vec::new();
    escape(&mut out, "a\\b\"c\nd\u{e9}");
    assert_eq!(String::from_utf8(out).unwrap(), "a\\\\b\\\"c\\nd\u{e9}");
}

#[test]
fn decimals_are_exact_and_short() {
    for (nanos, text) in
        [(0, "0"), (1_000_000_000, "1"), (250_000_000, "0.25"), (1, "0.000000001"), (100_000_000_000, "100")]
    {
        assert_eq!(decimal(Duration::from_nanos(nanos)), text);
    }
}

#[test]
fn promtool_reports_no_problems() {
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
