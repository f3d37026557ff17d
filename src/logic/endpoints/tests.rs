//! The answer of each path in every state that affects it.

use std::time::UNIX_EPOCH;

use super::*;
use crate::logic::ProcessId;
use crate::logic::http::Persist;
use crate::logic::http::response::Out;
use crate::logic::reason::Reason;
use crate::logic::status::ModeName;
use crate::logic::status::State;
use crate::signal::Signal;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[expect(clippy::disallowed_methods, reason = "a test needs some moment to begin with")]
fn now() -> Now {
    Now { mono: Instant::now(), wall: at(1_000) }
}

/// Returns a command that runs and is ready; tests change single fields.
fn running() -> Status {
    Status {
        command: "sleep".to_owned(),
        start_time: Some(at(900)),
        state: State::Running,
        pid: ProcessId::new(7),
        ready: true,
        ..Status::blank(ModeName::Supervise)
    }
}

fn ended(reason: impl Into<Option<Reason>>, exit_code: u8) -> Status {
    Status { state: State::Stopped, ready: false, pid: None, reason: reason.into(), exit_code, ..running() }
}

fn page(object: Status, facts: StateFacts) -> Page {
    let mut page = Page::new(0, true);
    page.update(&[object], facts);
    page
}

const GET: Request<'static> = Request {
    method: Method::Get,
    path: "/",
    query: None,
    host: "",
    accept: "",
    accept_encoding: "",
    last_event_id: "",
    navigates: false,
};

/// Returns a GET request for a path with an optional query.
fn get<'a>(target: &'a str) -> Request<'a> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Request { path, query, ..GET }
}

fn measured() -> Option<Box<Measured>> {
    let sources = Selection::ALL.sources();
    let snapshot = Snapshot { started: at(500), up: true, ready: true, connections: 1, ..Snapshot::blank() };
    Some(Box::new(Measured { sources, snapshot }))
}

/// Returns an answer as a short text: status code, extra field, body.
fn show(answer: &Answer<'_>) -> String {
    match answer {
        Answer::Whole { code, extra, body, .. } => {
            let extra: String = extra.iter().map(|(name, value)| format!("{name}: {value} ")).collect();
            format!("{code} {extra}{}", String::from_utf8_lossy(body))
        }
        Answer::Stream { next, first, .. } => format!("{next:?} {}", String::from_utf8_lossy(first)),
        Answer::Head { length, .. } => format!("head {length:?}"),
        Answer::Wait(until) => format!("wait {}", until.is_some()),
        Answer::Await(_) => "awaits probes".to_owned(),
        Answer::Lacking(sources) => format!("lacks {sources:?}"),
    }
}

/// Returns the answer to a request. The tail holds the name of each stream as its output.
fn ask_at(now: Now, page: &Page, request: &Request<'_>) -> String {
    let mut tail = Tail::new(100);
    for stream in Stream::BOTH {
        tail.push(stream, stream.name().as_bytes());
    }
    let context = RequestContext {
        site: None,
        page,
        counts: &mut Counts::default(),
        argv0: "kapo",
        tail: Some(&tail),
        history: Some(&History::new(5)),
        measured: measured(),
        lacking: None,
        probed_at: None,
        needs_probes: false,
    };
    show(&context.decide(now, Route::of(request.path), request))
}

fn ask(page: &Page, target: &str) -> String {
    ask_at(now(), page, &get(target))
}

#[test]
fn an_unknown_path_returns_the_document() {
    let page = page(running(), StateFacts::default());
    let document = format!("200 {}", String::from_utf8_lossy(&page.document));
    assert!(document.contains(r#""Command":"sleep""#));
    for path in ["/", "/any/other?x=y", "/Livez", ""] {
        assert_eq!(ask(&page, path), document, "{path}");
    }
}

#[test]
fn a_failed_probe_gives_its_reason() {
    let is = |ready: &str, health: &str, object: Status, facts: StateFacts| {
        let page = page(object, facts);
        assert_eq!(ask(&page, "/livez"), "200 ok");
        assert_eq!((ask(&page, "/readyz").as_str(), ask(&page, "/healthz").as_str()), (ready, health));
    };
    let stopping = StateFacts { stopping: true, ..StateFacts::default() };
    let over = StateFacts { ended: Some(3), ..StateFacts::default() };
    is("200 ok", "200 ok", running(), StateFacts::default());
    is("503 being stopped\n", "200 ok", Status { ready: false, ..running() }, stopping);
    is("503 has not said READY=1\n", "200 ok", Status { ready: false, ..running() }, StateFacts::default());
    let line = StateFacts { ready_line: true, ..StateFacts::default() };
    is("503 waiting for the ready line\n", "200 ok", Status { ready: false, ..running() }, line);
    let failures = Failures { runs: 6, within: Duration::from_secs(300) };
    let failing = StateFacts { failures, ..over };
    let why = "503 6 failed runs in 5 min\n";
    is(
        "200 ok",
        why,
        Status { flapping: true, ..running() },
        StateFacts { failures, ..StateFacts::default() },
    );
    is("503 not started yet\n", "503 not started yet\n", ended(None, 0), StateFacts::default());
    is("503 ended with success\n", "200 ok", ended(Reason::Success, 0), over);
    let why = "503 exited with code 3; 6 failed runs in 5 min\n";
    is(why, why, Status { flapping: true, ..ended(Reason::ExitCode, 3) }, failing);
}

#[test]
fn probes_name_the_cause_of_the_end() {
    let once = StateFacts {
        ended: Some(1),
        failures: Failures { runs: 1, ..Failures::default() },
        ..StateFacts::default()
    };
    for (reason, exit_code, signal, why) in [
        (Reason::ExitCode, 3, None, "exited with code 3"),
        (Reason::Signal, 137, Some(Signal::KILL), "killed by SIGKILL"),
        (Reason::CoreDump, 134, Some(Signal::ABRT), "killed by SIGABRT, core dumped"),
        (Reason::Timeout, 143, Some(Signal::TERM), "ended by its TTL"),
        (Reason::OomKill, 137, Some(Signal::KILL), "killed by the kernel: out of memory"),
        (Reason::ExecFailed, 127, None, "could not be executed, code 127"),
        (Reason::Watchdog, 1, None, "ended by its watchdog"),
    ] {
        let page = page(Status { signal, ..ended(reason, exit_code) }, once);
        assert_eq!(ask(&page, "/readyz"), format!("503 {why}\n"));
        assert_eq!(ask(&page, "/healthz"), format!("503 {why}\n"));
    }
}

#[test]
fn retry_after_does_not_depend_on_the_wall_clock() {
    let object = || Status { next_start: Some(at(1_005)), ..ended(Reason::ExitCode, 3) };
    let begin = now();
    for (millis_left, seconds) in [(5_000, "5"), (4_100, "5"), (4_000, "4"), (1, "1"), (0, "1")] {
        let next_start = Some(begin.mono + Duration::from_millis(millis_left));
        let page =
            page(object(), StateFacts { ended: Some(3), retry_at: next_start, ..StateFacts::default() });
        // The wall clock is behind, correct or ahead.
        for wall in [at(0), at(1_000), at(90_000)] {
            let why = format!("503 Retry-After: {seconds} restarting in {seconds} s: exited with code 3\n");
            assert_eq!(ask_at(Now { wall, ..begin }, &page, &get("/readyz")), why);
        }
    }
    // Once the next start is due, the value stays at one second.
    let page = page(object(), StateFacts { retry_at: Some(begin.mono), ..StateFacts::default() });
    let later = Now { mono: begin.mono + Duration::from_secs(9), ..begin };
    assert!(ask_at(later, &page, &get("/healthz")).starts_with("503 Retry-After: 1 "));
}

#[test]
fn verbose_probes_use_the_format_of_kubernetes() {
    let failures = Failures { runs: 4, within: Duration::from_secs(90) };
    let flapping =
        page(Status { flapping: true, ..running() }, StateFacts { failures, ..StateFacts::default() });
    assert_eq!(
        ask(&flapping, "/readyz?verbose"),
        "200 [+]running ok\n[+]stopping ok\n[+]ready ok\nreadyz check passed\n"
    );
    assert_eq!(
        ask(&flapping, "/healthz?x&verbose=1"),
        "503 [+]running ok\n[-]flapping failed: 4 failed runs in 90 s\nhealthz check failed\n"
    );
    assert_eq!(ask(&flapping, "/livez?verbose"), "200 [+]answering ok\nlivez check passed\n");
    let done = page(ended(Reason::Success, 0), StateFacts { ended: Some(0), ..StateFacts::default() });
    assert_eq!(ask(&done, "/healthz?verbose"), "200 [+]success ok\n[+]flapping ok\nhealthz check passed\n");
}

#[test]
fn watch_is_ready_and_healthy_while_a_process_matches() {
    let watched = || Status { mode: ModeName::Watch, ready: false, ..running() };
    let none = || Status { mode: ModeName::Watch, ..ended(None, 0) };
    for (objects, expected) in [
        (vec![none()], "503 no process matches\n"),
        (vec![watched()], "200 ok"),
        (vec![watched(), watched()], "200 ok"),
        (vec![none(), watched()], "503 no process matches sleep\n"),
    ] {
        let mut page = Page::new(0, true);
        page.update(&objects, StateFacts::default());
        assert_eq!(ask(&page, "/readyz"), expected);
        assert_eq!(ask(&page, "/healthz"), expected);
    }
}

#[test]
fn options_has_the_same_answer_on_every_path() {
    let page = page(running(), StateFacts::default());
    for path in ["*", "/", "/wait", "/events"] {
        let request = Request { method: Method::Options, path, ..GET };
        assert_eq!(ask_at(now(), &page, &request), "204 Allow: GET, HEAD, OPTIONS ");
    }
}

#[test]
fn wait_is_answered_at_the_end_of_the_run_or_timeout() {
    let now = now();
    let decide = |page: &Page, request: &Request<'_>| ask_at(now, page, request);
    let up = page(running(), StateFacts::default());
    let document = String::from_utf8_lossy(&up.document).into_owned();
    assert_eq!(decide(&up, &get("/wait")), "wait false");
    assert_eq!(decide(&up, &get("/wait?timeout=1%2E5s")), "wait true");
    assert_eq!(decide(&up, &get("/wait?timeout=18446744073709551615")), "wait false");
    assert_eq!(decide(&up, &get("/wait?timeout=0")), format!("200 {document}"));
    let again = |page: &Page, overdue| {
        let (mut out, counts) = (Out::new(), &mut Counts::default());
        let mut context = RequestContext {
            site: None,
            page,
            counts,
            argv0: "kapo",
            tail: None,
            history: None,
            measured: measured(),
            lacking: None,
            probed_at: None,
            needs_probes: false,
        };
        let next = context.again(now, overdue, Reply::new(&mut out, now, Method::Get, Persist::Open));
        let seen = String::from_utf8(out.bytes).unwrap();
        let code = seen.lines().find_map(|line| line.strip_prefix("Kapo-Exit-Code: ")).map(str::to_owned);
        (next, seen.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()), code, context.counts.total())
    };
    assert_eq!(again(&up, false), (Next::Wait(None), None, None, 0));
    assert_eq!(again(&up, true), (Next::Answered, Some(document), None, 1));
    let bad = "400 timeout is a number of seconds, such as 30, 0.5 or 500ms\n";
    for text in ["", "x", "-1", "1x", "1.2.3", "1m30", "NaN", "+1", ".", "s", "%00", "%FF"] {
        assert_eq!(decide(&up, &get(&format!("/wait?timeout={text}"))), bad, "{text}");
    }
    let over = page(ended(Reason::Timeout, 143), StateFacts { ended: Some(124), ..StateFacts::default() });
    let document = String::from_utf8_lossy(&over.document).into_owned();
    let fields = "Kapo-Exit-Code: 124 Kapo-Start-Time: 1970-01-01T00:15:00Z ";
    assert_eq!(decide(&over, &get("/wait?timeout=5")), format!("200 {fields}{document}"));
    assert_eq!(again(&over, false), (Next::Answered, Some(document), Some("124".to_owned()), 1));
}

#[test]
fn events_start_with_the_document_unless_it_is_known() {
    let mut page = Page::new(41, true);
    assert!(page.update(&[running()], StateFacts::default()));
    let json = String::from_utf8(page.document.trim_ascii().to_vec()).unwrap();
    let event = format!("id: 42\nevent: status\ndata: {json}\n\n");
    assert_eq!(page.event(), event.as_bytes());
    for (id, first) in [("", event.as_str()), ("41", &event), ("x", &event), ("42", ": nothing new\n\n")] {
        let request = Request { last_event_id: id, ..get("/events") };
        assert_eq!(ask_at(now(), &page, &request), format!("Events {first}"));
    }
    assert!(!page.update(&[running()], StateFacts::default()), "the document has not changed");
    assert!(page.update(&[Status { flapping: true, ..running() }], StateFacts::default()));
    assert!(page.event().starts_with(b"id: 43\n"));
}

#[test]
fn logs_are_one_answer_or_a_stream() {
    let page = page(running(), StateFacts::default());
    for (target, answer) in [
        ("/logs", "200 stdoutstderr"),
        ("/logs?stream=stderr", "200 stderr"),
        ("/logs?follow=1&stream=stdout", "Logs(Some(Stdout)) stdout"),
        ("/logs?follow", "Logs(None) stdoutstderr"),
        ("/logs?follow=0", "200 stdoutstderr"),
        ("/logs?stream=std%6fut&follow=%31", "Logs(Some(Stdout)) stdout"),
        ("/logs?stream=stdin", "400 stream is stdout or stderr\n"),
        ("/logs?follow=2", "400 follow is 1 or 0\n"),
    ] {
        assert_eq!(ask(&page, target), answer, "{target}");
    }
}

#[test]
fn logs_without_a_tail_are_not_found() {
    for (mode, says) in [
        (
            ModeName::Run,
            "404 no output is kept: start kapo with --stderr --tail 64K (--stdout for standard output)\n",
        ),
        (ModeName::Watch, "404 no output is kept: kapo watch cannot capture output\n"),
    ] {
        let page = page(Status { mode, ..running() }, StateFacts::default());
        let counts = &mut Counts::default();
        let context = RequestContext {
            site: None,
            page: &page,
            counts,
            argv0: "kapo",
            tail: None,
            history: None,
            measured: measured(),
            lacking: None,
            probed_at: None,
            needs_probes: false,
        };
        for target in ["/logs", "/logs?follow=1", "/logs?stream=stdout"] {
            assert_eq!(show(&context.decide(now(), Route::Logs, &get(target))), says, "{target}");
        }
    }
}

#[test]
fn head_is_answered_without_producing_the_body() {
    let page = page(running(), StateFacts::default());
    for (target, answer) in [
        ("/metrics", "head None"),
        ("/debug/vars", "head None"),
        ("/logs", "head Some(12)"),
        ("/logs?stream=stdout", "head Some(6)"),
        ("/logs?follow", "Logs(None) "),
        ("/events", "Events "),
    ] {
        let request = Request { method: Method::Head, ..get(target) };
        assert_eq!(ask_at(now(), &page, &request), answer, "{target}");
    }
}

#[test]
fn runs_are_shown_unless_history_is_0() {
    let page = page(running(), StateFacts::default());
    for (target, answer) in [
        ("/runs", "200 []\n"),
        ("/runs?", "200 []\n"),
        ("/runs?x", "400 /runs takes no parameters\n"),
        ("/runs/", "200"),
    ] {
        assert!(ask(&page, target).starts_with(answer), "{target}: {}", ask(&page, target));
    }
    let context = RequestContext {
        site: None,
        page: &page,
        counts: &mut Counts::default(),
        argv0: "kapo",
        tail: None,
        history: None,
        measured: measured(),
        lacking: None,
        probed_at: None,
        needs_probes: false,
    };
    let answer = context.decide(now(), Route::Runs, &get("/runs"));
    assert_eq!(show(&answer), "404 no runs are kept: start kapo without --history 0\n");
}

#[test]
fn only_metrics_vars_and_the_page_need_a_snapshot() {
    let page = page(running(), StateFacts::default());
    let lacking = |method, target: &str| {
        let mut context = RequestContext {
            site: None,
            page: &page,
            counts: &mut Counts::default(),
            argv0: "kapo",
            tail: None,
            history: None,
            measured: None,
            lacking: None,
            probed_at: None,
            needs_probes: false,
        };
        let request = Request { method, ..get(target) };
        let mut out = Out::new();
        let next = context.answer(now(), &request, Reply::new(&mut out, now(), method, Persist::Open));
        let sent = !out.bytes.is_empty();
        assert_eq!(next == Next::Lacking, context.lacking.is_some() && !sent && context.counts.total() == 0);
        context.lacking
    };
    for row in crate::logic::http::routes::ROUTES {
        let sources = match row.route {
            Route::Metrics => Some(Selection::ALL.sources()),
            Route::Vars => Some(Sources::VARS),
            // Without Accept-Encoding it is the plain page, which shows some metrics.
            Route::Ui => Some(super::ui::selection().sources()),
            _ => None,
        };
        assert_eq!(lacking(Method::Get, row.path), sources, "{}", row.path);
        assert_eq!(lacking(Method::Head, row.path), None, "{}", row.path);
    }
    assert_eq!(lacking(Method::Get, "/metrics?name[]=kapo_child_up"), Some(Sources::default()));
}

#[test]
fn metrics_have_the_requested_format() {
    let page = page(running(), StateFacts::default());
    let open = Request { accept: "application/openmetrics-text", ..get("/metrics") };
    assert!(ask_at(now(), &page, &open).ends_with("# EOF\n"));
    assert!(!ask(&page, "/metrics").contains("# EOF"));
}

/// Returns what a connection answers to these bytes, and the counters.
fn over_a_connection(page: &Page, bytes: &[u8]) -> (String, Counts) {
    use crate::logic::http::{conn::Conn, head_cache::HeadCache, response::Out};
    let mut counts = Counts::default();
    let mut context = RequestContext {
        site: None,
        page,
        counts: &mut counts,
        argv0: "kapo",
        tail: None,
        history: None,
        measured: measured(),
        lacking: None,
        probed_at: None,
        needs_probes: false,
    };
    let mut out = Out::new();
    Conn::new(now()).receive(now(), bytes, &mut HeadCache::default(), &mut context, &mut out);
    drop(context);
    (String::from_utf8(out.bytes).unwrap(), counts)
}

#[test]
fn each_sent_answer_is_counted_by_route_and_code() {
    let page = page(Status { ready: false, ..running() }, StateFacts::default());
    let mut expected = Counts::default();
    expected.answered(Route::Readyz, 503);
    expected.answered(Route::Logs, 404);
    expected.answered(Route::Other, 204);
    let requests = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\nHEAD /logs HTTP/1.1\r\nHost: x\r\n\r\n\
        OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\nGET /wait HTTP/1.1\r\nHost: x\r\n\r\n";
    let (text, counts) = over_a_connection(&page, requests);
    assert_eq!(counts, expected, "{text}");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 3, "the held request has no answer yet: {text}");
    assert!(text.contains("\r\n\r\nhas not said READY=1\n"), "{text}");
}

#[test]
fn head_of_events_gets_the_head_only() {
    let page = page(running(), StateFacts::default());
    let (get, _) = over_a_connection(&page, b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, _) = over_a_connection(&page, b"HEAD /events HTTP/1.1\r\nHost: x\r\n\r\n");
    let (fields, event) = get.split_at(get.find("\r\n\r\n").unwrap() + 4);
    assert_eq!(head, fields);
    let chunk = String::from_utf8(page.event()).unwrap();
    assert_eq!(event, format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    assert!(fields.contains("Content-Type: text/event-stream\r\n") && !fields.contains("Content-Length"));
}
