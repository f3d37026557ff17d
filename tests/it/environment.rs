//! Tests that the command has the same environment as without kapo: descriptors, signals, limits, variables,
//! directory.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{
    Kapo, binary, clean, kapo_after, kapo_on_a_free_port, proc_status, run_to_the_end, wait_for,
};

/// Returns the output of a shell that runs `preparation` and then executes `command` without kapo.
fn bare(preparation: &str, command: &[&str]) -> String {
    let mut shell = clean("sh");
    shell.arg("-c").arg(format!("{preparation}\nexec \"$@\"")).arg("sh").args(command);
    let output = shell.output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the output with kapo in between.
fn under_kapo(preparation: &str, command: &[&str]) -> String {
    let (code, stdout, stderr) = run_to_the_end(kapo_after(preparation, [&["run", "--"], command].concat()));
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

#[test]
fn the_command_has_the_descriptors_of_a_bare_start_and_no_other() {
    // The expansion itself opens the directory as the lowest free number. The process that runs the tests may have
    // left more open.
    let look = ["sh", "-c", "cd /proc/self/fd && echo *"];
    let seen = under_kapo("", &look);
    for number in ["0", "1", "2"] {
        assert!(seen.split_whitespace().any(|seen| seen == number), "{number} in {seen}");
    }
    assert_eq!(seen, bare("", &look));
    let seen = under_kapo("", &["ls", "-l", "/proc/self/fd"]);
    assert!(seen.lines().any(|line| line.contains("3 -> /proc/")), "{seen}");
    assert!(!seen.contains("anon_inode") && !seen.contains("socket:"), "{seen}");
}

#[test]
fn unused_inherited_descriptors_stay_open() {
    let preparation = "exec 7</dev/null 9</dev/zero";
    let seen = under_kapo(preparation, &["ls", "-l", "/proc/self/fd"]);
    for link in [" 7 -> /dev/null\n", " 9 -> /dev/zero\n"] {
        assert!(seen.contains(link), "{link:?} in {seen}");
    }
    let look = ["sh", "-c", "cd /proc/self/fd && echo *"];
    assert_eq!(under_kapo(preparation, &look), bare(preparation, &look));
}

#[test]
fn descriptors_closed_at_the_start_stay_closed_for_the_command() {
    for closed in [vec![0], vec![1], vec![2], vec![0, 1], vec![0, 2], vec![1, 2], vec![0, 1, 2]] {
        let folder = TempDir::new().unwrap();
        let result = folder.path().join("result");
        let closing: String = closed.iter().map(|fd| format!("{fd}<&- ")).collect();
        let look = "for fd in 0 1 2; do test -e /proc/$$/fd/$fd && printf $fd; done > \"$0\"";
        // The redirection of a shell would change the result, so a child lists the descriptors.
        let script = format!("sh -c '{look}' \"$0\"; exit 4").replace("$$", "$PPID");
        let mut command =
            kapo_after(&format!("exec {closing}"), ["run", "sh", "-c", &script, result.to_str().unwrap()]);
        let mut kapo = Kapo::launch({
            command.env("PATH", std::env::var_os("PATH").unwrap());
            command
        });
        kapo.expect_exit(4);
        let expected: String = (0..3).filter(|fd| !closed.contains(fd)).map(|fd| fd.to_string()).collect();
        assert_eq!(fs::read_to_string(&result).unwrap(), expected, "{closed:?}");
    }
}

#[test]
fn with_its_standard_descriptors_closed_kapo_answers() {
    let port = free_port().to_string();
    let mut shell = clean("sh");
    let words = ["-c", "exec <&- >&- 2>&-; exec \"$@\"", "sh"];
    shell.args(words).arg(binary()).args(["-i", "127.0.0.1", "-p", &port, "run", "sleep", "60"]);
    let kapo = Kapo::launch(shell).at(&format!("127.0.0.1:{port}"));
    assert_eq!(kapo.status()["Status"], "running");
    let answer = kapo.get("/livez");
    assert_eq!(answer.body, "ok");
}

#[test]
fn signals_are_as_kapo_was_started_with() {
    let look = ["grep", "^Sig", "/proc/self/status"];
    for preparation in ["", "trap '' PIPE", "trap '' CHLD", "trap '' PIPE CHLD HUP INT TSTP TERM USR1 TTOU"] {
        let under = under_kapo(preparation, &look);
        assert!(under.contains("SigIgn"), "{under}");
        assert_eq!(masks(&under), masks(&bare(preparation, &look)), "{preparation}");
    }
}

#[test]
fn blocked_signals_are_as_kapo_was_started_with() {
    let mut kapo = Kapo::launch({
        let mut command = kapo_on_a_free_port(["run", "grep", "^SigBlk", "/proc/self/status"]);
        crate::harness::before_exec(&mut command, || kapo::sys::signal::block_all().map(drop));
        command
    });
    kapo.expect_exit(0);
    // All signals except KILL (9) and STOP (19), which cannot be blocked.
    assert_eq!(kapo.stdout(), "SigBlk:\tfffffffffffbfeff\n");
}

/// Returns the relevant lines. The first one, SigQ, depends on other processes of the user.
fn masks(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("SigQ")).collect()
}

#[test]
fn variables_of_the_service_manager_are_not_inherited() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("notify");
    let _manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let mut command = kapo_on_a_free_port(["run", "env"]);
    let told = [
        ("LISTEN_FDS", "0"),
        ("LISTEN_PID", "1"),
        ("LISTEN_FDNAMES", "a:b"),
        ("NOTIFY_SOCKET", socket.to_str().unwrap()),
        ("WATCHDOG_USEC", "60000000"),
        ("WATCHDOG_PID", "1"),
    ];
    command.envs(told).env("LISTEN_FDS_OF_MINE", "kept").env("KEPT", "a=b\nc").env("EMPTY", "");
    let (code, stdout, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(0), "{stderr}");
    for (name, _) in told {
        assert!(!stdout.contains(&format!("{name}=")), "{stdout}");
    }
    for kept in ["LISTEN_FDS_OF_MINE=kept\n", "KEPT=a=b\nc\n", "EMPTY=\n"] {
        assert!(stdout.contains(kept), "{kept:?} in {stdout}");
    }
}

#[test]
fn the_environment_is_otherwise_the_same() {
    let sorted = |text: &str| {
        let mut lines: Vec<_> =
            text.lines().filter(|line| !line.starts_with("_=")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&under_kapo("", &["env"])), sorted(&bare("", &["env"])));
}

#[test]
fn the_limit_of_open_files_is_the_one_kapo_was_started_with() {
    let limits = ["sh", "-c", "ulimit -Sn; ulimit -Hn"];
    for preparation in ["ulimit -Sn 64", "ulimit -n 64", "ulimit -Sn 1024"] {
        assert_eq!(under_kapo(preparation, &limits), bare(preparation, &limits), "{preparation}");
    }
    // kapo's own limit is raised meanwhile.
    let kapo = Kapo::launch(kapo_after("ulimit -Sn 64", ["run", "sleep", "60"])).listening();
    let limits = |pid: i32| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let soft = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(soft(limits(kapo.command_pid())), 64);
    assert!(soft(limits(kapo.pid())) > 512);
}

#[test]
fn the_command_leads_a_process_group_of_its_own() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    let command = kapo.command_pid();
    assert_eq!(proc_status(command, "NSpgid"), Some(command.to_string()));
    assert_ne!(proc_status(command, "NSsid"), Some(command.to_string()));
    assert_eq!(proc_status(command, "NSsid"), proc_status(kapo.pid(), "NSsid"));
    let alone = Kapo::start(["run", "--setsid", "sleep", "60"]);
    assert_eq!(proc_status(alone.command_pid(), "NSsid"), Some(alone.command_pid().to_string()));
}

#[test]
fn stdin_is_the_commands() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in");
    fs::write(&path, "all of it\n").unwrap();
    let input = fs::File::open(&path).unwrap();
    assert!(input.as_raw_fd() > 2);
    let mut command = kapo_on_a_free_port(["run", "cat"]);
    command.stdin(input);
    let (code, stdout, _) = run_to_the_end(command);
    assert_eq!((code, stdout.as_str()), (Some(0), "all of it\n"));
}

#[test]
fn arguments_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let word = std::ffi::OsStr::from_bytes(b"\xff\xfe caf\xe9");
    let mut command = kapo_on_a_free_port(["run", "--wait", "1m", "printf", "%s"]);
    command.arg(word);
    let mut kapo = Kapo::launch(command).listening();
    kapo.wait_for("it has printed", |kapo| kapo.stdout_bytes() == word.as_bytes());
    assert_eq!(kapo.status()["Arguments"][1], "\u{fffd}\u{fffd} caf\u{fffd}");
}

#[test]
fn without_proc_kapo_runs_its_command() {
    let mut probe = Command::new("unshare");
    if !probe.args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare --mount is not permitted here");
        return;
    }
    let mut command = clean("unshare");
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(binary());
    command.args(["-i", "127.0.0.1", "-p", "0", "run", "--", "sh", "-c", "ls /proc; read line; exit 6"]);
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(reader);
    let mut kapo = Kapo::launch(command).listening();
    assert_eq!(kapo.status()["Status"], "running");
    assert_eq!(kapo.get("/metrics").status, 200);
    assert_eq!(kapo.get("/debug/vars").status, 200);
    drop(writer);
    kapo.expect_exit(6);
    assert_eq!(kapo.stdout(), "", "there is no /proc");
}

#[test]
fn a_deleted_directory_does_not_prevent_the_start() {
    let folder = TempDir::new().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let preparation = format!("cd {} && rmdir {}", inner.display(), inner.display());
    let (code, stdout, stderr) = run_to_the_end(kapo_after(&preparation, ["run", "echo", "well"]));
    assert_eq!((code, stdout.as_str()), (Some(0), "well\n"), "{stderr}");
}

/// Returns a port that was free a moment ago, for programs whose port cannot be read.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn the_helpers_notice_a_process_that_ends() {
    // The helpers of these tests distinguish a zombie from a living process.
    let mut child = Command::new("true").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    wait_for("it is a zombie", || crate::harness::process_state(pid) == Some('Z'));
    assert!(!crate::harness::lives(pid));
    child.wait().unwrap();
    assert_eq!(crate::harness::process_state(pid), None);
}

/// The log line is the only place that names the port.
#[test]
fn a_port_of_the_kernel_is_logged_even_with_quiet() {
    let mut kapo = Kapo::start(["--quiet", "run", "--", "sleep", "60"]);
    let port = kapo.address().port();
    assert_eq!(kapo.status()["Status"], "running");
    kapo.signal(15);
    kapo.expect_exit(143);
    let lines: Vec<String> = kapo.stderr().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with(&format!("msg=\"listening\" address=127.0.0.1:{port}")), "{lines:?}");
}
