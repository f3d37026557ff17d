//! Tests of whole pages.

use super::*;

/// Returns a time on the day of these tests: `10:30:05`.
fn at(time: &str) -> SystemTime {
    timestamp::parse_rfc3339(&format!("2026-11-27T{time}Z")).unwrap()
}

const NOTHING: &str = "0001-01-01T00:00:00Z";

/// Returns a document with one object. `members` replace those of a running command.
fn object(members: &[(&str, &str)]) -> String {
    let start = "\"2026-11-27T10:00:00Z\"";
    let never = format!("\"{NOTHING}\"");
    let mut all: Vec<(&str, &str)> = vec![
        ("Command", "\"/srv/worker\""),
        ("EndTime", &never),
        ("ExitCode", "0"),
        ("Mode", "\"supervise\""),
        ("StartTime", start),
        ("Status", "\"running\""),
        ("Pid", "4711"),
        ("Reason", "\"\""),
        ("Restarts", "0"),
        ("Ready", "true"),
        ("Flapping", "false"),
        ("NextStart", &never),
        ("ExpiresAt", &never),
        ("StopSignalFrom", "null"),
        ("LastOutput", "[]"),
    ];
    for (name, value) in members {
        all.retain(|(known, _)| known != name);
        all.push((name, value));
    }
    let all: Vec<String> = all.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", all.join(","))
}

/// Returns a run that ended at that time.
fn run(end: &str, members: &str) -> String {
    format!(
        r#"{{"StartTime":"2026-11-27T10:00:00Z","EndTime":"2026-11-27T{end}Z","LastedSeconds":1.25,{members}}}"#
    )
}

const OOM: &str = r#""ExitCode":137,"Signal":"SIGKILL","Reason":"oom-kill","Memory":{"PeakBytes":536870912,"LimitBytes":536870912,"OomKills":1},"LastOutput":["x"]"#;
const REFUSED: &str = r#""ExitCode":1,"Signal":"","Reason":"exit-code","StopSignalFrom":null,"LastOutput":["connection refused"]"#;

struct Page<'a> {
    document: String,
    runs: Option<String>,
    metrics: &'a str,
    output: Option<&'a str>,
    unhealthy: Option<&'a str>,
    unready: Option<&'a str>,
}

impl Page<'_> {
    fn of(document: String) -> Page<'static> {
        Page { document, runs: None, metrics: "", output: None, unhealthy: None, unready: None }
    }

    fn text(&self) -> String {
        let document = document(format!("[{}]\n", self.document).as_bytes()).unwrap();
        let runs = self.runs.as_ref().map(|runs| history(format!("[{runs}]").as_bytes()).unwrap());
        let lines = report(&Findings {
            document: &document,
            runs: runs.as_ref(),
            metrics: self.metrics.as_bytes(),
            output: self.output.map(str::as_bytes),
            unhealthy: self.unhealthy,
            unready: self.unready,
            now: at("10:30:05"),
        });
        page(&lines, 100, None)
    }
}

#[test]
fn a_healthy_command_has_a_short_page() {
    let page = Page {
        metrics: "# TYPE kapo_child_processes gauge\nkapo_child_processes 2\nkapo_child_cpu_seconds_total 3.25\n\
                  kapo_child_resident_memory_bytes{x=\"y\"} 188743680\nkapo_cgroup_memory_bytes 222298112\n\
                  kapo_cgroup_memory_limit_bytes 536870912\n",
        output: Some("one\ntwo\r\n\n\u{1b}[31mred\n"),
        ..Page::of(object(&[
            ("Mode", "\"run\""),
            ("ExpiresAt", "\"2026-11-27T11:00:05.5Z\""),
            ("StatusText", "\"12 jobs\""),
        ]))
    };
    assert_eq!(
        page.text(),
        "worker: running for 30 min 5 s\n\
        \x20 state     running since 2026-11-27 10:00:00Z (30 min 5 s), pid 4711\n\
        \x20 ready     yes\n\
        \x20 ttl       ends the run in 30 min 1 s, at 2026-11-27 11:00:05Z\n\
        \x20 status    12 jobs\n\
        \x20 now       memory 180 MiB, CPU 3.2 s, 2 processes, cgroup 212 of 512 MiB\n\
        last output:\n\
        \x20   | one\n\
        \x20   | two\n\
        \x20   | \\u{1b}[31mred\n"
    );
}

#[test]
fn all_probes_that_fail_are_shown() {
    let probe = |name: &str, up: bool, reason: &str| {
        format!(r#"{{"Name":"{name}","Up":{up},"Failures":1,"LastCheck":"{NOTHING}","Reason":"{reason}"}}"#)
    };
    let probes = [
        probe("0", true, ""),
        probe("web", false, "GET / 500, 1 of 3"),
        probe("2", false, "timed out, 1 of 3"),
        probe("db", false, "disk full, 1 of 3"),
    ];
    let list = format!("[{}]", probes.join(","));
    let page = Page {
        unready: Some("web: GET / 500, 1 of 3"),
        ..Page::of(object(&[("Ready", "false"), ("Probes", &list)]))
    };
    let expected = "  ready     no: web: GET / 500, 1 of 3\n  probe     2: timed out, 1 of 3\n\
                    \x20 probe     db: disk full, 1 of 3\n";
    assert!(page.text().contains(expected), "{}", page.text());
}

#[test]
fn a_crash_loop_shows_last_runs_and_the_first_failure() {
    let first = r#""ExitCode":3,"Signal":"","Reason":"exit-code","First":true,"LastOutput":["a","b","c","cannot open queue"]"#;
    let killed = r#""ExitCode":137,"Signal":"SIGKILL","Reason":"signal","Memory":{"PeakBytes":222298112,"LimitBytes":536870912,"OomKills":0},"StopSignalFrom":null"#;
    let runs =
        [run("10:30:03.5", OOM), run("10:29:00", killed), run("10:28:00", REFUSED), run("10:05:00", first)];
    let page = Page {
        runs: Some(runs.join(",")),
        unhealthy: Some("restarting in 4 s: killed by the kernel: out of memory; 5 failed runs in 5 min"),
        unready: Some("restarting in 4 s: killed by the kernel: out of memory; 5 failed runs in 5 min"),
        ..Page::of(object(&[
            ("Status", "\"killed\""),
            ("Ready", "false"),
            ("Flapping", "true"),
            ("Restarts", "4"),
            ("EndTime", "\"2026-11-27T10:30:03.5Z\""),
            ("NextStart", "\"2026-11-27T10:30:08.5Z\""),
            ("Reason", "\"oom-kill\""),
            ("ExitCode", "137"),
        ]))
    };
    assert_eq!(
        page.text(),
        "worker: restarting for the 5th time, last exit 137: killed, out of memory\n\
        \x20 state     in the pause since 2026-11-27 10:30:03Z (1.5 s); next start in 4 s\n\
        \x20 ready     no: restarting in 4 s: killed by the kernel: out of memory; 5 failed runs in 5 min\n\
        \x20 restarts  4, flapping\n\
        last ends:\n\
        \x20 2026-11-27 10:30:03Z  after 1.2 s       exit 137: killed, out of memory\n\
        \x20 2026-11-27 10:29:00Z  after 1.2 s       exit 137: killed by SIGKILL; memory peak 212 of 512 MiB\n\
        \x20 2026-11-27 10:28:00Z  after 1.2 s       exit 1\n\
        first failure of the episode:\n\
        \x20 2026-11-27 10:05:00Z  after 1.2 s       exit 3\n\
        \x20   | b\n\
        \x20   | c\n\
        \x20   | cannot open queue\n\
        last output:\n\
        \x20   | x\n"
    );
}

#[test]
fn the_first_failure_is_not_listed_twice_if_it_is_the_newest() {
    let first = run("10:30:00", &format!("\"First\":true,{REFUSED}"));
    let page = Page {
        runs: Some([first, run("10:00:00", "\"Reason\":\"success\",\"ExitCode\":0")].join(",")),
        ..Page::of(object(&[("Restarts", "2")]))
    };
    let text = page.text();
    let (_, ends) = text.split_once("  restarts  2\n").unwrap();
    assert_eq!(
        ends,
        "last ends:\n\
        \x20 2026-11-27 10:30:00Z  after 1.2 s       exit 1\n\
        \x20 2026-11-27 10:00:00Z  after 1.2 s       success\n\
        last output:\n\
        \x20   | connection refused\n"
    );
}

#[test]
fn a_kapo_without_history_shows_its_last_run() {
    let page = Page::of(object(&[
        ("Status", "\"stopped\""),
        ("Ready", "false"),
        ("Mode", "\"run\""),
        ("EndTime", "\"2026-11-27T10:30:00Z\""),
        ("Reason", "\"exit-code\""),
        ("ExitCode", "3"),
        ("LastOutput", "[\"cannot open queue\"]"),
        ("StopSignalFrom", r#"{"Signal":"SIGTERM","Pid":12,"Uid":1000}"#),
    ]));
    assert_eq!(
        page.text(),
        "worker: ended: exit 3\n\
        \x20 state     ended since 2026-11-27 10:30:00Z (5 s)\n\
        \x20 ready     no\n\
        \x20 stop      asked for by SIGTERM from pid 12, uid 1000\n\
        last ends:\n\
        \x20 2026-11-27 10:30:00Z  after 30 min      exit 3; stop asked for by SIGTERM from pid 12, uid 1000\n\
        last output:\n\
        \x20   | cannot open queue\n"
    );
    assert_eq!(history(format!("[{}]", page.document).as_bytes()), None);
}

#[test]
fn each_state_has_its_verdict() {
    let stop = r#"{"Signal":"SIGTERM","Pid":0,"Uid":0}"#;
    let ended = "\"2026-11-27T10:30:00Z\"";
    let last = format!("{{{OOM}}}");
    for (members, verdict) in [
        (&[][..], "running for 30 min 5 s"),
        (&[("Restarts", "1")], "running for 30 min 5 s, restarted once"),
        (
            &[("Restarts", "5"), ("LastRun", &last)],
            "running for 30 min 5 s, restarted 5 times, last exit 137: killed, out of memory",
        ),
        (&[("Flapping", "true")], "flapping, running for 30 min 5 s"),
        (&[("Ready", "false")], "not ready, running for 30 min 5 s"),
        (
            &[("Ready", "false"), ("StopSignalFrom", stop)],
            "being stopped by SIGTERM from the kernel or another PID namespace",
        ),
        (
            &[("Ready", "false"), ("StopSignalFrom", stop), ("StopsAt", "\"2026-11-27T10:30:09Z\"")],
            "draining, stop signal in 4 s",
        ),
        (&[("Status", "\"stopped\"")], "not started yet"),
        (
            &[("Status", "\"stopped\""), ("EndTime", ended), ("NextStart", ended), ("Reason", "\"success\"")],
            "restarting for the 1st time, last end: success",
        ),
        (&[("Status", "\"stopped\""), ("EndTime", ended), ("Reason", "\"success\"")], "ended: success"),
        (&[("Name", "\"queue\"")], "running for 30 min 5 s"),
    ] {
        let text = Page::of(object(members)).text();
        let (name, said) = text.lines().next().unwrap().split_once(": ").unwrap();
        assert_eq!((said, name == "queue"), (verdict, members.iter().any(|(name, _)| *name == "Name")));
    }
}

#[test]
fn watched_processes_are_a_table() {
    let watch = ("Mode", "\"watch\"");
    let several: Vec<String> = (1..=14).map(|pid: i32| object(&[watch, ("Pid", &pid.to_string())])).collect();
    let page = Page { metrics: "kapo_child_processes 14\n", ..Page::of(several.join(",")) };
    let text = page.text();
    assert_eq!(
        text.lines().take(3).collect::<Vec<_>>(),
        [
            "worker: 14 processes",
            "  pid       running since",
            "  1         2026-11-27 10:00:00Z (30 min 5 s)"
        ]
    );
    assert!(
        text.ends_with(
            "  12        2026-11-27 10:00:00Z (30 min 5 s)\n  and 2 more\n  now       14 processes\n"
        ),
        "{text}"
    );
    let missing = object(&[watch, ("Status", "\"stopped\""), ("Command", "\"db\"")]);
    let one = object(&[watch, ("Pid", "7")]);
    let page =
        Page { metrics: "kapo_child_processes{name=\"worker\"} 1\n", ..Page::of(format!("{one},{missing}")) };
    let text = page.text();
    let expected = "  7         2026-11-27 10:00:00Z (30 min 5 s)  /srv/worker\n  no process: db\n";
    assert!(text.starts_with("worker: 1 process\n") && text.ends_with(expected), "{text}");
    let gone = Page::of(object(&[
        watch,
        ("Status", "\"killed\""),
        ("Reason", "\"signal\""),
        ("Signal", "\"SIGKILL\""),
        ("ExitCode", "137"),
        ("EndTime", "\"2026-11-27T10:30:00Z\""),
    ]));
    assert_eq!(
        gone.text(),
        "worker: no process, last exit 137: killed by SIGKILL\n\
        last ends:\n\
        \x20 2026-11-27 10:30:00Z  after 30 min      exit 137: killed by SIGKILL\n"
    );
    assert_eq!(Page::of(object(&[watch, ("Status", "\"stopped\"")])).text(), "worker: no process\n");
}

#[test]
fn a_page_never_exceeds_24_lines_or_the_width() {
    let long = "\u{e4}\u{1b}\u{7}".repeat(400);
    let runs: Vec<String> = (0..100).map(|_| run("10:29:00", REFUSED)).collect();
    let first = run("10:00:00", &format!("\"First\":true,\"LastOutput\":[{}\"z\"]", "\"y\",".repeat(100)));
    let output = format!("{long}\n").repeat(100);
    let text = Json::Text(long.clone());
    let Json::Text(said) = &text else { unreachable!() };
    let said = serde_json::to_string(said).unwrap();
    let page = Page {
        runs: Some(format!("{},{first}", runs.join(","))),
        metrics: "kapo_child_processes 18446744073709551615\nkapo_cgroup_memory_bytes 18446744073709551615\n",
        output: Some(&output),
        unhealthy: Some(&long),
        unready: Some("x"),
        ..Page::of(object(&[
            ("Command", &said),
            ("Restarts", "18446744073709551615"),
            ("StatusText", &said),
            ("Ready", "false"),
            ("ExpiresAt", "\"9999-12-31T23:59:59Z\""),
            ("StartTime", "\"9999-12-31T23:59:59Z\""),
            ("StopSignalFrom", &format!("{{\"Signal\":{said},\"Pid\":1e300,\"Uid\":-1}}")),
        ]))
    };
    let text = page.text();
    assert_eq!(text.lines().count(), LINES, "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 100 && !line.contains(char::is_control), "{line}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("    | ")).count(), FIRST_OUTPUT + 3, "{text}");
}

#[test]
fn members_of_a_wrong_type_count_as_missing() {
    for value in ["null", "1", "-1", "\"x\"", "[]", "{}", "[[{}]]", "true"] {
        let names = ["EndTime", "ExitCode", "Mode", "StartTime", "Pid", "Reason", "Restarts", "Ready"];
        let others =
            ["NextStart", "ExpiresAt", "StopSignalFrom", "LastOutput", "LastRun", "StatusText", "Name"];
        for name in names.iter().chain(&others) {
            for state in ["\"running\"", "\"stopped\""] {
                let page = Page::of(object(&[(name, value), ("Status", state)]));
                assert!(page.text().ends_with('\n'), "{name} {value}");
            }
        }
    }
}

#[test]
fn an_invalid_document_is_refused() {
    for text in [
        "",
        "<html>",
        "[]",
        "{}",
        "[1]",
        "[{\"Command\":\"x\"}]",
        "[{\"Status\":\"x\"}]",
        "{\"Status\":\"ok\"}",
    ] {
        assert_eq!(document(text.as_bytes()), None, "{text}");
    }
    for (text, known) in [("[]\n", true), ("[{}]", true), ("[1]", false), ("{}", false), ("x", false)] {
        assert_eq!(history(text.as_bytes()).is_some(), known, "{text}");
    }
}

#[test]
fn json_is_one_text_of_both() {
    assert_eq!(json(b"[1]\n", None), b"{\"Status\":[1],\"Runs\":null}\n");
    assert_eq!(json(b"[1]\n", Some(b"[]\n")), b"{\"Status\":[1],\"Runs\":[]}\n");
}

#[test]
fn only_the_verdict_has_a_colour() {
    let lines = ["a".to_owned(), "b".to_owned()];
    assert_eq!(page(&lines, 80, Some(true)), "\x1b[32ma\x1b[0m\nb\n");
    assert_eq!(page(&lines, 80, Some(false)), "\x1b[31ma\x1b[0m\nb\n");
    assert_eq!(page(&["abcdef".to_owned()], 4, None), "abc\u{2026}\n");
}

#[test]
fn a_metric_is_read_from_the_line_of_its_name() {
    let text = b"# ab 7\nab 1\nabc{x=\"}\"} 2\nabc{x=\"y\"} 3 1700000000\nx\ny{\nz\xff 1";
    for (name, value) in [("ab", Some("1")), ("abc", Some("2")), ("a", None), ("x", None), ("y", None)] {
        assert_eq!(metric(text, name), value, "{name}");
    }
    for value in ["NaN", "+Inf", "-1", "1e300", "x", "99999999999999999999"] {
        let names = METRICS.split("name[]=").skip(1).map(|name| name.trim_end_matches('&'));
        let metrics: String = names.map(|name| format!("{name} {value}\n")).collect();
        let page = Page { metrics: &metrics, ..Page::of(object(&[])) };
        assert!(!page.text().contains("now") || value.starts_with("99"), "{value}: {}", page.text());
    }
}
