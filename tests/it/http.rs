//! Tests of HTTP on real sockets: methods, errors, requests cut anywhere, pipelined and half-closed, and bodies.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::harness::{Answer, Kapo, kapo_on_a_free_port, now};

/// Starts kapo with a command that sleeps.
pub(crate) fn sleeping() -> Kapo {
    Kapo::start(["run", "sleep", "60"])
}

/// Reads one answer with Content-Length from a connection that stays open.
pub(crate) fn one_answer(stream: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        let read = stream.read(&mut byte).unwrap();
        assert_eq!(read, 1, "the connection ended after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend(byte);
        if !bytes.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = Answer::parse(&bytes);
        let length = head.field("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        bytes.extend(body);
        return Answer::parse(&bytes);
    }
}

/// Reads to the end of the connection. A reset counts as the end.
pub(crate) fn is_at_its_end(stream: &mut impl Read) -> bool {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes.is_empty(),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Returns a request that keeps the connection open.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let kapo = sleeping();
    for path in ["/", "/livez", "/readyz", "/healthz", "/metrics", "/debug/vars", "/any/other?path"] {
        let get = kapo.ask("GET", path);
        let bytes =
            kapo.exchange(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        let head = Answer::parse(&bytes);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        // Compare without the fields that change with time.
        for name in ["content-type", "server", "cache-control", "connection"] {
            assert_eq!(head.field(name), get.field(name), "{path}");
        }
        // These bodies differ each time, so their lengths differ as well.
        let said = !matches!(path, "/debug/vars" | "/metrics");
        assert_eq!(head.field("content-length").is_some(), said, "{path} {head:?}");
    }
}

#[test]
fn methods_are_answered_refused_or_unknown() {
    let kapo = sleeping();
    for target in ["/", "/livez", "*"] {
        let answer = kapo.ask("OPTIONS", target);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{target}");
        assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"), "{target}");
        assert_eq!(answer.field("content-length"), None, "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "MKCOL"] {
        let target = if method == "CONNECT" { "x:80" } else { "/" };
        let answer = kapo.ask(method, target);
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"), "{method}");
    }
    for method in ["FROB", "get", "Get", "GETT", "G"] {
        assert_eq!(kapo.ask(method, "/").status, 501, "{method}");
    }
}

#[test]
fn every_path_is_answered() {
    let kapo = sleeping();
    let document = kapo.get("/").body;
    for path in
        ["/status", "/index.html", "/a/b/c?d=e", "//", "/%20", "/metrics/", "/LIVEZ", "/.", "/../etc/passwd"]
    {
        let answer = kapo.get(path);
        assert_eq!((answer.status, &answer.body), (200, &document), "{path}");
    }
    let logs = kapo.get("/logs");
    let says = "no output is kept: start kapo with --stderr --tail 64K (--stdout for standard output)\n";
    assert_eq!((logs.status, logs.body.as_str()), (404, says));
    let verbose = kapo.get("/readyz?verbose");
    assert_eq!(verbose.status, 200);
    assert!(verbose.body.starts_with("[+]"), "{verbose:?}");
}

#[test]
fn a_mistyped_probe_is_not_always_healthy() {
    let kapo = Kapo::start(["run", "--wait", "60", "sh", "-c", "exit 1"]);
    kapo.wait_for_status("its end", |status| status["Status"] == "stopped");
    for probe in ["/health", "/healthz/", "/health/", "/ready", "/readyz/", "/ready?verbose"] {
        assert_eq!(kapo.get(probe).status, 503, "{probe}");
    }
    for probe in ["/live", "/livez/", "/live/"] {
        let answer = kapo.get(probe);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{probe}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let kapo = sleeping();
    let mut stream = kapo.connect();
    let paths = ["/livez", "/", "/no", "/readyz", "/healthz"];
    let all: Vec<u8> = paths.iter().flat_map(|path| get(path)).collect();
    stream.write_all(&all.repeat(20)).unwrap();
    for _ in 0..20 {
        for path in paths {
            let answer = one_answer(&mut stream);
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body == "ok", path.ends_with('z'), "{path}: {answer:?}");
        }
    }
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(one_answer(&mut stream).field("connection"), Some("close"));
    assert!(is_at_its_end(&mut stream), "nothing after the last is answered");
}

#[test]
fn http_1_0_stays_open_only_when_asked() {
    let kapo = sleeping();
    let answer = Answer::parse(&kapo.exchange(b"GET / HTTP/1.0\r\n\r\n"));
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    let mut stream = kapo.connect();
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert_eq!(one_answer(&mut stream).field("connection"), Some("keep-alive"));
    }
}

#[test]
fn dripped_requests_are_answered() {
    let kapo = sleeping();
    let mut stream = kapo.connect();
    stream.set_nodelay(true).unwrap();
    for byte in get("/livez") {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(one_answer(&mut stream).body, "ok");
    // Cut at every position, on one connection.
    let request = get("/livez");
    for cut in 1..request.len() {
        stream.write_all(&request[..cut]).unwrap();
        stream.write_all(&request[cut..]).unwrap();
        assert_eq!(one_answer(&mut stream).body, "ok", "cut at {cut}");
    }
}

#[test]
fn half_closed_clients_get_their_answers() {
    let kapo = sleeping();
    let mut stream = kapo.connect();
    stream.write_all(&[get("/livez"), get("/"), get("/readyz")].concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(one_answer(&mut stream).body, "ok");
    assert_eq!(one_answer(&mut stream).status, 200);
    assert_eq!(one_answer(&mut stream).body, "ok");
    assert!(is_at_its_end(&mut stream));
}

#[test]
fn an_incomplete_request_is_not_answered_with_success() {
    let kapo = sleeping();
    for half in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n", "\r\n", "\r"] {
        let mut stream = kapo.connect();
        stream.write_all(half.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // The request is refused or the connection closed. It is neither answered with success nor left waiting.
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty() || Answer::parse(&answer).status == 400, "{half:?}: {answer:?}");
    }
    assert_eq!(kapo.get("/livez").status, 200);
    assert_eq!(kapo.stderr().lines().count(), 2, "none of them is worth a log line");
}

#[test]
fn a_body_of_a_megabyte_does_not_destroy_its_answer() {
    let kapo = sleeping();
    for (method, status) in [("POST", 405), ("GET", 200), ("PUT", 405)] {
        for _ in 0..5 {
            let mut stream = kapo.connect();
            let body = vec![b'x'; 1 << 20];
            let head = format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let answer = Answer::parse(&answer);
            assert_eq!((answer.status, answer.field("connection")), (status, Some("close")), "{method}");
        }
    }
}

#[test]
fn bytes_after_a_refused_request_are_never_a_request() {
    let kapo = sleeping();
    for first in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 33\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let answer = kapo.exchange(format!("{first}GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count(), 1, "{first:?}");
    }
}

#[test]
fn invalid_requests_are_refused_at_once() {
    let kapo = sleeping();
    let long = "x".repeat(20_000);
    let many = "A: b\r\n".repeat(129);
    for (request, status) in [
        // A TLS hello, an HTTP/2 preface, HTTP/0.9, a PROXY line, another protocol.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", 400),
        (b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 501),
        (b"\0\0\0\0", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA(b: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
        (b"GET / x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /# HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: frob\r\n\r\n", 501),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(), 414),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n").as_bytes(), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes(), 431),
        // An endless head.
        (long.as_bytes(), 501),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ] {
        let begin = now();
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        let answer = Answer::parse(&kapo.exchange(request));
        assert_eq!(answer.status, status, "{shown:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{shown:?}");
        assert!(begin.elapsed().as_millis() < 2_000, "{shown:?} took {:?}", begin.elapsed());
    }
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn ordinary_and_unusual_requests_are_answered() {
    let kapo = sleeping();
    let query = "q=".to_owned() + &"x".repeat(4_096);
    let fields: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let cookies = "c=".to_owned() + &"d".repeat(2_048);
    for request in [
        format!("GET /?{query} HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"),
        "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhOsT: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nA: caf\u{e9}\r\n\r\n".to_owned(),
    ] {
        let mut stream = kapo.connect();
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(one_answer(&mut stream).status, 200, "{:?}", &request[..request.len().min(80)]);
    }
}

#[test]
fn wait_is_answered_at_the_end() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = kapo_on_a_free_port(["run", "sh", "-c", "read line; exit 3"]);
    command.stdin(reader);
    let mut kapo = Kapo::launch(command).listening();
    let mut stream = kapo.connect();
    stream.write_all(&get("/wait")).unwrap();
    let timed_out = kapo.get("/wait?timeout=0.05");
    assert_eq!(timed_out.field("kapo-exit-code"), None);
    assert!(timed_out.body.contains("\"Status\":\"running\""), "{timed_out:?}");
    drop(writer);
    let answer = one_answer(&mut stream);
    assert_eq!((answer.status, answer.field("kapo-exit-code")), (200, Some("3")));
    assert!(answer.body.contains("\"Status\":\"stopped\""), "{answer:?}");
    kapo.expect_exit(3);
}
