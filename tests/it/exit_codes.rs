//! Tests of kapo's exit code: that of the command, or one that explains why there is none.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::harness::{
    Kapo, command_name, kapo, kapo_on_a_free_port, quiet_kapo, run_to_the_end, signal_mask, wait_for,
};

#[test]
fn all_256_codes_are_returned() {
    for code in 0..=255 {
        let mut kapo = Kapo::launch(kapo_on_a_free_port(["run", "sh", "-c", &format!("exit {code}")]));
        kapo.expect_exit(code);
    }
}

#[test]
fn a_command_that_a_signal_ended_gives_128_and_its_number() {
    // The signals that end a process by default. 32 and 33 can be sent by number as well.
    let ending = (1..=64).filter(|n| ![17, 18, 19, 20, 21, 22, 23, 28].contains(n));
    for signal in ending {
        let mut kapo = Kapo::start(["run", "sh", "-c", "ulimit -c 0; exec sleep 60"]);
        let command = kapo.command_pid();
        wait_for("sh has become sleep", || command_name(command) == "sleep");
        // A parent that uses glibc's posix_spawn may have left 32 and 33 ignored, which is inherited.
        if signal_mask(command, "SigIgn") & (1 << (signal - 1)) != 0 {
            assert!(signal == 32 || signal == 33, "{signal} is ignored");
            continue;
        }
        kapo::sys::signal::send(command, signal).unwrap();
        kapo.expect_exit(128 + signal);
    }
}

#[test]
fn a_ttl_that_passed_gives_124_for_any_exit_code() {
    Kapo::start(["run", "--ttl", "50ms", "sleep", "60"]).expect_exit(124);
    Kapo::start(["run", "--ttl", "50ms", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.02; done"])
        .expect_exit(124);
}

#[test]
fn a_command_that_is_missing_gives_127() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing").into_os_string().into_string().unwrap();
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink(&missing, &dangling).unwrap();
    for (command, reason) in [
        (missing.as_str(), "No such file or directory"),
        ("kapo-has-no-such-command", "No such file or directory"),
        ("''", "No such file or directory"),
        (dangling.to_str().unwrap(), "No such file or directory"),
    ] {
        let word = if command == "''" { "" } else { command };
        let mut kapo = quiet_kapo(["run", word]);
        // A directory in PATH that may not be searched would make it 126, as with env(1) and timeout(1).
        kapo.env("PATH", "/usr/bin:/bin");
        let (code, stdout, stderr) = run_to_the_end(kapo);
        assert_eq!((code, stdout.as_str()), (Some(127), ""), "{command}");
        assert_eq!(stderr, format!("kapo: cannot execute {command}: {reason}\n"));
    }
}

#[test]
fn a_command_that_cannot_be_executed_gives_126() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let write = |name: &str, text: &[u8], mode| {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        path(name)
    };
    for (command, reason) in [
        (path(""), "Permission denied"),
        (write("without-x", b"#!/bin/sh\n", 0o644), "Permission denied"),
        (write("no-program", b"\x7fELF, but not really", 0o755), "Exec format error"),
        // For a given path the message names the real reason.
        (format!("{}/below", write("file", b"", 0o644)), "Not a directory"),
        (link_to_itself(&path("loop")), "Symbolic link loop"),
        (format!("./{}", "x".repeat(300)), "Filename too long"),
        // The kernel reports ENOENT, as for a missing file.
        (write("script", b"#!/nowhere/sh\n", 0o755), "its interpreter or dynamic loader is missing"),
    ] {
        let (code, _, stderr) = run_to_the_end(quiet_kapo(["run", &command]));
        assert_eq!(code, Some(126), "{command}: {stderr}");
        assert_eq!(stderr, format!("kapo: cannot execute {command}: {reason}\n"));
    }
}

/// The same behaviour as execvp(3), sh, tini and dumb-init.
#[test]
fn a_script_without_its_first_line_is_run_by_the_shell() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("script");
    fs::write(&path, "echo \"$0 $# $1\"; exit 7\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let name = path.to_str().unwrap();
    let (code, stdout, _) = run_to_the_end(quiet_kapo(["run", name, "a b", "c"]));
    assert_eq!((code, stdout), (Some(7), format!("{name} 2 a b\n")));
    // The script is found through PATH, after a directory without it.
    let mut command = quiet_kapo(["run", "script"]);
    command.env("PATH", format!("/nowhere:{}:/bin", folder.path().display()));
    assert_eq!(run_to_the_end(command).1, format!("{name} 0 \n"));
    // At the second start kapo is in another directory than the command.
    let words = ["supervise", "--max-restarts", "1", "--wait", "0", "./script"];
    let mut command = quiet_kapo(words);
    command.current_dir(folder.path());
    let (code, stdout, _) = run_to_the_end(command);
    assert_eq!((code, stdout.as_str()), (Some(7), "./script 0 \n./script 0 \n"));
    fs::write(&path, "").unwrap();
    assert_eq!(run_to_the_end(quiet_kapo(["run", name])).0, Some(0));
}

fn link_to_itself(path: &str) -> String {
    std::os::unix::fs::symlink(path, path).unwrap();
    path.to_owned()
}

#[test]
fn an_invalid_directory_in_path_is_skipped() {
    let mut kapo = quiet_kapo(["run", "true"]);
    kapo.env("PATH", "/etc/passwd");
    let (code, _, stderr) = run_to_the_end(kapo);
    assert_eq!(code, Some(127), "{stderr}");
}

#[test]
fn a_missing_interpreter_differs_from_a_missing_command() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("script"), "#!/nowhere/sh\n").unwrap();
    fs::set_permissions(folder.path().join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    // At the second start kapo is in the root directory.
    let mut command = kapo_on_a_free_port(["supervise", "--max-restarts", "1", "./script"]);
    command.current_dir(folder.path());
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(126), "{stderr}");
    assert_eq!(
        stderr.matches("error=\"its interpreter or dynamic loader is missing\"").count(),
        2,
        "{stderr}"
    );
}

#[test]
fn a_port_in_use_gives_125_and_nothing_is_started() {
    let folder = TempDir::new().unwrap();
    let marker = folder.path().join("started");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let touch = ["run", "touch", marker.to_str().unwrap()];
    let (code, stdout, stderr) =
        run_to_the_end(kapo(["--interface", "127.0.0.1", "--port", &port].into_iter().chain(touch)));
    assert_eq!((code, stdout.as_str()), (Some(125), ""));
    assert_eq!(stderr, format!("kapo: cannot bind 127.0.0.1:{port}: Address already in use\n"));
    assert!(!marker.exists());
    // Once the port is free, the command runs and creates the marker.
    drop(taken);
    let (code, ..) =
        run_to_the_end(kapo(["--interface", "127.0.0.1", "--port", &port].into_iter().chain(touch)));
    assert_eq!(code, Some(0));
    assert!(marker.exists());
}

#[test]
fn codes_and_signals_named_as_success_give_0() {
    for (codes, script, code) in [
        ("143", "kill $$", 0),
        ("TERM", "kill $$", 0),
        ("TERM", "exit 143", 143),
        ("3,4", "exit 4", 0),
        ("3,4", "exit 5", 5),
        ("KILL", "kill $$", 143),
    ] {
        Kapo::launch(kapo_on_a_free_port(["run", "--success-exit", codes, "sh", "-c", script]))
            .expect_exit(code);
    }
}
