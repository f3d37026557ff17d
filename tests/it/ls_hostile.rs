//! Tests of `kapo ls` in a folder that several users and foreign programs fill, and of how errors are written.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Kapo, binary, clean, kapo, now, run_to_the_end, wait_for};

/// Returns the command `kapo`, as `nobody` if `user`. The program of the build may be in a folder that this user cannot
/// enter, so it is a copy.
fn as_user(program: &Path, user: bool, words: &[&str]) -> Command {
    let mut command = clean(if user { Path::new("setpriv") } else { program });
    if user {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    }
    command.args(words);
    command
}

/// Lists the folder and returns the exit code, NAME, STATE and the last column of each row, and the errors.
fn list(program: &Path, user: bool, words: &[&str]) -> (Option<i32>, Vec<[String; 3]>, String) {
    let (code, text, said) = run_to_the_end(as_user(program, user, &[&["ls"], words].concat()));
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [words[0], words[1], words[words.len() - 1]].map(str::to_owned)
    };
    (code, text.lines().skip(1).map(row).collect(), said)
}

fn row(name: &str, state: &str, owner: &str) -> [String; 3] {
    [name, state, owner].map(str::to_owned)
}

#[test]
fn two_users_see_in_one_folder_what_they_may_read() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let home = TempDir::new().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let program = home.path().join("kapo");
    fs::copy(binary(), &program).unwrap();
    let folder = home.path().join("run");
    fs::create_dir(&folder).unwrap();
    // Any user may add a socket, and only its owner may remove it.
    fs::set_permissions(&folder, Permissions::from_mode(0o1777)).unwrap();
    let path = folder.to_str().unwrap();
    let start = |name: &str, user: bool| {
        let words = ["--interface", "none", "--run-dir", path, "--name", name, "run", "sleep", "60"];
        let kapo = Kapo::launch(as_user(&program, user, &words));
        let socket = folder.join(format!("{name}.sock"));
        wait_for("it listens", || UnixStream::connect(&socket).is_ok());
        kapo
    };
    let (mut roots, _users) = (start("roots", false), start("users", true));
    let both = vec![row("users", "running", "nobody"), row("roots", "running", "root")];
    let mut seen = list(&program, false, &["--sort", "name", path]).1;
    seen.sort_by(|a, b| b.cmp(a));
    assert_eq!(seen, both);
    // Root's socket has mode 0660.
    let (code, seen, _) = list(&program, true, &[path]);
    assert_eq!((code, &seen[0][..2]), (Some(1), &["roots".to_owned(), "denied".into()][..]));
    assert_eq!(seen[1..], [row("users", "running", "nobody")]);
    let (code, _, said) = run_to_the_end(as_user(&program, true, &["--run-dir", path, "status", "roots"]));
    assert!(code == Some(3) && said.lines().count() == 1 && said.contains("Permission denied"), "{said}");
    // A dead socket of root stays if the user prunes.
    roots.signal(9);
    roots.expect_signal(9);
    let (code, seen, said) = list(&program, true, &["--prune", path]);
    assert_eq!((code, seen[0][1].as_str(), said.as_str()), (Some(1), "denied", ""));
    assert!(folder.join("roots.sock").exists());
    let seen = list(&program, false, &["--prune", path]).1;
    assert!(seen.iter().any(|row| row[..2] == ["roots", "removed"]), "{seen:?}");
    assert!(!folder.join("roots.sock").exists());
}

/// Listens on a socket and serves each connection with `serve`.
fn serve(path: PathBuf, serve: impl Fn(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            serve(stream);
        }
    });
}

#[test]
fn hostile_sockets_among_20_000_other_entries_cost_one_timeout() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    for at in 0..20_000 {
        File::create(path(&format!("file{at}"))).unwrap();
    }
    for at in 0..200 {
        symlink("real.sock", path(&format!("link{at}.sock"))).unwrap();
    }
    let mut real = kapo(["--quiet", "--interface", path("real.sock").to_str().unwrap()]);
    real.args(["run", "sleep", "60"]);
    let _real = Kapo::launch(real);
    wait_for("it listens", || UnixStream::connect(path("real.sock")).is_ok());
    serve(path("gigabyte"), |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n[");
        let part = vec![b' '; 1 << 20];
        for _ in 0..1024 {
            if stream.write_all(&part).is_err() {
                return;
            }
        }
        panic!("ls has read 1 GiB");
    });
    serve(path("closes\nat once"), drop);
    let _never_accepts = UnixListener::bind(path("silent")).unwrap();
    // The backlog of another one is full, so that not even a connection is possible.
    let full = UnixListener::bind(path("full")).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let _connected = UnixStream::connect(path("full")).unwrap();
    let began = now();
    let mut command = kapo(["ls", "--timeout", "1"]);
    let (code, text, said) = run_to_the_end({
        command.arg(folder.path());
        command
    });
    let took = began.elapsed();
    let row = |line: &str| {
        line.split("  ").filter(|cell| !cell.is_empty()).take(2).map(str::trim).collect::<Vec<_>>().join(":")
    };
    let mut rows: Vec<String> = text.lines().skip(1).map(row).collect();
    rows.sort();
    let states =
        ["closes\\nat once:foreign", "full:stuck", "gigabyte:foreign", "real:running", "silent:stuck"]
            .map(str::to_owned);
    assert_eq!((code, rows, said.as_str()), (Some(1), states.to_vec(), ""), "{text}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn old_temporary_names_are_pruned_if_they_refuse() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bound = |name: &str, age: i64| {
        let listener = UnixListener::bind(path(name)).unwrap();
        let bound = fs::symlink_metadata(path(name)).unwrap().mtime();
        let then = rustix::fs::Timespec { tv_sec: bound - age, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: then, last_modification: then };
        rustix::fs::utimensat(rustix::fs::CWD, path(name), &times, rustix::fs::AtFlags::empty()).unwrap();
        listener
    };
    let _living = bound(".kapo1", 90);
    drop((bound(".kapo2", 90), bound(".kapo3", 30), bound(".other", 90)));
    fs::write(path(".kapo4"), "").unwrap();
    let prune = |words: &[&str]| {
        let mut command = kapo([&["ls"], words].concat());
        command.arg(folder.path());
        run_to_the_end(command).0
    };
    let names = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|one| one.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!((prune(&[]), names().len()), (Some(1), 5));
    assert_eq!(
        (prune(&["--prune"]), names()),
        (Some(0), [".kapo1", ".kapo3", ".kapo4"].map(str::to_owned).to_vec())
    );
}

#[test]
fn a_usage_error_is_one_write() {
    for words in [
        &["bogus"][..],
        &["run"],
        &["run", "--ttl", "x", "--", "true"],
        &["-i", "a", "-i", "b", "run", "true"],
        &["supervise", "--restart", "never", "--", "true"],
        &["watch"],
        &["watch", "--pid", "0"],
        &["check", "--bogus"],
        &["wait", "--bogus"],
        &["status", "--bogus"],
        &["logs", "--lines", "x"],
        &["ls", "--sort", "x"],
        &["--run-dir", "/nowhere", "run", "--", "true"],
    ] {
        // Each write is a message of its own.
        let (theirs, ours) = UnixDatagram::pair().unwrap();
        let mut command = kapo(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(OwnedFd::from(theirs)));
        let status = command.status().unwrap();
        drop(command);
        ours.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let length = ours.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(matches!(status.code(), Some(1 | 2 | 125)), "{words:?}: {status:?}");
        assert!(text.starts_with("kapo: ") && text.ends_with('\n') && text.lines().count() == 1, "{text}");
        assert!(!ours.recv(&mut buffer).is_ok_and(|length| length > 0), "{words:?}: a second write");
    }
}
