//! Tests of `kapo ls` with real kapos, with sockets on which something else listens, and with other files.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Kapo, binary, clean, kapo, now, process_state, run_to_the_end, wait_for};

/// A folder with the sockets of kapos.
pub(crate) struct Fleet {
    pub(crate) folder: TempDir,
    pub(crate) kapos: Vec<Kapo>,
}

impl Fleet {
    pub(crate) fn new() -> Fleet {
        Fleet { folder: TempDir::new().unwrap(), kapos: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a kapo that listens on `NAME.sock`.
    pub(crate) fn start(&mut self, name: &str, words: &[&str]) {
        let path = self.path(&format!("{name}.sock"));
        let mut command = kapo(["--quiet", "--interface", path.to_str().unwrap()]);
        command.args(words);
        self.kapos.push(Kapo::launch(command));
        wait_for("it listens", || UnixStream::connect(&path).is_ok());
    }

    pub(crate) fn list(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = kapo(["ls"]);
        command.args(words).arg(self.folder.path());
        run_to_the_end(command)
    }

    /// Returns the exit code, and `NAME STATE` of each row.
    fn states(&self, words: &[&str]) -> (Option<i32>, Vec<String>) {
        let (code, text, said) = self.list(words);
        let word = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        assert!(text.starts_with("NAME ") && said.is_empty(), "{text}{said}");
        (code, text.lines().skip(1).map(word).collect())
    }

    /// Waits until the rows are these.
    fn wait_for(&self, rows: &[&str]) {
        wait_for("the states are as expected", || self.states(&[]).1 == rows);
    }
}

#[test]
fn the_kapos_of_a_folder_are_listed_with_trouble_first() {
    let mut fleet = Fleet::new();
    fleet.start("well", &["run", "sleep", "60"]);
    fleet.start("done", &["run", "--wait", "60", "true"]);
    fleet.wait_for(&["well running", "done done"]);
    assert_eq!(fleet.states(&[]).0, Some(0));
    fleet.start("failed", &["run", "--wait", "60", "sh", "-c", "exit 3"]);
    fleet.start("failing", &["supervise", "--wait", "60", "sh", "-c", "exit 4"]);
    fleet.start("flapping", &["supervise", "--wait", "0.01", "--backoff-max", "60", "false"]);
    fleet.start("unready", &["run", "--notify", "sleep", "60"]);
    fleet.start("gone", &["watch", "no-such-process-of-this-test"]);
    let all = ["flapping flapping", "failing failing", "failed failed", "gone gone", "unready unready"];
    fleet.wait_for(&[&all[..], &["well running", "done done"]].concat());
    assert_eq!(fleet.states(&["--state", "failed,failing"]), (Some(1), vec![all[1].into(), all[2].into()]));
    assert_eq!(fleet.states(&["--sort", "name"]).1[0], "done done");
    let (code, text, _) = fleet.list(&["-o", "wide", "--state", "failing"]);
    let owner = if rustix::process::getuid().is_root() { "root" } else { "" };
    assert!(code == Some(1) && text.contains("  exit 4  ") && text.contains(owner), "{text}");
    assert!(!text.contains('\x1b') && text.lines().all(|line| line.ends_with(line.trim_end())), "{text}");
}

#[test]
fn json_and_metrics_describe_the_same_kapos() {
    let mut fleet = Fleet::new();
    fleet.start("a", &["supervise", "--wait", "60", "sh", "-c", "exit 4"]);
    fleet.start("b", &["run", "sleep", "60"]);
    fleet.wait_for(&["a failing", "b running"]);
    let (code, text, _) = fleet.list(&["-o", "json"]);
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &all[0]["Name"], &all[0]["ExitCode"]), (Some(1), &"a".into(), &4.into()));
    let path = fs::canonicalize(fleet.path("b.sock")).unwrap();
    assert_eq!((all[1]["Socket"].as_str(), all[1]["State"].as_str()), (path.to_str(), Some("running")));
    assert_eq!(all[1]["KapoPid"], fleet.kapos[1].pid());
    assert_eq!(all[1]["Uid"], rustix::process::getuid().as_raw());
    let (_, text, _) = fleet.list(&["-o", "prom"]);
    for line in ["kapo_up{name=\"b\"} 1", "kapo_child_ready{name=\"a\"} 0", "kapo_child_up{name=\"b\"} 1"] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
    let (_, text, _) = fleet.list(&["-o", "file-sd"]);
    let targets: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(targets[1]["labels"]["__unix_socket__"].as_str(), path.to_str());
    let (_, text, _) = fleet.list(&["-o", "file-sd", "--fleet", "host1:6670"]);
    let targets: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(targets[1]["targets"][0], "host1:6670");
    assert_eq!(targets[1]["labels"]["__metrics_path__"], "/i/b/metrics");
    // The command of b runs, that of a does not.
    let memory = all[1]["Memory"].as_u64().unwrap();
    assert!((100_000..1 << 30).contains(&memory), "{memory}");
    assert!(all[0]["Memory"].is_null(), "{all}");
}

#[test]
fn promtool_finds_the_metrics_clean() {
    let mut fleet = Fleet::new();
    fleet.start("a", &["supervise", "--wait", "60", "false"]);
    fleet.start("b", &["supervise", "--wait", "60", "true"]);
    fleet.wait_for(&["a failing", "b pausing"]);
    let (_, text, _) = fleet.list(&["-o", "prom"]);
    let tool =
        clean("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else { return };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_suspended_kapo_is_stuck_and_does_not_keep_others_waiting() {
    let mut fleet = Fleet::new();
    for at in 0..70 {
        fleet.start(&format!("s{at}"), &["run", "sleep", "60"]);
        fleet.kapos[at].signal(rustix::process::Signal::STOP.as_raw());
    }
    fleet.start("well", &["run", "sleep", "60"]);
    let began = now();
    let (code, states) = fleet.states(&["--timeout", "0.8", "--sort", "name"]);
    let stuck = states.iter().filter(|state| state.ends_with(" stuck")).count();
    assert_eq!((code, stuck, states[70].as_str()), (Some(1), 70, "well running"));
    assert!(began.elapsed().as_millis() < 5_000, "{:?}", began.elapsed());
}

#[test]
fn dead_sockets_are_removed_only_on_request() {
    let mut fleet = Fleet::new();
    fleet.start("well", &["run", "sleep", "60"]);
    for name in ["b", "c.sock"] {
        drop(UnixListener::bind(fleet.path(name)).unwrap());
    }
    fleet.wait_for(&["b dead", "c dead", "well running"]);
    assert_eq!(fleet.states(&[]).0, Some(1));
    assert!(fleet.path("b").exists() && fleet.path("c.sock").exists());
    let lock = File::open(fleet.folder.path()).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (code, _, said) = fleet.list(&["--prune"]);
    assert_eq!((code, said.starts_with("kapo: no socket was removed: ")), (Some(1), true), "{said}");
    drop(lock);
    assert_eq!(
        fleet.states(&["--prune"]),
        (Some(0), ["well running", "b removed", "c removed"].map(Into::into).into())
    );
    assert!(!fleet.path("b").exists() && !fleet.path("c.sock").exists());
    fleet.wait_for(&["well running"]);
}

/// Begins to listen only after `kapo ls` has been refused. Returns its output.
fn list_before_listen() -> String {
    let fleet = Fleet::new();
    let address = rustix::net::SocketAddrUnix::new(fleet.path("late")).unwrap();
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket(family, kind, None).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    let list = kapo(["ls"]).arg(fleet.folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = i32::try_from(list.id()).unwrap();
    // It sleeps until the next try. 'Z' means that the test was too slow.
    wait_for("it was refused", || matches!(process_state(pid), Some('S' | 'Z')));
    rustix::net::listen(&socket, 8).unwrap();
    std::thread::spawn(move || {
        if let Ok(accepted) = rustix::net::accept(&socket) {
            let _ = rustix::net::send(&accepted, b"no\n", rustix::net::SendFlags::NOSIGNAL);
        }
    });
    String::from_utf8(list.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn a_socket_that_listens_late_is_not_dead() {
    assert!((0..50).any(|_| list_before_listen().contains("late  foreign")));
}

/// Listens on a socket and serves each connection with `serve`.
fn foreign(path: &Path, serve: impl Fn(&mut UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            serve(&mut stream);
        }
    });
}

fn request(stream: &mut impl Read) {
    let _ = stream.read(&mut [0; 4096]);
}

#[test]
fn anything_but_a_kapo_is_foreign() {
    let fleet = Fleet::new();
    foreign(&fleet.path("html"), |stream| {
        request(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>");
    });
    foreign(&fleet.path("closes"), |_| {});
    foreign(&fleet.path("endless"), |stream| {
        request(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
        while stream.write_all(&[b'['; 65_536]).is_ok() {}
    });
    foreign(&fleet.path("no-http"), |stream| {
        let _ = stream.write_all(b"SSH-2.0-x\r\n");
        request(stream);
        request(stream);
    });
    foreign(&fleet.path("cut"), |stream| {
        request(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n[");
    });
    let _datagram = UnixDatagram::bind(fleet.path("datagram")).unwrap();
    let silent = UnixListener::bind(fleet.path("silent")).unwrap();
    let names = ["silent stuck", "closes foreign", "cut foreign", "datagram foreign", "endless foreign"];
    let expected: Vec<String> =
        names.into_iter().chain(["html foreign", "no-http foreign"]).map(Into::into).collect();
    assert_eq!(fleet.states(&["--timeout", "1"]), (Some(1), expected));
    drop(silent);
}

#[test]
fn a_socket_of_another_user_is_denied() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let mut fleet = Fleet::new();
    fleet.start("open", &["run", "sleep", "60"]);
    fleet.start("secret", &["run", "sleep", "60"]);
    fs::set_permissions(fleet.folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(fleet.path("open.sock"), Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(fleet.path("secret.sock"), Permissions::from_mode(0o600)).unwrap();
    let program = fleet.path("kapo");
    fs::copy(binary(), &program).unwrap();
    let list = |folder: &Path| {
        let mut command: Command = clean("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        run_to_the_end({
            command.arg(&program).arg("ls").arg(folder);
            command
        })
    };
    let (code, text, _) = list(fleet.folder.path());
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        (code, &rows[1][..2], &rows[2][..2]),
        (Some(1), &["secret", "denied"][..], &["open", "running"][..])
    );
    assert_eq!(rows[2].last(), Some(&"root"), "{text}");
    fs::create_dir_all(fleet.path("closed")).unwrap();
    fs::set_permissions(fleet.path("closed"), Permissions::from_mode(0o700)).unwrap();
    let (code, text, said) = list(&fleet.path("closed"));
    assert_eq!((code, text.as_str()), (Some(125), ""));
    assert!(said.starts_with("kapo: cannot open ") && said.ends_with(": Permission denied\n"), "{said}");
}

#[test]
fn files_that_are_no_sockets_are_left_out() {
    let mut fleet = Fleet::new();
    fleet.start("real", &["run", "sleep", "60"]);
    for at in 0..2_000 {
        File::create(fleet.path(&format!("file{at}"))).unwrap();
    }
    let fifo = (fleet.path("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, fifo.0, fifo.1, fifo.2, 0).unwrap();
    fs::create_dir(fleet.path("folder")).unwrap();
    symlink("real.sock", fleet.path("link.sock")).unwrap();
    symlink("nowhere", fleet.path("broken")).unwrap();
    let _unfinished = UnixListener::bind(fleet.path(".kapo0123456789abcdef")).unwrap();
    assert_eq!(fleet.states(&[]), (Some(0), vec!["real running".to_owned()]));
}

#[test]
fn names_cannot_forge_rows() {
    let mut fleet = Fleet::new();
    fleet.start("a\nb running\u{1b}[2K", &["run", "sleep", "60"]);
    let (code, text, _) = fleet.list(&[]);
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    assert!(text.contains("\na\\nb running\\u001b[2K  running  "), "{text}");
}

#[test]
fn a_folder_without_sockets_is_no_answer() {
    let fleet = Fleet::new();
    let said = format!("kapo: no socket in {}\n", fleet.folder.path().display());
    assert_eq!(fleet.list(&[]), (Some(3), String::new(), said.clone()));
    assert_eq!(fleet.list(&["-o", "json"]), (Some(3), "[]\n".to_owned(), said));
    let absent = fleet.path("absent");
    let mut command = kapo(["ls"]);
    command.env("KAPO_RUN_DIR", &absent);
    let said = format!("kapo: {}: No such file or directory\n", absent.display());
    assert_eq!(run_to_the_end(command), (Some(3), String::new(), said));
}

#[test]
fn the_default_folder_comes_from_the_environment() {
    let mut fleet = Fleet::new();
    fs::create_dir(fleet.path("kapo")).unwrap();
    fleet.start("kapo/own", &["run", "sleep", "60"]);
    for (variable, value) in [("KAPO_RUN_DIR", fleet.path("kapo")), ("XDG_RUNTIME_DIR", fleet.path(""))] {
        if variable == "XDG_RUNTIME_DIR" && Path::new("/run/kapo").exists() {
            continue;
        }
        let mut command = kapo(["ls"]);
        command.env(variable, value);
        let (code, text, _) = run_to_the_end(command);
        assert!(code == Some(0) && text.contains("own   running"), "{text}");
    }
}

#[test]
fn wrong_options_are_refused_in_one_line() {
    for (words, said) in [
        (&["-o", "file-sd", "--fleet", "host1"][..], "--fleet: 'host1' is not HOST:PORT"),
        (&["--fleet", "host1:1"][..], "--fleet needs the output format file-sd"),
        (&["-o", "yaml"][..], "--output: 'yaml' is not one of table, wide, json, prom, file-sd"),
        (&["--state", "ok,dead"], "--state: 'ok' is not one of flapping, failing, "),
        (&["--sort", ""], "--sort: '' is not one of state, name, start, restarts"),
        (&["--timeout", "0"], "--timeout: the time must be longer than 0"),
        (&["a", "b"], "unexpected argument 'b': ls takes only one DIR"),
        (&[""], "DIR: '' is not a path"),
    ] {
        let mut command = kapo(["ls"]);
        command.args(words);
        let (code, text, error) = run_to_the_end(command);
        assert_eq!((code, text.as_str(), error.lines().count()), (Some(2), "", 1), "{error}");
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn two_hundred_kapos_are_listed_in_one_sweep() {
    let mut fleet = Fleet::new();
    for at in 0..200 {
        fleet.start(&format!("w{at}"), &["run", "sleep", "60"]);
    }
    wait_for("all run", || {
        let (code, states) = fleet.states(&[]);
        code == Some(0) && states.len() == 200 && states.iter().all(|state| state.ends_with(" running"))
    });
}

#[test]
fn clients_find_a_kapo_by_its_name() {
    let fleet = Fleet::new();
    let mut job = kapo(["--quiet", "--port", "0", "--interface", "127.0.0.1", "--stdout", "--tail", "1K"]);
    job.args(["--name", "worker7", "run", "--wait", "60", "sh", "-c", "echo hello; exit 3"]);
    let _job = Kapo::launch({
        job.env("KAPO_RUN_DIR", fleet.folder.path());
        job
    });
    let ask = |words: &[&str]| {
        let mut command = kapo(words);
        command.env("KAPO_RUN_DIR", fleet.folder.path());
        run_to_the_end(command)
    };
    wait_for("the job has ended", || ask(&["wait", "worker7"]).0 == Some(3));
    assert_eq!(
        ask(&["check", "worker7"]),
        (Some(1), "not ready: HTTP 503: exited with code 3\n".to_owned(), String::new())
    );
    assert_eq!(ask(&["check", "--live", "worker7"]).0, Some(0));
    let (code, text, _) = ask(&["status", "worker7"]);
    assert!(code == Some(1) && text.starts_with("worker7: ended: exit 3\n"), "{text}");
    assert_eq!(ask(&["logs", "worker7"]).1, "hello\n");
    assert!(ask(&["ls"]).1.contains("worker7  failed "));
    let (code, _, said) = ask(&["status", "worker8"]);
    let path = fleet.path("worker8.sock");
    let expected = format!("kapo: cannot connect to {}: No such file or directory\n", path.display());
    assert_eq!((code, said), (Some(3), expected));
}

#[test]
fn changes_are_shown_while_the_folder_is_watched() {
    let mut fleet = Fleet::new();
    fleet.start("stays", &["run", "sleep", "60"]);
    let mut command = kapo(["ls", "--watch"]);
    command.arg(fleet.folder.path());
    let mut list = Kapo::launch(command);
    let shows = |list: &mut Kapo, row: &str| list.wait_for_stdout(row);
    shows(&mut list, "stays  running  ");
    fleet.start("new", &["supervise", "--wait", "60", "sh", "-c", "exit 3"]);
    shows(&mut list, "new   failing  ");
    fleet.kapos[1].signal(rustix::process::Signal::KILL.as_raw());
    shows(&mut list, "new   dead  ");
    let shown = list.stdout();
    assert_eq!(shown.lines().filter(|line| line.starts_with("stays")).count(), 1, "{shown}");
    drop(fleet);
    list.expect_exit(125);
    assert!(list.stderr().ends_with(": No such file or directory\n"), "{}", list.stderr());
}
