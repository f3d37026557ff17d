//! Tests of the matches of `kapo watch NAME`, and of processes that change their name.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Kapo, binary, clean, command_name, kapo_on_a_free_port, wait_for};
use crate::tools::{Gate, OtherProcess, Programs, is_root, kernel_reports_exit_of_others, sleeps, unique};

/// Watches a name with ten scans a second.
fn watch(name: &str) -> Kapo {
    Kapo::start(["watch", "--wait", "100ms", name])
}

fn pids(kapo: &Kapo) -> Vec<i32> {
    let document: Vec<Value> = serde_json::from_str(&kapo.get("/").body).unwrap();
    document.iter().map(|object| i32::try_from(object["Pid"].as_i64().unwrap()).unwrap()).collect()
}

#[track_caller]
fn wait_for_pids(kapo: &mut Kapo, expected: &[i32]) {
    let mut shown = Vec::new();
    kapo.wait_for(&format!("{expected:?} are shown"), |kapo| {
        shown = pids(kapo);
        shown == expected
    });
}

/// Waits until kapo has scanned a few more times.
fn wait_for_scans(kapo: &Kapo) {
    let scanned = sleeps(kapo.pid()) + 4;
    wait_for("further scans", || sleeps(kapo.pid()) > scanned);
}

#[test]
fn the_next_scan_finds_an_exec_that_keeps_comm() {
    let (name, mut gate) = (unique("w"), Gate::new());
    let mut kapo = watch(&name);
    wait_for_scans(&kapo);
    let script = "read x < \"$0\"; exec -a \"$1\" bash -c 'read x < \"$0\"; :' \"$0\"";
    let mut command = clean("bash");
    command.args(["-c", script, gate.path(), &name]);
    let job = OtherProcess::start(command);
    wait_for_scans(&kapo);
    assert_eq!(pids(&kapo), [0]);
    gate.open();
    wait_for_pids(&mut kapo, &[job.pid()]);
}

#[test]
fn a_renamed_main_thread_does_not_hide_a_process() {
    let (programs, name) = (Programs::new(), unique("w"));
    let copy = programs.folder().join(&name);
    std::fs::copy("/bin/bash", &copy).unwrap();
    let script = "printf MainThread > /proc/$$/comm; echo; read x";
    let mut command = clean(&copy);
    command.args(["-c", script]);
    let mut by_program = OtherProcess::start(command);
    // The executable has another name, and only the first argument is NAME.
    let mut command = clean("bash");
    command.arg0(&name).args(["-c", script]);
    let mut by_argument = OtherProcess::start(command);
    by_program.read_line();
    by_argument.read_line();
    assert_eq!(command_name(by_program.pid()), "MainThread");
    let mut kapo = watch(&name);
    let mut expected = [by_program.pid(), by_argument.pid()];
    kapo.wait_for("both are found", |kapo| pids(kapo).len() == 2);
    let mut shown = pids(&kapo);
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    // The path of the executable matches.
    let mut kapo = watch(copy.to_str().unwrap());
    wait_for_pids(&mut kapo, &[by_program.pid()]);
    // A symbolic link matches as well.
    let link = programs.folder().join(unique("l"));
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    let mut kapo = watch(link.to_str().unwrap());
    wait_for_pids(&mut kapo, &[by_program.pid()]);
    let kapo = watch(&format!("/nowhere/{name}"));
    wait_for_scans(&kapo);
    assert_eq!(pids(&kapo), [0]);
}

#[test]
fn node_is_found_whatever_its_main_thread_is_called() {
    if Command::new("node").arg("--version").output().is_err() {
        return eprintln!("skipped: no node");
    }
    let id = unique("n");
    let script = "require('fs').writeFileSync('/proc/self/comm', 'MainThread'); console.log(1); setTimeout(() => 0, 1e6)";
    let mut command = clean("node");
    command.args(["-e", script, &id]);
    let mut node = OtherProcess::start(command);
    node.read_line();
    assert_eq!(command_name(node.pid()), "MainThread");
    let kapo = watch("node");
    wait_for("it is found", || pids(&kapo).contains(&node.pid()));
}

#[test]
fn arguments_and_beginnings_are_not_names() {
    let (programs, name) = (Programs::new(), unique("w"));
    let longer = programs.named("/bin/sleep", &format!("{name}x"));
    let mut command = clean(longer);
    command.arg("100");
    let _longer = OtherProcess::start(command);
    let mut argument = OtherProcess::shell("echo; read x", &[&name]);
    argument.read_line();
    let kapo = watch(&name);
    wait_for_scans(&kapo);
    assert_eq!(pids(&kapo), [0]);
}

#[test]
fn only_another_program_ends_a_match() {
    let (programs, name, mut gate) = (Programs::new(), unique("w"), Gate::new());
    // Only comm and the second argument are the name of the script, and its children have the same executable.
    let script = "#!/bin/bash\nread x < $1; printf other > /proc/$$/comm; read x < $1; exec bash -c 'read x < $0; exit 5' $1\n";
    let path = programs.script(&name, script);
    for options in [&["--wait", "100ms"][..], &["--wait", "1h", "--process-events"]] {
        let mut command = clean(&path);
        command.arg(gate.path());
        let mut job = OtherProcess::start(command);
        wait_for("it has its name", || command_name(job.pid()) == name);
        let mut kapo = Kapo::start([&["watch"], options, &[&name]].concat());
        if kapo.stderr().contains("process events unavailable") {
            return eprintln!("skipped: {}", kapo.stderr());
        }
        wait_for_pids(&mut kapo, &[job.pid()]);
        gate.open();
        wait_for("it has another name", || command_name(job.pid()) == "other");
        if options.contains(&"1h") {
            // Events arrive in order: when this process was found, the change of name was handled.
            let programs = Programs::new();
            let mut command = clean(programs.named("/bin/sleep", &name));
            command.arg("100");
            let second = OtherProcess::start(command);
            wait_for_pids(&mut kapo, &[job.pid(), second.pid()]);
            drop(second);
            wait_for_pids(&mut kapo, &[job.pid()]);
        } else {
            wait_for_scans(&kapo);
        }
        assert_eq!(pids(&kapo), [job.pid()], "{options:?}");
        assert!(!kapo.stderr().contains(&format!("msg=\"exited\" command={name} pid={}", job.pid())));
        gate.open();
        wait_for_pids(&mut kapo, &[0]);
        assert!(crate::harness::lives(job.pid()), "it executes another program, which is not NAME");
        gate.open();
        assert_eq!(job.reap().code(), Some(5));
    }
}

#[test]
fn the_exit_of_a_renamed_process_is_reported() {
    let (programs, name, mut gate) = (Programs::new(), unique("w"), Gate::new());
    let script = "#!/bin/bash\nread x < $1; printf other > /proc/$$/comm; read x < $1; exit 5\n";
    let mut command = clean(programs.script(&name, script));
    command.arg(gate.path());
    let mut job = OtherProcess::start(command);
    wait_for("it has its name", || command_name(job.pid()) == name);
    let mut kapo = watch(&name);
    wait_for_pids(&mut kapo, &[job.pid()]);
    gate.open();
    wait_for("it has another name", || command_name(job.pid()) == "other");
    wait_for_scans(&kapo);
    gate.open();
    job.reap();
    wait_for_pids(&mut kapo, &[0]);
    if kernel_reports_exit_of_others() {
        let status = kapo.wait_for_status("its code", |status| status["ExitCode"] != 0);
        assert_eq!((&status["ExitCode"], &status["Reason"]), (&5.into(), &"exit-code".into()));
    }
}

#[test]
fn unreadable_files_do_not_hide_a_process() {
    if !is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let (programs, name, mut gate) = (Programs::new(), unique("w"), Gate::new());
    std::fs::set_permissions(programs.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = programs.folder().join("kapo");
    assert!(Command::new("cp").arg(binary()).arg(&copy).status().unwrap().success());
    let start = |arg0: &str| {
        let mut command = clean("bash");
        command.arg0(arg0).args(["-c", "printf other > /proc/$$/comm; echo; read x < $0; exec sleep 100"]);
        command.arg(gate.path());
        let mut job = OtherProcess::start(command);
        job.read_line();
        job
    };
    let (by_name, by_path) = (start(&name), start(&format!("/srv/{name}")));
    let watch = |name: &str| {
        let mut command = clean(&copy);
        command.args(["-p", "0", "-i", "127.0.0.1", "watch", "-w", "100ms", name]).uid(65_534).gid(65_534);
        Kapo::launch(command).listening()
    };
    let mut kapo = watch(&name);
    kapo.wait_for("both are found", |kapo| pids(kapo).len() == 2);
    let mut kapo = watch(&format!("/srv/{name}"));
    wait_for_pids(&mut kapo, &[by_path.pid()]);
    // A change of program is noticed by the arguments.
    gate.open();
    gate.open();
    wait_for("both execute", || [&by_name, &by_path].iter().all(|job| command_name(job.pid()) == "sleep"));
    wait_for_pids(&mut kapo, &[0]);
}

#[test]
fn children_with_another_program_do_not_match() {
    let (programs, name, mut gate) = (Programs::new(), unique("w"), Gate::new());
    // Each child has its parent's name, arguments and executable until it executes sleep.
    let script = "#!/bin/bash\nread x < $1; for n in 1 2 3 4 5; do sleep 100 & done; echo; wait\n";
    let mut command = clean(programs.script(&name, script));
    command.arg(gate.path());
    let mut job = OtherProcess::start(command);
    let mut kapo =
        Kapo::launch(kapo_on_a_free_port(["watch", "--process-events", "-w", "100ms", &name])).listening();
    wait_for_pids(&mut kapo, &[job.pid()]);
    gate.open();
    job.read_line();
    wait_for_pids(&mut kapo, &[job.pid()]);
    job.kill_all();
    wait_for_pids(&mut kapo, &[0]);
}

#[test]
fn a_program_that_becomes_a_daemon_is_found_by_its_child() {
    let (programs, name, gate) = (Programs::new(), unique("w"), Gate::new());
    let path = programs.script(&name, "#!/bin/bash\nread x < $1 &\n");
    let mut kapo = Kapo::start(["watch", "--process-events", "--wait", "1h", &name]);
    if kapo.stderr().contains("process events unavailable") {
        return eprintln!("skipped: {}", kapo.stderr());
    }
    // The first process ends at once, often before kapo can read it.
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do \"$0\" \"$1\"; done; echo; read x";
    let mut shell = OtherProcess::shell(script, &[path.to_str().unwrap(), gate.path()]);
    shell.read_line();
    kapo.wait_for("all are found", |kapo| pids(kapo).iter().filter(|pid| **pid > 0).count() == 10);
    shell.kill_all();
    wait_for_pids(&mut kapo, &[0]);
}
