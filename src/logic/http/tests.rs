//! Tests of the whole of `http`: bytes in, bytes out, a fake clock, and a site that says what it was asked.

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::conn::{Conn, Wants};
use super::response::{Out, Reply};
use super::{Next, Request, Site};
use crate::logic::Now;

/// Answers with what it was asked, `/wait` once `done`, `/big` with as much as the query says.
#[derive(Default)]
struct Echo {
    done: bool,
    asked: usize,
}

impl Site for Echo {
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        self.asked += 1;
        let body = match (request.path, request.query) {
            ("/wait", _) if request.overdue => "overdue".to_owned(),
            ("/wait", _) if !self.done => return Next::Wait(Some(now.mono + Duration::from_secs(60))),
            ("/events", _) => {
                reply.stream("text/event-stream", &[], b"first\n");
                return Next::Events;
            }
            ("/logs", _) => {
                reply.stream("text/plain", &[], b"first\n");
                return Next::Logs(None);
            }
            ("/big", size) => "x".repeat(size.unwrap_or_default().parse().unwrap()),
            (path, query) => format!("{:?} {path} {query:?}", request.method),
        };
        match request.method {
            super::Method::Options => reply.send(204, "", &[("Allow", super::request::ALLOW)], b""),
            _ => reply.send(200, "text/plain", &[], body.as_bytes()),
        }
        Next::Answered
    }
}

/// A moment so many seconds after the start; the wall clock shows the example of RFC 9110 then.
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

#[test]
fn a_plain_request_gets_the_whole_answer_and_the_connection_owns_nothing() {
    let clock = Clock::new();
    let (mut conn, mut out) = (Conn::new(clock.at(0.0)), Out::new());
    conn.receive(clock.at(0.0), b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n", &mut Echo::default(), &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out.bytes),
        "HTTP/1.1 200 OK\r\nServer: kapo\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: 16\r\nCache-Control: no-store\r\n\r\nGet /a Some(\"b\")"
    );
    assert_eq!(conn.wants(), Wants { read: true, write: false });
    assert_eq!(conn.deadline(), None);
}
