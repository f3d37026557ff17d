//! Tests of `kapo watch`: it finds processes that kapo did not start, and reports their end and exit.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Kapo, binary, clean, kapo_on_a_free_port, now, run_to_the_end, wait_for};
use crate::tools::{
    Events, Gate, Line, OtherProcess, Programs, can_unshare, expect_no_wakeup, is_root,
    kernel_reports_exit_of_others, private_memory, seconds, sleeps, unique,
};

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Watches a name with ten scans a second.
fn watch(name: &str) -> Kapo {
    Kapo::start(["watch", "--wait", "100ms", name])
}

fn document(kapo: &Kapo) -> Vec<Value> {
    serde_json::from_str(&kapo.get("/").body).unwrap()
}

fn pids(document: &[Value]) -> Vec<i32> {
    document.iter().map(|object| i32::try_from(object["Pid"].as_i64().unwrap()).unwrap()).collect()
}

/// Waits until exactly these processes are shown.
fn wait_for_pids(kapo: &mut Kapo, expected: &[i32]) {
    let mut shown = Vec::new();
    kapo.wait_for(&format!("{expected:?} are shown"), |kapo| {
        shown = pids(&document(kapo));
        shown == expected
    });
}

/// Runs `kill` as another shell does.
fn kill(signal: &str, pid: i32) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap().success());
}

#[test]
fn started_and_killed_from_another_shell() {
    let (programs, name) = (Programs::new(), unique("w"));
    let sleep = programs.named("/bin/sleep", &name);
    let mut kapo = watch(&name);
    let none = kapo.status();
    for (member, value) in [
        ("Command", json!(name)),
        ("Arguments", json!(null)),
        ("Mode", json!("watch")),
        ("Status", json!("stopped")),
        ("Pid", json!(0)),
        ("Reason", json!("")),
        ("StartTime", json!(ZERO_TIME)),
        ("EndTime", json!(ZERO_TIME)),
        ("Wait", json!(100_000_000)),
        ("Ready", json!(false)),
    ] {
        assert_eq!(none[member], value, "{member}");
    }
    for path in ["/readyz", "/healthz"] {
        let answer = kapo.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (503, "no process matches\n"));
    }
    assert_eq!(kapo.get("/livez").status, 200);

    let mut shell = OtherProcess::shell("\"$0\" 100 & echo $!; wait; read x", &[sleep.to_str().unwrap()]);
    let pid: i32 = shell.read_line().parse().unwrap();
    wait_for_pids(&mut kapo, &[pid]);
    let status = kapo.status();
    assert_eq!((&status["Status"], &status["Ready"]), (&json!("running"), &json!(true)));
    assert_eq!((&status["EndTime"], &status["Restarts"]), (&json!(ZERO_TIME), &json!(0)));
    assert_eq!((kapo.get("/readyz").status, kapo.get("/healthz").status), (200, 200));

    let mut events = Events::of(&kapo);
    kill("KILL", pid);
    let ended = events.until("its end", |status| status["Pid"] == 0);
    assert_eq!(ended["StartTime"], status["StartTime"]);
    assert!(seconds(&ended["EndTime"]) >= seconds(&ended["StartTime"]), "{ended}");
    if kernel_reports_exit_of_others() {
        let told = kapo.wait_for_status("its signal", |status| status["Signal"] != "");
        assert_eq!((&told["Status"], &told["Signal"]), (&json!("killed"), &json!("SIGKILL")));
        assert_eq!((&told["ExitCode"], &told["Reason"]), (&json!(137), &json!("signal")));
    }
    assert_eq!(kapo.get("/readyz").status, 503);
    let log = kapo.stderr();
    assert!(log.contains(&format!("msg=\"found\" command={name} pid={pid}\n")), "{log}");
    assert!(log.contains(&format!("msg=\"exited\" command={name} pid={pid}")), "{log}");

    let second = OtherProcess::start(clean_with(&sleep, &["100"]));
    wait_for_pids(&mut kapo, &[second.pid()]);
    let status = kapo.status();
    assert_eq!((&status["Restarts"], &status["Signal"]), (&json!(1), &json!("")));
    kapo.signal(15);
    kapo.expect_exit(0);
    assert!(crate::harness::lives(second.pid()), "a watched process is not killed");
}

fn clean_with(program: &std::path::Path, words: &[&str]) -> Command {
    let mut command = clean(program);
    command.args(words);
    command
}

#[test]
fn an_end_is_noticed_without_a_scan() {
    let (programs, name, mut gate) = (Programs::new(), unique("w"), Gate::new());
    let shell = programs.named("/bin/sh", &name);
    for (code, reason) in [(0, "success"), (7, "exit-code")] {
        let script = format!("read x < \"$0\"; exit {code}");
        let mut job = OtherProcess::start(clean_with(&shell, &["-c", &script, gate.path()]));
        let kapo = Kapo::start(["watch", "--wait", "1h", &name]);
        let mut events = Events::of(&kapo);
        let status = events.until("it is found", |status| status["Pid"] == job.pid());
        assert_eq!(status["Status"], "running");
        // A request to /wait gets the same exit.
        let mut line = Line::to(&kapo);
        line.send("/wait");
        gate.open();
        events.until("its end", |status| status["Pid"] == 0);
        assert_eq!(line.answer().status, 200);
        assert_eq!(job.reap().code(), Some(code));
        if kernel_reports_exit_of_others() {
            let status = kapo.wait_for_status("it is known how", |status| status["Reason"] == reason);
            assert_eq!((&status["ExitCode"], &status["Signal"]), (&json!(code), &json!("")));
            assert_eq!(status["Status"], "stopped");
            let answer = kapo.get("/wait");
            assert_eq!(answer.field("kapo-exit-code"), Some(code.to_string().as_str()), "{answer:?}");
        }
    }
}

#[test]
fn every_kind_of_name_is_found() {
    let (programs, id) = (Programs::new(), unique(""));
    for name in [
        format!("a {id} b"),
        format!(") (({id}"),
        format!("x\n{id}\n"),
        format!("\u{e4}\u{fc}{id}"),
        format!("more-than-fifteen-bytes-{id}"),
        format!("more than fifteen\n)-{id} "),
    ] {
        let job = OtherProcess::start(clean_with(&programs.named("/bin/sleep", &name), &["100"]));
        let mut kapo = watch(&name);
        wait_for_pids(&mut kapo, &[job.pid()]);
        assert_eq!(kapo.status()["Command"], json!(name));
        for line in kapo.stderr().lines() {
            assert!(line.starts_with("time="), "{line}");
        }
    }
    // The kernel sets comm to the script's name; the exe link names the interpreter.
    for name in [format!("s{id}"), format!("a-script-of-more-than-15-bytes-{id}")] {
        let path = programs.script(&name, "#!/bin/sh -e\nread x\n");
        let job = OtherProcess::start(clean(path));
        let mut kapo = watch(&name);
        wait_for_pids(&mut kapo, &[job.pid()]);
    }
    // The names differ only after the 15th byte.
    let (one, two) = (format!("the-same-beginning-{id}-1"), format!("the-same-beginning-{id}-2"));
    let _one = OtherProcess::start(clean_with(&programs.named("/bin/sleep", &one), &["100"]));
    let two_job = OtherProcess::start(clean_with(&programs.named("/bin/sleep", &two), &["100"]));
    let mut kapo = watch(&two);
    wait_for_pids(&mut kapo, &[two_job.pid()]);
}

#[test]
fn a_name_that_is_not_utf_8_is_found() {
    use std::os::unix::ffi::OsStrExt;
    let (programs, id) = (Programs::new(), unique(""));
    let name = [b"\xff\xfe", id.as_bytes()].concat();
    let name = std::ffi::OsStr::from_bytes(&name);
    let path = programs.folder().join(name);
    std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
    let job = OtherProcess::start(clean_with(&path, &["100"]));
    let mut command = kapo_on_a_free_port(["watch", "--wait", "100ms"]);
    command.arg(name);
    let mut kapo = Kapo::launch(command).listening();
    wait_for_pids(&mut kapo, &[job.pid()]);
    assert_eq!(kapo.status()["Command"], json!(format!("\u{fffd}\u{fffd}{id}")));
}

#[test]
fn a_process_is_found_and_lost_by_exec() {
    let (programs, name, mut gate) = (Programs::new(), unique("w"), Gate::new());
    let (sleep, shell) = (programs.named("/bin/sleep", &unique("o")), programs.named("/bin/sh", &name));
    let mut kapo = watch(&name);
    let script = "echo; read x < \"$0\"; exec \"$1\" -c 'read x < \"$0\"; exec \"$1\" 100' \"$0\" \"$2\"";
    let (path, shell, sleep) = (gate.path().to_owned(), shell.to_str().unwrap(), sleep.to_str().unwrap());
    let mut job = OtherProcess::shell(script, &[&path, shell, sleep]);
    job.read_line();
    // Two scans have seen the process under its first name.
    let scanned = sleeps(kapo.pid()) + 3;
    wait_for("it has been seen", || sleeps(kapo.pid()) > scanned);
    assert_eq!(pids(&document(&kapo)), [0]);
    gate.open();
    wait_for_pids(&mut kapo, &[job.pid()]);
    gate.open();
    wait_for("it has its last name", || crate::harness::command_name(job.pid()).starts_with('o'));
    // A change of the name alone is noticed when all names are read again, once a minute. The end is noticed at any
    // time.
    job.kill_all();
    wait_for_pids(&mut kapo, &[0]);
}

#[test]
fn start_times_equal_those_of_ps() {
    let (programs, name) = (Programs::new(), unique("w"));
    let job = OtherProcess::start(clean_with(&programs.named("/bin/sleep", &name), &["100"]));
    let mut kapo = watch(&name);
    wait_for_pids(&mut kapo, &[job.pid()]);
    let start = seconds(&kapo.status()["StartTime"]);
    let script = r#"date -d "$(LC_ALL=C ps -o lstart= -p "$0")" +%s"#;
    let ps = Command::new("sh").args(["-c", script, &job.pid().to_string()]).output().unwrap();
    let ps: f64 = String::from_utf8(ps.stdout).unwrap().trim().parse().unwrap();
    assert!((start.floor() - ps).abs() < 0.5, "kapo {start}, ps {ps}");
    let ticks = start * 100.0;
    assert!((ticks - ticks.round()).abs() < 0.01, "{start} is right to the clock tick");
}

#[test]
fn a_document_of_a_thousand_matches_is_composed_once() {
    let (programs, name) = (Programs::new(), unique("w"));
    let sleep = programs.named("/bin/sleep", &name);
    let script = "i=0; while [ $i -lt 1000 ]; do \"$0\" 1000 & i=$((i+1)); done; echo ready; wait";
    let mut shell = OtherProcess::shell(script, &[sleep.to_str().unwrap()]);
    assert_eq!(shell.read_line(), "ready");
    let mut kapo = Kapo::start(["watch", "--wait", "1h", &name]);
    kapo.wait_for("all are found", |kapo| document(kapo).len() == 1_000);
    let objects = document(&kapo);
    let mut all = pids(&objects);
    let times: Vec<_> = objects.iter().map(|object| seconds(&object["StartTime"])).collect();
    assert!(times.is_sorted(), "the oldest first");
    for object in &objects {
        assert_eq!((&object["Status"], &object["Ready"]), (&json!("running"), &json!(true)));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 1_000);
    let mut line = Line::to(&kapo);
    // Counts reads of files. A request must not cause any, because the document is composed when the state changes.
    let reads = || {
        let text = std::fs::read_to_string(format!("/proc/{}/io", kapo.pid())).unwrap();
        text.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse::<u64>().unwrap()
    };
    let whole = line.ask("/").body;
    let (memory, read) = (private_memory(kapo.pid()), reads());
    for _ in 0..200 {
        assert_eq!(line.ask("/").body, whole);
    }
    // The unsent data of a slow reader is at most one document, however often it makes requests.
    let grown = private_memory(kapo.pid()).saturating_sub(memory);
    assert!(grown <= 2 * whole.len() as u64 / 1024, "memory does not grow: {grown} KiB");
    assert!(reads() - read <= 400, "{} reads for 200 requests", reads() - read);
    shell.kill_all();
    kapo.wait_for("all are gone", |kapo| pids(&document(kapo)) == [0]);
    assert_eq!(kapo.status()["Restarts"], 999);
    assert_eq!(kapo.get("/readyz").status, 503);
}

#[test]
fn one_pid_needs_no_wakeup_and_its_end_is_noticed() {
    let mut gate = Gate::new();
    let mut job = OtherProcess::shell("read x < \"$0\"; exit 5", &[gate.path()]);
    let pid = job.pid().to_string();
    let kapo = Kapo::start(["watch", "--wait", "100ms", "--pid", &pid, "shown"]);
    let mut line = Line::to(&kapo);
    let status = kapo.wait_for_status("it is found", |status| status["Pid"] == job.pid());
    assert_eq!(status["Command"], "shown");
    assert!(kapo.stderr().contains("msg=\"found\" command=shown pid="), "{}", kapo.stderr());
    assert_eq!(line.ask("/readyz").status, 200);
    expect_no_wakeup(kapo.pid());
    let mut events = Events::of(&kapo);
    gate.open();
    events.until("its end", |status| status["Pid"] == 0);
    job.reap();
    if kernel_reports_exit_of_others() {
        kapo.wait_for_status("its code", |status| status["ExitCode"] == 5);
    }
    assert_eq!(line.ask("/readyz").status, 503);
    expect_no_wakeup(kapo.pid());
}

#[test]
fn a_pid_that_does_not_exist_is_refused() {
    let mut job = OtherProcess::shell("exit 0", &[]);
    job.reap();
    let pid = job.pid().to_string();
    for words in [&["watch", "--pid", &pid][..], &["--quiet", "watch", "--pid", &pid, "shown"]] {
        let (code, stdout, stderr) = run_to_the_end(kapo_on_a_free_port(words));
        assert_eq!((code, stdout.as_str()), (Some(125), ""), "{stderr}");
        assert_eq!(stderr, format!("kapo: cannot watch --pid {pid}: No such process\n"));
    }
}

#[test]
fn pids_that_cannot_be_watched_are_refused() {
    for (pid, says) in
        [("0", "0"), ("-1", "-1"), ("abc", "abc"), ("99999999999", "99999999999"), ("", "--pid")]
    {
        let (code, _, stderr) = run_to_the_end(kapo_on_a_free_port(["watch", "--pid", pid, "shown"]));
        assert_eq!(code, Some(2), "{pid}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("kapo: ")).count(), 1, "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
    let mut command = clean("sh");
    command.args(["-c", "exec \"$0\" -p 0 -i 127.0.0.1 watch --pid $$ shown"]).arg(binary());
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("is kapo itself"), "{stderr}");
}

#[test]
fn a_process_of_another_user_can_be_watched() {
    if !is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let mut gate = Gate::new();
    let programs = Programs::new();
    // The program is in a directory that other users may execute, wherever the tests were built.
    std::fs::set_permissions(programs.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = programs.folder().join("kapo");
    assert!(Command::new("cp").arg(binary()).arg(&copy).status().unwrap().success());
    let mut roots = OtherProcess::shell("read x < \"$0\"; exit 6", &[gate.path()]);
    let mut command = clean(&copy);
    let pid = roots.pid().to_string();
    command.args(["-p", "0", "-i", "127.0.0.1", "watch", "--pid", &pid]).uid(65_534).gid(65_534);
    let kapo = Kapo::launch(command).listening();
    let status = kapo.wait_for_status("it is found", |status| status["Pid"] == roots.pid());
    assert_eq!(status["Command"], "sh", "without NAME the process's own name is shown");
    gate.open();
    roots.reap();
    let status = kapo.wait_for_status("its end", |status| status["Pid"] == 0);
    if kernel_reports_exit_of_others() {
        assert_eq!(kapo.wait_for_status("its code", |s| s["ExitCode"] != 0)["ExitCode"], 6, "{status}");
    }
}

#[test]
fn in_a_pid_namespace_only_its_processes_are_found() {
    let words = ["--fork", "--pid", "--mount-proc", "--kill-child"];
    if !can_unshare(&words) {
        return;
    }
    let (programs, name) = (Programs::new(), unique("w"));
    let sleep = programs.named("/bin/sleep", &name);
    let _outside = OtherProcess::start(clean_with(&sleep, &["100"]));
    let script = "(\"$0\" 100 & echo $! > \"$1\"; wait; exec sleep 100) & exec \"$2\" -p 0 -i 127.0.0.1 watch -w 100ms --process-events \"$3\"";
    let inside = programs.folder().join("inside");
    let mut command = clean("unshare");
    command.args(words).args(["sh", "-c", script]).arg(&sleep).arg(&inside).arg(binary()).arg(&name);
    let mut kapo = Kapo::launch(command).listening();
    let mut pid = 0;
    kapo.wait_for("it is found", |kapo| {
        pid = pids(&document(kapo))[0];
        pid != 0
    });
    assert_eq!(pids(&document(&kapo)), [pid]);
    assert_eq!(
        std::fs::read_to_string(&inside).unwrap().trim(),
        pid.to_string(),
        "the pid is that of the namespace"
    );
    let why = "msg=\"process events unavailable\" error=\"not in the first PID namespace\"";
    assert!(kapo.stderr().contains(why), "{}", kapo.stderr());
    let enter = format!("nsenter -t $(pgrep -P {} | head -n1) -p -m kill -USR1 {pid}", kapo.pid());
    assert!(Command::new("sh").args(["-c", &enter]).status().unwrap().success(), "{enter}");
    let status = kapo.wait_for_status("its end", |status| status["Pid"] == 0);
    if kernel_reports_exit_of_others() {
        let status = kapo.wait_for_status("its signal", |status| status["Signal"] == "SIGUSR1");
        assert_eq!(status["ExitCode"], 138);
    }
    assert_eq!(status["Mode"], "watch");
}

#[test]
fn a_process_hidden_by_hidepid_does_not_exist() {
    let words = ["--fork", "--pid", "--mount", "--kill-child"];
    if !is_root() || !can_unshare(&words) {
        return eprintln!("skipped: hiding takes root");
    }
    let (programs, name) = (Programs::new(), unique("w"));
    std::fs::set_permissions(programs.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let sleep = programs.named("/bin/sleep", &name);
    let copy = programs.folder().join("kapo");
    assert!(Command::new("cp").arg(binary()).arg(&copy).status().unwrap().success());
    // Root sees all processes on this mount; the user nobody sees only its own.
    let script = "mount -t proc -o hidepid=2 proc /proc || exit 99
        \"$0\" 100 &
        setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" 101 & echo $! > \"$1\"
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$2\" -p 0 -i 127.0.0.1 watch -w 100ms \"$3\"";
    let inside = programs.folder().join("inside");
    let mut command = clean("unshare");
    command.args(words).args(["sh", "-c", script]).arg(&sleep).arg(&inside).arg(&copy).arg(&name);
    let mut kapo = Kapo::launch(command).listening();
    let mut pid = 0;
    kapo.wait_for("its own is found", |kapo| {
        pid = pids(&document(kapo))[0];
        pid != 0
    });
    assert_eq!(std::fs::read_to_string(&inside).unwrap().trim(), pid.to_string());
    let unshare = kapo.pid();
    let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    kapo.set_pid(children.trim().parse().unwrap());
    let scanned = sleeps(kapo.pid()) + 5;
    wait_for("further scans", || sleeps(kapo.pid()) > scanned);
    assert_eq!(pids(&document(&kapo)), [pid], "and it is the only one");
}

#[test]
fn watch_does_not_start_without_proc() {
    let words = ["--mount"];
    if !can_unshare(&words) {
        return;
    }
    let mut command = clean("unshare");
    let script = "mount -t tmpfs none /proc && exec \"$0\" -p 0 -i 127.0.0.1 watch any";
    command.args(words).args(["sh", "-c", script]).arg(binary());
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(125), "{stderr}");
    assert_eq!(stderr.lines().last(), Some("kapo: cannot read /proc: not mounted"));
}

#[test]
fn a_stop_answers_waiting_requests_quickly() {
    let job = OtherProcess::shell("read x", &[]);
    let mut kapo = Kapo::start(["watch", "--pid", &job.pid().to_string()]);
    let status = kapo.wait_for_status("it is found", |status| status["Pid"] == job.pid());
    let found = format!("msg=\"found\" command={} pid={}", status["Command"].as_str().unwrap(), job.pid());
    assert!(kapo.stderr().contains(&found), "{found}: {}", kapo.stderr());
    let mut line = Line::to(&kapo);
    line.send("/wait");
    let mut events = Events::of(&kapo);
    events.next().unwrap();
    kapo.signal(15);
    let answer = line.answer();
    assert_eq!((answer.status, answer.field("kapo-exit-code")), (200, None), "{answer:?}");
    while events.next().is_some() {}
    // A client that has read the end disconnects.
    drop(events);
    kapo.expect_exit(0);
}

/// Counts the wake-ups of kapo in periods of 20 ms in which no process was started on the whole machine. Returns the
/// wake-ups and the number of such periods, which may be small because other tests run at the same time.
#[expect(clippy::disallowed_methods, reason = "that nothing happens can only be seen in time")]
fn wake_ups_in_quiet_moments(kapo: &Kapo) -> (u64, u32) {
    let forks = || {
        let text = std::fs::read_to_string("/proc/stat").unwrap();
        text.lines().find_map(|line| line.strip_prefix("processes ")).unwrap().to_owned()
    };
    let (mut wakes, mut quiet, mut calm, start) = (0, 0, false, now());
    while quiet < 60 && start.elapsed() < Duration::from_secs(10) {
        // A fork during these reads must count.
        let (forked, before) = (forks(), sleeps(kapo.pid()));
        std::thread::sleep(Duration::from_millis(20));
        let slept = sleeps(kapo.pid()) - before;
        let was_calm = std::mem::replace(&mut calm, forks() == forked);
        // A process that was forked right before may execute a program in this period.
        if calm && was_calm {
            quiet += 1;
            wakes += slept;
        }
    }
    (wakes, quiet)
}

#[test]
fn process_events_find_a_start_without_scans() {
    let (programs, name, mut gate) = (Programs::new(), unique("w"), Gate::new());
    let sleep = programs.named("/bin/sleep", &name);
    let mut kapo = Kapo::start(["watch", "--wait", "100ms", "--process-events", &name]);
    let mut line = Line::to(&kapo);
    assert_eq!(line.ask("/readyz").status, 503);
    if kapo.stderr().contains("process events unavailable") {
        return eprintln!("skipped: {}", kapo.stderr());
    }
    let (wakes, quiet) = wake_ups_in_quiet_moments(&kapo);
    if quiet < 25 {
        eprintln!("skipped: this machine is never quiet");
    } else {
        // Scans would take place ten times a second. An exec of a process that was forked earlier may fall into a
        // quiet period.
        assert!(wakes * 10 <= u64::from(quiet), "{wakes} wake-ups in {quiet} quiet moments of 20 ms");
    }
    let job =
        OtherProcess::shell("read x < \"$0\"; exec \"$1\" 100", &[gate.path(), sleep.to_str().unwrap()]);
    gate.open();
    wait_for_pids(&mut kapo, &[job.pid()]);
    drop(job);
    wait_for_pids(&mut kapo, &[0]);
    assert_eq!(line.ask("/readyz").status, 503);
}

#[test]
fn several_names_are_shown_each_with_its_processes() {
    let (programs, names) = (Programs::new(), [unique("a"), unique("b")]);
    let [one, other] = names.each_ref().map(|name| programs.named("/bin/sleep", name));
    let mut kapo = Kapo::start(["watch", "--wait", "100ms", &names[0], &names[1]]);
    wait_for_pids(&mut kapo, &[0, 0]);
    let first = OtherProcess::start(clean_with(&other, &["100"]));
    wait_for_pids(&mut kapo, &[0, first.pid()]);
    let missing = format!("no process matches {}\n", names[0]);
    assert_eq!((kapo.get("/readyz").status, kapo.get("/healthz").body), (503, missing));
    let mut second = OtherProcess::start(clean_with(&one, &["100"]));
    wait_for_pids(&mut kapo, &[second.pid(), first.pid()]);
    assert_eq!(kapo.get("/readyz").status, 200);
    let commands = document(&kapo).into_iter().map(|object| object["Command"].clone());
    assert_eq!(commands.collect::<Vec<_>>(), names);
    kill("KILL", second.pid());
    second.reap();
    wait_for_pids(&mut kapo, &[0, first.pid()]);
    let metrics = kapo.get("/metrics").body;
    for (name, up) in names.iter().zip([0, 1]) {
        assert!(metrics.contains(&format!("\nkapo_child_up{{name=\"{name}\"}} {up}\n")), "{metrics}");
        assert!(metrics.contains(&format!("\nkapo_child_processes{{name=\"{name}\"}} {up}\n")), "{metrics}");
    }
    assert_eq!(metrics.matches("# HELP kapo_child_up ").count(), 1);
    assert!(!metrics.contains("\nkapo_child_up 0"), "{metrics}");
    let log = kapo.stderr();
    assert!(log.contains(&format!("msg=\"exited\" command={} pid={}", names[0], second.pid())), "{log}");
}
