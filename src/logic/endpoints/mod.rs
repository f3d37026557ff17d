//! The answer of each path, without input or output. A [`Page`] is rendered for each state that a client asks for; a
//! [`RequestContext`] adds what is known only at the time of a request.

mod checks;
pub(crate) mod ui;

use std::borrow::Cow;
use std::cell::RefMut;
use std::time::{Duration, Instant, SystemTime};

use self::checks::{ProbeCheck, checks};
use crate::logic::history::History;
use crate::logic::http::query::{decoded, parameter, seconds};
use crate::logic::http::request::ALLOW;
use crate::logic::http::response::Reply;
use crate::logic::http::routes::Route;
use crate::logic::http::{Handler, Method, Next, Request};
use crate::logic::log::timestamp;
use crate::logic::metrics;
use crate::logic::metrics::{Counts, Format, Measured, Selection, Snapshot, Sources};
use crate::logic::output::tail::Tail;
use crate::logic::restart::Failures;
use crate::logic::status;
use crate::logic::status::{ModeName, Status};
use crate::logic::{Now, Stream, vars};

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
/// The document at `/`, where a browser gets a page instead. The three fields of the request that decide are not named,
/// because no cache may keep the answer, and their names would make it 49 bytes longer.
pub(crate) const JSON_OR_PAGE: &str = "application/json\r\nVary: *";
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// The document and the probes for the current state of the command or of the watched processes. Shared by
/// all connections.
#[derive(Debug)]
pub(crate) struct Page {
    document: Vec<u8>,
    id: u64,
    ready: Vec<ProbeCheck>,
    health: Vec<ProbeCheck>,
    startup: Vec<ProbeCheck>,
    ended: Option<u8>,
    /// StartTime of the first object of the document.
    start_time: Option<SystemTime>,
    retry_at: Option<Instant>,
    /// The answer of /logs without `--tail`.
    no_output: &'static str,
    /// Whether browsers get a page; false with `--no-ui`.
    ui: bool,
}

/// An answer with more captured output than this is served after smaller ones, because each 64 KiB cost as much time as
/// a probe.
const LARGE: usize = 64 * 1024;

/// The answer of /logs without `--tail` for a command of kapo.
const NO_OUTPUT: &str =
    "no output is kept: start kapo with --stderr --tail 64K (--stdout for standard output)\n";

/// The answer of /logs in watch mode, in which output cannot be captured.
const NO_OUTPUT_OF_OTHERS: &str = "no output is kept: kapo watch cannot capture output\n";

/// The answer of /runs with `--history 0`.
const NO_HISTORY: &str = "no runs are kept: start kapo without --history 0\n";

/// The facts that the document does not contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateFacts {
    /// The command is being stopped, because of a stop signal, its TTL or its watchdog.
    pub stopping: bool,
    /// The exit code for `Kapo-Exit-Code` while no run is active (124 after a TTL); in watch mode it is set while no
    /// process matches. Under `supervise` it must be set for at least one round of [`Handler::again`] after each run,
    /// however short the pause is, because held requests would miss the end otherwise.
    pub ended: Option<u8>,
    /// When the pause before the next run or the drain ends, by the monotonic clock.
    pub retry_at: Option<Instant>,
    /// The failed runs within `--within`.
    pub failures: Failures,
    /// Whether the command is ready when its output contains the text of `--ready-line`, not after READY=1.
    pub ready_line: bool,
    /// The command has been ready in this run.
    pub started: bool,
}

impl Page {
    /// Returns an empty page, which the first [`Page::update`] fills. Event ids count from `first`. It is the start
    /// time of kapo in microseconds, so that ids of an earlier instance at the same address are not mistaken for ours.
    pub(crate) fn new(first: u64, ui: bool) -> Page {
        Page {
            document: Vec::new(),
            id: first,
            ready: Vec::new(),
            health: Vec::new(),
            startup: Vec::new(),
            ended: None,
            start_time: None,
            retry_at: None,
            no_output: NO_OUTPUT,
            ui,
        }
    }

    /// Renders the page. Returns whether the document has changed and an event must be sent; held requests must be
    /// resumed after each update.
    pub(crate) fn update(&mut self, objects: &[Status], facts: StateFacts) -> bool {
        let document = status::render(objects);
        let changed = document != self.document;
        if changed {
            self.document = document;
            self.id = self.id.wrapping_add(1);
        }
        [self.ready, self.health, self.startup] = checks(objects, facts);
        self.ended = facts.ended;
        self.start_time = objects.first().and_then(|object| object.start_time);
        self.retry_at = facts.retry_at;
        let watches = objects.first().is_some_and(|object| object.mode == ModeName::Watch);
        self.no_output = if watches { NO_OUTPUT_OF_OTHERS } else { NO_OUTPUT };
        changed
    }

    /// Returns the document as one Server-Sent Event for /events.
    pub(crate) fn event(&self) -> Vec<u8> {
        let json = self.document.trim_ascii_end();
        let mut event = format!("id: {}\nevent: status\ndata: ", self.id).into_bytes();
        event.extend_from_slice(json);
        event.extend_from_slice(b"\n\n");
        event
    }
}

/// The data that an answer may need. The driver lends it to a connection for each call.
pub(crate) struct RequestContext<'a> {
    /// Answers instead of these endpoints, in a mode with paths of its own.
    pub site: Option<RefMut<'a, dyn Handler + 'static>>,
    /// The rendered page.
    pub page: &'a Page,
    /// The counters of answers.
    pub counts: &'a mut Counts,
    /// The name of kapo, `argv[0]`.
    pub argv0: &'a str,
    /// The last captured output of one stream or of both; `None` without `--tail`.
    pub tail: Option<&'a Tail>,
    /// The runs that have ended; `None` with `--history 0`.
    pub history: Option<&'a History>,
    /// The snapshot of this turn, if one was taken.
    pub measured: Option<Box<Measured>>,
    /// Set if a request was not answered ([`Next::Lacking`]): the sources that must be read for it.
    pub lacking: Option<Sources>,
    /// When requests that need the results of probes must be answered; `None`: now.
    pub probed_at: Option<Instant>,
    /// Set if a request waits for these results.
    pub needs_probes: bool,
}

/// The result of [`RequestContext::decide`].
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Whole {
        code: u16,
        content_type: &'static str,
        extra: Vec<(&'static str, String)>,
        body: Cow<'a, [u8]>,
    },
    /// An answer to HEAD whose body is not produced, with its length if that is known.
    Head {
        content_type: &'static str,
        length: Option<usize>,
    },
    Stream {
        next: Next,
        content_type: &'static str,
        first: Vec<u8>,
    },
    Wait(Option<Instant>),
    Lacking(Sources),
    Await(Instant),
}

fn whole<'a>(code: u16, content_type: &'static str, body: impl Into<Cow<'a, [u8]>>) -> Answer<'a> {
    Answer::Whole { code, content_type, extra: Vec::new(), body: body.into() }
}

fn refuse(reason: &'static str) -> Answer<'static> {
    whole(400, TEXT, reason.as_bytes())
}

impl Handler for RequestContext<'_> {
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        if let Some(site) = &mut self.site {
            let next = site.answer(now, request, reply);
            if !matches!(next, Next::Await(_)) {
                // Counts the request, so that the loop frees memory afterwards.
                self.counts.answered(Route::Other, 200);
            }
            return next;
        }
        let route = match Route::of(request.path) {
            Route::Ui if !self.page.ui => Route::Other,
            route => route,
        };
        let answer = self.decide(now, route, request);
        let lacking = match answer {
            Answer::Lacking(sources) => Some(sources),
            _ => None,
        };
        let (code, next) = send(answer, reply);
        self.lacking = lacking;
        self.needs_probes |= matches!(next, Next::Await(_));
        self.count(route, code);
        next
    }

    fn again(&mut self, now: Now, overdue: bool, reply: Reply<'_>) -> Next {
        // The timeout was fixed at the first call, and the connection keeps the deadline.
        let timeout = overdue.then_some(Duration::ZERO);
        let (code, next) = send(wait(self.page, now, timeout), reply);
        self.count(Route::Wait, code);
        next
    }

    fn is_costly(&self, request: &Request<'_>) -> bool {
        let large = self.tail.is_some_and(|tail| tail.length(None) > LARGE);
        large && request.method == Method::Get && Route::of(request.path) == Route::Logs
    }

    fn overdue(&mut self) {
        match &mut self.site {
            Some(site) => site.overdue(),
            None => self.probed_at = None,
        }
    }

    fn refused(&mut self, status: u16) {
        self.counts.refused(status);
    }
}

/// Sends an answer; returns its status code if one was sent.
fn send(answer: Answer<'_>, reply: Reply<'_>) -> (Option<u16>, Next) {
    match answer {
        Answer::Wait(until) => (None, Next::Wait(until)),
        Answer::Lacking(_) => (None, Next::Lacking),
        Answer::Await(until) => (None, Next::Await(until)),
        Answer::Whole { code, content_type, extra, body } => {
            reply.send(code, content_type, &extra, &body);
            (Some(code), Next::Answered)
        }
        Answer::Head { content_type, length } => {
            reply.send_head(200, content_type, length);
            (Some(200), Next::Answered)
        }
        Answer::Stream { next, content_type, first } => {
            // The answer to HEAD ends with the head.
            reply.stream(content_type, &first);
            (Some(200), next)
        }
    }
}

impl RequestContext<'_> {
    fn count(&mut self, route: Route, code: Option<u16>) {
        if let Some(code) = code {
            self.counts.answered(route, code);
        }
    }

    fn snapshot(&self, sources: Sources) -> Result<&Snapshot, Answer<'static>> {
        let known = self.measured.as_ref().and_then(|measured| measured.with(sources));
        known.ok_or(Answer::Lacking(sources))
    }

    fn decide(&self, now: Now, route: Route, request: &Request<'_>) -> Answer<'_> {
        if request.method == Method::Options {
            return Answer::Whole {
                code: 204,
                content_type: "",
                extra: vec![("Allow", ALLOW.to_owned())],
                body: Cow::Borrowed(&[]),
            };
        }
        let page = self.page;
        let head = request.method == Method::Head;
        let html = match route {
            Route::Document => page.ui && ui::is_browser(request),
            route => route == Route::Ui,
        };
        // The stored page has no state in it, so it does not wait for probes.
        if html && ui::takes_stored(request) {
            return ui::stored();
        }
        if let Some(until) = self.probed_at
            && needs_probes(route, request.query)
        {
            return Answer::Await(until);
        }
        match route {
            Route::Document if page.ui && !html => whole(200, JSON_OR_PAGE, &page.document),
            Route::Ui | Route::Document if html => self.plain(now, head),
            Route::Document | Route::Ui | Route::Other => whole(200, JSON, &page.document),
            Route::Runs if request.query.is_some_and(|query| !query.is_empty()) => {
                refuse("/runs takes no parameters\n")
            }
            Route::Runs => match self.history {
                Some(_) if head => Answer::Head { content_type: JSON, length: None },
                Some(history) => whole(200, JSON, history.render()),
                None => whole(404, TEXT, NO_HISTORY.as_bytes()),
            },
            Route::Livez => probe("livez", &[ProbeCheck::new("answering", None)], None, request.query),
            Route::Readyz => probe("readyz", &page.ready, retry_after(page, now), request.query),
            Route::Healthz => probe("healthz", &page.health, retry_after(page, now), request.query),
            Route::Startupz => probe("startupz", &page.startup, retry_after(page, now), request.query),
            Route::Metrics => {
                let format = Format::accepted(request.accept);
                if head {
                    return Answer::Head { content_type: format.content_type(), length: None };
                }
                let selection = Selection::of(request.query);
                match self.snapshot(selection.sources()) {
                    Ok(snapshot) => {
                        let page = metrics::render(format, selection, snapshot, self.counts);
                        whole(200, format.content_type(), page)
                    }
                    Err(lacking) => lacking,
                }
            }
            Route::Vars if head => Answer::Head { content_type: JSON, length: None },
            Route::Vars => match self.snapshot(Sources::VARS) {
                Ok(snapshot) => whole(200, JSON, vars::render(self.argv0, now, snapshot, self.counts)),
                Err(lacking) => lacking,
            },
            Route::Wait => match parameter(request.query, "timeout").map(seconds) {
                None => wait(page, now, None),
                Some(Some(timeout)) => wait(page, now, Some(timeout)),
                Some(None) => refuse("timeout is a number of seconds, such as 30, 0.5 or 500ms\n"),
            },
            Route::Logs => self.logs(head, request.query),
            Route::Events if head => {
                Answer::Stream { next: Next::Events, content_type: EVENT_STREAM, first: Vec::new() }
            }
            Route::Events => events(page, request.last_event_id),
        }
    }

    fn logs(&self, head: bool, query: Option<&str>) -> Answer<'static> {
        let Some(tail) = self.tail else { return whole(404, TEXT, self.page.no_output.as_bytes()) };
        let value = |name| parameter(query, name).map(|text| decoded(text).collect::<Vec<u8>>());
        let stream = match value("stream").as_deref() {
            None | Some(b"") => None,
            Some(b"stdout") => Some(Stream::Stdout),
            Some(b"stderr") => Some(Stream::Stderr),
            Some(_) => return refuse("stream is stdout or stderr\n"),
        };
        let follow = match value("follow").as_deref() {
            Some(b"" | b"1" | b"true") => true,
            None | Some(b"0" | b"false") => false,
            Some(_) => return refuse("follow is 1 or 0\n"),
        };
        let contents = || tail.contents(stream);
        match (follow, head) {
            (true, true) => {
                Answer::Stream { next: Next::Logs(stream), content_type: TEXT, first: Vec::new() }
            }
            (true, false) => {
                Answer::Stream { next: Next::Logs(stream), content_type: TEXT, first: contents() }
            }
            (false, true) => Answer::Head { content_type: TEXT, length: Some(tail.length(stream)) },
            (false, false) => whole(200, TEXT, contents()),
        }
    }
}

/// Whether the answer shows results of probes.
fn needs_probes(route: Route, query: Option<&str>) -> bool {
    match route {
        Route::Document
        | Route::Ui
        | Route::Other
        | Route::Readyz
        | Route::Healthz
        | Route::Startupz
        | Route::Events => true,
        Route::Metrics => Selection::of(query).sources().probes,
        Route::Runs | Route::Livez | Route::Vars | Route::Wait | Route::Logs => false,
    }
}

/// Answers a probe with 200 `ok` if all checks pass, otherwise with 503 and the reason. With `?verbose` each check has
/// a line in the format of Kubernetes. `retry` is the time in seconds until the next start.
fn probe(name: &str, checks: &[ProbeCheck], retry: Option<String>, query: Option<&str>) -> Answer<'static> {
    let shown = |check: &ProbeCheck| check.shown(retry.as_deref());
    let failure = first_failure(checks, retry.as_deref());
    let body: Cow<'_, [u8]> = if parameter(query, "verbose").is_some() {
        let mut text = String::new();
        for check in checks {
            match shown(check) {
                None => text.extend(["[+]", check.name, " ok\n"]),
                Some(failure) => text.extend(["[-]", check.name, " failed: ", &failure, "\n"]),
            }
        }
        text.extend([name, if failure.is_none() { " check passed\n" } else { " check failed\n" }]);
        text.into_bytes().into()
    } else {
        match &failure {
            None => Cow::Borrowed(b"ok"),
            Some(failure) => format!("{failure}\n").into_bytes().into(),
        }
    };
    let code = if failure.is_none() { 200 } else { 503 };
    let retry = retry.filter(|_| code == 503).map(|seconds| ("Retry-After", seconds));
    let extra = retry.into_iter().collect();
    Answer::Whole { code, content_type: TEXT, extra, body }
}

/// Returns what a failing probe answers without `?verbose`.
fn first_failure(checks: &[ProbeCheck], retry: Option<&str>) -> Option<String> {
    checks.iter().find_map(|check| check.shown(retry))
}

/// Returns the seconds until the next start or the end of the drain, rounded up to at least one (RFC 9110, section 10.2.3).
fn retry_after(page: &Page, now: Now) -> Option<String> {
    let left = page.retry_at?.saturating_duration_since(now.mono);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    Some(seconds.max(1).to_string())
}

/// Answers /wait. After the end of the run, the answer has the document, the exit code and the start time of the run.
/// After the timeout, it has only the document.
fn wait(page: &Page, now: Now, timeout: Option<Duration>) -> Answer<'_> {
    let extra = match page.ended {
        Some(code) => {
            let start = page.start_time.map(|at| ("Kapo-Start-Time", timestamp::rfc3339(at)));
            [("Kapo-Exit-Code", code.to_string())].into_iter().chain(start).collect()
        }
        None if timeout == Some(Duration::ZERO) => Vec::new(),
        // A deadline beyond the range of the clock never passes.
        None => return Answer::Wait(timeout.and_then(|timeout| now.mono.checked_add(timeout))),
    };
    Answer::Whole { code: 200, content_type: JSON, extra, body: Cow::Borrowed(&page.document) }
}

fn events(page: &Page, last_event_id: &str) -> Answer<'static> {
    let known = last_event_id.parse() == Ok(page.id);
    let first = if known { b": nothing new\n\n".to_vec() } else { page.event() };
    Answer::Stream { next: Next::Events, content_type: EVENT_STREAM, first }
}

#[cfg(test)]
mod tests;
