//! Tests of kapo as the first process of a PID namespace, as in a container. They print a note if the machine does not
//! permit one.

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::{EMULATED, Kapo, binary, clean, run_to_the_end, wait_for};

/// Returns the command that creates a PID namespace here, as root or in a user namespace; `None` if neither works.
fn namespace() -> Option<&'static [&'static str]> {
    const AS_ROOT: &[&str] = &["--fork", "--pid", "--mount-proc", "--kill-child"];
    const AS_ANYBODY: &[&str] =
        &["--user", "--map-root-user", "--fork", "--pid", "--mount-proc", "--kill-child"];
    let works = |words: &&&[&str]| {
        let mut probe = Command::new("unshare");
        probe.args(**words).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let found = [AS_ROOT, AS_ANYBODY].iter().find(works).copied();
    if found.is_none() {
        eprintln!("skipped: no PID namespace can be made here");
    }
    found
}

/// Starts kapo as PID 1 with `script`; `None` if that is not possible here.
fn first(options: &[&str], script: &str) -> Option<Kapo> {
    let mut command = clean("unshare");
    command.args(namespace()?).arg(binary()).args(["-p", "0", "-i", "127.0.0.1", "run"]);
    command.args(options).args(["bash", "-c", script]);
    let mut kapo = Kapo::launch(command).listening();
    let unshare = kapo.pid();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    kapo.set_pid(children.trim().parse().unwrap());
    Some(kapo)
}

/// Returns the children of `pid` as seen from outside.
fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn thousands_of_orphans_are_reaped_while_the_port_answers() {
    let count = if EMULATED { 500 } else { 3000 };
    let script = format!("for i in {{1..{count}}}; do (: &); done; echo done; read line; exit 9");
    let (reader, writer) = std::io::pipe().unwrap();
    let Some(words) = namespace() else { return };
    let mut command = clean("unshare");
    command.args(words).arg(binary()).args(["-p", "0", "-i", "127.0.0.1", "run", "bash", "-c", &script]);
    command.stdin(reader);
    let mut kapo = Kapo::launch(command).listening();
    kapo.set_pid(children(kapo.pid())[0]);
    let mut answers = 0;
    kapo.wait_for("all have been started", |kapo| {
        assert_eq!(kapo.get("/readyz").body, "ok");
        answers += 1;
        kapo.stdout() == "done\n"
    });
    assert!(answers > 10, "{answers}");
    // No child is left, living or zombie. How many became children of kapo depends on a race in each subshell.
    wait_for("all are reaped", || children(kapo.pid()).len() == 1);
    let metrics = kapo.get("/metrics").body;
    let orphans = metrics.lines().find_map(|line| line.strip_prefix("kapo_orphans_reaped_total "));
    assert!(orphans.is_some_and(|count| count.parse::<u32>().unwrap() > 100), "{orphans:?}");
    assert_eq!(kapo.stderr().lines().count(), 2, "no log line for an orphan");
    drop(writer);
    kapo.expect_exit(9);
}

#[test]
fn an_interrupt_from_outside_the_namespace_stops_kapo() {
    let Some(words) = namespace() else { return };
    let mut command = clean("sh");
    command.arg("-c").arg("trap '' INT QUIT; exec unshare \"$@\"").arg("sh").args(words).arg(binary());
    command.args(["-p", "0", "-i", "127.0.0.1", "run", "--kill-after", "10ms", "sleep", "60"]);
    let mut kapo = Kapo::launch(command).listening();
    kapo.set_pid(children(kapo.pid())[0]);
    kapo.command_pid();
    // The command ignores the signal, because it has inherited that.
    kapo.signal(2);
    kapo.expect_exit(137);
}

#[test]
fn the_command_may_be_pid_1_of_another_namespace() {
    let Some(words) = namespace() else { return };
    let mut command = clean("unshare");
    command.args(words.iter().filter(|word| ["--user", "--map-root-user", "--pid"].contains(word)));
    command.arg(binary()).args(["-p", "0", "-i", "127.0.0.1", "run", "sh", "-c", "echo $$; exit 6"]);
    let (code, stdout, stderr) = run_to_the_end(command);
    assert_eq!((code, stdout.as_str()), (Some(6), "1\n"), "{stderr}");
}

#[test]
fn the_commands_end_ends_the_namespace_with_its_code() {
    for (script, code) in
        [("exit 0", 0), ("sleep 100 & exit 41", 41), ("kill -9 $$", 137), ("(sleep 100 &); kill $$", 143)]
    {
        let Some(mut kapo) = first(&["--wait", "50ms"], script) else { return };
        kapo.expect_exit(code);
    }
}

#[test]
fn the_commands_end_is_not_lost_among_orphans() {
    // The orphans end at the same moment as the command.
    for _ in 0..10 {
        let script = "for i in {1..50}; do (sleep 0.05 &); done; sleep 0.05; exit 17";
        let Some(mut kapo) = first(&["--wait", "50ms"], script) else { return };
        kapo.expect_exit(17);
    }
}

#[test]
fn stop_signals_reach_the_command_from_outside_and_inside() {
    // The kernel delivers to PID 1 only signals for which it has a handler.
    for script in [
        "trap 'exit 21' TERM; echo ready; while :; do sleep 0.01; done",
        "trap 'exit 21' TERM; kill 1; while :; do sleep 0.01; done",
    ] {
        let Some(mut kapo) = first(&[], script) else { return };
        if script.contains("ready") {
            kapo.wait_for_stdout("ready\n");
            kapo.signal(15);
        }
        kapo.expect_exit(21);
    }
}

#[test]
fn a_sender_in_another_namespace_has_no_pid() {
    let Some(mut kapo) = first(&[], "trap '' TERM; echo ready; while :; do sleep 0.01; done") else { return };
    kapo.wait_for_stdout("ready\n");
    kapo.signal(15);
    let status = kapo.wait_for_status("it is asked to stop", |status| !status["StopSignalFrom"].is_null());
    assert_eq!(status["StopSignalFrom"]["Pid"], 0);
    assert_eq!(status["StopSignalFrom"]["Signal"], "SIGTERM");
}

#[test]
fn pid_1_is_not_stopped_because_nothing_could_continue_it() {
    // kapo cannot stop itself there and keeps answering.
    let Some(kapo) = first(&[], "exec sleep 60") else { return };
    wait_for("the command runs", || children(kapo.pid()).len() == 1);
    let command = children(kapo.pid())[0];
    kapo.signal(20);
    wait_for("the command is stopped", || crate::harness::process_state(command) == Some('T'));
    assert_eq!(kapo.get("/livez").status, 200);
    kapo.signal(18);
    wait_for("the command goes on", || crate::harness::process_state(command) == Some('S'));
}
