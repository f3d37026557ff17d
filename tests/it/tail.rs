//! Tests of `--tail`: the last output at /logs, its followers, and the last lines of a failed command.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::chunked::Chunked;
use crate::harness::{Answer, Kapo, kapo_on_a_free_port, wait_for};
use crate::sinks::{captured, pipe, read_all, wait_until_stalled};
use crate::streams::read_head;

/// A command that writes its input lines to stdout, or to stderr if a line begins with `!`.
struct Speaker {
    kapo: Kapo,
    gate: std::fs::File,
    _folder: TempDir,
}

impl Speaker {
    fn start(flags: &[&str]) -> Speaker {
        let folder = TempDir::new().unwrap();
        let gate = folder.path().join("gate");
        rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
        let script = "exec 3<\"$0\"; while IFS= read -r line <&3; do
            case $line in !*) echo \"${line#!}\" >&2;; *) echo \"$line\";; esac; done; exit 9";
        let words = [flags, &["run", "--wait", "1m", "sh", "-c", script, gate.to_str().unwrap()]].concat();
        let kapo = Kapo::start(words);
        let gate = std::fs::File::options().write(true).open(gate).unwrap();
        Speaker { kapo, gate, _folder: folder }
    }

    fn says(&mut self, text: &str) {
        self.gate.write_all(text.as_bytes()).unwrap();
    }

    fn ends(self) -> Kapo {
        self.kapo
    }
}

fn logs(kapo: &Kapo, query: &str) -> String {
    let answer = kapo.get(&format!("/logs{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    answer.body
}

/// Follows the output. The head of the answer is read.
fn follow(kapo: &Kapo, query: &str) -> Chunked<TcpStream> {
    let mut stream = kapo.connect();
    write!(stream, "GET /logs?follow=1{query} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let head = read_head(&mut stream);
    assert_eq!((head.status, head.field("content-length")), (200, None), "{head:?}");
    Chunked::body_of(stream)
}

fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} after {bytes:?}"));
        bytes.extend(byte);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_last_output_is_served_whole_and_by_stream() {
    let mut speaker = Speaker::start(&["-SE", "--tail", "4096"]);
    assert_eq!(logs(&speaker.kapo, ""), "");
    speaker.says("one\n!two\nthree\n");
    wait_for("all is there", || logs(&speaker.kapo, "").len() == 14);
    // The kernel does not tell which stream came first.
    assert_eq!(logs(&speaker.kapo, "?stream=stdout"), "one\nthree\n");
    assert_eq!(logs(&speaker.kapo, "?stream=stderr"), "two\n");
    assert_eq!(speaker.kapo.get("/logs?stream=stdin").status, 400);
    assert_eq!(speaker.kapo.get("/logs?follow=maybe").status, 400);
    let head =
        Answer::parse(&speaker.kapo.exchange(b"HEAD /logs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    assert_eq!((head.status, head.body.as_str(), head.field("content-length")), (200, "", Some("14")));
    assert_eq!(speaker.kapo.stdout(), "one\nthree\n", "it goes its way as well");
}

#[test]
fn only_the_last_bytes_are_kept() {
    let kapo = Kapo::start(["-S", "--tail", "1000", "run", "--wait", "1m", "seq", "100000"]);
    kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    let all: String = (1..=100_000).map(|n: u32| format!("{n}\n")).collect();
    assert_eq!(logs(&kapo, ""), all[all.len() - 1000..]);
    assert!(kapo.stdout() == all);
}

#[test]
fn the_tail_has_the_raw_output_even_with_stdlog() {
    let kapo = Kapo::start(["-SL", "--tail", "1000", "run", "--wait", "1m", "printf", "a \"b\"\\nc"]);
    kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    assert_eq!(logs(&kapo, ""), "a \"b\"\nc");
}

#[test]
fn a_follower_gets_new_output_and_the_end() {
    let mut speaker = Speaker::start(&["-SE", "--tail", "4096"]);
    speaker.says("before\n");
    wait_for("it is there", || logs(&speaker.kapo, "") == "before\n");
    let mut all = follow(&speaker.kapo, "");
    let mut errors = follow(&speaker.kapo, "&stream=stderr");
    assert_eq!(read_until(&mut all, "before\n"), "before\n");
    for number in 0..100 {
        let line = format!("line {number}\n");
        speaker.says(&line);
        assert_eq!(read_until(&mut all, "\n"), line);
    }
    speaker.says("!oops\n");
    assert_eq!(read_until(&mut errors, "\n"), "oops\n");
    assert_eq!(read_until(&mut all, "\n"), "oops\n");
    let mut kapo = speaker.ends();
    kapo.wait_for_status("the command has ended", |status| status["ExitCode"] == 9);
    kapo.signal(15);
    for mut stream in [all, errors] {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
    kapo.expect_exit(9);
}

#[test]
fn a_fast_follower_misses_nothing() {
    let mut speaker = Speaker::start(&["-S", "--tail", "1000000"]);
    let stream = follow(&speaker.kapo, "&stream=stdout");
    let reader = std::thread::spawn(move || {
        let mut stream = stream;
        read_until(&mut stream, "last\n")
    });
    let wanted: String =
        (0..5_000).map(|n: u32| format!("line {n}\n")).chain(["last\n".to_owned()]).collect();
    speaker.says(&wanted);
    assert!(reader.join().unwrap() == wanted);
}

#[test]
fn a_follower_gets_all_output_even_with_a_small_tail() {
    let script = "read line <\"$0\"; head -c 200000 /dev/zero | tr '\\0' x; echo; head -c 100000 /dev/zero | tr '\\0' y >&2;
        echo last; exec sleep 60";
    let folder = TempDir::new().unwrap();
    let gate = folder.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    let kapo = Kapo::start(["-SE", "--tail", "4096", "run", "sh", "-c", script, gate.to_str().unwrap()]);
    let mut stream = follow(&kapo, "&stream=stdout");
    let reader = std::thread::spawn(move || read_until(&mut stream, "last\n"));
    std::fs::File::options().write(true).open(&gate).unwrap().write_all(b"go\n").unwrap();
    let came = reader.join().unwrap();
    assert!(came == "x".repeat(200_000) + "\nlast\n", "{} bytes came", came.len());
    assert!(logs(&kapo, "").len() <= 4096);
}

#[test]
fn eviction_of_a_follower_is_not_an_orderly_end() {
    let kapo = Kapo::start(["-S", "--tail", "4096", "--max-connections", "2", "run", "sleep", "60"]);
    let mut streams = [follow(&kapo, ""), follow(&kapo, "")];
    assert_eq!(kapo.get("/livez").status, 200);
    let error = streams[0].read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_stalled_follower_is_dropped_and_causes_no_delay() {
    let (reader, ours) = pipe();
    let came = read_all(reader);
    let script = "head -c 30000000 /dev/zero; exec sleep 60";
    let folder = TempDir::new().unwrap();
    let mut command = kapo_on_a_free_port([
        "-S",
        "--tail",
        "65536",
        "run",
        "sh",
        "-c",
        &format!("read line <\"$0\"; {script}"),
    ]);
    let gate: PathBuf = folder.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    command.arg(&gate);
    command.stdout(ours).stderr(std::fs::File::create(folder.path().join("stderr")).unwrap());
    let mut kapo = Kapo::launch_with_its_outputs(command, folder).listening();
    let mut slow = follow(&kapo, "");
    std::fs::File::options().write(true).open(&gate).unwrap().write_all(b"go\n").unwrap();
    kapo.wait_for("all has passed", |kapo| captured(kapo, "stdout") == 30_000_000);
    // A reset long before the end of the command shows that the output is incomplete.
    let mut taken = Vec::new();
    let error = slow.read_to_end(&mut taken).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(taken.len() < 30_000_000, "{} bytes waited for it", taken.len());
    assert_eq!(kapo.status()["Status"], "running");
    kapo.signal(15);
    kapo.expect_exit(143);
    assert_eq!(came.join().unwrap().len(), 30_000_000);
}

#[test]
fn the_last_ten_lines_of_a_failed_run_are_in_the_document() {
    let script = "seq 1 20; printf 'no newline'; exit 5";
    let kapo = Kapo::start(["-S", "--tail", "4096", "run", "--wait", "1m", "sh", "-c", script]);
    let status = kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    let wanted = json!(["12", "13", "14", "15", "16", "17", "18", "19", "20", "no newline"]);
    assert_eq!(status["LastOutput"], wanted, "{status}");
}

#[test]
fn the_last_output_is_only_that_of_the_last_run() {
    let folder = TempDir::new().unwrap();
    let before = folder.path().join("before");
    // The first run writes much and ends in the middle of a line; the second writes one line.
    let script = "if [ -e \"$0\" ]; then echo second; else : >\"$0\"; seq 1 20; printf 'first '; fi; exit 5";
    let words =
        ["-SE", "--tail", "4096", "supervise", "--wait", "1ms", "--max-restarts", "1", "sh", "-c", script];
    let certificate = folder.path().join("certificate");
    let option = ["--termination-log", certificate.to_str().unwrap()];
    let all = [&words[..4], &option, &words[4..], &[before.to_str().unwrap()]].concat();
    let mut kapo = Kapo::start(all);
    kapo.expect_exit(5);
    assert_eq!(std::fs::read_to_string(&certificate).unwrap(), "reason=exit-code code=5\nsecond\n");
}

#[test]
fn a_run_that_succeeded_leaves_no_last_output() {
    let kapo = Kapo::start(["-S", "--tail", "4096", "run", "--wait", "1m", "echo", "fine"]);
    let status = kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    assert_eq!(status["LastOutput"], json!([]), "{status}");
}

#[test]
fn without_tail_logs_are_not_found() {
    let kapo = Kapo::start(["-S", "run", "--wait", "1m", "sh", "-c", "echo hid''den; exit 5"]);
    let status = kapo.wait_for_status("it has ended", |status| status["Status"] == "stopped");
    assert_eq!(status["LastOutput"], json!([]), "{status}");
    let answer = kapo.get("/logs?follow=1");
    let says = "no output is kept: start kapo with --stderr --tail 64K (--stdout for standard output)\n";
    assert_eq!((answer.status, answer.body.as_str()), (404, says));
}

/// Returns the termination log of a run.
fn certificate(flags: &[&str], script: &str) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let path_word = path.to_str().unwrap();
    let words =
        [flags, &["run", "--ttl", "20s", "--termination-log", path_word, "sh", "-c", script]].concat();
    let mut kapo = Kapo::start(words);
    wait_for("it ends", || kapo.try_wait().is_some());
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() <= 4096, "{} bytes", bytes.len());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_termination_log_has_reason_and_last_output() {
    let text = certificate(&["-SE", "--tail", "8192"], "echo working; echo no such file >&2; exit 66");
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.contains("exit-code") && first.contains("66"), "{text}");
    assert!(rest.contains("working") && rest.contains("no such file"), "{text}");
    let text = certificate(&[], "kill -9 $$");
    assert!(text.contains("signal") && text.contains("137"), "{text}");
}

#[test]
fn the_termination_log_is_cut_to_the_limit_of_kubernetes() {
    let line =
        "for i in 1 2 3 4 5 6 7 8 9; do seq -s, 1 2000 | head -c 500; echo; done; echo the end; exit 1";
    let text = certificate(&["-S", "--tail", "1048576"], line);
    assert!(text.ends_with("the end\n") || text.ends_with("the end"), "{text}");
    assert!(text.contains("exit-code"), "{text}");
    // Characters are not cut in the middle.
    let text = certificate(
        &["-S", "--tail", "1048576"],
        "for i in 1 2 3; do printf '\\342\\202\\254%.0s' $(seq 900); echo; done; exit 1",
    );
    assert!(!text.contains('\u{fffd}'), "{text}");
}

#[test]
fn a_stalled_reader_does_not_empty_the_tail() {
    let (mut reader, ours) = pipe();
    let mut kapo = crate::sinks::kapo_to(ours, &["-S", "--tail", "100", "run", "seq", "100000"]);
    reader.read_exact(&mut [0; 10]).unwrap();
    wait_until_stalled(&kapo, "stdout");
    assert_eq!(logs(&kapo, "").len(), 100);
    let rest = read_all(reader);
    kapo.expect_exit(0);
    let wanted: String = (1..=100_000).map(|n: u32| format!("{n}\n")).collect();
    assert!(rest.join().unwrap() == wanted.as_bytes()[10..]);
}
