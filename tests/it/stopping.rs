//! Tests of stopping: which events stop kapo, which signals the command gets, and how the leftover group ends.

use serde_json::json;

use crate::harness::{EMULATED, Kapo, binary, clean, lives, now, process_state, run_to_the_end, wait_for};
use crate::tools::Gate;

const KILL: i32 = 9;
const TERM: i32 = 15;
const CONT: i32 = 18;
const STOP: i32 = 19;

/// A shell that TERM ends at once, and a worker in its group that runs until the gate opens.
const SLOW_WORKER: &str = "(trap 'read line <\"$0\"; echo worker done; exit' TERM; echo up $BASHPID;
                            while :; do sleep 0.01; done) & wait";

/// The same with a worker that ignores TERM.
const TERM_IGNORING_WORKER: &str = "(trap '' TERM; echo up $BASHPID; while :; do sleep 0.01; done) & wait";

/// Starts kapo and waits for the worker. Returns both.
fn with_worker(words: &[&str]) -> (Kapo, i32) {
    let mut kapo = Kapo::start(words);
    kapo.wait_for("the worker is up", |kapo| kapo.stdout().ends_with('\n'));
    let worker = kapo.stdout().trim().strip_prefix("up ").unwrap().parse().unwrap();
    (kapo, worker)
}

#[test]
fn a_worker_that_outlives_its_shell_finishes_its_work() {
    for options in [&["--kill-after", "30"][..], &[], &["--ttl", "300ms"]] {
        let mut gate = Gate::new();
        let words = [&["run"], options, &["bash", "-c", SLOW_WORKER, gate.path()]].concat();
        let (mut kapo, _) = with_worker(&words);
        let code = if options.contains(&"--ttl") {
            124
        } else {
            kapo.signal(TERM);
            143
        };
        // The end of the command itself is published meanwhile.
        let status = kapo.wait_for_status("the command's end", |status| status["Status"] == "killed");
        assert_eq!((&status["ExitCode"], &status["Signal"]), (&json!(143), &json!("SIGTERM")));
        let answer = kapo.get("/wait");
        assert_eq!(answer.field("kapo-exit-code"), Some(code.to_string().as_str()), "{answer:?}");
        gate.open();
        kapo.expect_exit(code);
        assert!(kapo.stdout().ends_with("\nworker done\n"), "{options:?}: {}", kapo.stdout());
        let log = kapo.stderr();
        assert!(log.contains("msg=\"waiting for leftover processes\""), "{log}");
        assert!(!log.contains("killing"), "{log}");
    }
}

#[test]
fn a_worker_that_does_not_end_is_killed_at_the_deadline() {
    let begin = now();
    let (mut kapo, worker) =
        with_worker(&["run", "--kill-after", "300ms", "bash", "-c", TERM_IGNORING_WORKER]);
    kapo.signal(TERM);
    kapo.expect_exit(143);
    assert!(begin.elapsed().as_millis() >= 300);
    assert!(!lives(worker));
}

#[test]
fn a_second_stop_signal_kills_the_worker() {
    let words = ["run", "--kill-after", "1h", "bash", "-c", TERM_IGNORING_WORKER];
    let (mut kapo, worker) = with_worker(&words);
    kapo.signal(TERM);
    kapo.wait_for_status("the command's end", |status| status["Status"] == "killed");
    kapo.signal(TERM);
    kapo.expect_exit(143);
    wait_for("the worker is gone", || !lives(worker));
}

#[test]
fn with_single_child_kapo_does_not_wait_for_workers() {
    let (mut kapo, worker) = with_worker(&["run", "--single-child", "bash", "-c", TERM_IGNORING_WORKER]);
    kapo.signal(TERM);
    kapo.expect_exit(143);
    assert!(lives(worker));
    kapo::sys::signal::send(worker, KILL).unwrap();
}

#[test]
fn kapo_does_not_wait_for_a_worker_that_left_the_group() {
    // The process stays alive, so it raises no SIGCHLD.
    let script = "(trap 'exec setsid sleep 60' TERM; echo up $BASHPID; while :; do sleep 0.01; done) & wait";
    let (mut kapo, worker) = with_worker(&["run", "--kill-after", "1h", "bash", "-c", script]);
    kapo.signal(TERM);
    kapo.expect_exit(143);
    assert!(lives(worker));
    kapo::sys::signal::send(worker, KILL).unwrap();
}

#[test]
fn the_rest_of_the_group_is_gone_before_the_next_start() {
    // Each run needs something that the worker holds exclusively, such as a port.
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    let script =
        "exec 9>\"$0\"; flock -n 9 || { echo address in use; exit 1; }; echo served; sleep 600 & wait";
    let words = ["supervise", "--wait", "10ms", "bash", "-c", script, lock.to_str().unwrap()];
    let mut kapo = Kapo::start(words);
    kapo.wait_for_stdout("served\n");
    kapo::sys::signal::send(kapo.command_pid(), KILL).unwrap();
    kapo.wait_for("it is started again", |kapo| kapo.stdout().lines().count() == 2);
    assert_eq!(kapo.stdout(), "served\nserved\n");
    let log = kapo.stderr();
    assert!(log.contains("level=warn msg=\"stopping leftover processes\" signal=SIGTERM group="), "{log}");
    assert!(log.contains(" processes=1\n"), "{log}");
}

#[test]
fn a_worker_that_ignores_term_delays_the_next_start() {
    let script = "[ -s \"$0\" ] && exec sleep 600; trap '' TERM; sleep 600 & echo $! | tee \"$0\"";
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let begin = now();
    let words = ["supervise", "--wait", "10ms", "--kill-after", "500ms", "bash", "-c", script];
    let mut kapo = Kapo::start(words.iter().copied().chain([mark.to_str().unwrap()]));
    kapo.wait_for_status("the second run", |status| status["Restarts"] == 1);
    assert!(begin.elapsed().as_millis() >= 500, "{:?}", begin.elapsed());
    let deaf: i32 = kapo.stdout().lines().next().unwrap().parse().unwrap();
    assert!(!lives(deaf));
    kapo.signal(TERM);
    kapo.expect_exit(143);
}

#[test]
fn an_end_by_ttl_does_not_count_as_restart() {
    let words = ["supervise", "--ttl", "50ms", "--wait", "0", "--max-restarts", "2", "--backoff-max", "1h"];
    let kapo = Kapo::start(words.iter().copied().chain(["sleep", "600"]));
    let status = kapo.wait_for_status("many restarts", |status| status["Restarts"].as_u64() >= Some(5));
    assert_eq!(status["Flapping"], false);
}

#[test]
fn an_end_by_ttl_can_be_a_success() {
    let mut kapo = Kapo::start(["run", "--ttl", "50ms", "--success-exit", "TTL", "sleep", "600"]);
    kapo.expect_exit(0);
    let log = kapo.stderr();
    assert!(log.contains("level=info msg=\"exited\" command=sleep"), "{log}");
}

#[test]
fn a_stable_run_ends_flapping_within_the_window() {
    let mut gate = Gate::new();
    let words = ["supervise", "--wait", "0", "--stable", "300ms", "--within", "1h", "sh", "-c"];
    let script = "read x < \"$0\"; exit 3";
    let kapo = Kapo::start(words.iter().copied().chain([script, gate.path()]));
    for _ in 0..4 {
        gate.open();
    }
    kapo.wait_for_status("it is flapping", |status| status["Flapping"] == true);
    kapo.wait_for_status("it is not any more", |status| status["Flapping"] == false);
    assert_eq!(kapo.get("/healthz").status, 200);
}

#[test]
fn only_the_signals_of_stop_on_stop_kapo() {
    let script = "trap 'echo term' TERM; trap 'echo int' INT; trap 'echo quit' QUIT; echo up;
                  while :; do sleep 0.01; done";
    let mut kapo = Kapo::start(["supervise", "--stop-on", "WINCH,RTMIN+3", "bash", "-c", script]);
    kapo.wait_for_stdout("up\n");
    for (signal, heard) in [(TERM, "term\n"), (2, "int\n"), (3, "quit\n")] {
        kapo.signal(signal);
        kapo.wait_for_stdout(heard);
    }
    assert_eq!(kapo.get("/readyz").status, 200, "a JVM would have printed its threads");
    assert_eq!(kapo.status()["StopSignalFrom"], json!(null));
    kapo.signal(37);
    kapo.expect_exit(128 + 37);
    let log = kapo.stderr();
    assert!(log.contains("msg=\"signal received\" signal=SIGRTMIN+3 sender_pid="), "{log}");
}

#[test]
fn a_command_that_was_stopped_ends_by_the_stop_signal() {
    let mut kapo = Kapo::start(["run", "sleep", "600"]);
    let command = kapo.command_pid();
    kapo::sys::signal::send(command, STOP).unwrap();
    wait_for("it is stopped", || process_state(command) == Some('T'));
    kapo.signal(TERM);
    kapo.expect_exit(143);
}

#[test]
fn a_command_that_was_continued_gets_no_cont() {
    let script =
        "trap 'echo continued' CONT; trap 'echo term; exit 5' TERM; echo up; while :; do sleep 0.01; done";
    let mut kapo = Kapo::start(["run", "bash", "-c", script]);
    kapo.wait_for_stdout("up\n");
    let command = kapo.command_pid();
    kapo::sys::signal::send(command, STOP).unwrap();
    wait_for("it is stopped", || process_state(command) == Some('T'));
    kapo::sys::signal::send(command, CONT).unwrap();
    kapo.wait_for_stdout("continued\n");
    kapo.signal(TERM);
    kapo.expect_exit(5);
    assert_eq!(kapo.stdout(), "up\ncontinued\nterm\n");
}

#[test]
fn a_signal_that_kapo_may_not_send_is_a_warning() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can start a command of another user");
        return;
    }
    let mut command = clean("setpriv");
    command.args(["--bounding-set", "-kill", "--inh-caps", "-kill"]).arg(binary());
    // The command must have changed its user before its TTL is over.
    let (ttl, length) = if EMULATED { ("5s", "15") } else { ("100ms", "1") };
    command.args(["-i", "127.0.0.1", "-p", "0", "run", "--ttl", ttl, "--kill-after", "100ms", "--"]);
    command.args(["setpriv", "--reuid", "12345", "--clear-groups", "sleep", length]);
    let (code, _, log) = run_to_the_end(command);
    assert_eq!(code, Some(124), "{log}");
    let warning = "level=warn msg=\"cannot send signal\" signal=SIGTERM error=\"Operation not permitted\"\n";
    assert_eq!(log.matches("cannot send signal").count(), 1, "{log}");
    assert!(log.contains(warning), "{log}");
    assert!(!log.contains("killing it"), "{log}");
}
