//! Tests of starts that fail or could fail: the directory cannot be reached any more, or the kernel refuses a process.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, kill_process_group};
use tempfile::TempDir;

use crate::harness::{
    Kapo, before_exec, kapo_after, kapo_on_a_free_port, run_to_the_end, unused_name, wait_for,
};
use crate::seccomp::refuse;

/// A user without privileges, which root becomes for the test.
const NOBODY: u32 = 65_534;

/// Runs `command` as a user to whom permissions and limits apply. Returns false if the tests already run as one.
fn without_rights(command: &mut Command) -> bool {
    let root = rustix::process::getuid().is_root();
    if root {
        command.uid(NOBODY);
    }
    root
}

/// Returns a directory owned by `NOBODY`, or by the user of the tests.
fn folder_for_nobody() -> TempDir {
    let folder = TempDir::new().unwrap();
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), None).unwrap();
    }
    folder
}

/// Whether the program is in a directory that other users may not enter.
fn is_closed_to_nobody() -> bool {
    let mut probe = crate::harness::kapo(["--version"]);
    without_rights(&mut probe);
    let closed = !probe.output().is_ok_and(|output| output.status.success());
    if closed {
        eprintln!("skipped: a user without rights cannot execute the program where it is");
    }
    closed
}

#[test]
fn supervise_restarts_in_an_unreachable_directory() {
    if is_closed_to_nobody() {
        return;
    }
    let folder = folder_for_nobody();
    let words = ["supervise", "--wait", "10ms", "sh", "-c", "cat here; exit 1"];
    let mut command =
        kapo_after("mkdir -p closed/inner && cd closed/inner && echo run > here && chmod 0 ..", words);
    command.current_dir(folder.path());
    without_rights(&mut command);
    let mut kapo = Kapo::launch(command).listening();
    kapo.wait_for("it has run three times", |kapo| kapo.stdout() == "run\n".repeat(3));
    // The directory must be removable at the end.
    fs::set_permissions(folder.path().join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_directory_under_a_later_mount_is_kept() {
    let folder = TempDir::new().unwrap();
    let preparation = "mkdir under && cd under && echo run > here && mount -t tmpfs none \"$PWD\"";
    let words = ["supervise", "--wait", "10ms", "sh", "-c", "cat here; exit 1"];
    let inner = kapo_after(preparation, words);
    let mut command = crate::harness::clean("unshare");
    command.arg("--mount").arg(inner.get_program()).args(inner.get_args()).current_dir(folder.path());
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "mount", "-t", "tmpfs", "none"]).arg(folder.path());
    if !probe.output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let mut kapo = Kapo::launch(command).listening();
    kapo.wait_for("it has run three times", |kapo| kapo.stdout() == "run\n".repeat(3));
}

#[test]
fn a_deleted_directory_is_not_reported_as_missing_command() {
    let folder = TempDir::new().unwrap();
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    fs::create_dir(&before).unwrap();
    let path = before.canonicalize().unwrap();
    // Renamed only after kapo has left it.
    let script =
        "until [ \"$(readlink /proc/$PPID/cwd)\" = / ]; do sleep 0.01; done; mv ../before ../after; exit 1";
    let mut command = kapo_on_a_free_port(["supervise", "--wait", "10ms", "sh", "-c", script]);
    command.current_dir(&before);
    let mut kapo = Kapo::launch(command).listening();
    let status = kapo.wait_for_status("it cannot be started", |status| status["Reason"] == "exec-failed");
    assert_eq!(status["ExitCode"], 125, "{status}");
    let told = format!("msg=\"cannot start\" command=sh error=\"cannot enter {}: No such", path.display());
    kapo.wait_for("it says why", |kapo| kapo.stderr().contains(&told));
    assert!(after.exists(), "it was renamed");
    kapo.signal(15);
    kapo.expect_exit(125);
}

#[test]
fn a_process_limit_is_not_reported_as_failed_exec() {
    if is_closed_to_nobody() {
        return;
    }
    let with_one_process = |words: &[&str]| {
        let inner = kapo_after("ulimit -u 1", words);
        let mut command = crate::harness::clean("bash");
        command.args(inner.get_args());
        without_rights(&mut command);
        command
    };
    let (code, _, stderr) = run_to_the_end(with_one_process(&["-q", "-i", &unused_name(), "run", "true"]));
    assert_eq!(stderr, "kapo: cannot start true: Resource temporarily unavailable\n");
    assert_eq!(code, Some(125));
    let mut kapo = Kapo::launch(with_one_process(&["supervise", "--wait", "10ms", "true"])).listening();
    let status = kapo.wait_for_status("it is tried again", |status| status["Restarts"].as_u64() > Some(0));
    assert_eq!((&status["Reason"], &status["ExitCode"]), (&"exec-failed".into(), &125.into()), "{status}");
    kapo.signal(15);
    kapo.expect_exit(125);
    wait_for("nothing is left", || !Path::new(&format!("/proc/{}", kapo.pid())).exists());
}

/// Returns the termination log after a run of kapo, and kapo's exit code.
fn termination_log(folder: &TempDir, words: &[&str]) -> (String, Option<i32>) {
    let path = folder.path().join("log");
    let words = [&["run", "--termination-log", path.to_str().unwrap()][..], words].concat();
    let (code, _, _) = crate::harness::run_to_the_end(crate::harness::kapo_on_a_free_port(words));
    (fs::read_to_string(&path).unwrap(), code)
}

#[test]
fn a_link_created_by_the_command_is_not_followed() {
    let folder = TempDir::new().unwrap();
    let (log, precious) = (folder.path().join("log"), folder.path().join("precious"));
    fs::write(&precious, "precious").unwrap();
    let script = format!("ln -sf precious {}; exit 3", log.display());
    let (text, code) = termination_log(&folder, &["sh", "-c", &script]);
    assert_eq!((text.as_str(), code), ("precious", Some(3)));
    // A link of root or of kapo's own user is followed.
    assert_eq!(termination_log(&folder, &["false"]).0, "reason=exit-code code=1\n");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "reason=exit-code code=1\n");
    if crate::tools::is_root() {
        fs::write(&precious, "precious").unwrap();
        rustix::fs::chownat(
            rustix::fs::CWD,
            &log,
            Some(rustix::fs::Uid::from_raw(65_534)),
            None,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
        assert_eq!(termination_log(&folder, &["false"]), ("precious".to_owned(), Some(1)));
    }
}

#[test]
fn only_a_message_of_an_earlier_kapo_is_removed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let script = format!("echo out of beer >{}; exit 3", path.display());
    assert_eq!(termination_log(&folder, &["sh", "-c", &script]).0, "out of beer\n");
    assert_eq!(termination_log(&folder, &["sh", "-c", "exit 4"]).0, "reason=exit-code code=4\n");
    // Under supervise each run may write the log. If it does not, kapo writes it.
    let path = path.to_str().unwrap();
    let script = format!("mkdir {path}.dir && echo mine >{path}; exit 5");
    let words =
        ["supervise", "--wait", "1ms", "--max-restarts", "1", "--termination-log", path, "sh", "-c", &script];
    let mut kapo = Kapo::start(words);
    kapo.expect_exit(5);
    assert_eq!(fs::read_to_string(path).unwrap(), "reason=exit-code code=5\n");
}

#[test]
fn the_termination_log_says_why_the_command_cannot_be_executed() {
    let folder = TempDir::new().unwrap();
    let (text, code) = termination_log(&folder, &["no-such-command"]);
    assert_eq!(code, Some(127));
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, "reason=exec-failed code=127");
    assert!(rest.contains("no-such-command: No such file or directory"), "{text}");
}

#[test]
fn a_termination_log_without_a_reader_does_not_block() {
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let path = fifo.to_str().unwrap();
    let mut kapo = Kapo::start(["run", "--termination-log", path, "sh", "-c", "exit 3"]);
    kapo.expect_exit(3);
    assert!(kapo.stderr().contains("cannot write termination log"), "{}", kapo.stderr());
    // A reader gets everything.
    let mut reader = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let mut kapo = Kapo::start(["run", "--termination-log", path, "sh", "-c", "exit 3"]);
    kapo.expect_exit(3);
    let mut text = [0; 64];
    let length = reader.read(&mut text).unwrap();
    assert_eq!(&text[..length], b"reason=exit-code code=3\n");
}

/// A stop signal that was pending in the child when its mask was restored used to stop it before its exec, which left
/// kapo in an uninterruptible sleep. TSTP and similar signals from a process stop kapo itself, hence the CONT.
#[test]
fn stop_signals_during_the_start_never_leave_kapo_asleep() {
    const ROUNDS: usize = 300;
    for round in 0..ROUNDS {
        let mut command = kapo_on_a_free_port(["-q", "run", "true"]);
        command.process_group(0);
        let mut kapo = Kapo::launch(command);
        let group = rustix::process::Pid::from_raw(kapo.pid()).unwrap();
        let mut ended = None;
        wait_for(&format!("kapo has ended, in round {round}"), || {
            for signal in [Signal::TTIN, Signal::TSTP, Signal::TTOU, Signal::CONT] {
                // The group is gone once kapo is reaped.
                let _ = kill_process_group(group, signal);
            }
            ended = kapo.try_wait();
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "round {round}");
    }
}

/// When the child had a stack of 8 KiB, three handlers that interrupted each other were too much for it: their frames
/// overwrote those of kapo below it, and kapo died. strace sends each signal at a system call that only the child makes
/// (its second rt_sigprocmask; kapo makes one), while all signals are blocked.
#[test]
fn three_stop_signals_at_once_in_the_child_do_no_harm() {
    let kapo = kapo_on_a_free_port(["-q", "--stdout", "run", "true"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    for sent in ["setpgid:signal=TTOU", "?dup2:signal=TSTP:when=1", "rt_sigprocmask:signal=TTIN:when=2"] {
        command.arg("-e").arg(format!("inject={sent}"));
    }
    command.arg(kapo.get_program()).args(kapo.get_args());
    match command.status() {
        Ok(status) => assert_eq!(status.code(), Some(0), "{status}"),
        Err(e) => eprintln!("skipped: strace: {e}"),
    }
}

#[test]
fn a_kernel_without_subreapers_is_one_warning() {
    let mut command = kapo_on_a_free_port(["run", "sh", "-c", "exit 4"]);
    before_exec(&mut command, || refuse(libc::SYS_prctl, Some(libc::PR_SET_CHILD_SUBREAPER), libc::EINVAL));
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(4), "{stderr}");
    let warning = "cannot become subreaper";
    assert_eq!(stderr.matches(warning).count(), 1, "{stderr}");
    assert_eq!(stderr.matches("level=warn").count(), 2, "the end is the other one: {stderr}");
}
