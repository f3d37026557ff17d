//! Tests of the client against small servers on loopback, each of which answers one connection as the test defines.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::config::{CaptureOptions, Interface, LogFormat, Mode};

/// A timeout that never passes if an answer comes.
const LONG: Duration = Duration::from_secs(60);
/// A short timeout, for a server that does not answer.
const SHORT: Duration = Duration::from_millis(100);

fn config(interface: Interface, port: u16) -> Config {
    Config {
        listen: crate::config::tests::listen(interface, port),
        name: String::new(),
        log_name: false,
        capture: CaptureOptions::default(),
        hide_args: false,
        ui: true,
        max_connections: 512,
        history: 5,
        quiet: false,
        log_format: LogFormat::Logfmt,
        misspelt: Vec::new(),
        mode: Mode::Wait(WaitOptions::default()),
    }
}

/// Reads one request, sends `answer`, and closes. With `held`, waits until the client closes. Returns the request.
fn serve(mut stream: impl Read + Write, answer: &[u8], held: bool) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        request.push(byte[0]);
    }
    stream.write_all(answer).unwrap();
    if held {
        // The read returns when the client has closed, with or without an error.
        let _ = stream.read(&mut byte);
    }
    String::from_utf8(request).unwrap()
}

/// Starts a server for one connection on loopback. Returns its port and a handle that returns the request.
fn server(answer: &'static str, held: bool) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0, answer.as_bytes(), held));
    (port, thread)
}

/// Requests the body of a failure, or only the head.
fn ask(
    config: &Config,
    url: Option<&str>,
    path: &str,
    timeout: Option<Duration>,
    body: bool,
) -> Result<Response, ExchangeError> {
    let body = if body { Wanted::BodyOfFailure } else { Wanted::Head };
    exchange(&target(config, url, path)?, timeout, body)
}

/// Returns the result of [`ask`] if the server sends this answer.
fn asked(answer: &'static str, held: bool, body: bool) -> Result<Response, ExchangeError> {
    let (port, server) = server(answer, held);
    let all = Interface::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let result =
        ask(&config(all, port), None, "/readyz", Some(if held && !body { SHORT } else { LONG }), body);
    server.join().unwrap();
    result
}

fn answer(status: u16, kapo_exit_code: Option<u8>, body: &str) -> Result<Response, ExchangeError> {
    Ok(Response { status, kapo_exit_code, is_text: false, body: body.as_bytes().to_vec() })
}

#[test]
fn an_answer_is_read_to_the_end_of_its_body() {
    for (text, held, expected) in [
        ("HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nwhy", true, answer(503, None, "why")),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\nwhy\nmore", false, answer(503, None, "why\nmore")),
        ("HTTP/1.0 204 No Content\r\n\r\n", true, answer(204, None, "")),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            true,
            answer(200, None, ""),
        ),
        (
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nwh\r\n1\r\ny\r\n0\r\n\r\n",
            true,
            answer(503, None, "why"),
        ),
        ("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhy", false, answer(503, None, "why")),
        ("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\nwhy", true, answer(503, None, "")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", false, answer(200, None, "")),
        (
            "HTTP/1.1 200 OK\r\nKAPO-EXIT-CODE: 143\r\nContent-Length: 0\r\n\r\n",
            true,
            answer(200, Some(143), ""),
        ),
        ("HTTP/1.1 200 OK\r\nKapo-Exit-Code: 256\r\nContent-Length: 0\r\n\r\n", true, answer(200, None, "")),
    ] {
        assert_eq!(asked(text, held, true), expected, "{text}");
    }
}

#[test]
fn a_success_needs_no_body_and_a_missing_reason_times_out() {
    let ask_briefly = |text| {
        let (port, server) = server(text, true);
        let all = Interface::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let result = ask(&config(all, port), None, "/readyz", Some(SHORT), true);
        server.join().unwrap();
        result
    };
    assert_eq!(ask_briefly("HTTP/1.1 200 OK\r\n\r\n"), answer(200, None, ""));
    assert_eq!(ask_briefly("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nwhy"), answer(503, None, "why"));
}

#[test]
fn invalid_answers_have_different_errors() {
    let closed = |result: Result<Response, ExchangeError>| match result {
        Err(ExchangeError::Other(line) | ExchangeError::Cut(line)) => {
            line.split_once(' ').unwrap().1.to_owned()
        }
        other => format!("{other:?}"),
    };
    assert_eq!(closed(asked("", false, true)), "closed the connection without an answer");
    assert_eq!(closed(asked("HTTP/1.1 200", false, true)), "closed the connection without an answer");
    assert!(closed(asked("SSH-2.0-OpenSSH_9.2\r\n", false, true)).starts_with("HTTP answer from 127.0.0.1:"));
    assert!(closed(asked("HTTP/1.1 099 No\r\n\r\n", false, true)).starts_with("HTTP answer from"));
    let endless = "HTTP/1.1 200 OK\r\nX: ".to_owned() + &"x".repeat(70_000);
    let line = closed(asked(endless.leak(), true, true));
    assert!(line.starts_with("head of 127.0.0.1:") && line.ends_with("'s answer has no end"), "{line}");
    let many = "HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(128) + "\r\n";
    assert_eq!(asked(many.leak(), true, true), answer(200, None, ""));
    assert_eq!(asked("", true, false), Err(ExchangeError::TimedOut));
    assert_eq!(asked("HTTP/1.1 200 OK\r\n", true, false), Err(ExchangeError::TimedOut));
}

#[test]
fn the_request_names_the_probe_and_its_query() {
    for (probe, url_path, line) in [
        (Probe::Live, "", "GET /livez HTTP/1.1"),
        (Probe::Ready, "/", "GET /readyz HTTP/1.1"),
        (Probe::Health, "", "GET /healthz HTTP/1.1"),
        // The request has the canonical path, whichever alias the URL has.
        (Probe::Health, "/health/?verbose", "GET /healthz?verbose HTTP/1.1"),
    ] {
        let (port, server) = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false);
        let url = Some(format!("http://localhost:{port}{url_path}"));
        let nobody = config(Interface::Path("/nowhere".into()), 1);
        assert_eq!(check(&nobody, &CheckOptions { probe, url, timeout: LONG }), 0);
        let request = server.join().unwrap();
        let mut lines = request.lines();
        assert_eq!(lines.next(), Some(line));
        assert_eq!(lines.next(), Some(format!("Host: localhost:{port}").as_str()));
    }
}

#[test]
fn check_exits_with_0_or_1_in_every_case() {
    let check = |port, timeout| {
        let local = Interface::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        check(&config(local, port), &CheckOptions { probe: Probe::Ready, url: None, timeout })
    };
    for (text, code) in [
        ("HTTP/1.1 200 OK\r\n\r\n", 0),
        ("HTTP/1.1 301 Moved\r\n\r\n", 1),
        ("HTTP/1.1 503 x\r\n\r\nwhy\n", 1),
        ("nonsense\r\n\r\n", 1),
        ("", 1),
    ] {
        let (port, server) = server(text, false);
        assert_eq!(check(port, LONG), code, "{text}");
        server.join().unwrap();
    }
    let (port, server) = server("", true);
    assert_eq!(check(port, SHORT), 1);
    server.join().unwrap();
    // The port was bound and released again, so there is no listener.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    assert_eq!(check(free, LONG), 1);
    assert_eq!(check(0, LONG), 1);
}

#[test]
fn wait_exits_with_the_code_of_the_job() {
    let wait = |port: u16, timeout| {
        let url = Some(format!("http://127.0.0.1:{port}"));
        wait(
            &config(Interface::Path("/nowhere".into()), 1),
            &WaitOptions { url, timeout, ..WaitOptions::default() },
        )
    };
    for (text, held, timeout, code) in [
        ("HTTP/1.1 200 OK\r\nKapo-Exit-Code: 7\r\nContent-Length: 99\r\n\r\n[", true, None, 7),
        ("HTTP/1.1 200 OK\r\nKapo-Exit-Code: 0\r\n\r\n", false, Some(LONG), 0),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", false, None, 125),
        ("", false, None, 125),
        ("", true, Some(SHORT), 124),
    ] {
        let (port, server) = server(text, held);
        assert_eq!(wait(port, timeout), code, "{text}");
        assert!(server.join().unwrap().starts_with("GET /wait HTTP/1.1\r\n"));
    }
}

#[test]
fn a_timeout_of_zero_makes_one_request_and_does_not_wait() {
    let wait = |port: u16, path: &str| {
        let url = Some(format!("http://127.0.0.1:{port}{path}"));
        wait(
            &config(Interface::Path("/nowhere".into()), 1),
            &WaitOptions { url, timeout: Some(Duration::ZERO), ..WaitOptions::default() },
        )
    };
    for (text, path, asked, code) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "", "/wait?timeout=0", 124),
        ("HTTP/1.1 200 OK\r\nKapo-Exit-Code: 7\r\n\r\n", "/wait", "/wait?timeout=0", 7),
        ("HTTP/1.1 200 OK\r\n\r\n", "/wait?timeout=9&x", "/wait?timeout=0&timeout=9&x", 124),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "/x", "/x?timeout=0", 125),
        ("", "", "/wait?timeout=0", 125),
    ] {
        let (port, server) = server(text, false);
        assert_eq!(wait(port, path), code, "{text}");
        assert_eq!(server.join().unwrap().lines().next(), Some(format!("GET {asked} HTTP/1.1").as_str()));
    }
}

#[test]
fn an_answer_without_an_exit_code_is_still_an_answer() {
    for (answer, once, said) in [
        (
            (200, None),
            false,
            (125, "the answer (HTTP 200) has no exit code: whether the job still runs is unknown"),
        ),
        ((200, None), true, (124, "")),
        ((404, None), true, (125, "no kapo answers: HTTP 404")),
        ((404, None), false, (125, "no kapo answers: HTTP 404")),
        ((200, Some(3)), false, (3, "")),
    ] {
        let (status, kapo_exit_code) = answer;
        let (code, line) =
            verdict(Ok(Response { status, kapo_exit_code, is_text: false, body: Vec::new() }), once);
        assert_eq!((code, line.as_deref().unwrap_or_default()), said);
    }
    assert_eq!(verdict(Err(ExchangeError::TimedOut), false), (124, None));
    assert_eq!(verdict(Err(ExchangeError::TimedOut), true), (125, Some("no answer in time".to_owned())));
}

#[test]
fn unix_sockets_are_reached_by_path_and_by_abstract_name() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let name = format!("kapo-test-{}", std::process::id()).into_bytes();
    let abstract_one = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (listener, interface) in [
        (UnixListener::bind(&path).unwrap(), Interface::Path(path.clone())),
        (abstract_one, Interface::Abstract(name)),
    ] {
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0, text, false));
        assert_eq!(ask(&config(interface, 1), None, "/livez", Some(LONG), true), answer(200, None, ""));
        assert!(thread.join().unwrap().contains("\r\nHost: localhost\r\n"));
    }
    let gone = ask(&config(Interface::Path(path.clone()), 1), None, "/livez", Some(LONG), true);
    let line = format!("cannot connect to {}: Connection refused", path.display());
    assert_eq!(gone, Err(ExchangeError::Unreachable(line)));
}

#[test]
fn a_full_backlog_of_a_unix_socket_ends_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    // The smallest backlog holds one connection, and it is never accepted.
    rustix::net::listen(&listener, 0).unwrap();
    let _queued = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let result = ask(&config(Interface::Path(path), 1), None, "/livez", Some(SHORT), true);
    assert_eq!(result, Err(ExchangeError::TimedOut));
}

#[test]
fn an_unknown_name_is_reported() {
    // This name is longer than a DNS label may be, so the resolver asks no server.
    let name = "x".repeat(64);
    let url = format!("http://{name}:1/");
    match ask(&config(Interface::Path("/nowhere".into()), 1), Some(&url), "/livez", Some(LONG), true) {
        Err(ExchangeError::Unreachable(line)) => {
            assert!(line.starts_with(&format!("cannot resolve {name}: ")), "{line}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_first_line_of_a_reason_is_shown() {
    assert_eq!(first_line(b"why\nmore"), "why");
    assert_eq!(first_line(b"\x1b[31mred\x07\r\n"), "[31mred");
    assert_eq!(first_line(b""), "");
    assert_eq!(first_line(&[b'x'; 1_000]).len(), 200);
    assert_eq!(first_line(b"\xff"), "\u{fffd}");
}

#[test]
fn a_line_is_written_only_if_there_is_a_reader() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    say(writer.as_fd(), "ready:\n ok");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ready:\\n ok\n");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(!has_room(writer.as_fd()));
}
