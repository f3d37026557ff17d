//! Tests of the address of the command's NOTIFY_SOCKET: a path that other network namespaces and users can reach, and
//! that is removed at the end.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{EMULATED, Kapo, clean, kapo_after, kapo_on_a_free_port, run_to_the_end};
use crate::tools::is_root;

/// Returns a runtime directory that every user may enter.
fn runtime_directory() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn is_empty(folder: &TempDir) -> bool {
    std::fs::read_dir(folder.path()).unwrap().next().is_none()
}

fn with_folder(folder: &Path, words: &[&str]) -> Command {
    let mut command = kapo_on_a_free_port(words);
    command.env("RUNTIME_DIRECTORY", folder);
    command
}

#[test]
fn the_notify_socket_is_a_path_that_is_removed_at_the_end() {
    let folder = runtime_directory();
    for (command, options, code) in [
        ("echo $NOTIFY_SOCKET; ls -l $NOTIFY_SOCKET", vec![], 0),
        ("echo $NOTIFY_SOCKET; kill -INT $$", vec![], 130),
        ("echo $NOTIFY_SOCKET; kill -TERM $PPID; exec sleep 60", vec![], 143),
        ("echo $NOTIFY_SOCKET; exec sleep 60", vec!["--ttl", if EMULATED { "5s" } else { "100ms" }], 124),
    ] {
        let words = [vec!["run", "--notify"], options, vec!["sh", "-c", command]].concat();
        let (ended, stdout, stderr) = run_to_the_end(with_folder(folder.path(), &words));
        assert_eq!(ended, Some(code), "{stderr}");
        let begin = folder.path().join("kapo-notify-");
        assert!(stdout.starts_with(begin.to_str().unwrap()), "{stdout}");
        assert!(code != 0 || stdout.contains("srw-rw-rw-"), "{stdout}");
        assert!(is_empty(&folder), "after {command}");
    }
    let not_there = ["run", "--notify", "/nonexistent"];
    assert_eq!(run_to_the_end(with_folder(folder.path(), &not_there)).0, Some(127));
    let no_room = ["--interface", "192.0.2.1", "run", "--notify", "true"];
    assert_eq!(run_to_the_end(with_folder(folder.path(), &no_room)).0, Some(125));
    assert!(is_empty(&folder));
}

#[test]
fn the_file_of_a_killed_kapo_is_replaced_by_one_of_the_same_pid() {
    let folder = runtime_directory();
    let stale = "python3 -c \"import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                 s.bind('$RUNTIME_DIRECTORY/kapo-notify-%d' % os.getppid())\"";
    let mut command = kapo_after(stale, ["run", "--notify", "sh", "-c", "ls $RUNTIME_DIRECTORY"]);
    command.env("RUNTIME_DIRECTORY", folder.path());
    let (code, stdout, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(is_empty(&folder));
}

#[test]
fn a_name_in_use_is_not_replaced() {
    let folder = runtime_directory();
    // The shell becomes kapo, so it knows the name that kapo would take. Python serves that name until the gate opens.
    let served = "python3 -c \"import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('$RUNTIME_DIRECTORY/kapo-notify-%d' % os.getppid())
if os.fork(): os._exit(0)
sys.stdin.readline()
os.unlink(s.getsockname())\"";
    let mut command = kapo_after(served, ["run", "--notify", "sh", "-c", "ls $RUNTIME_DIRECTORY"]);
    command.env("RUNTIME_DIRECTORY", folder.path()).stdin(Stdio::piped());
    let mut kapo = Kapo::launch(command);
    kapo.expect_exit(0);
    let names: Vec<_> = kapo.stdout().lines().map(str::to_owned).collect();
    assert_eq!(names, [format!("kapo-notify-{}", kapo.pid()), format!("kapo-notify-{}-1", kapo.pid())]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_command_in_another_network_namespace_can_notify() {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(if is_root() { vec!["-n"] } else { vec!["-r", "-n"] });
        unshare
    };
    let possible = unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|done| done.success());
    if !possible {
        eprintln!("skipped: no network namespace can be made here");
        return;
    }
    let script = "import os, socket
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', '\\0'))
os.execlp('sleep', 'sleep', '60')";
    let mut words = vec!["run", "--notify", "unshare"];
    words.extend(if is_root() { vec!["-n"] } else { vec!["-r", "-n"] });
    words.extend(["python3", "-c", script]);
    let kapo = Kapo::launch(kapo_on_a_free_port(words)).listening();
    kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
}

#[test]
fn a_command_that_has_changed_its_user_can_notify() {
    if !is_root() {
        eprintln!("skipped: only root can change the user");
        return;
    }
    let closed = TempDir::new().unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let script = "import os, socket
os.setgid(65534); os.setuid(65534)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
os.execlp('sleep', 'sleep', '60')";
    // A directory with mode 0700 is skipped.
    let command = with_folder(closed.path(), &["run", "--notify", "python3", "-c", script]);
    let kapo = Kapo::launch(command).listening();
    kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
    assert!(is_empty(&closed));
}

#[test]
fn without_a_writable_folder_the_address_is_abstract() {
    let script = "mount --bind -o ro /run /run && mount -o remount,bind,ro /run && \
                  mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp && exec \"$@\"";
    let mut command = clean("unshare");
    command.args(if is_root() { vec!["-m"] } else { vec!["-r", "-m"] });
    let possible = Command::new("unshare")
        .args(if is_root() { vec!["-m"] } else { vec!["-r", "-m"] })
        .args(["sh", "-c", script, "sh", "true"])
        .status()
        .is_ok_and(|done| done.success());
    if !possible {
        eprintln!("skipped: no mounts can be made here");
        return;
    }
    command.args(["sh", "-c", script, "sh"]).arg(crate::harness::binary());
    command.args(["-q", "-p", "0", "-i", "127.0.0.1", "run", "--notify", "sh", "-c", "echo $NOTIFY_SOCKET"]);
    command.env_remove("XDG_RUNTIME_DIR").env_remove("RUNTIME_DIRECTORY");
    let (code, stdout, stderr) = run_to_the_end(command);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with('@'), "{stdout}");
}
