//! Tests of signals: kapo forwards them to the command, rewritten by `--rewrite-signal`, and stop signals end kapo.

use serde_json::json;

use crate::harness::{
    EMULATED, Kapo, before_exec, binary, clean, command_name, kapo_after, kapo_on_a_free_port, lives, now,
    proc_status, process_state, run_to_the_end, signal_mask, wait_for,
};
use crate::tools::Gate;

const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const KILL: i32 = 9;
const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;
const CHLD: i32 = 17;
const CONT: i32 = 18;
const STOP: i32 = 19;
const TSTP: i32 = 20;
const TTIN: i32 = 21;
const TTOU: i32 = 22;

/// Returns the arguments for a shell that prints `ready` after it has set its traps, and then runs `then`.
fn shell(traps: &str, then: &str) -> [String; 4] {
    ["run".to_owned(), "bash".to_owned(), "-c".to_owned(), format!("{traps}\necho ready\n{then}")]
}

/// A loop in which a trap runs soon after its signal.
const FOREVER: &str = "while :; do sleep 0.01; done";

fn started(words: &[String]) -> Kapo {
    let mut kapo = Kapo::start(words);
    kapo.wait_for_stdout("ready\n");
    kapo
}

fn is_pending(pid: i32, signal: i32) -> bool {
    (signal_mask(pid, "ShdPnd") | signal_mask(pid, "SigPnd")) & (1 << (signal - 1)) != 0
}

/// Starts kapo with a command that blocks every signal, so that the signals that arrive can be seen as pending.
fn with_all_blocked(words: &[&str]) -> Kapo {
    let mut command = kapo_on_a_free_port(words);
    before_exec(&mut command, || kapo::sys::signal::block_all().map(drop));
    Kapo::launch(command).listening()
}

#[test]
fn every_signal_that_a_process_sends_arrives_at_the_command() {
    let mut kapo = with_all_blocked(&["run", "sleep", "60"]);
    let command = kapo.command_pid();
    for signal in (1..=64).filter(|n| ![KILL, STOP, CHLD].contains(n)) {
        assert!(!is_pending(command, signal), "{signal} is there already");
        kapo.signal(signal);
        wait_for(&format!("signal {signal} arrives"), || is_pending(command, signal));
        if [TSTP, TTIN, TTOU].contains(&signal) {
            wait_for("kapo stops itself", || process_state(kapo.pid()) == Some('T'));
            kapo.signal(CONT);
            // CONT removes pending stop signals.
            wait_for("it is continued", || is_pending(command, CONT) && !is_pending(command, signal));
        }
    }
    assert!(lives(command));
    kapo::sys::signal::send(command, KILL).unwrap();
    kapo.expect_exit(128 + KILL);
}

#[test]
fn the_command_acts_on_signals_as_if_they_were_sent_to_it() {
    let names = ["HUP", "USR1", "USR2", "ALRM", "WINCH", "RTMIN", "RTMAX", "PIPE", "URG"];
    let traps: Vec<String> = names.iter().map(|name| format!("trap 'echo got {name}' {name}")).collect();
    let mut kapo = started(&shell(&traps.join("\n"), FOREVER));
    for (name, signal) in names.into_iter().zip([HUP, USR1, USR2, 14, 28, 34, 64, 13, 23]) {
        kapo.signal(signal);
        kapo.wait_for_stdout(&format!("got {name}\n"));
    }
    assert_eq!(kapo.stdout().lines().count(), 1 + names.len(), "once each");
}

#[test]
fn term_ends_a_whole_pipeline() {
    let mut kapo = Kapo::start(["run", "sh", "-c", "sleep 61 | sleep 62 | sleep 63"]);
    let shell = kapo.command_pid();
    let children = || -> Vec<i32> {
        let text =
            std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    wait_for("all three run", || {
        let children = children();
        children.len() == 3 && children.iter().all(|pid| command_name(*pid) == "sleep")
    });
    let sleeping = children();
    kapo.signal(TERM);
    kapo.expect_exit(128 + TERM);
    wait_for("all are gone", || !sleeping.iter().any(|pid| lives(*pid)));
}

#[test]
fn every_member_of_a_pipeline_gets_the_signal() {
    // The shell waits for the members, so that none of them is killed as part of a leftover group.
    let member = |name: &str| {
        format!(
            "(trap 'echo {name} heard >&2; exit' TERM; echo {name} is up >&2; while :; do sleep 0.01; done)"
        )
    };
    let script = format!("trap 'echo shell heard >&2; exit 5' TERM; {} | {}", member("one"), member("two"));
    let mut kapo = Kapo::start(["run", "bash", "-c", &script]);
    kapo.wait_for("both are up", |kapo| {
        ["one", "two"].iter().all(|n| kapo.stderr().contains(&format!("{n} is up")))
    });
    kapo.signal(TERM);
    kapo.expect_exit(5);
    for name in ["one", "two", "shell"] {
        assert!(kapo.stderr().contains(&format!("{name} heard\n")), "{name}");
    }
}

#[test]
fn a_single_child_alone_gets_the_signal() {
    let script = "(trap 'echo grandchild; exit' TERM; echo up; while :; do sleep 0.01; done) &
                  trap 'echo child' TERM; echo ready; while :; do wait; done";
    let mut kapo = Kapo::start(["run", "--single-child", "bash", "-c", script]);
    kapo.wait_for("both are ready", |kapo| kapo.stdout().lines().count() == 2);
    kapo.signal(TERM);
    kapo.wait_for_stdout("child\n");
    assert!(!kapo.stdout().contains("grandchild"), "{}", kapo.stdout());
}

#[test]
fn each_of_the_stop_signals_ends_kapo_with_its_command() {
    for signal in [TERM, INT, QUIT] {
        let mut kapo = Kapo::start(["supervise", "--wait", "0", "sh", "-c", "ulimit -c 0; exec sleep 60"]);
        let command = kapo.command_pid();
        wait_for("sh has become sleep", || command_name(command) == "sleep");
        kapo.signal(signal);
        kapo.expect_exit(128 + signal);
        assert!(!lives(command));
    }
}

#[test]
fn the_document_names_the_sender_of_the_stop_signal() {
    let kapo = started(&shell("trap '' TERM", FOREVER));
    assert_eq!(kapo.status()["StopSignalFrom"], json!(null));
    assert_eq!(kapo.get("/readyz").status, 200);
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("echo $$; kill -TERM {}", kapo.pid())])
        .output()
        .unwrap();
    let sender: i32 = String::from_utf8(status.stdout).unwrap().trim().parse().unwrap();
    let status = kapo.wait_for_status("it is asked to stop", |status| !status["StopSignalFrom"].is_null());
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(status["StopSignalFrom"], json!({"Signal": "SIGTERM", "Pid": sender, "Uid": uid}));
    assert_eq!(status["Status"], "running");
    let ready = kapo.get("/readyz");
    assert_eq!(ready.status, 503, "it is being stopped");
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn the_uid_of_another_user_is_shown() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let mut command = kapo_on_a_free_port(shell("trap '' TERM", FOREVER));
    std::os::unix::process::CommandExt::uid(&mut command, 12345);
    let mut kapo = Kapo::launch(command).listening();
    kapo.wait_for_stdout("ready\n");
    let mut killer = std::process::Command::new("sh");
    killer.args(["-c", &format!("kill -TERM {}", kapo.pid())]);
    std::os::unix::process::CommandExt::uid(&mut killer, 12345);
    assert!(killer.status().unwrap().success());
    let status = kapo.wait_for_status("it is asked to stop", |status| !status["StopSignalFrom"].is_null());
    assert_eq!(status["StopSignalFrom"]["Uid"], 12345);
}

#[test]
fn a_command_that_ignores_its_ttl_is_killed() {
    // The command must be ready for the signal before its TTL is over.
    let ttl = if EMULATED { "5s" } else { "100ms" };
    let mut words = vec!["--ttl".to_owned(), ttl.to_owned(), "--kill-after".to_owned(), "200ms".to_owned()];
    let shell = shell("trap 'echo heard' TERM", FOREVER);
    words.insert(0, shell[0].clone());
    words.extend_from_slice(&shell[1..]);
    let begin = crate::harness::now();
    let mut kapo = Kapo::start(&words);
    let command = kapo.command_pid();
    kapo.expect_exit(124);
    assert!(begin.elapsed().as_millis() >= 300, "{:?}", begin.elapsed());
    assert_eq!(kapo.stdout(), "ready\nheard\n");
    assert!(!lives(command));
}

#[test]
fn the_ttl_sends_the_configured_stop_signal() {
    let mut words = shell("trap 'echo usr1; exit' USR1", FOREVER).to_vec();
    words.splice(1..1, ["--ttl", "1s", "--stop-signal", "USR1"].map(str::to_owned));
    let mut kapo = started(&words);
    kapo.expect_exit(124);
    assert_eq!(kapo.stdout(), "ready\nusr1\n");
}

#[test]
fn the_whole_group_is_killed_at_the_end_of_a_ttl() {
    let script = "(trap '' TERM; echo $BASHPID; while :; do sleep 0.01; done) & sleep 60";
    let mut kapo = Kapo::start(["run", "--ttl", if EMULATED { "9s" } else { "400ms" }, "bash", "-c", script]);
    kapo.wait_for("the deaf one says its pid", |kapo| kapo.stdout().ends_with('\n'));
    let deaf: i32 = kapo.stdout().trim().parse().unwrap();
    kapo.expect_exit(124);
    wait_for("the deaf one is gone", || !lives(deaf));
}

#[test]
fn a_leftover_group_is_killed_after_its_parent_left_it() {
    // The subshell leaves a child that ignores TERM in the group, and moves to another session.
    let script = "(trap '' TERM; sleep 60 & echo $!; exec setsid sleep 60) & wait";
    let mut kapo = Kapo::start(["run", "--ttl", if EMULATED { "9s" } else { "400ms" }, "bash", "-c", script]);
    kapo.wait_for("the deaf one says its pid", |kapo| kapo.stdout().ends_with('\n'));
    let deaf: i32 = kapo.stdout().trim().parse().unwrap();
    let parent = proc_status(deaf, "PPid").unwrap().parse().unwrap();
    wait_for("its parent has left", || command_name(parent) == "sleep");
    assert_eq!(proc_status(parent, "NSsid"), Some(parent.to_string()));
    kapo.expect_exit(124);
    wait_for("the deaf one is gone", || !lives(deaf));
    assert!(lives(parent), "a process that has left the group is not killed");
    kapo::sys::signal::send(parent, KILL).unwrap();
}

#[test]
fn after_a_stop_signal_only_kill_after_escalates() {
    // Without --kill-after the command may take as long as it needs.
    let mut patient = started(&shell("trap 'echo heard' TERM", FOREVER));
    patient.signal(TERM);
    patient.wait_for_stdout("heard\n");
    // With --kill-after it is killed, and the exit code shows that.
    let mut words = shell("trap 'echo heard' TERM", FOREVER).to_vec();
    words.splice(1..1, ["--kill-after", "100ms"].map(str::to_owned));
    let mut kapo = started(&words);
    let begin = crate::harness::now();
    kapo.signal(TERM);
    kapo.expect_exit(128 + KILL);
    assert!(begin.elapsed().as_millis() >= 100, "{:?}", begin.elapsed());
    assert_eq!(kapo.stdout(), "ready\nheard\n");
    assert!(lives(patient.command_pid()));
}

#[test]
fn rewritten_signals_arrive_rewritten() {
    let traps = "trap 'echo usr2' USR2\ntrap 'echo usr1' USR1\ntrap 'echo hup' HUP\ntrap 'echo int' INT";
    let mut words = shell(traps, FOREVER).to_vec();
    words.splice(
        1..1,
        ["--rewrite-signal", "USR1:USR2,HUP:0", "--rewrite-signal", "TERM:INT"].map(str::to_owned),
    );
    let mut kapo = started(&words);
    kapo.signal(USR1);
    kapo.wait_for_stdout("usr2\n");
    kapo.signal(HUP);
    kapo.signal(USR2);
    kapo.wait_for_stdout("usr2\nusr2\n");
    kapo.signal(TERM);
    kapo.wait_for_stdout("int\n");
    assert_eq!(kapo.stdout(), "ready\nusr2\nusr2\nint\n");
    // TERM is a stop signal, whatever it is rewritten to.
    assert_eq!(kapo.status()["StopSignalFrom"]["Signal"], "SIGTERM");
}

#[test]
fn a_stop_signal_rewritten_to_0_still_prevents_the_next_run() {
    let mut kapo = Kapo::start([
        "supervise",
        "--wait",
        "0",
        "--rewrite-signal",
        "TERM:0",
        "sh",
        "-c",
        "read x < /dev/null; sleep 0.3",
    ]);
    // Before the first start, TERM prevents that start.
    kapo.wait_for("it is started", |kapo| kapo.stderr().contains("msg=\"started\""));
    kapo.signal(TERM);
    kapo.expect_exit(0);
    assert_eq!(
        kapo.stderr().matches("msg=started").count() + kapo.stderr().matches("msg=\"started\"").count(),
        1
    );
}

#[test]
fn hup_from_a_process_is_only_forwarded() {
    let mut kapo = started(&shell("trap 'echo reload' HUP", FOREVER));
    kapo.signal(HUP);
    kapo.wait_for_stdout("reload\n");
    kapo.signal(HUP);
    kapo.wait_for_stdout("reload\nreload\n");
    let status = kapo.status();
    assert_eq!(status["StopSignalFrom"], json!(null));
    assert_eq!(kapo.get("/readyz").status, 200);
}

#[test]
fn supervise_restarts_a_command_that_hup_has_ended() {
    let mut kapo = Kapo::start(["supervise", "--wait", "0", "sleep", "60"]);
    kapo.signal(HUP);
    kapo.wait_for_status("it runs again", |status| status["Restarts"] == 1 && status["Status"] == "running");
    kapo.signal(TERM);
    kapo.expect_exit(128 + TERM);
}

#[test]
fn stop_and_continue_apply_to_kapo_and_command() {
    for signal in [TSTP, TTIN, TTOU] {
        let mut kapo = Kapo::start(["run", "sleep", "60"]);
        let command = kapo.command_pid();
        wait_for("it runs", || command_name(command) == "sleep");
        // In an orphaned process group the kernel ignores TSTP. The group is not orphaned, because kapo is in the
        // session of the command.
        kapo.signal(signal);
        wait_for("kapo is stopped", || process_state(kapo.pid()) == Some('T'));
        wait_for("the command is stopped", || process_state(command) == Some('T'));
        kapo.signal(CONT);
        wait_for("the command goes on", || process_state(command) == Some('S'));
        assert_eq!(kapo.status()["Status"], "running");
        kapo.signal(TERM);
        kapo.expect_exit(128 + TERM);
    }
}

/// Stops kapo, runs `meanwhile`, and continues kapo after `time` has passed.
fn while_kapo_is_stopped(kapo: &Kapo, time: std::time::Duration, meanwhile: impl FnOnce()) {
    kapo.signal(STOP);
    wait_for("kapo is stopped", || process_state(kapo.pid()) == Some('T'));
    let begin = now();
    meanwhile();
    wait_for("the time is over", || begin.elapsed() > time);
    kapo.signal(CONT);
}

#[test]
fn events_during_a_stop_precede_deadlines_after_it() {
    let second = std::time::Duration::from_secs(1);
    let mut gate = Gate::new();
    let words = ["run", "--ttl", "700ms", "sh", "-c", "read x < \"$0\"; exit 7", gate.path()];
    let mut kapo = Kapo::start(words);
    let command = kapo.command_pid();
    while_kapo_is_stopped(&kapo, second, || {
        gate.open();
        wait_for("the command has ended", || process_state(command) == Some('Z'));
    });
    kapo.expect_exit(7);
    // A stop signal in the pause before the next start.
    let mut kapo = Kapo::start(["supervise", "--wait", "700ms", "sh", "-c", "exit 3"]);
    kapo.wait_for_status("it pauses", |status| status["Status"] == "stopped");
    while_kapo_is_stopped(&kapo, second, || kapo.signal(TERM));
    kapo.expect_exit(3);
    assert_eq!(kapo.stderr().matches("msg=\"started\"").count(), 1, "{}", kapo.stderr());
}

#[test]
fn a_pending_stop_signal_prevents_the_start() {
    let mut command = kapo_on_a_free_port(["supervise", "--wait", "0", "echo", "started"]);
    before_exec(&mut command, || {
        kapo::sys::signal::block_all()?;
        kapo::sys::signal::send(rustix::process::getpid().as_raw_nonzero().get(), TERM)
    });
    let (code, stdout, stderr) = run_to_the_end(command);
    assert_eq!((code, stdout.as_str()), (Some(128 + TERM), ""), "{stderr}");
}

#[test]
fn an_ignored_interrupt_of_a_vanished_sender_counts() {
    let mut kapo =
        Kapo::launch(kapo_after("trap '' INT QUIT", ["run", "--kill-after", "50ms", "sleep", "60"]));
    kapo.wait_for("kapo has started its command", |kapo| kapo.stderr().contains("msg=\"started\""));
    while_kapo_is_stopped(&kapo, std::time::Duration::ZERO, || {
        let mut sender = clean("sh");
        sender.arg("-c").arg(format!("kill -INT {}", kapo.pid()));
        assert!(sender.status().unwrap().success());
    });
    kapo.expect_exit(128 + KILL);
}

#[test]
fn under_setsid_the_command_is_stopped_all_the_same() {
    let mut kapo = Kapo::start(["run", "--setsid", "sleep", "60"]);
    let command = kapo.command_pid();
    wait_for("it runs", || command_name(command) == "sleep");
    assert_eq!(proc_status(command, "NSsid"), Some(command.to_string()));
    kapo.signal(TSTP);
    wait_for("both are stopped", || [kapo.pid(), command].iter().all(|pid| process_state(*pid) == Some('T')));
    kapo.signal(CONT);
    wait_for("the command goes on", || process_state(command) == Some('S'));
    kapo.signal(TERM);
    kapo.expect_exit(128 + TERM);
}

#[test]
fn continue_is_forwarded_once() {
    let mut kapo = started(&shell("trap 'echo cont' CONT\ntrap 'echo usr1' USR1", FOREVER));
    kapo.signal(TSTP);
    wait_for("kapo is stopped", || process_state(kapo.pid()) == Some('T'));
    kapo.signal(CONT);
    kapo.wait_for_stdout("cont\n");
    kapo.signal(USR1);
    kapo.wait_for_stdout("usr1\n");
    assert_eq!(kapo.stdout(), "ready\ncont\nusr1\n");
}

#[test]
fn when_kapo_is_killed_the_command_gets_the_orphan_signal() {
    for (words, signal) in [(vec![], "TERM"), (vec!["--orphan-signal", "USR1"], "USR1")] {
        let mut all = shell(&format!("trap 'echo {signal}; exit' {signal}"), FOREVER).to_vec();
        all.splice(1..1, words.into_iter().map(str::to_owned));
        let mut kapo = started(&all);
        let command = kapo.command_pid();
        kapo.signal(KILL);
        wait_for("the command is gone", || !lives(command));
        wait_for("kapo is gone", || kapo.try_wait().is_some());
        assert_eq!(kapo.stdout(), format!("ready\n{signal}\n"));
    }
}

#[test]
fn with_orphan_signal_0_the_command_lives_on() {
    let mut kapo = Kapo::start(["run", "--orphan-signal", "0", "sleep", "60"]);
    let command = kapo.command_pid();
    wait_for("it runs", || command_name(command) == "sleep");
    kapo.signal(KILL);
    wait_for("kapo is gone", || kapo.try_wait().is_some());
    let parent = || proc_status(command, "PPid").unwrap();
    wait_for("somebody else is its parent", || parent() != kapo.pid().to_string());
    assert!(lives(command));
    kapo::sys::signal::send(command, KILL).unwrap();
}

#[test]
fn the_death_of_its_parent_stops_kapo() {
    // The shell that starts kapo prints kapo's pid and is then killed.
    let command = kapo_after(
        "\"$@\" & echo $!; wait; exit; true",
        ["run", "--parent-death-signal", "TERM", "sleep", "60"],
    );
    let mut parent = Kapo::launch(command).listening();
    parent.wait_for("it says kapo's pid", |kapo| kapo.stdout().ends_with('\n'));
    parent.wait_for("its parent tells its pid", |parent| parent.stdout().ends_with('\n'));
    let kapo: i32 = parent.stdout().trim().parse().unwrap();
    let command = parent.command_pid();
    assert_ne!(kapo, parent.pid());
    parent.signal(KILL);
    wait_for("kapo and command are gone", || !lives(kapo) && !lives(command));
    assert!(parent.stderr().contains("signal received"), "{}", parent.stderr());
}

/// PR_SET_PDEATHSIG depends on the thread that started kapo, which matters for programs that start it from a thread
/// pool.
#[test]
fn the_end_of_the_parents_thread_does_not_stop_kapo() {
    let script = "import os, signal, subprocess, sys, threading
def start():
    print(subprocess.Popen(sys.argv[1:]).pid, flush=True)
    sys.stdin.readline()
thread = threading.Thread(target=start)
thread.start()
thread.join()
while len(os.listdir('/proc/self/task')) > 1: pass
print('alone', flush=True)
signal.pause()";
    let (reader, mut go) = std::io::pipe().unwrap();
    let mut command = clean("python3");
    command.arg("-c").arg(script).arg(binary()).args(["-p", "0", "-i", "127.0.0.1"]);
    command.args(["run", "--parent-death-signal", "TERM", "sleep", "60"]).stdin(reader);
    let mut parent = Kapo::launch(command).listening();
    parent.wait_for("the command is started", |kapo| kapo.stderr().contains("msg=\"started\""));
    parent.wait_for("its parent tells its pid", |parent| parent.stdout().ends_with('\n'));
    let kapo: i32 = parent.stdout().trim().parse().unwrap();
    std::io::Write::write_all(&mut go, b"\n").unwrap();
    parent.wait_for_stdout("alone\n");
    // A signal that has arrived would be handled before this request.
    assert_eq!(parent.get("/readyz").status, 200, "{}", parent.stderr());
    parent.signal(KILL);
    wait_for("kapo is gone", || !lives(kapo));
    assert!(parent.stderr().contains("signal received"), "{}", parent.stderr());
}

#[test]
fn the_parent_is_watched_without_pidfds_too() {
    let mut command = kapo_after(
        "\"$@\" & echo $!; wait; exit; true",
        ["run", "--parent-death-signal", "TERM", "sleep", "60"],
    );
    before_exec(&mut command, || crate::seccomp::refuse(libc::SYS_pidfd_open, None, libc::ENOSYS));
    let mut parent = Kapo::launch(command).listening();
    parent.wait_for("the command is started", |kapo| kapo.stderr().contains("msg=\"started\""));
    parent.wait_for("its parent tells its pid", |parent| parent.stdout().ends_with('\n'));
    let kapo: i32 = parent.stdout().trim().parse().unwrap();
    parent.signal(KILL);
    wait_for("kapo is gone", || !lives(kapo));
    assert!(parent.stderr().contains("signal received"), "{}", parent.stderr());
}

#[test]
fn a_parent_death_signal_that_cannot_be_caught_ends_kapo() {
    let command = kapo_after(
        "\"$@\" & echo $!; wait; exit; true",
        ["run", "--parent-death-signal", "KILL", "sleep", "60"],
    );
    let mut parent = Kapo::launch(command).listening();
    parent.wait_for("the command is started", |kapo| kapo.stderr().contains("msg=\"started\""));
    parent.wait_for("its parent tells its pid", |parent| parent.stdout().ends_with('\n'));
    let kapo: i32 = parent.stdout().trim().parse().unwrap();
    let command = parent.command_pid();
    parent.signal(KILL);
    // The command ends by --orphan-signal.
    wait_for("kapo and command are gone", || !lives(kapo) && !lives(command));
    assert!(!parent.stderr().contains("signal received"), "{}", parent.stderr());
}

#[test]
fn a_child_that_ended_before_kapo_was_executed_is_reaped() {
    // A shell would reap the child by itself.
    let script = "import os, sys
pid = os.fork() or os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
os.write(2, b'%d\\n' % pid)
os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = clean("python3");
    command.arg("-c").arg(script).arg(binary()).args(["-p", "0", "-i", "127.0.0.1", "run", "sleep", "60"]);
    let mut kapo = Kapo::launch(command);
    kapo.wait_for("kapo has started its command", |kapo| kapo.stderr().contains("msg=\"started\""));
    let zombie: i32 = kapo.stderr().lines().next().unwrap().parse().unwrap();
    wait_for("it is reaped", || process_state(zombie).is_none());
}

#[test]
fn orphans_are_reaped_though_kapo_is_not_pid_1() {
    // Each subshell leaves a child behind, which becomes a child of kapo.
    let script = "for i in $(seq 100); do (sleep 0.01 &); done; echo done; exec sleep 60";
    let mut kapo = Kapo::start(["run", "bash", "-c", script]);
    kapo.wait_for_stdout("done\n");
    wait_for("all are reaped", || {
        let metrics = kapo.get("/metrics").body;
        let line =
            metrics.lines().find(|line| line.starts_with("kapo_orphans_reaped_total ")).unwrap_or_default();
        line.ends_with(" 100")
    });
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", kapo.pid())).unwrap();
    assert_eq!(children.trim(), kapo.command_pid().to_string());
    assert_eq!(kapo.stderr().lines().count(), 2, "no log line for an orphan");
}
