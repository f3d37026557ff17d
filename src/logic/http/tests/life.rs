//! The states of a connection: order of answers, held requests, streams, deadlines, closing and eviction ranks.

use super::*;
use crate::logic::http::conn::{EXCHANGE_TIMEOUT, Feed, LINGER};

#[test]
fn a_plain_request_is_answered_without_keeping_memory() {
    let clock = Clock::new();
    let (mut conn, mut out) = (Conn::new(clock.at(0.0)), Out::new());
    conn.receive(
        clock.at(0.0),
        b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
        &mut HeadCache::default(),
        &mut Echo::default(),
        &mut out,
    );
    assert_eq!(
        String::from_utf8_lossy(&out.bytes),
        "HTTP/1.1 200 OK\r\nServer: kapo\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: 16\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\r\nGet /a Some(\"b\")"
    );
    assert_eq!(conn.wants(), Interest { read: true, write: false });
    assert_eq!(conn.deadline(), None);
}

const HOST: &str = " HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection with its handler, its clock and its output.
pub(super) struct Talk {
    pub(super) clock: Clock,
    pub(super) conn: Conn,
    pub(super) handler: Echo,
    pub(super) head_cache: HeadCache,
    pub(super) out: Out,
}

impl Talk {
    pub(super) fn new() -> Talk {
        let clock = Clock::new();
        Talk {
            conn: Conn::new(clock.at(0.0)),
            clock,
            handler: Echo::default(),
            head_cache: HeadCache::default(),
            out: Out::new(),
        }
    }

    /// Sends requests for these paths at that second. Returns the answers, all of which the peer takes.
    pub(super) fn get(&mut self, second: f64, paths: &[&str]) -> String {
        let bytes: String = paths.iter().map(|path| format!("GET {path}{HOST}")).collect();
        self.send(second, bytes)
    }

    fn send(&mut self, second: f64, bytes: impl AsRef<[u8]>) -> String {
        self.conn.receive(
            self.clock.at(second),
            bytes.as_ref(),
            &mut self.head_cache,
            &mut self.handler,
            &mut self.out,
        );
        self.take()
    }

    pub(super) fn resume(&mut self, second: f64) -> String {
        self.conn.resume(self.clock.at(second), &mut self.head_cache, &mut self.handler, &mut self.out);
        self.take()
    }

    pub(super) fn expire(&mut self, second: f64) -> String {
        self.conn.expire(self.clock.at(second), &mut self.head_cache, &mut self.handler, &mut self.out);
        self.take()
    }

    pub(super) fn take(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out.bytes)).unwrap()
    }

    /// Returns the seconds until the deadline.
    pub(super) fn deadline(&self) -> Option<f64> {
        self.conn.deadline().map(|deadline| (deadline - self.clock.0).as_secs_f64())
    }
}

#[test]
fn a_connection_is_small() {
    assert!(size_of::<Conn>() <= 160, "{}", size_of::<Conn>());
}

#[test]
fn pipelined_requests_are_answered_in_order_and_at_once() {
    let mut talk = Talk::new();
    let seen = talk.get(0.0, &["/1", "/2", "/3"]);
    assert_eq!(bodies(&seen), ["Get /1 None", "Get /2 None", "Get /3 None"]);
}

#[test]
fn endless_pipelined_requests_are_answered_in_portions() {
    let mut talk = Talk::new();
    let seen = talk.get(0.0, &["/big?50000", "/big?50000", "/3"]);
    assert_eq!(statuses(&seen), ["200", "200"]);
    assert_eq!(talk.conn.wants(), Interest { read: false, write: true });
    assert_eq!(bodies(&talk.resume(0.0)), ["Get /3 None"]);
    assert_eq!(talk.conn.wants(), Interest { read: true, write: false });
}

#[test]
fn an_endless_pipeline_without_reads_ends_after_10_s() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/big?70000"; 3]);
    // The kernel took all bytes but never reports room again.
    assert_eq!((talk.conn.pending().len(), talk.deadline()), (0, Some(10.0)));
    assert_eq!(statuses(&talk.resume(6.0)), ["200"]);
    assert_eq!(talk.deadline(), Some(16.0));
    talk.expire(15.9);
    assert!(!talk.conn.is_done());
    talk.expire(16.0);
    assert!(talk.conn.is_done());
}

#[test]
fn a_peer_that_does_not_read_is_dropped_after_10_s() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/"]);
    talk.conn.keep(talk.clock.at(1.0), b"rest");
    assert_eq!(talk.conn.wants(), Interest { read: false, write: true });
    assert_eq!(talk.conn.pending(), b"rest");
    talk.conn.sent(talk.clock.at(5.0), 2);
    assert_eq!((talk.conn.pending(), talk.deadline()), (b"st".as_slice(), Some(11.0)));
    talk.expire(10.9);
    assert!(!talk.conn.is_done());
    talk.expire(11.0);
    assert!(talk.conn.is_done());
}

#[test]
fn a_connection_is_idle_after_its_answer_is_sent() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/"]);
    talk.conn.keep(talk.clock.at(0.0), b"rest");
    talk.conn.sent(talk.clock.at(9.0), 4);
    assert_eq!((talk.conn.wants(), talk.deadline()), (Interest { read: true, write: false }, None));
    assert_eq!(statuses(&talk.get(20.0, &["/"])), ["200"]);
}

#[test]
fn an_unfinished_head_has_10_s_from_its_first_byte() {
    let mut talk = Talk::new();
    assert_eq!(talk.deadline(), None);
    for (second, byte) in [(100.0, "G"), (103.0, "E"), (109.0, "T")] {
        assert_eq!(talk.send(second, byte), "");
        assert_eq!(talk.deadline(), Some(100.0 + EXCHANGE_TIMEOUT.as_secs_f64()));
    }
    talk.expire(109.9);
    assert!(!talk.conn.is_done());
    assert_eq!(talk.expire(110.0), "");
    assert!(talk.conn.is_done());
}

#[test]
fn each_request_has_its_own_deadline_for_the_head() {
    let mut talk = Talk::new();
    talk.send(0.0, "GET / HT");
    let seen = talk.send(9.0, "TP/1.1\r\nHost: a\r\n\r\n\r\n");
    assert_eq!((statuses(&seen), talk.deadline()), (vec!["200"], None));
    talk.send(50.0, "G");
    assert_eq!(talk.deadline(), Some(60.0));
}

#[test]
fn a_held_request_is_answered_before_those_behind_it() {
    let mut talk = Talk::new();
    let seen = talk.get(0.0, &["/1", "/wait", "/3"]);
    assert_eq!(bodies(&seen), ["Get /1 None"]);
    assert!(talk.conn.is_held());
    assert_eq!((talk.resume(1.0), talk.handler.asked), (String::new(), 3));
    assert_eq!(talk.get(1.0, &["/4"]), "");
    talk.handler.done = true;
    assert_eq!(bodies(&talk.resume(2.0)), ["ended", "Get /3 None", "Get /4 None"]);
    assert!(!talk.conn.is_held());
    assert_eq!((talk.resume(3.0), talk.handler.asked), (String::new(), 6));
}

#[test]
fn a_held_request_keeps_only_the_bytes_behind_it() {
    let cookies = "a".repeat(6000);
    let mut talk = Talk::new();
    talk.send(0.0, format!("GET /wait HTTP/1.1\r\nCookie: {cookies}"));
    assert!(talk.conn.owns() > 6000);
    talk.send(0.0, "\r\nHost: a\r\n\r\n");
    assert_eq!((talk.conn.is_held(), talk.conn.owns()), (true, 0));
    talk.send(0.0, "GET /2");
    assert!(talk.conn.owns() < 64);
    talk.handler.done = true;
    assert_eq!(bodies(&talk.resume(1.0)), ["ended"]);
    assert_eq!(bodies(&talk.send(1.0, HOST)), ["Get /2 None"]);
    assert_eq!(talk.conn.owns(), 0);
}

#[test]
fn a_held_request_keeps_its_method_and_connection_close() {
    let mut talk = Talk::new();
    talk.handler.done = false;
    talk.send(0.0, "HEAD /wait HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let seen = talk.expire(60.0);
    assert!(seen.contains("\r\nContent-Length: 7\r\n") && seen.contains("\r\nConnection: keep-alive\r\n"));
    assert!(seen.ends_with("\r\n\r\n"), "{seen}");
    talk.send(60.0, "GET /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    let seen = talk.expire(120.0);
    assert!(seen.contains("\r\nConnection: close\r\n") && seen.ends_with("\r\n\r\noverdue"), "{seen}");
    assert!(talk.conn.half_close(talk.clock.at(120.0)));
}

#[test]
fn each_held_request_has_its_own_deadline() {
    let mut talk = Talk::new();
    talk.get(3.0, &["/wait", "/2"]);
    assert_eq!((talk.deadline(), talk.expire(62.9)), (Some(63.0), String::new()));
    assert_eq!(bodies(&talk.expire(63.0)), ["overdue", "Get /2 None"]);
    assert_eq!(talk.deadline(), None);
    // The second request has its own deadline.
    talk.get(100.0, &["/wait", "/wait"]);
    assert_eq!((bodies(&talk.expire(160.0)), talk.deadline()), (vec!["overdue"], Some(220.0)));
}

#[test]
fn input_behind_a_held_request_is_limited_to_one_head() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/wait"]);
    while talk.conn.wants().read {
        talk.send(0.0, [b'x'; 1000]);
        assert!(talk.handler.asked == 1);
    }
    talk.handler.done = true;
    assert_eq!(statuses(&talk.resume(1.0)), ["200", "501"]);
}

#[test]
fn a_half_closed_peer_gets_its_answers_and_then_the_end() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/wait", "/2"]);
    talk.conn.eof(&mut talk.out);
    assert_eq!(talk.conn.wants(), Interest { read: false, write: false });
    assert!(!talk.conn.is_done());
    talk.handler.done = true;
    assert_eq!(statuses(&talk.resume(1.0)), ["200", "200"]);
    assert!(talk.conn.is_done());

    let mut talk = Talk::new();
    talk.get(0.0, &["/big?50000", "/big?50000", "/3"]);
    talk.conn.eof(&mut talk.out);
    assert!(!talk.conn.is_done());
    assert_eq!(statuses(&talk.resume(1.0)), ["200"]);
    assert!(talk.conn.is_done());
}

#[test]
fn a_peer_that_closes_without_a_request_ends_the_connection() {
    for bytes in ["", "GET / HTTP/1.1\r\nHost", &format!("GET /{HOST}")] {
        let mut talk = Talk::new();
        talk.send(0.0, bytes);
        talk.conn.eof(&mut talk.out);
        assert_eq!(talk.take(), "");
        assert!(talk.conn.is_done(), "{bytes:?}");
    }
}

#[test]
fn unsent_bytes_are_sent_after_the_peer_closes() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/"]);
    talk.conn.keep(talk.clock.at(0.0), b"rest");
    talk.conn.eof(&mut talk.out);
    assert!(!talk.conn.is_done());
    talk.conn.sent(talk.clock.at(0.0), 4);
    assert!(talk.conn.is_done());
}

#[test]
fn a_body_is_discarded_until_the_peer_closes() {
    let mut talk = Talk::new();
    let seen = talk.send(0.0, format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nGET /{HOST}"));
    assert_eq!(statuses(&seen), ["405"]);
    assert!(!talk.conn.is_done());
    // The answer was sent: our side must be closed once.
    assert!(talk.conn.half_close(talk.clock.at(1.0)));
    assert!(!talk.conn.half_close(talk.clock.at(1.0)));
    assert_eq!(talk.get(2.0, &["/"]), "");
    assert_eq!((talk.conn.wants(), talk.deadline()), (Interest { read: true, write: false }, Some(12.0)));
    // Input of a peer that keeps sending is discarded, but within limits.
    for seconds in [11.0, 20.0, 29.0] {
        talk.send(seconds, [b'x'; 1_000]);
    }
    assert_eq!(talk.deadline(), Some(31.0));
    talk.conn.eof(&mut talk.out);
    assert!(talk.conn.is_done());
}

#[test]
fn a_lingering_close_is_limited_in_time_and_bytes() {
    let body = || {
        let mut talk = Talk::new();
        talk.send(0.0, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n");
        assert!(talk.conn.half_close(talk.clock.at(0.0)));
        talk
    };
    let mut talk = body();
    talk.expire(LINGER.as_secs_f64() - 0.1);
    assert!(!talk.conn.is_done());
    talk.expire(LINGER.as_secs_f64());
    assert!(talk.conn.is_done());
    let mut talk = body();
    let chunk = vec![0; 1024 * 1024];
    for _ in 0..256 {
        talk.send(0.0, &chunk);
        assert!(!talk.conn.is_done());
    }
    talk.send(0.0, [0]);
    assert!(talk.conn.is_done());
}

#[test]
fn a_close_lingers_only_if_bytes_may_be_unread() {
    for (bytes, lingers) in [
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), false),
        ("GET / HTTP/1.0\r\n\r\nx".to_owned(), true),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".to_owned(), true),
        ("GET /\r\n".to_owned(), true),
        (format!("GET / HTTP/1.0\r\nA: {}\r\n\r\n", "a".repeat(16384 - 23)), true),
    ] {
        let mut talk = Talk::new();
        talk.send(0.0, &bytes);
        assert_eq!(talk.conn.half_close(talk.clock.at(0.0)), lingers, "{}", bytes.len());
        assert_eq!(talk.conn.is_done(), !lingers);
    }
}

#[test]
fn a_stream_is_chunked_until_its_end() {
    let mut talk = Talk::new();
    let seen = talk.get(0.0, &["/logs", "/never"]);
    assert!(seen.contains("\r\nConnection: close\r\n") && !seen.contains("Content-Length"), "{seen}");
    assert_eq!((bodies(&seen), talk.conn.feed()), (vec!["6\r\nfirst\n\r\n"], Some(Feed::Logs(None))));
    talk.conn.push(b"second\n", &mut talk.out);
    assert_eq!((talk.take(), talk.deadline()), ("7\r\nsecond\n\r\n".to_owned(), None));
    assert_eq!(talk.get(0.0, &["/never"]), "");
    talk.conn.end_of_stream(&mut talk.out);
    assert_eq!(talk.take(), "0\r\n\r\n");
    assert_eq!((talk.conn.feed(), talk.conn.half_close(talk.clock.at(0.0))), (None, true));
}

#[test]
fn a_stream_for_http_1_0_ends_with_the_connection() {
    let mut talk = Talk::new();
    let seen = talk.send(0.0, "GET /logs HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(seen.contains("\r\nConnection: close\r\n") && !seen.contains("Transfer-Encoding"), "{seen}");
    assert_eq!(bodies(&seen), ["first\n"]);
    talk.conn.push(b"second\n", &mut talk.out);
    talk.conn.end_of_stream(&mut talk.out);
    assert_eq!(talk.take(), "second\n");
    assert!(talk.conn.half_close(talk.clock.at(0.0)));
}

#[test]
fn a_stream_ends_when_its_peer_closes() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/events"]);
    talk.conn.eof(&mut talk.out);
    assert_eq!(talk.take(), "0\r\n\r\n");
    assert!(talk.conn.is_done());
    // The peer may also have closed its side before the stream begins.
    let mut talk = Talk::new();
    talk.get(0.0, &["/wait", "/events"]);
    talk.conn.eof(&mut talk.out);
    talk.handler.done = true;
    assert!(talk.resume(1.0).ends_with("6\r\nfirst\n\r\n0\r\n\r\n"));
    assert!(talk.conn.is_done());
}

#[test]
fn a_stream_that_is_given_up_has_no_last_chunk() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/events"]);
    talk.conn.give_up();
    assert!(talk.conn.is_done() && talk.conn.is_given_up());
    assert_eq!((talk.take(), talk.conn.pending()), (String::new(), b"".as_slice()));
}

#[test]
fn a_reader_that_falls_behind_is_dropped() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/events"]);
    talk.conn.keep(talk.clock.at(0.0), b"unsent");
    let chunk = [b'x'; 1024];
    for _ in 0..512 {
        talk.conn.push(&chunk, &mut talk.out);
        assert!(!talk.conn.is_done());
    }
    // Each chunk adds 7 bytes of framing.
    assert_eq!((talk.take(), talk.conn.pending().len()), (String::new(), 6 + 512 * (1024 + 7)));
    talk.conn.push(&chunk, &mut talk.out);
    assert!(talk.conn.is_done() && talk.conn.is_given_up());
    assert_eq!(talk.conn.pending(), b"");
}

#[test]
fn an_expensive_answer_waits_for_another_turn() {
    let mut talk = Talk::new();
    assert_eq!(talk.get(0.0, &["/costly"]), "");
    assert!(talk.conn.is_deferred() && talk.conn.wants().write);
    assert_eq!(statuses(&talk.resume(0.0)).len(), 1);
    assert_eq!(talk.conn.wants(), Interest { read: true, write: false });
    // Requests before the expensive one are answered at once. Those behind it are answered together with it.
    assert_eq!(bodies(&talk.get(0.0, &["/a", "/costly", "/b"])), ["Get /a None"]);
    assert_eq!(bodies(&talk.resume(0.0)), ["Get /costly None", "Get /b None"]);
    // Each turn answers one expensive request.
    assert_eq!(talk.get(0.0, &["/costly", "/costly"]), "");
    assert_eq!([1, 1], [(); 2].map(|()| statuses(&talk.resume(0.0)).len()));
    assert_eq!(talk.conn.wants(), Interest { read: true, write: false });
}

#[test]
fn a_turn_answers_a_limited_number_of_requests() {
    let mut talk = Talk::new();
    let seen = talk.get(0.0, &["/"; 100]);
    assert_eq!((statuses(&seen).len(), talk.conn.wants()), (32, Interest { read: false, write: true }));
    let mut answers = 32;
    while talk.conn.wants().write {
        let turn = statuses(&talk.resume(0.0)).len();
        assert!(turn <= 32);
        answers += turn;
    }
    assert_eq!((answers, talk.conn.wants()), (100, Interest { read: true, write: false }));
}

#[test]
fn a_reader_of_a_stream_must_go_on_reading() {
    let mut talk = Talk::new();
    talk.get(0.0, &["/events"]);
    talk.conn.keep(talk.clock.at(0.0), b"unsent");
    talk.conn.sent(talk.clock.at(6.0), 1);
    assert_eq!(talk.deadline(), Some(16.0));
    talk.conn.push(b"more", &mut talk.out);
    assert_eq!(talk.conn.pending(), b"nsent4\r\nmore\r\n");
    talk.conn.sent(talk.clock.at(7.0), 14);
    assert_eq!(talk.deadline(), None);
}

#[test]
fn unfinished_requests_rank_first_for_eviction_held_ones_last() {
    // All connections need the same epoch, or their ages could not be compared.
    let clock = Clock::new();
    let mut talks = Vec::new();
    for (name, second, bytes) in [
        ("waits since 2", 2.0, format!("GET /wait{HOST}")),
        ("streams since 1", 1.0, format!("GET /events{HOST}")),
        ("idle since 5", 5.0, format!("GET /{HOST}")),
        ("idle since 0", 0.0, String::new()),
        ("half since 7", 7.0, "GET".to_owned()),
        ("half since 6", 6.0, "GET".to_owned()),
        ("lingers since 8", 8.0, "BAD\r\n".to_owned()),
        ("waits since 9, half closed", 9.0, format!("GET /wait{HOST}")),
    ] {
        let mut talk = Talk { clock: Clock(clock.0), conn: Conn::new(clock.at(0.0)), ..Talk::new() };
        if !bytes.is_empty() {
            talk.send(second, &bytes);
        }
        talk.conn.half_close(clock.at(second));
        if name.ends_with("half closed") {
            talk.conn.eof(&mut talk.out);
        }
        talks.push((talk.conn.rank(), name));
    }
    talks.sort();
    let order: Vec<&str> = talks.into_iter().map(|(_, name)| name).collect();
    assert_eq!(
        order,
        [
            "half since 6",
            "half since 7",
            "lingers since 8",
            "waits since 9, half closed",
            "idle since 0",
            "idle since 5",
            "streams since 1",
            "waits since 2",
        ]
    );
}

#[test]
fn a_held_request_keeps_its_deadline_when_asked_again() {
    let mut talk = Talk::new();
    talk.get(1.0, &["/wait"]);
    let rank = talk.conn.rank();
    talk.resume(2.0);
    assert_eq!(talk.conn.rank(), rank);
    assert_eq!(talk.deadline(), Some(61.0), "the deadline counts from the request");
}

#[test]
fn a_handler_without_an_answer_results_in_500() {
    struct Silent;
    impl Handler for Silent {
        fn answer(&mut self, now: Now, request: &Request<'_>, _: Reply<'_>) -> Next {
            match request.path {
                "/wait" => Next::Wait(Some(now.mono)),
                _ => Next::Answered,
            }
        }

        fn again(&mut self, now: Now, _: bool, _: Reply<'_>) -> Next {
            Next::Wait(Some(now.mono))
        }
    }
    for path in ["/", "/wait"] {
        let clock = Clock::new();
        let (mut conn, mut out) = (Conn::new(clock.at(0.0)), Out::new());
        conn.receive(
            clock.at(0.0),
            format!("GET {path}{HOST}").as_bytes(),
            &mut HeadCache::default(),
            &mut Silent,
            &mut out,
        );
        conn.expire(clock.at(0.0), &mut HeadCache::default(), &mut Silent, &mut out);
        assert_eq!(statuses(&String::from_utf8(out.bytes).unwrap()), ["500"]);
    }
}

#[test]
fn the_date_moves_with_the_wall_clock() {
    let mut talk = Talk::new();
    let head = format!("GET /{HOST}");
    let mut dates = Vec::new();
    for seconds in [0, 0, 1, 86_400] {
        let mut now = talk.clock.at(0.0);
        now.wall += Duration::from_secs(seconds);
        talk.conn.receive(now, head.as_bytes(), &mut talk.head_cache, &mut talk.handler, &mut talk.out);
        let seen = talk.take();
        dates.push(seen.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap().to_owned());
    }
    assert_eq!(
        dates,
        [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:38 GMT",
            "Mon, 07 Nov 1994 08:49:37 GMT",
        ]
    );
}

#[test]
fn a_request_that_lacks_data_keeps_its_place() {
    let (clock, mut handler, mut out) = (Clock::new(), Echo::default(), Out::new());
    let mut conn = Conn::new(clock.at(0.0));
    let requests =
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    conn.receive(clock.at(0.0), requests, &mut HeadCache::default(), &mut handler, &mut out);
    conn.eof(&mut out);
    assert!(conn.wants().write && !conn.is_done());
    assert_eq!(bodies(&String::from_utf8(std::mem::take(&mut out.bytes)).unwrap()), ["Get /a None"]);
    handler.has_read = true;
    conn.resume(clock.at(0.0), &mut HeadCache::default(), &mut handler, &mut out);
    assert_eq!(bodies(&String::from_utf8(out.bytes).unwrap()), ["Get /read None"]);
    assert_eq!((conn.is_done(), handler.asked), (true, 3));
}
