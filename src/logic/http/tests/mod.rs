//! Tests of the whole of `http`: bytes in, bytes out, a fake clock, and a handler that echoes the request. `heads` has
//! tables of requests, `cuts` shows that the boundaries of reads do not matter, `probed` has requests that wait for probes, and
//! `life` tests everything else about a connection.

mod cuts;
mod heads;
mod life;
mod probed;

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::conn::{Conn, Interest};
use super::head_cache::HeadCache;
use super::response::{Out, Reply};
use super::{Handler, Next, Request};
use crate::logic::Now;

/// Echoes the request; answers `/wait` once `done`, and `/big` with as many bytes as the query says.
#[derive(Default)]
struct Echo {
    done: bool,
    asked: usize,
    /// `/read` lacks its data as long as this is false.
    has_read: bool,
    /// `/probed` waits for 5 s as long as this is false.
    probed: bool,
}

impl Handler for Echo {
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        self.asked += 1;
        let body = match (request.path, request.query) {
            ("/wait", _) if !self.done => return Next::Wait(Some(now.mono + Duration::from_secs(60))),
            ("/probed", _) if !self.probed => return Next::Await(now.mono + Duration::from_secs(5)),
            ("/read", _) if !self.has_read => return Next::Lacking,
            ("/events", _) => {
                reply.stream("text/event-stream", b"first\n");
                return Next::Events;
            }
            ("/logs", _) => {
                reply.stream("text/plain", b"first\n");
                return Next::Logs(None);
            }
            ("/big", size) => "x".repeat(size.and_then(|size| size.parse().ok()).unwrap_or(0).min(100_000)),
            (path, query) => format!("{:?} {path} {query:?}", request.method),
        };
        match request.method {
            super::Method::Options => {
                reply.send(204, "", &[("Allow", super::request::ALLOW.to_owned())], b"")
            }
            _ => reply.send(200, "text/plain", &[], body.as_bytes()),
        }
        Next::Answered
    }

    fn overdue(&mut self) {
        self.probed = true;
    }

    fn is_costly(&self, request: &Request<'_>) -> bool {
        request.path == "/costly"
    }

    fn again(&mut self, now: Now, overdue: bool, reply: Reply<'_>) -> Next {
        self.asked += 1;
        match (overdue, self.done) {
            (true, _) => reply.send(200, "text/plain", &[], b"overdue"),
            (_, true) => reply.send(200, "text/plain", &[], b"ended"),
            (_, false) => return Next::Wait(Some(now.mono + Duration::from_secs(60))),
        }
        Next::Answered
    }
}

/// Counts seconds from the start, when the wall clock shows the example date of RFC 9110.
struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a test needs some Instant to begin with")]
    fn new() -> Clock {
        Clock(Instant::now())
    }

    fn at(&self, seconds: f64) -> Now {
        Now {
            mono: self.0 + Duration::from_secs_f64(seconds),
            wall: UNIX_EPOCH + Duration::from_secs(784_111_777),
        }
    }
}

/// Sends these pieces and takes every answer. Returns all bytes that were received, and whether the connection stays
/// open.
fn talk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (String, bool) {
    let (clock, mut handler, mut out) = (Clock::new(), Echo::default(), Out::new());
    let (mut conn, mut head_cache) = (Conn::new(clock.at(0.0)), HeadCache::default());
    let mut seen = Vec::new();
    for piece in pieces {
        conn.receive(clock.at(0.0), piece, &mut head_cache, &mut handler, &mut out);
        seen.append(&mut out.bytes);
        while conn.wants().write {
            conn.resume(clock.at(0.0), &mut head_cache, &mut handler, &mut out);
            seen.append(&mut out.bytes);
        }
    }
    let closed = conn.is_done() || conn.half_close(clock.at(0.0));
    (String::from_utf8(seen).unwrap(), !closed)
}

/// Returns the answer to one piece.
fn ask(bytes: impl AsRef<[u8]>) -> (String, bool) {
    talk([bytes.as_ref()])
}

/// Returns the status codes of all answers.
fn statuses(seen: &str) -> Vec<&str> {
    let code = |answer: &'_ str| answer.as_bytes()[..3].iter().all(u8::is_ascii_digit);
    seen.split("HTTP/1.1 ").skip(1).filter(|answer| code(answer)).map(|answer| &answer[..3]).collect()
}

/// Returns the bodies of all answers; no body contains CRLF in these tests.
fn bodies(seen: &str) -> Vec<&str> {
    let after_head = |answer: &'_ str| answer.find("\r\n\r\n").map_or(0, |at| at + 4);
    seen.split("HTTP/1.1 ").skip(1).map(|answer| &answer[after_head(answer)..]).collect()
}
