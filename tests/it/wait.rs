//! Tests of a one-shot job: /wait and /events while it runs, --idle-exit after it, and the clients `kapo check` and
//! `kapo wait`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};

use crate::chunked::Chunked;
use crate::harness::{Answer, Kapo, binary, clean, kapo, kapo_on_a_free_port, now, run_to_the_end, wait_for};
use crate::notify_races::WORDS;
use crate::streams::read_head;
use crate::tools::{Events, Gate, Line, expect_no_wakeup, unique};

/// Starts a job that exits with this code when the gate opens, and whose status is then shown for long.
fn job(gate: &Gate, code: i32) -> Kapo {
    let script = format!("read x < \"$0\"; exit {code}");
    Kapo::start(["run", "--wait", "1h", "sh", "-c", &script, gate.path()])
}

fn object(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut document: Value = serde_json::from_str(&answer.body).unwrap();
    document[0].take()
}

#[test]
fn all_waiting_clients_get_the_end_and_its_code() {
    let mut gate = Gate::new();
    let kapo = job(&gate, 9);
    let mut lines: Vec<Line> = (0..20).map(|_| Line::to(&kapo)).collect();
    for line in &mut lines {
        line.send("/wait");
    }
    // A pipelined request, a timeout that does not pass, a half-closed connection, and a client that disconnects.
    lines[1].send("/livez");
    lines[2].send("/wait?timeout=1h");
    let mut half = kapo.connect();
    half.write_all(b"GET /wait HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    drop(lines.pop());
    let mut head = kapo.connect();
    head.write_all(b"HEAD /wait HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(kapo.get("/livez").status, 200);
    assert!(lines.iter_mut().all(Line::is_silent));
    expect_no_wakeup(kapo.pid());
    gate.open();
    for (place, line) in lines.iter_mut().enumerate() {
        let answer = line.answer();
        assert_eq!(answer.field("kapo-exit-code"), Some("9"), "{answer:?}");
        assert_eq!(answer.field("content-type"), Some("application/json"));
        let status = object(&answer);
        assert_eq!((&status["ExitCode"], &status["Status"]), (&json!(9), &json!("stopped")));
        assert_eq!(answer.field("kapo-start-time"), status["StartTime"].as_str());
        match place {
            1 => assert_eq!(line.answer().body.trim(), "ok", "in order"),
            2 => assert_eq!(line.answer().field("kapo-exit-code"), Some("9")),
            _ => {}
        }
        // The connection can be used again.
        assert_eq!(line.ask("/wait").field("kapo-exit-code"), Some("9"));
    }
    for (mut stream, has_body) in [(half, true), (head, false)] {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let answer = Answer::parse(&bytes);
        assert_eq!((answer.field("kapo-exit-code"), !answer.body.is_empty()), (Some("9"), has_body));
        assert_ne!(answer.field("content-length"), Some("0"));
    }
}

#[test]
fn a_wait_ends_at_its_timeout() {
    let mut gate = Gate::new();
    let kapo = job(&gate, 0);
    let start = now();
    let answer = kapo.get("/wait?timeout=300ms");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!((&object(&answer)["Status"], answer.field("kapo-exit-code")), (&json!("running"), None));
    for query in ["timeout=0", "timeout=0.001", "timeout=1ms", "a=b&timeout=0"] {
        assert_eq!(kapo.get(&format!("/wait?{query}")).field("kapo-exit-code"), None, "{query}");
    }
    for query in ["timeout=", "timeout=abc", "timeout=-1", "timeout=NaN", "timeout=1%20", "timeout=inf"] {
        let answer = kapo.get(&format!("/wait?{query}"));
        assert_eq!((answer.status, answer.field("kapo-exit-code")), (400, None), "{query}");
    }
    // A time that practically never passes.
    let mut line = Line::to(&kapo);
    line.send("/wait?timeout=18446744073709551615");
    assert_eq!(kapo.get("/livez").status, 200);
    assert!(line.is_silent());
    gate.open();
    assert_eq!(line.answer().field("kapo-exit-code"), Some("0"));
}

#[test]
fn the_code_in_the_answer_is_kapos_exit_code() {
    for (options, script, code) in [
        (&["--ttl", "100ms"][..], "exec sleep 60", 124),
        (&[], "kill -9 $$", 137),
        (&["--success-exit", "3"], "exit 3", 0),
    ] {
        let words = [&["run"], options, &["--wait", "700ms", "sh", "-c", script]].concat();
        let mut kapo = Kapo::start(words);
        let answer = kapo.get("/wait");
        assert_eq!(answer.field("kapo-exit-code"), Some(code.to_string().as_str()), "{answer:?}");
        kapo.expect_exit(code);
    }
}

#[test]
fn a_wait_is_answered_although_kapo_ends_with_the_job() {
    for _ in 0..20 {
        let mut gate = Gate::new();
        let mut kapo = Kapo::start(["run", "sh", "-c", "read x < \"$0\"; exit 4", gate.path()]);
        let mut lines = [Line::to(&kapo), Line::to(&kapo)];
        lines.iter_mut().for_each(|line| line.send("/wait"));
        assert_eq!(kapo.get("/livez").status, 200);
        gate.open();
        for line in &mut lines {
            assert_eq!(line.answer().field("kapo-exit-code"), Some("4"));
            assert_eq!(line.rest(), "");
        }
        kapo.expect_exit(4);
    }
}

#[test]
fn supervise_answers_each_end_however_short_the_pause() {
    let mut gate = Gate::new();
    let kapo = Kapo::start(["supervise", "--wait", "0", "sh", "-c", "read x < \"$0\"; exit 4", gate.path()]);
    let mut line = Line::to(&kapo);
    for run in 0..20 {
        kapo.wait_for_status("a run", |s| s["Status"] == "running" && s["Restarts"] == run);
        line.send("/wait");
        assert_eq!(kapo.get("/livez").status, 200);
        assert!(line.is_silent());
        gate.open();
        let answer = line.answer();
        let status = object(&answer);
        assert_eq!((answer.field("kapo-exit-code"), &status["Restarts"]), (Some("4"), &json!(run)));
    }
}

#[test]
fn events_report_and_number_each_change() {
    let mut gate = Gate::new();
    let mut kapo = Kapo::start(["run", "sh", "-c", "read x < \"$0\"; exit 4", gate.path()]);
    let follow = |fields: &str| {
        let mut stream = kapo.connect();
        stream.write_all(format!("GET /events HTTP/1.1\r\nHost: test\r\n{fields}\r\n").as_bytes()).unwrap();
        stream
    };
    let mut all = Line::of(follow(""));
    let mut again = Events::of(&kapo);
    let first = again.next().unwrap();
    assert_eq!(first["Status"], "running");
    kapo.signal(10);
    // A request without a change causes no event, so the next event is the end.
    gate.open();
    let mut last = first;
    while let Some(status) = again.next() {
        assert_ne!(status, last);
        last = status;
    }
    assert_ne!(last["Status"], "running");
    drop(again);
    let text = all.rest();
    assert!(text.contains("\r\nContent-Type: text/event-stream\r\n"), "{text}");
    let ids: Vec<u64> = text.lines().filter_map(|l| l.strip_prefix("id: ")?.parse().ok()).collect();
    assert!(ids.len() >= 2 && ids.windows(2).all(|two| two[1] == two[0] + 1), "{ids:?}");
    drop(all);
    wait_for("kapo ends", || kapo.try_wait().is_some());
}

#[test]
fn event_ids_of_kapos_started_in_one_second_differ() {
    let first_id = || {
        let kapo = Kapo::start(["run", "sleep", "60"]);
        let mut stream = BufReader::new(kapo.connect());
        stream.get_mut().write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
        let mut line = String::new();
        while !line.starts_with("id: ") {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream ended before the first id");
        }
        line
    };
    let ids: Vec<String> = (0..8).map(|_| first_id()).collect();
    let mut distinct = ids.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

#[test]
fn a_client_that_reconnects_to_events_gets_only_news() {
    let mut gate = Gate::new();
    let kapo = job(&gate, 4);
    let follow = |id: &str| {
        let mut stream = kapo.connect();
        let request = format!("GET /events HTTP/1.1\r\nHost: test\r\nLast-Event-ID: {id}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_head(&mut stream).status, 200);
        Chunked::body_of(stream).chunk().unwrap().unwrap()
    };
    let first = follow("");
    let id = first.strip_prefix("id: ").unwrap().lines().next().unwrap().to_owned();
    assert_eq!(follow(&id), ": nothing new\n\n");
    assert_eq!(follow("123"), first);
    assert_eq!(follow("nonsense"), first);
    gate.open();
    kapo.wait_for_status("its end", |status| status["Status"] == "stopped");
    assert_ne!(follow(&id), ": nothing new\n\n");
}

#[test]
fn idle_exit_counts_from_the_last_request() {
    let mut gate = Gate::new();
    let words = ["run", "--idle-exit", "700ms", "sh", "-c", "read x < \"$0\"; exit 5", gate.path()];
    let mut kapo = Kapo::start(words);
    // While the job runs, --idle-exit needs no timer.
    expect_no_wakeup(kapo.pid());
    let mut line = Line::to(&kapo);
    let _silent = kapo.connect();
    gate.open();
    let start = now();
    let mut last = start;
    while start.elapsed() < Duration::from_millis(1_500) {
        last = now();
        assert_eq!(line.ask("/livez").status, 200);
    }
    kapo.expect_exit(5);
    assert!(last.elapsed() >= Duration::from_millis(690), "{:?}", last.elapsed());
}

#[test]
fn a_wait_that_is_answered_after_the_end_counts_as_request() {
    let mut kapo = Kapo::start(["run", "--idle-exit", "300ms", "sh", "-c", "exit 5"]);
    let answer = kapo.get("/wait");
    let answered = now();
    assert_eq!(answer.field("kapo-exit-code"), Some("5"));
    kapo.expect_exit(5);
    assert!(answered.elapsed() >= Duration::from_millis(250), "{:?}", answered.elapsed());
}

#[test]
fn a_stop_ends_the_lingering_at_once() {
    for option in ["--idle-exit", "--wait"] {
        let mut kapo = Kapo::start(["run", option, "1h", "sh", "-c", "exit 5"]);
        kapo.wait_for_status("its end", |status| status["Status"] == "stopped");
        kapo.signal(15);
        kapo.expect_exit(5);
    }
}

/// Runs `kapo WORDS`. Returns the exit code, stdout and stderr.
fn client(words: &[&str]) -> (i32, String, String) {
    let (code, stdout, stderr) = run_to_the_end(kapo(words));
    (code.unwrap(), stdout, stderr)
}

#[test]
fn check_reports_success_or_failure_and_its_reason() {
    let mut gate = Gate::new();
    let kapo = job(&gate, 3);
    let port = kapo.address().port().to_string();
    let url = format!("http://127.0.0.1:{port}");
    for (words, says) in [
        (&["-p", &port, "check"][..], "ready: ok\n"),
        (&["-p", &port, "check", "--live"], "live: ok\n"),
        (&["-p", &port, "check", "--health"], "healthy: ok\n"),
        (&["check", &url], "ready: ok\n"),
        (&["check", "--live", &format!("{url}/")], "live: ok\n"),
    ] {
        assert_eq!(client(words), (0, says.to_owned(), String::new()), "{words:?}");
    }
    gate.open();
    kapo.wait_for_status("its end", |status| status["Status"] == "stopped");
    let (code, stdout, _) = client(&["check", &url]);
    assert_eq!((code, stdout.as_str()), (1, "not ready: HTTP 503: exited with code 3\n"));
    assert_eq!(client(&["check", "--health", &url]).0, 1);
    assert_eq!(client(&["check", "--live", &url]).0, 0);
}

#[test]
fn check_of_a_url_requests_its_path() {
    let mut gate = Gate::new();
    let kapo = job(&gate, 3);
    let url = format!("http://{}", kapo.address());
    for (path, says) in [
        ("/livez", "live: ok\n"),
        ("/health", "healthy: ok\n"),
        ("/healthz/", "healthy: ok\n"),
        ("/ready?x", "ready: ok\nok\n"),
    ] {
        assert_eq!(
            client(&["check", &format!("{url}{path}")]),
            (0, says.to_owned(), String::new()),
            "{path}"
        );
    }
    gate.open();
    kapo.wait_for_status("its end", |status| status["Status"] == "stopped");
    // The body of the answer, after the label.
    let body = kapo.get("/healthz?verbose").body;
    assert!(body.lines().count() > 1, "{body}");
    let says = format!("not healthy: HTTP 503\n{body}");
    assert_eq!(client(&["check", &format!("{url}/healthz?verbose")]), (1, says, String::new()));
    let says = format!("live: ok\n{}", kapo.get("/livez?verbose").body);
    assert_eq!(client(&["check", &format!("{url}/livez?verbose")]), (0, says, String::new()));
    // Any other path would answer 200 in every state.
    let says = "kapo: URL: /foo is not a probe; use /livez, /readyz or /healthz\n".to_owned();
    assert_eq!(client(&["check", &format!("{url}/foo")]), (1, String::new(), says));
}

#[test]
fn check_and_wait_understand_unix_sockets() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("socket").to_str().unwrap().to_owned();
    let name = format!("@{}", unique("kapo-test-"));
    for address in [&path, &name] {
        let mut gate = Gate::new();
        let words =
            ["-i", address, "run", "--wait", "1h", "sh", "-c", "read x < \"$0\"; exit 3", gate.path()];
        let mut server = Kapo::launch(kapo(words));
        server.wait_for("it listens", |kapo| kapo.addresses() == [address.clone()]);
        let url = format!("unix:{address}");
        assert_eq!(client(&["-i", address, "check"]).0, 0);
        assert_eq!(client(&["check", &url]).0, 0);
        gate.open();
        assert_eq!(client(&["-i", address, "wait"]).0, 3);
        assert_eq!(client(&["wait", &url]).0, 3);
        assert_eq!(client(&["check", &url]).0, 1);
    }
}

/// Starts a server that sends these bytes on each connection, or nothing.
fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Ignore an error: a client that does not wait for the answer is gone.
            let _ = stream.write_all(answer);
            if answer.is_empty() {
                kept.push(stream);
            }
        }
    });
    url
}

/// Returns an address without a listener.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn without_a_kapo_check_exits_with_1_and_wait_with_125() {
    for (url, says) in [
        (nowhere(), "Connection refused"),
        (server(b"SSH-2.0-OpenSSH_9.2\r\n"), "HTTP"),
        (server(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "500"),
        ("unix:/nonexistent/socket".to_owned(), "No such file"),
    ] {
        let (code, stdout, stderr) = client(&["check", &url]);
        assert_eq!((code, stdout.lines().count() + stderr.lines().count()), (1, 1), "{stdout}{stderr}");
        assert!(stdout.contains(says) || stderr.contains(says), "{url}: {stdout}{stderr}");
        let (code, stdout, stderr) = client(&["wait", &url]);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (125, "", 1), "{url}: {stderr}");
        assert!(stderr.starts_with("kapo: ") && stderr.contains(says), "{stderr}");
    }
    // A server that answers like a web server is not a kapo.
    assert_eq!(client(&["wait", &server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]).0, 125);
    let silent = server(b"");
    let start = now();
    assert_eq!(client(&["check", "--timeout", "200ms", &silent]).0, 1);
    assert_eq!(client(&["wait", "--timeout", "200ms", &silent]).0, 124);
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[test]
fn check_exits_with_1_on_wrong_usage() {
    for words in [&["check", "--bogus"][..], &["check", "a", "b"], &["check", "--timeout", "x"]] {
        let (code, _, stderr) = client(words);
        assert_eq!(code, 1, "{words:?}: {stderr}");
        assert!(stderr.starts_with("kapo: "), "{stderr}");
    }
}

#[test]
fn wait_exits_with_the_jobs_code_or_124_at_its_timeout() {
    let mut gate = Gate::new();
    let server = job(&gate, 42);
    let port = server.address().port().to_string();
    assert_eq!(client(&["-p", &port, "wait", "--timeout", "200ms"]).0, 124);
    assert_eq!(client(&["-p", &port, "wait", "--timeout", "0"]).0, 124);
    drop(server);
    let server = job(&gate, 42);
    let port = server.address().port().to_string();
    let mut waiting = Kapo::launch(kapo(["-p", &port, "wait"]));
    let metrics = || server.get("/metrics").body;
    wait_for("it is connected", || metrics().lines().any(|line| line == "kapo_http_connections 2"));
    assert!(waiting.try_wait().is_none());
    gate.open();
    waiting.expect_exit(42);
    assert_eq!(client(&["-p", &port, "wait"]).0, 42);
    // The exit code is right even if the reason cannot be written.
    let mut command = clean("sh");
    command.args(["-c", "exec 1>&- 2>&- \"$0\" -p \"$1\" wait"]).arg(binary()).arg(&port);
    assert_eq!(run_to_the_end(command).0, Some(42));
    drop(server);
    assert_eq!(client(&["-p", &port, "wait"]).0, 125);
}

#[test]
fn kapo_sends_the_code_to_waiting_clients_before_it_ends() {
    let mut gate = Gate::new();
    let mut server =
        Kapo::launch(kapo_on_a_free_port(["run", "sh", "-c", "read x < \"$0\"; exit 4", gate.path()]))
            .listening();
    let port = server.address().port().to_string();
    let mut waiting = Kapo::launch(kapo(["-p", &port, "wait"]));
    wait_for("it is connected", || {
        server.get("/metrics").body.lines().any(|line| line == "kapo_http_connections 2")
    });
    gate.open();
    server.expect_exit(4);
    waiting.expect_exit(4);
    // A killed kapo cannot send the code.
    let server = Kapo::start(["run", "sleep", "60"]);
    let port = server.address().port().to_string();
    let mut waiting = Kapo::launch(kapo(["-p", &port, "wait"]));
    wait_for("it is connected", || {
        server.get("/metrics").body.lines().any(|line| line == "kapo_http_connections 2")
    });
    server.signal(9);
    waiting.expect_exit(125);
}

/// `kapo wait WORDS` at this kapo, and its exit code.
fn wait_at(port: u16, words: &[&str]) -> std::process::Child {
    let mut command = kapo(["--port", &port.to_string(), "--interface", "127.0.0.1", "wait"]);
    command.args(words).stderr(std::process::Stdio::piped()).spawn().unwrap()
}

fn ends(child: std::process::Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wait_ready_begins_before_kapo_listens() {
    // The port is free once the listener is dropped.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let early = wait_at(port, &["--ready"]);
    let mut gate = Gate::new();
    // The notifier becomes a child of kapo, which reads what it sent before it reaps it. A shell that waits for it could
    // reap it first, and kapo would not know any more whose notification it was.
    let gated = format!(
        "read x < \"$0\"; ({WORDS}=READY=1 \"$1\" --exact notify_races::speaker >/dev/null &); exec sleep 1000"
    );
    let words =
        ["--port", &port.to_string(), "--interface", "127.0.0.1", "run", "--notify", "--", "sh", "-c"];
    let mut command = kapo(words);
    command.args([&gated, gate.path()]).arg(std::env::current_exe().unwrap());
    let kapo = Kapo::launch(command).listening();
    let (code, said) = ends(wait_at(port, &["--ready", "--timeout", "300ms"]));
    assert_eq!((code, said.as_str()), (Some(124), "kapo: has not said READY=1\n"));
    assert_eq!(ends(wait_at(port, &["--healthy"])), (Some(0), String::new()));
    gate.open();
    assert_eq!(ends(early), (Some(0), String::new()));
    assert_eq!(kapo.get("/readyz").status, 200);
}

#[test]
fn wait_ready_tells_the_last_reason_unless_the_kapo_is_gone() {
    for (goes, expected) in [(false, "still starting"), (true, "Connection refused")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let waits = wait_at(listener.local_addr().unwrap().port(), &["--ready", "--timeout", "700ms"]);
        // The first request is answered; later ones are accepted by the kernel alone, or refused.
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.0 503 \r\n\r\nstill starting\n").unwrap();
        drop(stream);
        let listener = (!goes).then_some(listener);
        let (code, said) = ends(waits);
        assert_eq!(code, Some(124), "{said}");
        assert!(said.contains(expected), "{said}");
        drop(listener);
    }
}

#[test]
fn wait_ready_ends_with_the_code_of_a_job_that_ends_first() {
    for (code, expected) in [(7, 7), (0, 1)] {
        let mut gate = Gate::new();
        let script = format!("read x < \"$0\"; exit {code}");
        let kapo = Kapo::start(["run", "--notify", "--wait", "1h", "sh", "-c", &script, gate.path()]);
        let waits = wait_at(kapo.address().port(), &["--ready"]);
        wait_for("it has asked once", || kapo.get("/metrics").body.contains("path=\"/readyz\",code=\"503\""));
        gate.open();
        let said = format!("kapo: the job has ended with code {code}\n");
        assert_eq!(ends(waits), (Some(expected), said));
    }
}

#[test]
fn wait_ready_outlasts_the_failed_runs_of_supervise() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "if [ -e third ]; then exec sleep 1000; fi; [ -e second ] && touch third; touch second; exit 1";
    let mut command = kapo_on_a_free_port(["supervise", "--wait", "150ms", "sh", "-c", script]);
    command.current_dir(folder.path());
    let kapo = Kapo::launch(command).listening();
    // The command counts as ready as soon as it runs.
    kapo.wait_for_status("the second pause", |status| status["Restarts"] == 1 && status["Pid"] == 0);
    let waits = wait_at(kapo.address().port(), &["--healthy", "--timeout", "20"]);
    assert_eq!(ends(waits), (Some(0), String::new()));
    assert_eq!(kapo.status()["Restarts"], 2);
}
