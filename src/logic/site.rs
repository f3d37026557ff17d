//! What each path answers, purely: a [`Page`] holds what changes with the state and is rendered when it changes, a
//! [`View`] adds what is needed at the moment of a request.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use super::http::response::Reply;
use super::http::routes::{Route, decoded, parameter};
use super::http::{Method, Next, Request, Site};
use super::metrics::{self, Counts, Format, Snapshot};
use super::status::{self, State, Status};
use super::{Now, Stream, calendar, vars};

/// The methods that are answered.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

/// What the state of the command (or of the watched processes) makes the probes and the document say. Rendered at
/// each change and shared by all connections.
#[derive(Debug)]
pub struct Page {
    document: Vec<u8>,
    id: u64,
    ready: Vec<Check>,
    health: Vec<Check>,
    ended: Option<u8>,
    next_start: Option<SystemTime>,
}

/// What the document does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The command is being ended: a stop signal, its TTL, its watchdog.
    pub stopping: bool,
    /// No run goes on: what `Kapo-Exit-Code` says (124 after a TTL). In watch mode: no process matches. Under
    /// `supervise` it must hold for at least one round of resumed connections after each end, however short the
    /// pause, or those who wait miss that end.
    pub ended: Option<u8>,
}

/// One line of `?verbose`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    failure: Option<String>,
}

impl Check {
    fn new(name: &'static str, failure: Option<String>) -> Check {
        Check { name, failure }
    }
}

impl Page {
    /// An empty page, which the first [`Page::update`] fills. Events count from `first`: the time of kapo's start
    /// in milliseconds keeps the numbers of an earlier kapo at the same address from being taken for ours.
    pub fn new(first: u64) -> Page {
        Page {
            document: Vec::new(),
            id: first,
            ready: Vec::new(),
            health: Vec::new(),
            ended: None,
            next_start: None,
        }
    }

    /// Renders anew. Says whether the document is another one, and then an event is due to those who listen; held
    /// requests are to be resumed after each update.
    pub fn update(&mut self, objects: &[Status], facts: Facts) -> bool {
        let document = status::render(objects);
        let changed = document != self.document;
        if changed {
            self.document = document;
            self.id = self.id.wrapping_add(1);
        }
        (self.ready, self.health) = checks(objects, facts);
        self.ended = facts.ended;
        self.next_start = objects.first().and_then(|object| object.next_start);
        changed
    }

    /// The document of now.
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// /readyz answers 200.
    pub fn is_ready(&self) -> bool {
        self.ready.iter().all(|check| check.failure.is_none())
    }

    /// The document as one Server-Sent Event, for those who listen on /events.
    pub fn event(&self) -> Vec<u8> {
        let json = self.document.trim_ascii_end();
        let mut event = format!("id: {}\nevent: status\ndata: ", self.id).into_bytes();
        event.extend_from_slice(json);
        event.extend_from_slice(b"\n\n");
        event
    }
}

/// The checks of /readyz and of /healthz.
fn checks(objects: &[Status], facts: Facts) -> (Vec<Check>, Vec<Check>) {
    let running = |object: &&Status| object.state == State::Running;
    let one = match objects {
        [one] if one.mode != "watch" => one,
        _ => {
            let failure = match objects.iter().find(running) {
                Some(_) => None,
                None => Some("no process matches".to_owned()),
            };
            let checks = vec![Check::new("running", failure)];
            return (checks.clone(), checks);
        }
    };
    let down = if running(&one) { None } else { Some(why_down(one)) };
    let success = down.is_some() && one.reason == "success";
    let flapping = one.flapping.then(|| "too many failed runs".to_owned());
    let health = vec![
        if success { Check::new("success", None) } else { Check::new("running", down.clone()) },
        Check::new("flapping", flapping),
    ];
    // The document's Ready is what counts; the checks say why it is what it is.
    let (up, unready) = (down.is_none(), !one.ready);
    let stopping = (up && unready && facts.stopping).then(|| "being stopped".to_owned());
    let silent = (up && unready && !facts.stopping).then(|| "has not said READY=1".to_owned());
    let ready =
        vec![Check::new("running", down), Check::new("stopping", stopping), Check::new("ready", silent)];
    (ready, health)
}

fn why_down(object: &Status) -> String {
    match object {
        Status { next_start: Some(next), .. } => format!("pausing until {}", calendar::rfc3339(*next)),
        Status { reason: "", .. } => "not started yet".to_owned(),
        Status { reason, exit_code, .. } => format!("ended: {reason}, exit code {exit_code}"),
    }
}

/// All that an answer may need. The driver makes one for a batch of requests and lends it to the connections.
pub struct View<'a> {
    /// See [`Page`].
    pub page: &'a Page,
    /// Where each answer is counted.
    pub counts: &'a mut Counts,
    /// kapo's own argv[0].
    pub argv0: &'a str,
    /// The last captured output, of one stream or of both; `None` without `--tail`.
    pub tail: Option<&'a dyn Fn(Option<Stream>) -> Vec<u8>>,
    /// Takes a snapshot; called for /metrics and /debug/vars only.
    pub sample: &'a mut dyn FnMut() -> Snapshot,
}

/// What [`View::decide`] decided.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Whole {
        code: u16,
        content_type: &'static str,
        extra: Option<(&'static str, String)>,
        body: Cow<'a, [u8]>,
    },
    Stream {
        next: Next,
        content_type: &'static str,
        first: Vec<u8>,
    },
    Wait(Option<Instant>),
}

fn whole<'a>(code: u16, content_type: &'static str, body: impl Into<Cow<'a, [u8]>>) -> Answer<'a> {
    Answer::Whole { code, content_type, extra: None, body: body.into() }
}

fn refuse(reason: &'static str) -> Answer<'static> {
    whole(400, TEXT, reason.as_bytes())
}

impl Site for View<'_> {
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        let route = Route::of(request.path, self.tail.is_some());
        let (code, next) = match self.decide(now, route, request) {
            Answer::Wait(until) => return Next::Wait(until),
            Answer::Whole { code, content_type, extra, body } => {
                match &extra {
                    Some((name, value)) => reply.send(code, content_type, &[(*name, value.as_str())], &body),
                    None => reply.send(code, content_type, &[], &body),
                }
                (code, Next::Answered)
            }
            Answer::Stream { next, content_type, first } => {
                // With HEAD the reply leaves the content out, and the connection ends after the head.
                reply.stream(content_type, &[], &first);
                (200, next)
            }
        };
        self.counts.answered(route, code);
        next
    }
}

impl View<'_> {
    fn decide(&mut self, now: Now, route: Route, request: &Request<'_>) -> Answer<'_> {
        if request.method == Method::Options {
            return Answer::Whole {
                code: 204,
                content_type: "",
                extra: Some(("Allow", ALLOW.to_owned())),
                body: Cow::Borrowed(&[]),
            };
        }
        let page = self.page;
        match route {
            Route::Document | Route::Other => whole(200, JSON, &page.document),
            Route::Livez => probe("livez", &[Check::new("answering", None)], None, request.query),
            Route::Readyz => probe("readyz", &page.ready, retry_after(page, now), request.query),
            Route::Healthz => probe("healthz", &page.health, retry_after(page, now), request.query),
            Route::Metrics => {
                let format = Format::accepted(request.accept);
                let snapshot = (self.sample)();
                whole(200, format.content_type(), metrics::render(format, &snapshot, self.counts))
            }
            Route::Vars => {
                let snapshot = (self.sample)();
                whole(200, JSON, vars::render(self.argv0, now, &snapshot, self.counts))
            }
            Route::Wait => wait(page, now, request),
            Route::Logs => self.logs(request.query),
            Route::Events => events(page, request.last_event_id),
        }
    }

    fn logs(&self, query: Option<&str>) -> Answer<'static> {
        let stream = match parameter(query, "stream") {
            None | Some("") => None,
            Some("stdout") => Some(Stream::Stdout),
            Some("stderr") => Some(Stream::Stderr),
            Some(_) => return refuse("stream is stdout or stderr\n"),
        };
        let follow = match parameter(query, "follow") {
            Some("" | "1" | "true") => true,
            None | Some("0" | "false") => false,
            Some(_) => return refuse("follow is 1 or 0\n"),
        };
        let contents = self.tail.map(|tail| tail(stream)).unwrap_or_default();
        match follow {
            true => Answer::Stream { next: Next::Logs(stream), content_type: TEXT, first: contents },
            false => whole(200, TEXT, contents),
        }
    }
}

/// 200 `ok` when no check fails, else 503 and why; with `?verbose` a line a check, in the words of Kubernetes.
fn probe(name: &str, checks: &[Check], retry: Option<String>, query: Option<&str>) -> Answer<'static> {
    let failure = checks.iter().find_map(|check| check.failure.as_ref());
    let body = if parameter(query, "verbose").is_some() {
        let mut text = String::new();
        for check in checks {
            match &check.failure {
                None => text.extend(["[+]", check.name, " ok\n"]),
                Some(failure) => text.extend(["[-]", check.name, " failed: ", failure, "\n"]),
            }
        }
        text.extend([name, if failure.is_none() { " check passed\n" } else { " check failed\n" }]);
        text
    } else {
        match failure {
            None => "ok".to_owned(),
            Some(failure) => format!("{failure}\n"),
        }
    };
    let code = if failure.is_none() { 200 } else { 503 };
    let extra = retry.filter(|_| code == 503).map(|seconds| ("Retry-After", seconds));
    Answer::Whole { code, content_type: TEXT, extra, body: body.into_bytes().into() }
}

/// Whole seconds to the next start, at least one (RFC 9110, 10.2.3).
fn retry_after(page: &Page, now: Now) -> Option<String> {
    let left = page.next_start?.duration_since(now.wall).unwrap_or_default();
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    Some(seconds.max(1).to_string())
}

/// Once the run has ended, the document and the code; when the time has passed, the document alone. A request that is
/// asked again gets a later moment than before: whoever holds it keeps the first.
fn wait<'a>(page: &'a Page, now: Now, request: &Request<'_>) -> Answer<'a> {
    let timeout = match parameter(request.query, "timeout").map(seconds) {
        None => None,
        Some(Some(timeout)) => Some(timeout),
        Some(None) => return refuse("timeout is a number of seconds, such as 30, 0.5 or 500ms\n"),
    };
    let extra = match page.ended {
        Some(code) => Some(("Kapo-Exit-Code", code.to_string())),
        None if request.overdue || timeout == Some(Duration::ZERO) => None,
        // A moment beyond the clock's range is never.
        None => return Answer::Wait(timeout.and_then(|timeout| now.mono.checked_add(timeout))),
    };
    Answer::Whole { code: 200, content_type: JSON, extra, body: Cow::Borrowed(&page.document) }
}

fn events(page: &Page, last_event_id: &str) -> Answer<'static> {
    let known = last_event_id.parse() == Ok(page.id);
    let first = if known { b": nothing new\n\n".to_vec() } else { page.event() };
    Answer::Stream { next: Next::Events, content_type: EVENT_STREAM, first }
}

/// A duration as the command line takes it: `30`, `0.5`, `500ms`, `1m30s`.
fn seconds(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 4] =
        [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];
    let text = String::from_utf8(decoded(text).collect()).ok()?;
    let mut rest = text.as_str();
    let mut total = Duration::ZERO;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        // Only a number that stands alone may lack its unit.
        let nanos = match unit {
            "" if number.len() == text.len() => 1_000_000_000,
            _ => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        total = total.saturating_add(scaled(number, nanos)?);
        rest = tail;
    }
    Some(total)
}

/// A decimal number of units of so many nanoseconds; what is too long is the longest.
fn scaled(number: &str, nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().unwrap_or(u64::MAX) };
    // Nine decimals are more than a clock shows.
    let fraction = format!("{fraction:0<9}").get(..9)?.parse::<u64>().ok()?;
    let all =
        u128::from(whole) * u128::from(nanos) + u128::from(fraction) * u128::from(nanos) / 1_000_000_000;
    let seconds = u64::try_from(all / 1_000_000_000).unwrap_or(u64::MAX);
    Some(Duration::new(seconds, u32::try_from(all % 1_000_000_000).ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::logic::Pid;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some moment to begin with")]
    fn now() -> Now {
        Now { mono: Instant::now(), wall: at(1_000) }
    }

    /// A command that runs and is ready; tests change what they are about.
    fn running() -> Status {
        Status {
            arguments: None,
            command: "sleep".to_owned(),
            end_time: None,
            exit_code: 0,
            mode: "supervise",
            sidebind_port: 0,
            start_time: Some(at(900)),
            state: State::Running,
            ttl: None,
            wait: None,
            pid: Pid::new(7),
            reason: "",
            signal: None,
            restarts: 0,
            ready: true,
            flapping: false,
            next_start: None,
            expires_at: None,
            stop_signal_from: None,
            usage: crate::logic::Usage::default(),
            status_text: String::new(),
            last_output: Vec::new(),
            output: None,
        }
    }

    fn ended(reason: &'static str, exit_code: u8) -> Status {
        Status { state: State::Stopped, ready: false, pid: None, reason, exit_code, ..running() }
    }

    fn page(object: Status, facts: Facts) -> Page {
        let mut page = Page::new(0);
        page.update(&[object], facts);
        page
    }

    const GET: Request<'static> = Request {
        method: Method::Get,
        path: "/",
        query: None,
        accept: "",
        last_event_id: "",
        overdue: false,
    };

    /// The path may carry a query.
    fn asked<'a>(target: &'a str) -> Request<'a> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Request { path, query, ..GET }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            started: at(500),
            up: true,
            ready: true,
            start_time: None,
            starts: None,
            exits: None,
            last_exit_code: None,
            flapping: None,
            oom_kills: None,
            orphans_reaped: None,
            output: [None, None],
            connections: 1,
            tree: None,
            own: None,
        }
    }

    /// An answer, owned, as a short text: code, extra field, body.
    fn told(answer: &Answer<'_>) -> String {
        match answer {
            Answer::Whole { code, extra, body, .. } => {
                let extra =
                    extra.as_ref().map(|(name, value)| format!("{name}: {value} ")).unwrap_or_default();
                format!("{code} {extra}{}", String::from_utf8_lossy(body))
            }
            Answer::Stream { next, first, .. } => format!("{next:?} {}", String::from_utf8_lossy(first)),
            Answer::Wait(until) => format!("wait {}", until.is_some()),
        }
    }

    /// What is told to a request; the tail holds the name of the stream that is asked for, or `both`.
    fn ask_at(now: Now, page: &Page, request: &Request<'_>) -> String {
        let tail = |stream: Option<Stream>| stream.map_or("both", Stream::name).as_bytes().to_vec();
        let mut view = View {
            page,
            counts: &mut Counts::default(),
            argv0: "kapo",
            tail: Some(&tail),
            sample: &mut snapshot,
        };
        told(&view.decide(now, Route::of(request.path, true), request))
    }

    fn ask(page: &Page, target: &str) -> String {
        ask_at(now(), page, &asked(target))
    }

    #[test]
    fn any_path_gives_the_document() {
        let page = page(running(), Facts::default());
        let document = format!("200 {}", String::from_utf8_lossy(page.document()));
        assert!(document.contains(r#""Command":"sleep""#));
        for path in ["/", "/any/other?x=y", "/livez/", ""] {
            assert_eq!(ask(&page, path), document, "{path}");
        }
    }

    #[test]
    fn probes_tell_whether_and_why_not() {
        let is = |ready: &str, health: &str, object: Status, facts: Facts| {
            let page = page(object, facts);
            assert_eq!(ask(&page, "/livez"), "200 ok");
            assert_eq!((ask(&page, "/readyz").as_str(), ask(&page, "/healthz").as_str()), (ready, health));
            assert_eq!(page.is_ready(), ready == "200 ok");
        };
        let stopping = Facts { stopping: true, ended: None };
        let over = Facts { stopping: false, ended: Some(3) };
        is("200 ok", "200 ok", running(), Facts::default());
        is("503 being stopped\n", "200 ok", Status { ready: false, ..running() }, stopping);
        is("503 has not said READY=1\n", "200 ok", Status { ready: false, ..running() }, Facts::default());
        is("200 ok", "503 too many failed runs\n", Status { flapping: true, ..running() }, Facts::default());
        is("503 not started yet\n", "503 not started yet\n", ended("", 0), Facts::default());
        is("503 ended: success, exit code 0\n", "200 ok", ended("success", 0), over);
        let why = "503 ended: exit-code, exit code 3\n";
        is(why, why, ended("exit-code", 3), over);
        let pausing = |next| Status { next_start: Some(next), ..ended("exit-code", 3) };
        let why = "503 Retry-After: 5 pausing until 1970-01-01T00:16:45Z\n";
        is(why, why, pausing(at(1_005)), over);
        let why = "503 Retry-After: 5 pausing until 1970-01-01T00:16:44.1Z\n";
        is(why, why, pausing(at(1_004) + Duration::from_millis(100)), over);
        let why = "503 Retry-After: 1 pausing until 1970-01-01T00:15:00Z\n";
        is(why, why, pausing(at(900)), over);
    }

    #[test]
    fn verbose_probes_speak_as_kubernetes_does() {
        let flapping = page(Status { flapping: true, ..running() }, Facts::default());
        assert_eq!(
            ask(&flapping, "/readyz?verbose"),
            "200 [+]running ok\n[+]stopping ok\n[+]ready ok\nreadyz check passed\n"
        );
        assert_eq!(
            ask(&flapping, "/healthz?x&verbose=1"),
            "503 [+]running ok\n[-]flapping failed: too many failed runs\nhealthz check failed\n"
        );
        assert_eq!(ask(&flapping, "/livez?verbose"), "200 [+]answering ok\nlivez check passed\n");
        let done = page(ended("success", 0), Facts { stopping: false, ended: Some(0) });
        assert_eq!(
            ask(&done, "/healthz?verbose"),
            "200 [+]success ok\n[+]flapping ok\nhealthz check passed\n"
        );
    }

    #[test]
    fn a_watcher_is_ready_and_healthy_while_anything_matches() {
        let watched = || Status { mode: "watch", ready: false, ..running() };
        let none = || Status { mode: "watch", ..ended("", 0) };
        for (objects, expected) in [
            (vec![none()], "503 no process matches\n"),
            (vec![watched()], "200 ok"),
            (vec![none(), watched()], "200 ok"),
        ] {
            let mut page = Page::new(0);
            page.update(&objects, Facts::default());
            assert_eq!(ask(&page, "/readyz"), expected);
            assert_eq!(ask(&page, "/healthz"), expected);
        }
    }

    #[test]
    fn options_are_answered_alike_everywhere() {
        let page = page(running(), Facts::default());
        for path in ["*", "/", "/wait", "/events"] {
            let request = Request { method: Method::Options, path, ..GET };
            assert_eq!(ask_at(now(), &page, &request), "204 Allow: GET, HEAD, OPTIONS ");
        }
    }

    #[test]
    fn waiting_ends_with_the_run_or_with_its_time() {
        let now = now();
        let decide = |page: &Page, request: &Request<'_>| ask_at(now, page, request);
        let up = page(running(), Facts::default());
        let document = String::from_utf8_lossy(up.document()).into_owned();
        assert_eq!(decide(&up, &asked("/wait")), "wait false");
        assert_eq!(decide(&up, &asked("/wait?timeout=1%2E5s")), "wait true");
        assert_eq!(decide(&up, &asked("/wait?timeout=18446744073709551615")), "wait false");
        assert_eq!(decide(&up, &asked("/wait?timeout=0")), format!("200 {document}"));
        assert_eq!(
            decide(&up, &Request { overdue: true, ..asked("/wait?timeout=5") }),
            format!("200 {document}")
        );
        let bad = "400 timeout is a number of seconds, such as 30, 0.5 or 500ms\n";
        for text in ["", "x", "-1", "1x", "1.2.3", "1m30", "NaN", "+1", ".", "s", "%00", "%FF"] {
            assert_eq!(decide(&up, &asked(&format!("/wait?timeout={text}"))), bad, "{text}");
        }
        let over = page(ended("timeout", 143), Facts { stopping: false, ended: Some(124) });
        let document = String::from_utf8_lossy(over.document()).into_owned();
        assert_eq!(decide(&over, &asked("/wait?timeout=5")), format!("200 Kapo-Exit-Code: 124 {document}"));
    }

    #[test]
    fn the_time_to_wait_is_read_as_on_the_command_line() {
        for (text, millis) in [
            ("30", 30_000),
            ("0.5", 500),
            (".5", 500),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("6h", 21_600_000),
            ("0.25m", 15_000),
            ("1.0000000009", 1_000),
        ] {
            assert_eq!(seconds(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(
            seconds("99999999999999999999h"),
            seconds("18446744073709551615h"),
            "too long is the longest"
        );
        assert!(seconds("99999999999999999999").is_some_and(|long| long.as_secs() == u64::MAX));
    }

    #[test]
    fn events_begin_with_the_document_unless_it_is_known() {
        let mut page = Page::new(41);
        assert!(page.update(&[running()], Facts::default()));
        let json = String::from_utf8(page.document().trim_ascii().to_vec()).unwrap();
        let event = format!("id: 42\nevent: status\ndata: {json}\n\n");
        assert_eq!(page.event(), event.as_bytes());
        for (id, first) in [("", event.as_str()), ("41", &event), ("x", &event), ("42", ": nothing new\n\n")]
        {
            let request = Request { last_event_id: id, ..asked("/events") };
            assert_eq!(ask_at(now(), &page, &request), format!("Events {first}"));
        }
        assert!(!page.update(&[running()], Facts::default()), "nothing has changed");
        assert!(page.update(&[Status { flapping: true, ..running() }], Facts::default()));
        assert!(page.event().starts_with(b"id: 43\n"));
    }

    #[test]
    fn logs_come_whole_or_as_a_stream() {
        let page = page(running(), Facts::default());
        for (target, answer) in [
            ("/logs", "200 both"),
            ("/logs?stream=stderr", "200 stderr"),
            ("/logs?follow=1&stream=stdout", "Logs(Some(Stdout)) stdout"),
            ("/logs?follow", "Logs(None) both"),
            ("/logs?follow=0", "200 both"),
            ("/logs?stream=stdin", "400 stream is stdout or stderr\n"),
            ("/logs?follow=2", "400 follow is 1 or 0\n"),
        ] {
            assert_eq!(ask(&page, target), answer, "{target}");
        }
    }

    #[test]
    fn a_snapshot_is_taken_for_metrics_and_vars_alone() {
        let page = page(running(), Facts::default());
        for row in super::super::http::routes::ROUTES {
            let mut taken = 0;
            let mut sample = || {
                taken += 1;
                snapshot()
            };
            let mut view = View {
                page: &page,
                counts: &mut Counts::default(),
                argv0: "kapo",
                tail: None,
                sample: &mut sample,
            };
            let _ = view.decide(now(), row.route, &asked(row.path));
            assert_eq!(taken, u32::from(matches!(row.route, Route::Metrics | Route::Vars)), "{}", row.path);
        }
    }

    #[test]
    fn metrics_come_in_the_format_that_is_asked_for() {
        let page = page(running(), Facts::default());
        let open = Request { accept: "application/openmetrics-text", ..asked("/metrics") };
        assert!(ask_at(now(), &page, &open).ends_with("# EOF\n"));
        assert!(!ask(&page, "/metrics").contains("# EOF"));
    }
}
