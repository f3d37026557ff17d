//! Tests of what comes before a stop: the drain, the dump of a command that hangs, and the silence of its output.

use std::io::Read;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{EMULATED, Kapo, kapo_on_a_free_port, now, wait_for};
use crate::tools::Gate;

const INT: i32 = 2;
const USR1: i32 = 10;
const TERM: i32 = 15;

/// Reports each signal, and ends at TERM.
const REPORTER: &str =
    "trap 'echo usr1' USR1; trap 'echo term; exit 7' TERM; echo up; while :; do sleep 0.01; done";

fn reporter(options: &[&str]) -> Kapo {
    let mut kapo = Kapo::start([options, &["bash", "-c", REPORTER]].concat());
    kapo.wait_for_stdout("up\n");
    kapo
}

#[test]
fn a_drain_refuses_traffic_and_then_passes_the_signal_on() {
    let mut kapo = reporter(&["run", "--drain", "1s"]);
    assert_eq!(kapo.get("/readyz").status, 200);
    let begin = now();
    kapo.signal(TERM);
    let status = kapo.wait_for_status("the drain", |status| status["Ready"] == false);
    assert_ne!(status["StopsAt"], "0001-01-01T00:00:00Z");
    assert_eq!((&status["Status"], &status["Pid"]), (&json!("running"), &json!(kapo.command_pid())));
    let answer = kapo.get("/readyz");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{answer:?}");
    let (second, _) = status["StopsAt"].as_str().unwrap().split_once(['.', 'Z']).unwrap();
    assert_eq!(answer.body, format!("draining until {second}Z\n"));
    assert_eq!((kapo.get("/livez").status, kapo.get("/healthz").status), (200, 200));
    kapo.signal(USR1);
    kapo.wait_for_stdout("up\nusr1\n");
    kapo.expect_exit(7);
    assert!(begin.elapsed().as_millis() >= 1_000, "{:?}", begin.elapsed());
    assert_eq!(kapo.stdout(), "up\nusr1\nterm\n");
    let log = kapo.stderr();
    for message in ["signal received", "draining", "drain ended"] {
        assert_eq!(log.matches(&format!("msg=\"{message}\"")).count(), 1, "{log}");
    }
}

#[test]
fn a_drain_can_be_skipped_by_a_second_signal() {
    for second in [TERM, INT] {
        let mut kapo = reporter(&["run", "--drain", "600"]);
        kapo.signal(TERM);
        kapo.wait_for_status("the drain", |status| status["Ready"] == false);
        kapo.signal(second);
        if second == TERM {
            kapo.expect_exit(7);
        } else {
            kapo.expect_exit(130);
        }
    }
}

#[test]
fn a_drain_does_not_outlast_the_command() {
    let mut gate = Gate::new();
    let mut kapo =
        Kapo::start(["run", "--drain", "600", "sh", "-c", "read line <\"$0\"; exit 5", gate.path()]);
    kapo.signal(TERM);
    kapo.wait_for_status("the drain", |status| status["Ready"] == false);
    gate.open();
    kapo.expect_exit(5);
}

#[test]
fn an_interrupt_does_not_drain() {
    let mut kapo = Kapo::start(["run", "--drain", "600", "sleep", "600"]);
    kapo.signal(INT);
    kapo.expect_exit(130);
}

#[test]
fn a_ttl_drains_and_the_next_run_is_ready() {
    let kapo =
        Kapo::start(["supervise", "--drain", "300ms", "--ttl", "300ms", "--wait", "0", "sleep", "600"]);
    kapo.wait_for_status("the drain", |status| status["StopsAt"] != "0001-01-01T00:00:00Z");
    let status = kapo.wait_for_status("the next run", |status| status["Restarts"] == 1);
    assert_eq!(status["LastRun"]["Reason"], "timeout");
}

/// Prints its stack at QUIT, and goes on.
const PYTHON: &str = "import faulthandler, signal, sys, time
faulthandler.register(signal.SIGQUIT)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('up', flush=True)
def hangs(): time.sleep(600)
hangs()";

#[test]
fn a_hanging_python_prints_its_stack_before_it_is_stopped() {
    // Python must have started and be hanging when the silence is over.
    let (silence, dump_wait) = if EMULATED { ("20s", "5s") } else { ("1s", "300ms") };
    let options = [
        "supervise",
        "--stdout",
        "--stderr",
        "--tail",
        "64K",
        "--silence",
        silence,
        "--dump-signal",
        "QUIT",
        "--dump-wait",
        dump_wait,
    ];
    let kapo = Kapo::start([&options[..], &["--wait", "600", "python3", "-c", PYTHON]].concat());
    let status = kapo.wait_for_status("the end", |status| {
        status["Reason"] == "silent" && status["LastOutput"].as_array().is_some_and(|lines| !lines.is_empty())
    });
    let output = status["LastOutput"].to_string();
    assert!(output.contains("most recent call first") && output.contains("in hangs"), "{output}");
    let log = kapo.stderr();
    assert!(log.contains("msg=\"no output\"") && log.contains("msg=\"stopping after dump\""), "{log}");
}

#[test]
fn a_silent_command_ends_with_124() {
    let mut kapo = Kapo::start(["run", "--stdout", "--silence", "300ms", "sleep", "600"]);
    kapo.expect_exit(124);
}

#[test]
fn output_of_either_stream_is_not_silence() {
    let script = "for i in 1 2 3 4 5 6; do sleep 0.2; echo $i >&2; done";
    let silence = if EMULATED { "5s" } else { "600ms" };
    let mut kapo = Kapo::start(["run", "--stdout", "--stderr", "--silence", silence, "bash", "-c", script]);
    kapo.expect_exit(0);
}

#[test]
fn a_stopped_command_is_not_silent() {
    let mut kapo =
        Kapo::start(["run", "--stdout", "--silence", "300ms", "sh", "-c", "echo up; exec sleep 600"]);
    kapo.wait_for_stdout("up\n");
    let (pid, begin) = (Pid::from_raw(kapo.command_pid()).unwrap(), now());
    kill_process(pid, Signal::STOP).unwrap();
    wait_for("several times of silence", || begin.elapsed().as_millis() > 1_500);
    assert_eq!(kapo.status()["Status"], "running");
    kill_process(pid, Signal::CONT).unwrap();
    kapo.expect_exit(124);
}

#[test]
fn a_command_that_waits_for_a_slow_reader_is_not_silent() {
    let script = "yes | head -c 1000000; exit 3";
    let mut command = kapo_on_a_free_port(["run", "--stdout", "--silence", "300ms", "bash", "-c", script]);
    command.stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let begin = now();
    wait_for("several times of silence", || begin.elapsed().as_millis() > 1_500);
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(output.len(), 1_000_000);
}
