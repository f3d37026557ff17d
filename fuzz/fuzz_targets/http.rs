//! Parses arbitrary bytes, divided anywhere: the answers equal those to the whole input, and each answer is complete.
#![no_main]

use std::time::{Duration, Instant, UNIX_EPOCH};

use kapo::logic::Now;
use kapo::logic::http::conn::Conn;
use kapo::logic::http::head_cache::HeadCache;
use kapo::logic::http::response::{Out, Reply};
use kapo::logic::http::{Next, Request, Handler};
use libfuzzer_sys::fuzz_target;

struct Echo;

impl Handler for Echo {
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        assert!(request.path.starts_with(['/', '*']) && request.path.is_ascii());
        match request.path {
            "/wait" => return Next::Wait(Some(now.mono + Duration::from_secs(1))),
            "/events" => {
                reply.stream("text/event-stream", b"first");
                return Next::Events;
            }
            path => reply.send(200, "text/plain", &[], path.as_bytes()),
        }
        Next::Answered
    }

    fn again(&mut self, _: Now, overdue: bool, reply: Reply<'_>) -> Next {
        assert!(overdue);
        reply.send(200, "text/plain", &[], b"/wait");
        Next::Answered
    }
}

fn talk<'a>(start: Instant, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut now = Now { mono: start, wall: UNIX_EPOCH };
    let (mut conn, mut heads, mut out) = (Conn::new(now), HeadCache::default(), Out::new());
    for piece in pieces {
        conn.receive(now, piece, &mut heads, &mut Echo, &mut out);
        while conn.wants().write {
            conn.resume(now, &mut heads, &mut Echo, &mut out);
        }
    }
    // A held request is answered at its deadline, but an incomplete head never is.
    while let (true, Some(deadline)) = (conn.is_held(), conn.deadline()) {
        now.mono = deadline;
        conn.expire(now, &mut heads, &mut Echo, &mut out);
        while conn.wants().write {
            conn.resume(now, &mut heads, &mut Echo, &mut out);
        }
    }
    conn.half_close(now);
    conn.eof(&mut out);
    assert!(conn.is_done());
    out.bytes
}

fuzz_target!(|bytes: &[u8]| {
    // Only differences between times matter.
    #[allow(clippy::disallowed_methods)]
    let start = Instant::now();
    let whole = talk(start, std::iter::once(bytes));
    let uneven = 1 + bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 97;
    for size in [1, uneven] {
        assert_eq!(whole, talk(start, bytes.chunks(size)));
    }
    assert!(whole.is_empty() || whole.starts_with(b"HTTP/1.1 "));
});
