//! Tests of `kapo supervise`: when and how often it restarts the command, and that nothing is left over.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::wait_for;
use crate::harness::{Kapo, kapo_on_a_free_port, lives, now, proc_status, process_state, run_to_the_end};
use crate::tools::{Events, Gate, Line, Programs, descriptors, expect_no_wakeup, private_memory, seconds};

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
/// Waits at the gate and then fails.
const FAILS: &str = "read x < \"$0\"; exit 3";

fn is_pausing(status: &Value) -> bool {
    status["NextStart"] != ZERO_TIME
}

/// Returns the pause in the document, in seconds.
fn pause(status: &Value) -> f64 {
    seconds(&status["NextStart"]) - seconds(&status["EndTime"])
}

/// Returns the number of children of a process, including zombies.
fn children(pid: i32) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().count()
}

#[test]
fn it_restarts_after_its_wait_and_the_document_shows_it() {
    let mut gate = Gate::new();
    let kapo = Kapo::start(["supervise", "--wait", "1500ms", "sh", "-c", FAILS, gate.path()]);
    let first = kapo.status();
    assert_eq!((&first["Status"], &first["Mode"]), (&json!("running"), &json!("supervise")));
    assert_eq!((&first["Restarts"], &first["NextStart"]), (&json!(0), &json!(ZERO_TIME)));
    assert_eq!((&first["EndTime"], &first["Wait"]), (&json!(ZERO_TIME), &json!(1_500_000_000)));
    assert_eq!(kapo.get("/readyz").status, 200);

    let mut events = Events::of(&kapo);
    gate.open();
    let between = events.until("the pause", is_pausing);
    for (name, value) in [
        ("Status", json!("stopped")),
        ("ExitCode", json!(3)),
        ("Reason", json!("exit-code")),
        ("Pid", json!(0)),
        ("Ready", json!(false)),
        ("Restarts", json!(0)),
        ("StartTime", first["StartTime"].clone()),
    ] {
        assert_eq!(between[name], value, "{name}");
    }
    assert!((1.5..2.5).contains(&pause(&between)), "{between}");
    assert!(between["Usage"]["MaxRssBytes"].as_u64().unwrap() > 0, "{between}");
    let ready = kapo.get("/readyz");
    let retry: u64 = ready.field("retry-after").unwrap().parse().unwrap();
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (503, &*format!("restarting in {retry} s: exited with code 3\n"))
    );
    assert!((1..=2).contains(&retry), "{ready:?}");
    assert_eq!(kapo.get("/livez").status, 200);

    let second = events.until("the next run", |status| status["Status"] == "running");
    assert_eq!((&second["Restarts"], &second["ExitCode"]), (&json!(1), &json!(0)));
    assert_eq!((&second["NextStart"], &second["Reason"]), (&json!(ZERO_TIME), &json!("")));
    assert_eq!(second["EndTime"], between["EndTime"], "the end of the last run");
    assert_ne!(second["Pid"], first["Pid"]);
    let slept = seconds(&second["StartTime"]) - seconds(&between["EndTime"]);
    assert!(slept >= 1.5, "{slept}");
    let ready = kapo.get("/readyz");
    assert_eq!((ready.status, ready.field("retry-after")), (200, None));
}

#[test]
fn while_flapping_it_is_unhealthy_and_recovers_by_itself() {
    let mut gate = Gate::new();
    let kapo = Kapo::start(["supervise", "--wait", "10ms", "--within", "2", "sh", "-c", FAILS, gate.path()]);
    let mut events = Events::of(&kapo);
    let mut failures = 0;
    loop {
        let status = events.next().unwrap();
        if status["Flapping"] == true {
            break;
        }
        if status["Status"] == "running" {
            failures += 1;
            gate.open();
        }
    }
    // On a slow machine the first failures may have left the window.
    assert!(failures >= 4, "{failures}");
    let health = kapo.get("/healthz?verbose");
    assert_eq!(health.status, 503, "{health:?}");
    assert!(health.body.contains("[-]flapping failed: "), "{health:?}");
    assert!(health.body.contains(" failed runs in 2 s\n"), "{health:?}");
    // The next run stays up. The stream reports the change without a request.
    let status = events.until("it has recovered", |status| status["Flapping"] == false);
    assert_eq!(status["Status"], "running");
    assert_eq!(kapo.get("/healthz").status, 200);
}

#[test]
fn three_failures_are_not_yet_flapping() {
    let mut gate = Gate::new();
    let kapo = Kapo::start(["supervise", "--wait", "1ms", "sh", "-c", FAILS, gate.path()]);
    let mut events = Events::of(&kapo);
    for run in 1..=4 {
        gate.open();
        let status = events.until("the pause", is_pausing);
        assert_eq!(status["Flapping"], json!(run == 4), "{run}");
    }
}

#[test]
fn a_stop_signal_in_the_pause_ends_it_at_once() {
    for (signal, name) in [(15, "SIGTERM"), (2, "SIGINT"), (3, "SIGQUIT")] {
        let mut kapo = Kapo::start(["supervise", "--wait", "1h", "sh", "-c", "exit 3"]);
        kapo.wait_for_status("the pause", is_pausing);
        kapo.signal(signal);
        kapo.expect_exit(3);
        let log = kapo.stderr();
        assert!(log.contains(&format!("msg=\"signal received\" signal={name} sender_pid=")), "{log}");
        assert_eq!(log.matches("msg=\"started\"").count(), 1, "{log}");
    }
}

#[test]
fn a_stop_signal_while_it_runs_ends_the_command_and_then_kapo() {
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut kapo = Kapo::start(["supervise", "--wait", "0", "sh", "-c", script]);
    kapo.wait_for_stdout("ready\n");
    let command = kapo.command_pid();
    kapo.signal(15);
    kapo.expect_exit(9);
    assert!(!lives(command));
    assert_eq!(kapo.stdout(), "ready\n", "there is no start after a stop");
}

#[test]
fn other_signals_are_forwarded_and_the_next_run_starts() {
    let script = "trap 'exit 4' HUP; echo ready; while :; do sleep 0.01; done";
    let mut kapo = Kapo::start(["supervise", "--wait", "1ms", "sh", "-c", script]);
    kapo.wait_for_stdout("ready\n");
    kapo.signal(1);
    kapo.wait_for_stdout("ready\nready\n");
    let status = kapo.status();
    assert_eq!((&status["Status"], &status["Restarts"]), (&json!("running"), &json!(1)));
}

#[test]
fn with_on_failure_a_success_ends_kapo() {
    let folder = tempfile::TempDir::new().unwrap();
    let count = folder.path().join("count");
    let script = "echo >> \"$0\"; [ $(wc -l < \"$0\") -ge 3 ]";
    let mut command =
        kapo_on_a_free_port(["supervise", "--wait", "1ms", "--restart", "on-failure", "sh", "-c", script]);
    command.arg(&count);
    let mut kapo = Kapo::launch(command);
    kapo.expect_exit(0);
    assert_eq!(fs::read_to_string(&count).unwrap(), "\n\n\n");
    // The user defines which ends are a success.
    let words = ["--restart", "on-failure", "--success-exit", "7,TERM", "sh", "-c"];
    for script in ["exit 7", "kill $$"] {
        let mut kapo = Kapo::launch(kapo_on_a_free_port([&["supervise"], &words[..], &[script]].concat()));
        kapo.expect_exit(0);
    }
}

#[test]
fn after_an_end_in_no_restart_on_kapo_exits_with_its_code() {
    let list = ["supervise", "--wait", "0", "--max-restarts", "1", "--no-restart-on", "78,TERM,127"];
    let failing: &[&str] = &["sh", "-c", "exit 78"];
    for (options, command, code) in [
        (&[][..], failing, 78),
        (&["--success-exit", "78"], failing, 0),
        (&["--restart", "on-failure"], failing, 78),
        (&[], &["sh", "-c", "kill $$"], 143),
        (&[], &["./nonesuch"], 127),
    ] {
        let mut kapo = Kapo::launch(kapo_on_a_free_port([&list, options, command].concat()));
        kapo.expect_exit(code);
        let log = kapo.stderr();
        let shown = if code == 0 { 78 } else { code };
        assert!(log.contains(&format!("msg=\"not restarting\" code={shown} why=")), "{log}");
        assert_eq!(log.matches("msg=\"started\"").count(), usize::from(code != 127), "{log}");
    }
    let mut kapo = Kapo::launch(kapo_on_a_free_port([&list[..], &["sh", "-c", "exit 77"]].concat()));
    kapo.expect_exit(77);
    assert!(kapo.stderr().contains("msg=\"too many restarts\""));
}

#[test]
fn an_end_by_ttl_is_not_meant_by_no_restart_on() {
    let options = ["--wait", "0", "--ttl", "50ms", "--no-restart-on", "124,143,TERM"];
    let mut kapo = Kapo::start([&["supervise"], &options[..], &["sleep", "600"]].concat());
    kapo.wait_for("three restarts", |kapo| kapo.status()["Restarts"].as_u64() > Some(2));
}

#[test]
fn too_many_restarts_are_given_up_with_the_last_code() {
    let mut kapo = Kapo::launch(kapo_on_a_free_port([
        "supervise",
        "--wait",
        "0",
        "--max-restarts",
        "3",
        "sh",
        "-c",
        "exit 5",
    ]));
    kapo.expect_exit(5);
    let log = kapo.stderr();
    assert_eq!(log.matches("msg=\"started\"").count(), 4, "{log}");
    assert!(log.contains("level=error msg=\"too many restarts\" restarts=3"), "{log}");
}

#[test]
fn restarts_outside_the_window_are_not_counted() {
    // With runs of 100 ms, at most two restarts fall into 250 ms.
    let mut kapo = Kapo::start([
        "supervise",
        "--wait",
        "100ms",
        "--max-restarts",
        "3",
        "--within",
        "250ms",
        "sh",
        "-c",
        "exit 5",
    ]);
    kapo.wait_for("many restarts", |kapo| kapo.status()["Restarts"].as_u64() > Some(8));
}

#[test]
fn the_pause_doubles_up_to_its_cap_and_a_stable_run_resets_it() {
    let mut gate = Gate::new();
    let options = ["--wait", "100ms", "--backoff-max", "500ms", "--stable", "1500ms"];
    let words = [&["supervise"], &options[..], &["sh", "-c", FAILS, gate.path()]].concat();
    let kapo = Kapo::start(words);
    let mut events = Events::of(&kapo);
    let mut next_pause = |gate: &mut Gate, lasting: f64| {
        let running = events.until("a run", |status| status["Status"] == "running");
        let start = now();
        wait_for("it has run long enough", || start.elapsed().as_secs_f64() >= lasting);
        gate.open();
        let pausing = events.until("its end", is_pausing);
        assert_eq!(pausing["StartTime"], running["StartTime"]);
        (pause(&pausing), seconds(&pausing["EndTime"]) - seconds(&pausing["StartTime"]))
    };
    for (low, high) in [(0.1, 0.1), (0.2, 0.22), (0.4, 0.44), (0.5, 0.5), (0.5, 0.5)] {
        let (pause, lasted) = next_pause(&mut gate, 0.0);
        assert!(lasted < 1.5, "the machine is too slow for this test: {lasted}");
        assert!((low - 0.001..high + 0.02).contains(&pause), "{pause} is not in {low}..{high}");
    }
    let (pause, lasted) = next_pause(&mut gate, 1.6);
    assert!(lasted >= 1.5 && (0.099..0.12).contains(&pause), "{pause} after {lasted}");
}

#[test]
fn each_run_draws_its_own_ttl() {
    let kapo = Kapo::start(["supervise", "--ttl", "50ms-150ms", "--wait", "0", "sleep", "60"]);
    let mut events = Events::of(&kapo);
    let mut drawn = Vec::new();
    for restarts in 0..6 {
        let status = events.until("it runs", |s| s["Status"] == "running" && s["Restarts"] == restarts);
        assert_eq!(status["TTL"], 1, "whole seconds, rounded up");
        let ttl = seconds(&status["ExpiresAt"]) - seconds(&status["StartTime"]);
        assert!((0.05 - 2e-6..=0.15 + 2e-6).contains(&ttl), "{ttl}");
        drawn.push((ttl * 1e6).round());
        let end = events.until("its end", |status| status["Status"] != "running");
        assert_eq!((&end["Reason"], &end["Signal"]), (&json!("timeout"), &json!("SIGTERM")), "{end}");
        assert_eq!((&end["ExpiresAt"], &end["ExitCode"]), (&json!(ZERO_TIME), &json!(143)), "{end}");
        assert_eq!(end["Flapping"], false, "an end that was ordered is no failure");
    }
    drawn.sort_unstable_by(f64::total_cmp);
    drawn.dedup();
    assert_eq!(drawn.len(), 6, "ExpiresAt is exact: {drawn:?}");
}

#[test]
fn a_failing_exec_is_retried_once_a_second() {
    let programs = Programs::new();
    let path = programs.folder().join("late");
    let mut command = kapo_on_a_free_port(["supervise", "--wait", "0"]);
    command.arg(&path);
    let kapo = Kapo::launch(command).listening();
    let mut events = Events::of(&kapo);
    let failed = events.until("the first failure", is_pausing);
    assert_eq!((&failed["Reason"], &failed["ExitCode"]), (&json!("exec-failed"), &json!(127)));
    assert_eq!((&failed["Status"], &failed["Pid"]), (&json!("stopped"), &json!(0)));
    assert!((1.0..1.1).contains(&pause(&failed)), "{failed}");
    let second = events.until("the second failure", |status| {
        is_pausing(status) && status["StartTime"] != failed["StartTime"]
    });
    assert_eq!(second["Restarts"], 1);
    assert!(seconds(&second["StartTime"]) - seconds(&failed["EndTime"]) >= 1.0, "{second}");
    // The file exists but is not executable.
    fs::write(&path, "").unwrap();
    events.until("another failure", |status| status["ExitCode"] == 126);
    programs.named("/bin/cat", "cat");
    fs::remove_file(&path).unwrap();
    programs.script("late", "#!/bin/sh\nexec sleep 60\n");
    let status = events.until("it runs", |status| status["Status"] == "running");
    assert_eq!((&status["Reason"], &status["Ready"]), (&json!(""), &json!(true)));
}

#[test]
fn a_stop_while_nothing_can_be_executed_ends_with_that_code() {
    let mut kapo = Kapo::start(["supervise", "--wait", "0", "/nonexistent/program"]);
    kapo.wait_for_status("the first failure", |status| status["Reason"] == "exec-failed");
    kapo.signal(15);
    kapo.expect_exit(127);
}

/// Measured while kapo is stopped, so that the start or end of a run does not show.
fn measure(kapo: &Kapo) -> (Vec<String>, u64, usize) {
    kapo.signal(19);
    wait_for("kapo stands still", || process_state(kapo.pid()) == Some('T'));
    let found = (descriptors(kapo.pid()), private_memory(kapo.pid()), children(kapo.pid()));
    kapo.signal(18);
    found
}

#[test]
fn thousands_of_restarts_leave_nothing_over() {
    let many = std::env::var("KAPO_TEST_RESTARTS").map_or(2_000, |number| number.parse().unwrap());
    let mut kapo = Kapo::start(["supervise", "--wait", "0", "true"]);
    let mut line = Line::to(&kapo);
    let mut answers = 0;
    let mut until = |kapo: &mut Kapo, restarts: u64| {
        kapo.wait_for("it has been restarted often", |_| {
            let answer = line.ask("/");
            answers += 1;
            let document: Value = serde_json::from_str(&answer.body).unwrap();
            document[0]["Restarts"].as_u64().unwrap() >= restarts
        });
    };
    until(&mut kapo, 200);
    let (fds, memory, _) = measure(&kapo);
    until(&mut kapo, 200 + many);
    // At each end kapo reads the OOM counter of the cgroup, whose file may be open at that moment.
    let lasting = |fds: &[String]| -> Vec<String> {
        fds.iter().filter(|fd| !fd.contains("memory.oom_control")).cloned().collect()
    };
    // kapo stands still at any moment: between two runs it has other descriptors than during one. The memory of requests
    // is given back once a second.
    let mut found = None;
    kapo.wait_for("nothing is left over", |kapo| {
        line.ask("/");
        let (fds_after, memory_after, children) = measure(kapo);
        let clean = lasting(&fds_after) == lasting(&fds) && memory_after <= memory + 16 && children <= 1;
        let now = (fds_after, memory_after, children);
        if !clean && found.as_ref() != Some(&now) {
            println!("before: {fds:?}, {memory} KiB; now: {now:?}");
            found = Some(now);
        }
        clean
    });
    assert!(answers > 50, "{answers} answers");
    let status = kapo.status();
    assert_eq!(status["Flapping"], false, "`true` is a success: {status}");
    kapo.signal(15);
    let mut ended = None;
    kapo.wait_for("its end begins", |kapo| kapo.stderr().contains("signal received"));
    wait_for("it ends", || {
        ended = kapo.try_wait();
        ended.is_some()
    });
    // The run that was stopped may have ended by itself.
    assert!(matches!(ended.unwrap().code(), Some(0 | 143)), "{ended:?}");
}

#[test]
fn an_idle_supervise_never_wakes_up() {
    let kapo = Kapo::start(["supervise", "--ttl", "1h", "sleep", "600"]);
    let mut line = Line::to(&kapo);
    assert_eq!(line.ask("/readyz").status, 200);
    assert_eq!(proc_status(kapo.pid(), "Threads").as_deref(), Some("1"));
    expect_no_wakeup(kapo.pid());
    assert_eq!(line.ask("/readyz").status, 200);
}

#[test]
fn after_the_flapping_window_it_sleeps_again() {
    let mut gate = Gate::new();
    let kapo = Kapo::start(["supervise", "--wait", "10ms", "--within", "1", "sh", "-c", FAILS, gate.path()]);
    let mut events = Events::of(&kapo);
    while events.next().is_some_and(|status| {
        if status["Status"] == "running" {
            gate.open();
        }
        status["Flapping"] == false
    }) {}
    events.until("it has recovered", |status| status["Flapping"] == false && status["Status"] == "running");
    expect_no_wakeup(kapo.pid());
}

#[test]
fn the_log_of_a_crash_loop_has_its_first_and_its_last_end() {
    let folder = TempDir::new().unwrap();
    let script = "echo >> \"$0\"; if [ $(wc -l < \"$0\") -lt 7 ]; then exit 3; else exit 4; fi";
    for (option, starts, repeats) in [("--log-repeats=false", 5, " repeats=2 "), ("--log-repeats", 7, "")] {
        let path = folder.path().join(option);
        let words = ["supervise", option, "--wait", "1ms", "--no-restart-on", "4", "sh", "-c", script];
        let mut command = kapo_on_a_free_port(words);
        command.arg(&path);
        let (code, _, log) = run_to_the_end(command);
        assert_eq!(code, Some(4), "{log}");
        assert_eq!(log.matches("msg=\"started\"").count(), starts, "{log}");
        let ends: Vec<_> = log.lines().filter(|line| line.contains("msg=\"exited\"")).collect();
        assert_eq!(ends.len(), starts, "{log}");
        let [.., last, other] = ends.as_slice() else { panic!("{log}") };
        assert!(last.contains(" code=3 ") && last.contains(repeats), "{log}");
        assert!(other.contains(" code=4 "), "{log}");
    }
}
