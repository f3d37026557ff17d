//! Tests of the framing of /events and /logs?follow=1, and of peers that vanish or stay silent.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::chunked::Chunked;
use crate::harness::{Answer, Kapo};
use crate::tools::Gate;

/// Reads the head of an answer and nothing after it.
pub(crate) fn read_head(stream: &mut impl Read) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} after {head:?}"));
        head.extend(byte);
    }
    Answer::parse(&head)
}

fn ask(kapo: &Kapo, request: &str) -> (Answer, TcpStream) {
    let mut stream = kapo.connect();
    stream.write_all(request.as_bytes()).unwrap();
    (read_head(&mut stream), stream)
}

/// Starts a command that writes a line each time the gate opens, and `last` at the end.
fn speaker(gate: &Gate) -> Kapo {
    let script = "read x < \"$0\"; echo one; read x < \"$0\"; echo last; exit 3";
    Kapo::start(["-S", "--tail", "4096", "run", "sh", "-c", script, gate.path()])
}

#[test]
fn streams_are_sent_in_chunks_one_a_push() {
    let mut gate = Gate::new();
    let mut kapo = speaker(&gate);
    let (head, events) = ask(&kapo, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    let mut events = Chunked::body_of(events);
    let first = events.chunk().unwrap().unwrap();
    assert!(first.starts_with("id: ") && first.ends_with("\n\n"), "{first}");
    let (head, logs) = ask(&kapo, "GET /logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    let mut logs = Chunked::body_of(logs);
    gate.open();
    assert_eq!(logs.chunk().unwrap().as_deref(), Some("one\n"));
    gate.open();
    assert_eq!(logs.chunk().unwrap().as_deref(), Some("last\n"));
    // When kapo ends, the streams end in an orderly way.
    assert_eq!(logs.chunk().unwrap(), None);
    let mut ends = 0;
    while let Some(event) = events.chunk().unwrap() {
        assert!(event.starts_with("id: ") && event.ends_with("\n\n"), "{event}");
        ends += 1;
    }
    assert!(ends >= 1, "the end is an event");
    kapo.expect_exit(3);
}

#[test]
fn clients_of_1_0_get_streams_that_end_with_the_connection() {
    let mut gate = Gate::new();
    let mut kapo = speaker(&gate);
    let (head, mut logs) = ask(&kapo, "GET /logs?follow=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((head.field("transfer-encoding"), head.field("connection")), (None, Some("close")));
    assert_eq!((head.status, head.field("x-accel-buffering")), (200, Some("no")));
    gate.open();
    gate.open();
    let mut text = String::new();
    logs.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\nlast\n");
    kapo.expect_exit(3);
}

#[test]
fn head_of_a_stream_has_the_fields_of_get() {
    let kapo = Kapo::start(["-S", "--tail", "4096", "run", "sleep", "60"]);
    for version in ["1.0", "1.1"] {
        for path in ["/events", "/logs?follow=1"] {
            let ask = |method: &str| {
                let (head, stream) =
                    ask(&kapo, &format!("{method} {path} HTTP/{version}\r\nHost: x\r\n\r\n"));
                let lines = head.head.lines().filter(|line| !line.starts_with("Date: "));
                (lines.map(str::to_owned).collect::<Vec<_>>(), stream)
            };
            let (head, mut stream) = ask("HEAD");
            assert_eq!(head, ask("GET").0, "{path} {version}");
            let chunked = head.iter().any(|line| line == "Transfer-Encoding: chunked");
            assert_eq!(chunked, version == "1.1", "{path} {version}");
            assert!(head.iter().any(|line| line == "X-Accel-Buffering: no"), "{path} {version}");
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"", "{path} {version}");
        }
    }
}

#[test]
fn a_stream_that_is_cut_off_has_no_last_chunk() {
    let kapo = Kapo::start(["-S", "--tail", "4096", "--max-connections", "2", "run", "sleep", "60"]);
    let (_, oldest) = ask(&kapo, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut oldest = Chunked::body_of(oldest);
    assert!(oldest.chunk().unwrap().unwrap().starts_with("id: "));
    let _others: Vec<_> = (0..2).map(|_| ask(&kapo, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    assert_eq!(oldest.chunk().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn every_answer_has_nosniff() {
    let kapo = Kapo::start(["-S", "--tail", "4096", "run", "sleep", "60"]);
    for (method, path) in
        [("GET", "/"), ("GET", "/logs"), ("OPTIONS", "/"), ("POST", "/"), ("HEAD", "/events")]
    {
        let answer = kapo.ask(method, path);
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{method} {path}");
    }
    assert_eq!(Answer::parse(&kapo.exchange(b"BAD\r\n")).field("x-content-type-options"), Some("nosniff"));
}
