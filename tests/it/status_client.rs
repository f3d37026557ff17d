//! Tests of `kapo status` with the real program, with servers that are not a kapo, and with older and newer versions.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Kapo, binary, clean, kapo, now, run_to_the_end, wait_for};
use crate::tools::Gate;

/// Runs `kapo status` in 64 MiB of address space. Returns exit code, stdout and stderr.
pub(crate) fn in_little_memory(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command: Command = clean("sh");
    command.arg("-c").arg("ulimit -v 65536; exec \"$@\"").arg("sh").arg(binary()).args(words);
    run_to_the_end(command)
}

/// The reaction of a server to a request.
#[derive(Clone)]
pub(crate) enum Reaction {
    /// Sends this answer and closes.
    Answer(Vec<u8>),
    /// Sends this answer and keeps the connection open until the client closes it.
    Stall(Vec<u8>),
}

/// Returns an answer with a length.
pub(crate) fn answer(status: u16, kind: &str, body: &[u8]) -> Reaction {
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    Reaction::Answer([head.as_bytes(), body].concat())
}

/// Starts a server whose answer depends on the path with its query. Returns its URL.
pub(crate) fn server(react: impl Fn(&str) -> Reaction + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let react = react.clone();
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                // Errors come from a client that has closed early.
                match react(request.split(' ').nth(1).unwrap_or_default()) {
                    Reaction::Answer(bytes) => drop(stream.write_all(&bytes)),
                    Reaction::Stall(bytes) => {
                        let _ = stream.write_all(&bytes).and_then(|()| stream.read(&mut byte));
                    }
                }
            });
        }
    });
    url
}

fn url(kapo: &Kapo) -> String {
    format!("http://{}", kapo.address())
}

#[test]
fn a_crash_loop_is_shown_from_first_failure_to_recovery() {
    let mut gate = Gate::new();
    let script = "echo one; echo cannot open queue >&2; read x < \"$0\"; exit 3";
    let kapo = Kapo::start([
        "-S",
        "-E",
        "--tail",
        "4K",
        "supervise",
        "--wait",
        "1h",
        "sh",
        "-c",
        script,
        gate.path(),
    ]);
    let show = || run_to_the_end(self::kapo(["status", &url(&kapo)]));
    wait_for("the command has spoken", || kapo.get("/logs").body.lines().count() == 2);
    let (code, text, _) = show();
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("sh: running for ") && !lines[0].contains("restarted"), "{text}");
    assert!(text.contains("\n  ready     yes\n") && text.contains("\n  now       memory "), "{text}");
    assert!(text.ends_with("last output:\n    | one\n    | cannot open queue\n"), "{text}");
    gate.open();
    kapo.wait_for_status("it has ended", |status| status["Reason"] == "exit-code");
    let (code, text, _) = show();
    assert_eq!(code, Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "sh: restarting for the 1st time, last exit 3");
    assert!(lines[1].starts_with("  state     in the pause since "), "{text}");
    assert!(lines[2].starts_with("  ready     no: restarting in "), "{text}");
    assert!(text.contains("  exit 3\n"), "{text}");
    assert!(lines.len() <= 24, "{text}");
}

#[test]
fn json_has_the_unchanged_document_and_the_runs() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    let (code, text, _) = run_to_the_end(self::kapo(["status", "--output", "json", &url(&kapo)]));
    assert_eq!(code, Some(0));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["Status"], serde_json::from_str::<Value>(&kapo.get("/").body).unwrap());
    assert!(value["Runs"].is_null() || value["Runs"].is_array(), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn watched_processes_are_listed() {
    let kapo = Kapo::start(["watch", "--wait", "1h", "no-such-process-of-this-test"]);
    let (code, text, _) = run_to_the_end(self::kapo(["status", &url(&kapo)]));
    assert_eq!((code, text.as_str()), (Some(1), "no-such-process-of-this-test: no process\n"));
    let pid = kapo.pid().to_string();
    let watched = Kapo::start(["watch", "--pid", &pid]);
    let (code, text, _) = run_to_the_end(self::kapo(["status", &url(&watched)]));
    assert_eq!(code, Some(0));
    assert!(text.contains(": 1 process\n") && text.contains(&format!("\n  {pid:<9} 20")), "{text}");
}

#[test]
fn status_follows_the_address_rules_of_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").display().to_string();
    let mut command = self::kapo(["--quiet", "--interface", &path, "run", "sleep", "60"]);
    command.env("KAPO_QUIET", "1");
    let _kapo = Kapo::launch(command);
    wait_for("it listens", || std::os::unix::net::UnixStream::connect(&path).is_ok());
    for words in [&["-i", &path, "status"][..], &["status", &format!("unix:{path}")]] {
        let (code, text, _) = run_to_the_end(self::kapo(words));
        assert!(code == Some(0) && text.starts_with("sleep: running for "), "{text}");
    }
    let mut command = self::kapo(["status"]);
    command.env("KAPO_INTERFACE", &path);
    assert_eq!(run_to_the_end(command).0, Some(0));
}

const DOCUMENT: &str = r#"[{"Command":"worker","Status":"killed","Mode":"supervise","Ready":false,"Restarts":4,"Reason":"oom-kill","ExitCode":137,"NextStart":"2099-01-01T00:00:00Z","New":{"a":[1.5,-2]}}]"#;

#[test]
fn the_history_of_a_newer_kapo_is_shown() {
    let url = server(|path| {
        match path {
        "/" => answer(200, "application/json", DOCUMENT.as_bytes()),
        "/runs" => answer(
            200,
            "application/json",
            br#"[{"EndTime":"2026-11-27T10:30:00Z","LastedSeconds":1.25,"ExitCode":137,"Signal":"SIGKILL","Reason":"signal","Memory":{"PeakBytes":222298112,"LimitBytes":536870912,"OomKills":0}},{"EndTime":"2026-11-27T10:00:00Z","LastedSeconds":0.5,"ExitCode":3,"Reason":"exit-code","First":true,"LastOutput":["cannot open queue\u001b[31m"]}]"#,
        ),
        "/logs" => answer(404, "text/plain", b"start kapo with --tail BYTES"),
        path if path.starts_with("/metrics?name[]=") => answer(
            200,
            "text/plain",
            b"kapo_cgroup_memory_bytes 222298112\nkapo_cgroup_memory_limit_bytes 536870912\n",
        ),
        _ => answer(503, "text/plain", b"restarting in 4 s\n"),
    }
    });
    let (code, text, errors) = run_to_the_end(kapo(["status", &url]));
    assert_eq!((code, errors.as_str()), (Some(1), ""));
    let expected =
        "worker: restarting for the 5th time, last exit 137: killed by SIGKILL; memory peak 212 of 512 MiB\n";
    assert!(text.starts_with(expected), "{text}");
    let rest = "  ready     no: restarting in 4 s\n\
        \x20 restarts  4\n\
        \x20 now       cgroup 212 of 512 MiB\n\
        last ends:\n\
        \x20 2026-11-27 10:30:00Z  after 1.2 s       exit 137: killed by SIGKILL; memory peak 212 of 512 MiB\n\
        first failure of the episode:\n\
        \x20 2026-11-27 10:00:00Z  after 0.5 s       exit 3\n\
        \x20   | cannot open queue\\u{1b}[31m\n";
    assert!(text.ends_with(rest), "{text}");
}

#[test]
fn an_older_kapo_without_other_paths_is_shown() {
    let url = server(|_| answer(200, "application/json", DOCUMENT.as_bytes()));
    let (code, text, errors) = run_to_the_end(kapo(["status", &url]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(
        text.starts_with("worker: restarting for the 5th time, last exit 137: killed, out of memory\n"),
        "{text}"
    );
    let (_, text, _) = run_to_the_end(kapo(["status", "--output=json", &url]));
    assert_eq!(text, format!("{{\"Status\":{DOCUMENT},\"Runs\":null}}\n"));
}

#[test]
fn invalid_answers_give_one_line_in_bounded_memory() {
    let huge = |head: &str, piece: &str| {
        [head.as_bytes(), &piece.as_bytes().repeat(10_000_000 / piece.len())].concat()
    };
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    for (reaction, end) in [
        (answer(200, "text/html", b"<html>\x1b[31m</html>"), ": this is no status document"),
        (answer(200, "application/json", b"[]"), ": this is no status document"),
        (answer(404, "text/html", b"<html>"), ": HTTP 404"),
        (Reaction::Answer(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), ""),
        (Reaction::Answer(Vec::new()), " closed the connection without an answer"),
        (
            Reaction::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[".to_vec()),
            " closed the connection within an answer",
        ),
        (
            Reaction::Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx".to_vec()),
            " is malformed",
        ),
        (Reaction::Answer(huge(head, "x")), " is longer than 8388608 bytes"),
        (
            Reaction::Stall(huge("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[", "[],")),
            " is longer than 8388608 bytes",
        ),
        (Reaction::Answer(huge(head, "[").split_off(5_000_000)), ""),
        (
            Reaction::Answer([head.as_bytes(), b"[".repeat(8_000_000).as_slice()].concat()),
            ": this is no status document",
        ),
        (
            Reaction::Answer([head.as_bytes(), b"[0", b",0".repeat(4_000_000).as_slice(), b"]"].concat()),
            ": this is no status document",
        ),
        (Reaction::Answer(huge("HTTP/1.1 200 OK\r\nX: ", "x")), "'s answer has no end"),
    ] {
        let url = server(move |_| reaction.clone());
        let (code, text, errors) = in_little_memory(&["status", &url]);
        assert_eq!((code, text.as_str(), errors.lines().count()), (Some(3), "", 1), "{errors}");
        let line = errors.strip_suffix('\n').unwrap();
        assert!(
            line.starts_with("kapo: ") && line.ends_with(end) && !line.contains(char::is_control),
            "{line}"
        );
    }
}

#[test]
fn a_stalled_target_takes_no_longer_than_the_timeout() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[".to_vec();
    for (reaction, only) in [(Reaction::Stall(Vec::new()), ""), (Reaction::Stall(head), "")] {
        let url = server(move |_| reaction.clone());
        let start = now();
        let (code, text, errors) = run_to_the_end(kapo(["status", "--timeout", "0.3", &url]));
        assert_eq!((code, text.as_str(), errors.as_str()), (Some(3), only, "kapo: no answer in time\n"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    // If only optional requests stall, the rest is shown.
    let url = server(|path| match path {
        "/" => answer(200, "application/json", DOCUMENT.as_bytes()),
        "/healthz" => answer(200, "text/plain", b"ok"),
        _ => Reaction::Stall(Vec::new()),
    });
    let (code, text, errors) = run_to_the_end(kapo(["status", "--timeout", "0.3", &url]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(text.starts_with("worker: restarting for the 5th time"), "{text}");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let (code, _, errors) = run_to_the_end(kapo(["status", &format!("http://{free}")]));
    assert_eq!((code, errors), (Some(3), format!("kapo: cannot connect to {free}: Connection refused\n")));
}

#[test]
fn a_page_that_cannot_be_written_is_an_error() {
    let kapo_up = Kapo::start(["run", "sleep", "1000"]);
    for format in ["text", "json"] {
        let mut command = kapo(["status", "--output", format, &url(&kapo_up)]);
        command.stdout(std::fs::File::create("/dev/full").unwrap()).stderr(std::process::Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let said = "kapo: cannot write to stdout: No space left on device\n";
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(1), said));
    }
}
