//! Tests of MAINPID=: another process becomes the main process, as after the re-exec of a server.

use serde_json::json;

use crate::harness::{Kapo, kapo_on_a_free_port, lives, wait_for};
use crate::tools::{Gate, kernel_reports_exit_of_others};

/// Returns a command in Python that starts a second process and names it with MAINPID. `main` and `old` are what the
/// two processes do afterwards; `wait()` waits until the test opens the gate.
fn hands_over(options: &[&str], gate: &Gate, main: &str, old: &str) -> Kapo {
    let script = format!(
        "
import os, signal, socket, sys, time
def say(text):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
def wait():
    with open(sys.argv[1], 'rb', buffering=0) as gate: gate.read(1)
pid = os.fork()
if pid == 0:
    {main}
    os._exit(0)
say('READY=1\\nMAINPID=%d' % pid)
{old}
"
    );
    let words = [options, &["python3", "-c", &script, gate.path()]].concat();
    Kapo::launch(kapo_on_a_free_port(words)).listening()
}

/// Returns the pid of the main process, once it differs from the process that kapo started.
fn followed(kapo: &mut Kapo) -> i32 {
    kapo.wait_for("it follows", |kapo| kapo.stderr().contains("main process changed"));
    kapo.command_pid()
}

#[test]
fn the_end_of_the_main_process_is_that_of_the_command() {
    let mut gate = Gate::new();
    let (main, old) = ("wait(); os._exit(7)", "os._exit(1)");
    let mut kapo = hands_over(&["run", "--notify"], &gate, main, old);
    let pid = followed(&mut kapo);
    // The parent has ended and was reaped, and its end is not that of the command.
    wait_for("it is kapo's child", || {
        crate::harness::proc_status(pid, "PPid") == Some(kapo.pid().to_string())
    });
    let status = kapo.status();
    assert_eq!(
        (&status["Status"], &status["Ready"], &status["Pid"]),
        (&json!("running"), &json!(true), &json!(pid))
    );
    gate.open();
    kapo.expect_exit(7);
}

#[test]
fn the_run_ends_with_the_code_of_a_foreign_main_process() {
    let mut gate = Gate::new();
    // The parent waits before it reaps. Until then the process counts as running.
    let old = "
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print('zombie', flush=True)
wait(); os.waitpid(pid, 0); time.sleep(60)";
    let mut kapo = hands_over(&["run", "--notify", "--wait", "1h"], &gate, "wait(); os._exit(7)", old);
    followed(&mut kapo);
    gate.open();
    kapo.wait_for_stdout("zombie");
    // An older kernel does not report when the process is reaped, so there the run ends with the zombie.
    if kernel_reports_exit_of_others() {
        assert_eq!(kapo.status()["Status"], "running");
        crate::tools::expect_no_wakeup(kapo.pid());
    }
    gate.open();
    let status = kapo.wait_for_status("its end", |status| status["Status"] != "running");
    // An older kernel reports 0, unless PIDFD_INFO_EXIT was backported.
    let is_expected = status["ExitCode"] == 7 || !kernel_reports_exit_of_others() && status["ExitCode"] == 0;
    assert!(is_expected, "{status}");
}

#[test]
fn signals_reach_a_main_process_in_a_session_of_its_own() {
    let gate = Gate::new();
    let main = "
    os.setsid()
    signal.signal(signal.SIGHUP, lambda *_: say('STATUS=hung up'))
    say('STATUS=handler set')
    while True: signal.pause()";
    let mut kapo = hands_over(&["run", "--notify"], &gate, main, "os._exit(0)");
    let pid = followed(&mut kapo);
    kapo.wait_for_status("its handler", |status| status["StatusText"] == "handler set");
    kapo.signal(1);
    kapo.wait_for_status("its word", |status| status["StatusText"] == "hung up");
    kapo.signal(15);
    kapo.expect_exit(143);
    assert!(!lives(pid));
}

#[test]
fn only_a_descendant_becomes_the_main_process() {
    let gate = Gate::new();
    let old = "
say('MAINPID=%d' % os.getppid())
say('MAINPID=1')
say('MAINPID=99999999')
say('STATUS=said'); time.sleep(60)";
    let kapo =
        hands_over(&["run", "--notify"], &gate, "time.sleep(60)", &format!("first = os.getpid(){old}"));
    kapo.wait_for_status("its words", |status| status["StatusText"] == "said");
    let pid = kapo.command_pid();
    assert!(pid > 1 && pid != kapo.pid());
    assert_eq!(kapo.stderr().matches("main process changed").count(), 1, "{}", kapo.stderr());
}

#[test]
fn a_main_pid_that_is_ignored_is_logged_once() {
    let stranger = std::process::id().to_string();
    let thread = "threading.get_native_id()";
    for (value, why) in [
        ("'1'", "not a process of this run"),
        ("str(os.getppid())", "not a process of this run"),
        (stranger.as_str(), "not a process of this run"),
        ("'99999999'", "no such process"),
        ("str(tid)", "a thread, not a process"),
        ("'-7'", "not a process id"),
        ("'7 \\x1b[31m'", "not a process id"),
    ] {
        let script = format!(
            "
import os, socket, threading, time
def say(text):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
tid = None
def rest():
    global tid
    tid = {thread}
    time.sleep(60)
threading.Thread(target=rest, daemon=True).start()
while not tid: time.sleep(0.001)
say('READY=1\\nMAINPID=%d' % os.getpid())
for n in range(50): say('MAINPID=%s' % {value})
say('STATUS=said'); time.sleep(60)"
        );
        let words = ["run", "--notify", "python3", "-c", &script];
        let kapo = Kapo::launch(kapo_on_a_free_port(words)).listening();
        kapo.wait_for_status("its words", |status| status["StatusText"] == "said");
        let log = kapo.stderr();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("MAINPID")).collect();
        assert_eq!(warnings.len(), 1, "{value}: {log}");
        assert!(warnings[0].contains("level=warn msg=\"MAINPID ignored\" mainpid="), "{log}");
        assert!(warnings[0].ends_with(&format!("why=\"{why}\"")), "{value}: {log}");
    }
}
