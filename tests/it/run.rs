//! Tests of `kapo run` from start to end, through the status document.

use std::net::TcpStream;

use serde_json::json;

use crate::harness::{Kapo, wait_for};

/// Go's zero time, which means "not yet".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

#[test]
fn the_document_of_a_running_command_is_whole_and_in_order() {
    let kapo = Kapo::start(["run", "--ttl", "5m", "--wait", "1m30s", "--", "sleep", "60"]);
    let answer = kapo.get("/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("server"), Some("kapo"));
    assert_eq!(answer.field("content-length"), Some(answer.body.len().to_string().as_str()));
    assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
    let names = [
        "Arguments",
        "Command",
        "EndTime",
        "ExitCode",
        "Mode",
        "SidebindPort",
        "StartTime",
        "Status",
        "TTL",
        "Wait",
        "Pid",
        "Reason",
        "Signal",
        "Restarts",
        "Ready",
        "Flapping",
        "NextStart",
        "ExpiresAt",
        "StopSignalFrom",
        "Usage",
        "StatusText",
        "LastOutput",
        "Output",
        "LastRun",
        "StopsAt",
        "Probes",
        "Name",
    ];
    let places: Vec<_> = names.iter().map(|name| answer.body.find(&format!("\"{name}\":"))).collect();
    assert!(places.iter().all(Option::is_some), "{names:?} {places:?}");
    assert!(places.is_sorted(), "{names:?} {places:?}");
    let status = kapo.status();
    assert_eq!(status.as_object().unwrap().len(), names.len());
    for (name, value) in [
        ("Arguments", json!(["60"])),
        ("Command", json!("sleep")),
        ("EndTime", json!(ZERO_TIME)),
        ("ExitCode", json!(0)),
        ("Mode", json!("run")),
        ("SidebindPort", json!(0)),
        ("Status", json!("running")),
        ("TTL", json!(300)),
        ("Wait", json!(90_000_000_000_u64)),
        ("Reason", json!("")),
        ("Signal", json!("")),
        ("Restarts", json!(0)),
        ("Ready", json!(true)),
        ("Flapping", json!(false)),
        ("NextStart", json!(ZERO_TIME)),
        ("StopSignalFrom", json!(null)),
        ("StatusText", json!("")),
        ("Output", json!(null)),
        ("LastRun", json!(null)),
        ("StopsAt", json!(ZERO_TIME)),
        ("Probes", json!(null)),
        ("Name", json!("sleep")),
    ] {
        assert_eq!(status[name], value, "{name}");
    }
    let command = std::fs::read(format!("/proc/{}/cmdline", status["Pid"])).unwrap();
    assert_eq!(command, b"sleep\x0060\x00");
    let text = |name: &str| status[name].as_str().unwrap().to_owned();
    assert!(text("StartTime").starts_with("20") && text("StartTime").ends_with('Z'), "{status}");
    assert!(text("ExpiresAt") > text("StartTime"), "{status}");
}

#[test]
fn after_the_end_the_port_is_closed_and_the_code_returned() {
    let mut kapo = Kapo::start(["run", "sh", "-c", "read line; exit 7"]);
    // Its stdin is /dev/null, so it ends at once.
    kapo.expect_exit(7);
    assert!(TcpStream::connect(kapo.address()).is_err());
}

#[test]
fn kapo_keeps_answering_for_its_wait() {
    let mut kapo = Kapo::start(["run", "--wait", "300ms", "sh", "-c", "exit 3"]);
    let status = kapo.wait_for_status("the command has ended", |status| status["Status"] == "stopped");
    assert_eq!((&status["ExitCode"], &status["Reason"]), (&json!(3), &json!("exit-code")));
    assert_eq!((&status["Pid"], &status["Ready"]), (&json!(0), &json!(false)));
    assert_ne!(status["EndTime"], ZERO_TIME);
    assert_eq!(kapo.get("/livez").status, 200);
    assert_eq!(kapo.get("/readyz").status, 503);
    assert_eq!(kapo.get("/healthz").status, 503);
    kapo.expect_exit(3);
}

#[test]
fn a_command_killed_by_a_signal_says_so() {
    let kapo = Kapo::start(["run", "--wait", "1m", "sh", "-c", "kill -9 $$"]);
    let status = kapo.wait_for_status("it is killed", |status| status["Status"] == "killed");
    assert_eq!(status["Signal"], "SIGKILL");
    assert_eq!(status["ExitCode"], 137);
    assert_eq!(status["Reason"], "signal");
}

#[test]
fn usage_is_what_the_kernel_counted() {
    let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let kapo = Kapo::start(["run", "--wait", "1m", "sh", "-c", busy]);
    let status = kapo.wait_for_status("the command has ended", |status| status["Status"] == "stopped");
    let usage = &status["Usage"];
    assert!(usage["UserSeconds"].as_f64().unwrap() > 0.01, "{usage}");
    assert!(usage["SystemSeconds"].as_f64().is_some(), "{usage}");
    assert!(usage["MaxRssBytes"].as_u64().unwrap() > 100_000, "{usage}");
}

#[test]
fn idle_exit_lasts_as_long_as_requests_come() {
    let mut kapo = Kapo::start(["run", "--idle-exit", "400ms", "sh", "-c", "exit 5"]);
    let begin = crate::harness::now();
    while begin.elapsed().as_millis() < 900 {
        assert_eq!(kapo.get("/livez").status, 200);
    }
    kapo.expect_exit(5);
}

#[test]
fn arguments_can_be_hidden_everywhere() {
    let kapo = Kapo::start(["--hide-args", "run", "sh", "-c", "exec sleep 60", "hidden-word"]);
    for path in ["/", "/metrics", "/debug/vars", "/healthz?verbose"] {
        let answer = kapo.get(path);
        assert!(!answer.body.contains("hidden-word"), "{path}: {}", answer.body);
    }
    assert_eq!(kapo.status()["Arguments"], json!(null));
    assert!(!kapo.stderr().contains("hidden-word"), "{}", kapo.stderr());
}

#[test]
fn arguments_after_the_command_are_not_read_by_kapo() {
    let kapo = Kapo::start(["run", "sh", "-c", "sleep 60", "--port", "5", "-q", "--", "--help"]);
    let status = kapo.status();
    assert_eq!(status["Arguments"], json!(["-c", "sleep 60", "--port", "5", "-q", "--", "--help"]));
}

#[test]
fn the_command_keeps_its_directory_and_kapo_is_at_the_root() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = crate::harness::kapo_on_a_free_port(["run", "sleep", "60"]);
    command.current_dir(folder.path());
    let kapo = Kapo::launch(command).listening();
    let directory = |pid: i32| std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(directory(kapo.command_pid()), folder.path().canonicalize().unwrap());
    wait_for("kapo is at the root", || directory(kapo.pid()) == std::path::Path::new("/"));
}

#[test]
fn supervise_starts_again_where_kapo_was_started() {
    // The first run, and two more until kapo gives up.
    let words = ["supervise", "--wait", "10ms", "--max-restarts", "2", "sh", "-c", "pwd; exit 3"];
    let mut command = crate::harness::kapo_on_a_free_port(words);
    let folder = tempfile::TempDir::new().unwrap();
    command.current_dir(folder.path());
    let mut kapo = Kapo::launch(command);
    kapo.expect_exit(3);
    let line = format!("{}\n", folder.path().canonicalize().unwrap().display());
    assert_eq!(kapo.stdout(), line.repeat(3));
}

/// Starts kapo with a pipe as stdout. Returns the read end.
fn stdout_of(words: &[&str]) -> (Kapo, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let mut command = crate::harness::kapo_on_a_free_port(words);
    command.stdout(writer).stderr(std::fs::File::create(folder.path().join("stderr")).unwrap());
    let kapo = Kapo::launch_with_its_outputs(command, folder).listening();
    (kapo, reader)
}

fn at_its_end(reader: &std::io::PipeReader) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(reader, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[test]
fn the_reader_of_stdout_gets_eof_while_kapo_lives() {
    for script in ["echo x", "echo x; exec >&-; sleep 60"] {
        let (kapo, mut reader) = stdout_of(&["run", "--wait", "1m", "sh", "-c", script]);
        let mut text = String::new();
        wait_for("the end of the file", || at_its_end(&reader));
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "x\n");
        assert_eq!(kapo.get("/livez").status, 200);
        // Other files keep the descriptor numbers in use.
        for number in [0, 1] {
            let link = std::fs::read_link(format!("/proc/{}/fd/{number}", kapo.pid())).unwrap();
            assert_eq!(link.to_str(), Some("anon_inode:[eventpoll]"));
        }
    }
}

#[test]
fn the_writer_of_stdin_gets_epipe_while_kapo_lives() {
    use std::io::Write;

    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = crate::harness::kapo_on_a_free_port(["run", "--wait", "1m", "true"]);
    command.stdin(reader);
    let kapo = Kapo::launch(command).listening();
    // The read end was only in the command and in kapo. The test has closed its own.
    wait_for("the pipe is broken", || writer.write_all(b"x").is_err());
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn stdout_stays_open_for_what_needs_it() {
    // Captured output passes through kapo.
    let (_kapo, reader) = stdout_of(&["--stdout", "run", "--wait", "1m", "sh", "-c", "echo x"]);
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(reader);
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert_eq!((line.as_str(), at_its_end(reader.get_ref())), ("x\n", false));
    // The next run writes to it as well.
    let (mut kapo, reader) = stdout_of(&["supervise", "--wait", "0", "sh", "-c", "echo $$; sleep 0.1"]);
    let mut reader = std::io::BufReader::new(reader);
    for _ in 0..3 {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut reader, &mut line).unwrap() > 1);
    }
    kapo.signal(15);
    while std::io::BufRead::read_line(&mut reader, &mut line).unwrap() > 0 {}
    kapo.expect_exit(143);
}
