//! Tests of `--on`: commands that kapo runs at events.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{EMULATED, Kapo, kapo, kapo_on_a_free_port, run_to_the_end, wait_for};

/// A hook that appends a line for each event to a file and keeps the document of the event.
struct Notes {
    folder: TempDir,
}

impl Notes {
    fn new() -> Notes {
        let notes = Notes { folder: TempDir::new().unwrap() };
        let text = format!(
            "cd {}; cat >$KAPO_EVENT.json
            echo \"$KAPO_EVENT $KAPO_REASON $KAPO_EXIT_CODE $KAPO_SIGNAL $KAPO_RESTARTS\" >>notes
            [ -n \"$KAPO_LASTED\" ] || echo \"$KAPO_EVENT before an end\" >>first",
            notes.folder.path().display()
        );
        script(&notes.folder, "hook", &text);
        notes
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the options for these events.
    fn on(&self, events: &[&str]) -> Vec<String> {
        let hook = self.path("hook");
        events.iter().map(|event| format!("--on={event}={}", hook.display())).collect()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("notes")).unwrap_or_default();
        text.lines()
            .map(|line| line.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn document(&self, event: &str) -> Value {
        let text = fs::read_to_string(self.path(&format!("{event}.json"))).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }
}

/// Writes an executable script.
fn script(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Returns the rest of each record `hook failed` after the event.
fn failures(log: &str) -> Vec<&str> {
    log.lines()
        .filter_map(|line| line.split_once("msg=\"hook failed\" event="))
        .map(|(_, rest)| rest)
        .collect()
}

#[test]
fn the_hooks_of_a_run_follow_its_events() {
    let notes = Notes::new();
    let mut command = kapo(["--interface", "none", "-SE", "--tail", "4096", "run"]);
    command.args(notes.on(&["end", "fail", "ready", "start", "give-up", "stop"]));
    command.args(["sh", "-c", "echo last words; exit 3"]);
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!((code, failures(&stderr)), (Some(3), Vec::new()), "{stderr}");
    assert_eq!(notes.lines(), ["start 0 0", "ready 0 0", "fail exit-code 3 0", "end exit-code 3 0"]);
    let (start, fail) = (notes.document("start"), notes.document("fail"));
    assert_eq!((&start["Status"], &start["Reason"]), (&"running".into(), &"".into()), "{start}");
    assert_eq!((&fail["Status"], &fail["Reason"]), (&"stopped".into(), &"exit-code".into()), "{fail}");
    assert_eq!(fail["LastOutput"], serde_json::json!(["last words"]));
    assert_eq!(
        fs::read_to_string(notes.path("first")).unwrap(),
        "start before an end\nready before an end\n"
    );
}

#[test]
fn a_success_is_no_failure_but_an_end_by_the_ttl_of_run_is() {
    for (words, code, expected) in [
        (&["run", "true"][..], 0, &["end success 0 0"][..]),
        (
            &["run", "--ttl", "0.1", "sleep", "60"],
            124,
            &["fail timeout 143 SIGTERM 0", "end timeout 124 SIGTERM 0"],
        ),
        (&["run", "/nowhere"], 127, &["fail exec-failed 127 0", "end exec-failed 127 0"]),
    ] {
        let notes = Notes::new();
        let mut command = kapo(["--interface", "none", words[0]]);
        command.args(notes.on(&["fail", "end"])).args(&words[1..]);
        let (ended, _, stderr) = run_to_the_end(command);
        assert_eq!(
            (ended, notes.lines()),
            (Some(code), expected.iter().map(|l| l.to_string()).collect()),
            "{stderr}"
        );
    }
}

#[test]
fn giving_up_has_its_hook_and_a_stop_is_no_failure() {
    let notes = Notes::new();
    let mut command = kapo(["--interface", "none", "supervise", "--wait", "0.3", "--max-restarts", "1"]);
    command.args(notes.on(&["fail", "flapping", "give-up", "stop", "end"])).arg("false");
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(1), "{stderr}");
    let expected =
        ["fail exit-code 1 0", "fail exit-code 1 1", "flapping exit-code 1 1", "give-up exit-code 1 1"];
    assert_eq!(notes.lines(), [&expected[..], &["end exit-code 1 1"]].concat());

    let notes = Notes::new();
    let options = notes.on(&["fail", "give-up", "stop", "end"]);
    let mut kapo =
        Kapo::start([&["supervise".to_owned()], &options[..], &["sleep".into(), "60".into()]].concat());
    kapo.command_pid();
    kapo.signal(15);
    kapo.expect_exit(143);
    assert_eq!(notes.lines(), ["stop 0 0", "end signal 143 SIGTERM 0"]);
}

#[test]
fn recovered_follows_flapping() {
    let notes = Notes::new();
    let script = format!(
        "echo x >>{0}; [ $(wc -l <{0}) -gt 4 ] && exec sleep 60; exit 1",
        notes.path("runs").display()
    );
    // The runs that fail must be shorter.
    let stable = if EMULATED { "--stable=5" } else { "--stable=0.2" };
    let mut words = vec!["supervise".to_owned(), "--wait=0".into(), stable.into()];
    words.extend(notes.on(&["flapping", "recovered"]));
    words.extend(["sh".to_owned(), "-c".into(), script]);
    let kapo = Kapo::start(words);
    wait_for("the command has recovered", || notes.lines().len() == 2);
    assert_eq!(notes.lines()[0], "flapping exit-code 1 3");
    assert!(notes.lines()[1].starts_with("recovered "), "{:?}", notes.lines());
    drop(kapo);
}

#[test]
fn each_failure_of_a_hook_is_one_warning() {
    let folder = TempDir::new().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    for (command, expected) in [
        ("/nowhere/hook x", "end code=127 error=\"/nowhere/hook not found\""),
        ("no-such-program-of-kapo", "end code=127 error=\"no-such-program-of-kapo not found\""),
        (plain.to_str().unwrap(), "end code=126 error=\"Permission denied\""),
        ("false", "end code=1"),
        ("sleep 60", "end error=\"timed out\""),
    ] {
        // On a slow machine the others take longer than this.
        let timeout = if command == "sleep 60" { "--on-timeout=0.2" } else { "--on-timeout=60" };
        let on = format!("--on=end={command}");
        let (code, _, stderr) = run_to_the_end(kapo(["-i", "none", "run", timeout, &on, "true"]));
        assert_eq!((code, failures(&stderr)), (Some(0), vec![expected]), "{command}: {stderr}");
    }
}

#[test]
fn a_stop_signal_while_kapo_waits_for_a_hook_skips_it() {
    let folder = TempDir::new().unwrap();
    let begun = folder.path().join("begun");
    let hook = script(&folder, "hook", &format!("echo $$ >{}; exec sleep 60", begun.display()));
    let on = format!("--on=end={}", hook.display());
    let mut kapo = Kapo::start(["run", "--on-timeout", "60", &on, "sleep", "60"]);
    kapo.command_pid();
    kapo.signal(15);
    let pid = || fs::read_to_string(&begun).unwrap_or_default().trim().parse::<i32>().ok();
    kapo.wait_for("the hook runs", |_| pid().is_some());
    kapo.signal(15);
    kapo.expect_exit(143);
    let pid = pid().unwrap();
    wait_for("the hook is gone", || kapo::sys::signal::send(pid, 0).is_err());
}

#[test]
fn a_hook_is_beside_the_command_and_its_output_goes_to_stderr() {
    let folder = TempDir::new().unwrap();
    let text = "echo hook $(cut -d ' ' -f 5 /proc/$$/stat) $$ $(pwd) $MARK; echo error >&2; exec sleep 60";
    let hook = script(&folder, "hook", text);
    let mut command = kapo_on_a_free_port(["supervise", "--wait", "0"]);
    command.arg(format!("--on=start={}", hook.display())).args(["sleep", "60"]);
    command.env("MARK", "marked").current_dir(folder.path());
    let mut kapo = Kapo::launch(command).listening();
    kapo.wait_for("the hook has written", |kapo| kapo.stderr().contains("error\n"));
    let stderr = kapo.stderr();
    let line = stderr.lines().find_map(|line| line.strip_prefix("hook ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], words[1], "its own group: {line}");
    assert_eq!(&words[2..], [folder.path().to_str().unwrap(), "marked"]);
    assert_eq!(kapo.stdout(), "");
    let metrics = kapo.get("/metrics?name[]=kapo_child_processes&name[]=kapo_orphans_reaped").body;
    assert!(metrics.contains("kapo_child_processes 1\n"), "{metrics}");
    // The signals for the command do not reach the hook.
    let hook: i32 = words[1].parse().unwrap();
    kapo.signal(10);
    kapo.wait_for_status("the command runs again", |status| status["Restarts"] == 1);
    assert!(kapo::sys::signal::send(hook, 0).is_ok());
    kapo::sys::signal::send(hook, 9).unwrap();
    kapo.wait_for("its end is in the log", |kapo| {
        failures(&kapo.stderr()).starts_with(&["start signal=SIGKILL"])
    });
    let metrics = kapo.get("/metrics?name[]=kapo_orphans_reaped").body;
    assert!(metrics.contains("kapo_orphans_reaped_total 0\n"), "{metrics}");
}

#[test]
fn a_crash_loop_with_a_hook_that_hangs_starts_a_thousand_runs() {
    let folder = TempDir::new().unwrap();
    // kapo closes the file with the document only after the hook has begun.
    let count = folder.path().join("descriptors");
    let end = script(&folder, "end", &format!("ls -l /proc/$PPID/fd | grep -vc memfd: >{}", count.display()));
    // A second hook at the same time would exit with 99.
    let fail = format!("--on=fail=flock -n -E 99 {} sleep 60", folder.path().join("lock").display());
    // The hook of the end must be quicker than the timeout.
    let (timeout, runs) = if EMULATED { ("--on-timeout=10", 100) } else { ("--on-timeout=0.1", 1000) };
    let run = |restarts: &str| {
        let mut command =
            kapo(["-i", "none", "supervise", "--wait=0", "--log-repeats", "--within=1h", timeout]);
        command.args([&format!("--max-restarts={restarts}"), &fail, &format!("--on=end={}", end.display())]);
        command.arg("false");
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!(code, Some(1), "{stderr}");
        (stderr, fs::read_to_string(&count).unwrap())
    };
    let (log, descriptors) = run(&(runs - 1).to_string());
    assert_eq!(log.matches("msg=\"started\"").count(), runs);
    let failed = failures(&log);
    assert!(!failed.is_empty() && failed.iter().all(|end| *end == "fail error=\"timed out\""), "{failed:?}");
    assert_eq!(run("1").1, descriptors, "open descriptors after 2 and after 1,000 runs");
}

#[test]
fn probes_that_fail_make_the_command_unhealthy() {
    let notes = Notes::new();
    let mut words = vec!["supervise".to_owned(), "--max-restarts=1".into(), "--probe=exec:false".into()];
    words.extend(["--unhealthy=stop", "--probe-failures=1", "--probe-interval=0.1"].map(str::to_owned));
    words.extend(notes.on(&["unhealthy", "fail"]));
    words.extend(["sleep".to_owned(), "60".into()]);
    let _kapo = Kapo::start(words);
    wait_for("both hooks have run", || notes.lines().len() >= 2);
    assert_eq!(notes.lines()[0], "unhealthy 0 0");
    assert!(notes.lines()[1].starts_with("fail unhealthy "), "{:?}", notes.lines());
}
