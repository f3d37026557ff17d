//! Tests of the mode and the group of socket files, and of other users who connect or start a kapo in the same folder.

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{Kapo, kapo, kapo_after, run_to_the_end, wait_for};
use crate::tools::the_one_that_serves;

const NOBODY: u32 = 65_534;
/// The group `daemon`, which has this number on every Linux. Neither root nor `NOBODY` is its member.
const GROUP: u32 = 1;

/// Whether the test can run as other users. They must be able to execute the program.
fn is_root() -> bool {
    let root = rustix::process::getuid().is_root()
        && kapo(["--version"]).uid(NOBODY).output().is_ok_and(|output| output.status.success());
    if !root {
        eprintln!("skipped: needs root and a program that others can execute");
    }
    root
}

/// Returns a folder that every user can enter, with this mode.
fn folder(mode: u32) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
    folder
}

/// Runs `kapo check` as another user and returns what it prints.
fn checked_by(uid: u32, gid: u32, socket: &Path) -> (Option<i32>, String) {
    let mut check = kapo(["-i", socket.to_str().unwrap(), "check", "--live"]);
    check.uid(uid).gid(gid);
    let (code, stdout, stderr) = run_to_the_end(check);
    (code, stdout + &stderr)
}

#[test]
fn the_mode_follows_the_option_the_run_dir_or_the_umask() {
    let folder = folder(0o755);
    let [main, more, named] = ["main", "more", "sh.sock"].map(|name| folder.path().join(name));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let words = [
        "-i",
        &path(&main),
        "--listen",
        &path(&more),
        "--run-dir",
        &path(folder.path()),
        "run",
        "sh",
        "-c",
        "umask; cat",
    ];
    for (umask, mode, expected) in [
        ("022", None, [0o755, 0o755, 0o660]),
        ("077", None, [0o700, 0o700, 0o660]),
        ("077", Some("0666"), [0o666; 3]),
        ("022", Some("600"), [0o600; 3]),
        ("000", Some("0"), [0; 3]),
    ] {
        let mode = mode.map(|mode| ["--socket-mode", mode]).into_iter().flatten();
        let mut command = kapo_after(&format!("umask {umask}"), mode.chain(words));
        command.stdin(Stdio::piped());
        let mut kapo = Kapo::launch(command);
        kapo.wait_for("the command runs", |kapo| kapo.stdout().ends_with('\n'));
        assert_eq!(kapo.stdout(), format!("0{umask}\n"), "the command has the umask of kapo's parent");
        let modes = [&main, &more, &named].map(|path| path.metadata().unwrap().mode() & 0o7777);
        assert_eq!(modes, expected, "umask {umask}");
        kapo.signal(15);
        kapo.expect_exit(143);
    }
}

#[test]
fn only_the_group_of_the_socket_can_connect() {
    if !is_root() {
        return;
    }
    let folder = folder(0o755);
    let group = GROUP.to_string();
    for option in ["daemon", &group] {
        let path = folder.path().to_str().unwrap();
        let words =
            ["-i", &format!("{path}/main"), "--socket-group", option, "--run-dir", path, "--name", "job"];
        let kapo = Kapo::launch(kapo(words.iter().chain(&["run", "sleep", "60"])));
        let socket = folder.path().join("job.sock");
        wait_for("the socket", || socket.exists());
        for path in [&socket, &folder.path().join("main")] {
            assert_eq!(path.metadata().unwrap().gid(), GROUP);
        }
        assert_eq!(checked_by(NOBODY, GROUP, &socket), (Some(0), "live: ok\n".to_owned()));
        let (code, said) = checked_by(NOBODY, NOBODY, &socket);
        assert!(code == Some(1) && said.contains("Permission denied"), "{code:?} {said}");
        drop(kapo);
        let _ = std::fs::remove_file(&socket);
    }
}

#[test]
fn mode_and_group_are_right_when_the_file_appears() {
    let root = rustix::process::getuid().is_root();
    let gid = if root { GROUP } else { rustix::process::getgid().as_raw() };
    for round in 0..50 {
        let folder = folder(0o755);
        let path = folder.path().to_str().unwrap();
        let words =
            ["-q", "-i", &format!("{path}/s"), "--socket-mode", "0620", "--socket-group", &gid.to_string()];
        let mut command = kapo_after("umask 000", words.iter().chain(&["run", "cat"]));
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // Look as often as possible, also at the temporary name.
        let mut seen = 0;
        while seen < 3 {
            for entry in std::fs::read_dir(folder.path()).unwrap() {
                let entry = entry.unwrap();
                let Ok(stat) = entry.path().symlink_metadata() else { continue };
                assert!(stat.file_type().is_socket());
                assert_eq!(stat.mode() & 0o7777, 0o620, "round {round}");
                // The group may have been set between the first look and the connection, and the name may be gone since.
                if UnixStream::connect(entry.path()).is_ok()
                    && let Ok(stat) = entry.path().symlink_metadata()
                {
                    assert_eq!(stat.gid(), gid, "round {round}");
                    seen += 1;
                }
            }
            assert_eq!(server.try_wait().unwrap(), None);
        }
        drop(server.stdin.take());
        assert!(server.wait().unwrap().success());
    }
}

#[test]
fn a_group_that_cannot_be_set_prevents_the_start() {
    let folder = folder(0o777);
    let socket = folder.path().join("s");
    let start = |group: &str| {
        let mut command = kapo(["-i", socket.to_str().unwrap(), "--socket-group", group, "run", "true"]);
        if rustix::process::getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let (code, _, stderr) = run_to_the_end(start("no-such-group"));
    let line = "kapo: cannot find group no-such-group: it is not in /etc/group\n";
    assert_eq!((code, &*stderr), (Some(125), line));
    if is_root() {
        let (code, _, stderr) = run_to_the_end(start("daemon"));
        let line = format!(
            "kapo: cannot bind {}: Operation not permitted: --socket-group needs root or a member of group {GROUP}\n",
            socket.display()
        );
        assert_eq!((code, stderr), (Some(125), line));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn another_users_socket_does_not_prevent_the_start() {
    if !is_root() {
        return;
    }
    // As in /tmp, a user cannot remove the files of another one.
    let folder = folder(0o1777);
    let path = folder.path().to_str().unwrap();
    let start = |words: &[&str]| {
        let mut command = kapo(["-p", "0", "-i", "127.0.0.1", "--run-dir", path, "--name", "job"]);
        command.args(words);
        command
    };
    let _first = Kapo::launch(start(&["run", "sleep", "60"])).listening();
    let mut other = start(&["run", "sleep", "60"]);
    other.uid(NOBODY).gid(NOBODY);
    let second = Kapo::launch(other).listening();
    assert_eq!(second.status()["Name"], format!("job.{}", second.pid()).as_str());
    let own = folder.path().join(format!("job.{}.sock", second.pid()));
    assert_eq!(own.metadata().unwrap().uid(), NOBODY);
    assert_eq!(checked_by(NOBODY, NOBODY, &own).0, Some(0));
    let (code, said) = checked_by(NOBODY, NOBODY, &folder.path().join("job.sock"));
    assert!(code == Some(1) && said.contains("Permission denied"), "{code:?} {said}");
}

#[test]
fn in_an_unreadable_folder_exactly_one_serves() {
    if !is_root() {
        return;
    }
    for round in 0..20 {
        let folder = folder(0o333);
        chown(folder.path(), Some(NOBODY), None).unwrap();
        let path = folder.path().join("s");
        // A socket file that a killed kapo has left.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        chown(&path, Some(NOBODY), None).unwrap();
        let start = |_| {
            let mut command: Command = kapo(["-q", "-i", path.to_str().unwrap(), "run", "cat"]);
            command.uid(NOBODY).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let mut server = the_one_that_serves((0..6).map(start).collect(), round);
        assert!(UnixStream::connect(&path).is_ok());
        drop(server.stdin.take());
        assert!(server.wait().unwrap().success());
    }
}
