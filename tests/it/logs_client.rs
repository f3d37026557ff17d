//! Tests of `kapo logs` with the real program, and with servers that are not a kapo.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Kapo, binary, clean, kapo, now, run_to_the_end, wait_for};
use crate::status_client::{Reaction, answer, in_little_memory, server};
use crate::tools::Gate;

fn url(kapo: &Kapo) -> String {
    format!("http://{}", kapo.address())
}

/// Starts a command that runs `script` and then sleeps. Waits until kapo keeps this many bytes.
fn speaker(script: &str, bytes: usize) -> Kapo {
    let script = format!("{script}; exec sleep 60");
    let kapo = Kapo::start(["-S", "-E", "--tail", "4K", "run", "sh", "-c", &script]);
    wait_for("it has spoken", || {
        let answer = kapo.get("/logs");
        answer.field("content-length").is_some_and(|length| length == bytes.to_string())
    });
    kapo
}

#[test]
fn a_pipe_gets_the_bytes_that_are_kept() {
    let kapo = speaker("printf 'one\\n\\033[2J\\377\\r'; sleep 0.1; printf 'two\\nthree' >&2", 19);
    let run = |words: &[&str]| {
        let mut command = self::kapo(["logs"]);
        command.args(words).arg(url(&kapo));
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        output.stdout
    };
    assert_eq!(run(&[]), b"one\n\x1b[2J\xff\rtwo\nthree");
    assert_eq!(run(&["-n", "1"]), b"three");
    assert_eq!(run(&["--lines=2"]), b"\x1b[2J\xff\rtwo\nthree");
    assert_eq!(run(&["-n0"]), b"");
    assert_eq!(run(&["--stream", "stdout"]), b"one\n\x1b[2J\xff\r");
    assert_eq!(run(&["--stream=stderr", "-n", "1"]), b"three");
}

#[test]
fn following_continues_across_restarts_and_ends_with_kapo() {
    let mut gate = Gate::new();
    let script = "echo begin; echo again; read x < \"$0\"; echo \"end $$\"; exit 3";
    let mut kapo = Kapo::start([
        "-S",
        "--tail",
        "4K",
        "supervise",
        "--wait",
        "0.1",
        "--max-restarts",
        "1",
        "sh",
        "-c",
        script,
        gate.path(),
    ]);
    wait_for("it has spoken", || kapo.get("/logs").body.lines().count() == 2);
    let asked = || {
        let metrics = kapo.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("kapo_http_requests_total{path=\"/logs\","));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = asked();
    let mut follower = Kapo::launch(self::kapo(["logs", "-f", &url(&kapo)]));
    let mut last = Kapo::launch(self::kapo(["logs", "-f", "-n", "1", &url(&kapo)]));
    let mut new = Kapo::launch(self::kapo(["logs", "-f", "-n", "0", &url(&kapo)]));
    follower.wait_for_stdout("begin\nagain\n");
    last.wait_for_stdout("again\n");
    // A client that has only connected may still miss a line: its request counts.
    wait_for("three follow", || asked() == before + 3);
    assert_eq!((last.stdout().as_str(), new.stdout().as_str()), ("again\n", ""));
    gate.open();
    follower.wait_for("it shows the second run", |follower| follower.stdout().matches("begin").count() == 2);
    gate.open();
    kapo.expect_exit(3);
    for (follower, kept) in [(&mut follower, "begin\nagain\n"), (&mut last, "again\n"), (&mut new, "")] {
        follower.expect_exit(0);
        let text = follower.stdout();
        let lines: Vec<&str> = text.strip_prefix(kept).unwrap().lines().collect();
        assert!(lines[0].starts_with("end ") && lines[3].starts_with("end ") && lines.len() == 4, "{text}");
        assert_eq!((&lines[1..3], follower.stderr().as_str()), (&["begin", "again"][..], ""));
    }
}

#[test]
fn without_kept_output_the_error_names_the_option() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    for words in [&["logs"][..], &["logs", "--follow"]] {
        let mut command = self::kapo(words);
        command.arg(url(&kapo));
        let (code, text, errors) = run_to_the_end(command);
        let expected =
            "kapo: no output is kept: start kapo with --stderr --tail 64K (--stdout for standard output)\n";
        assert_eq!((code, text.as_str(), errors.as_str()), (Some(1), "", expected));
    }
}

#[test]
fn a_reader_that_closes_ends_it_quietly() {
    let kapo = speaker("echo one", 4);
    for words in [&["logs", "-f"][..], &["logs", "-f", "-n", "1"]] {
        for ignored in [false, true] {
            let mut command = clean("sh");
            let preparation = if ignored { "trap '' PIPE; exec \"$@\"" } else { "exec \"$@\"" };
            command.arg("-c").arg(preparation).arg("sh").arg(binary()).args(words).arg(url(&kapo));
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            assert_eq!(line, "one\n");
            drop(out);
            assert_eq!(child.wait().unwrap().code(), Some(0));
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            assert_eq!(errors, "");
        }
    }
}

#[test]
fn the_stream_of_a_killed_kapo_is_cut_off() {
    let mut kapo = speaker("echo one", 4);
    let mut follower = Kapo::launch(self::kapo(["logs", "-f", &url(&kapo)]));
    follower.wait_for_stdout("one\n");
    kapo.signal(9);
    kapo.expect_signal(9);
    follower.expect_exit(1);
    assert_eq!((follower.stdout().as_str(), follower.stderr().lines().count()), ("one\n", 1));
}

#[test]
fn invalid_answers_give_one_line_in_bounded_memory() {
    let huge = |head: &str| [head.as_bytes(), &b"x".repeat(10_000_000)].concat();
    let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    for (reaction, code, end) in [
        (answer(200, "text/html", b"<html>\x1b[31m</html>"), 3, ": /logs is no plain text"),
        (answer(200, "application/json", b"[]"), 3, ": /logs is no plain text"),
        (answer(404, "text/html", b"<html>no output</html>"), 3, ": HTTP 404"),
        (answer(502, "text/plain", b"no output is kept"), 3, ": HTTP 502"),
        (Reaction::Answer(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), 3, ""),
        (Reaction::Answer(Vec::new()), 3, " closed the connection without an answer"),
        (
            Reaction::Answer(format!("{text}Transfer-Encoding: chunked\r\n\r\n\x1b").into_bytes()),
            0,
            " is malformed",
        ),
        (Reaction::Answer(huge("HTTP/1.1 200 OK\r\nX: ")), 3, "'s answer has no end"),
        (Reaction::Stall(Vec::new()), 3, "no answer in time"),
    ] {
        let url = server(move |_| reaction.clone());
        for words in [&["logs", "--timeout", "0.5", &url][..], &["logs", "--timeout", "0.5", "-f", &url]] {
            let start = now();
            let (ended, text, errors) = in_little_memory(words);
            assert!(start.elapsed() < Duration::from_secs(10));
            assert_eq!((text.as_str(), errors.lines().count()), ("", 1), "{errors}");
            // A stream with an invalid chunk is cut off.
            let expected = if code != 0 {
                code
            } else if words.contains(&"-f") {
                1
            } else {
                3
            };
            assert_eq!(ended, Some(expected), "{errors}");
            let line = errors.strip_suffix('\n').unwrap();
            assert!(
                line.starts_with("kapo: ") && line.ends_with(end) && !line.contains(char::is_control),
                "{line}"
            );
        }
    }
    let reaction = Reaction::Answer(huge(&format!("{text}\r\n")));
    let url = server(move |_| reaction.clone());
    let (code, text, errors) = in_little_memory(&["logs", &url]);
    assert_eq!((code, text.as_str(), errors.lines().count()), (Some(3), "", 1), "{errors}");
    // The length of a stream is not limited.
    let (code, text, errors) = in_little_memory(&["logs", "-f", &url]);
    assert_eq!((code, text.len(), errors.as_str()), (Some(0), 10_000_000, ""));
}
