//! Tests of the name of a kapo and of its socket in `--run-dir`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Answer, Kapo, LIMIT, kapo, kapo_on_a_free_port, run_to_the_end, unused_name, wait_for};

fn get(socket: &Path, path: &str) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    Answer::parse(&answer)
}

fn name_at(socket: &Path) -> String {
    let document: Value = serde_json::from_str(&get(socket, "/").body).unwrap();
    document[0]["Name"].as_str().unwrap().to_owned()
}

fn files(folder: &TempDir) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder.path()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn in_folder(folder: &TempDir, words: &[&str]) -> Command {
    let mut command = kapo_on_a_free_port(words);
    command.env("KAPO_RUN_DIR", folder.path());
    command
}

#[test]
fn the_name_is_in_the_document_the_metrics_and_the_log() {
    let folder = TempDir::new().unwrap();
    let mut kapo = Kapo::launch(in_folder(&folder, &["--name", "web-1", "run", "sleep", "60"])).listening();
    let socket = folder.path().join("web-1.sock");
    kapo.wait_for("it listens in the folder", |_| socket.exists());
    assert_eq!(kapo.status()["Name"], "web-1");
    assert_eq!(name_at(&socket), "web-1");
    let version = env!("CARGO_PKG_VERSION");
    let sample = format!("\nkapo_build_info{{version=\"{version}\",name=\"web-1\"}} 1\n");
    assert!(get(&socket, "/metrics").body.contains(&sample));
    kapo.signal(15);
    kapo.expect_exit(143);
    let log = kapo.stderr();
    assert!(log.lines().count() >= 4 && log.lines().all(|line| line.ends_with(" name=web-1")), "{log}");
    assert_eq!(files(&folder), BTreeSet::new());
}

#[test]
fn without_options_the_log_has_no_name() {
    let mut kapo = Kapo::start(["run", "/bin/sleep", "60"]);
    assert_eq!(kapo.status()["Name"], "sleep");
    kapo.signal(15);
    kapo.expect_exit(143);
    assert!(!kapo.stderr().contains("name="), "{}", kapo.stderr());
}

#[test]
fn a_second_kapo_of_a_name_adds_its_pid() {
    let folder = TempDir::new().unwrap();
    let start = || Kapo::launch(in_folder(&folder, &["supervise", "sleep", "60"])).listening();
    let (mut first, mut second) = (start(), start());
    let longer = format!("sleep.{}", second.pid());
    assert_eq!(name_at(&folder.path().join("sleep.sock")), "sleep");
    assert_eq!(name_at(&folder.path().join(format!("{longer}.sock"))), longer);
    assert_eq!(second.status()["Name"], longer.as_str());
    for kapo in [&mut first, &mut second] {
        kapo.signal(15);
        kapo.expect_exit(143);
    }
    assert_eq!(files(&folder), BTreeSet::new());
}

#[test]
fn the_socket_of_a_killed_kapo_is_replaced() {
    let folder = TempDir::new().unwrap();
    let words = ["--name", "job", "run", "--orphan-signal", "KILL", "sleep", "60"];
    let mut killed = Kapo::launch(in_folder(&folder, &words)).listening();
    killed.signal(9);
    killed.expect_signal(9);
    assert_eq!(files(&folder), BTreeSet::from(["job.sock".to_owned()]));
    let kapo = Kapo::launch(in_folder(&folder, &words)).listening();
    assert_eq!(kapo.status()["Name"], "job");
    assert_eq!(name_at(&folder.path().join("job.sock")), "job");
    assert_eq!(files(&folder).len(), 1);
}

#[test]
fn a_hundred_kapos_at_once_have_a_socket_each() {
    let folder = TempDir::new().unwrap();
    // A dead socket is there, which one of them replaces.
    drop(UnixListener::bind(folder.path().join("cat.sock")).unwrap());
    let mut kapos: Vec<_> = (0..100)
        .map(|_| {
            let mut command = kapo(["-q", "-i", &unused_name(), "run", "cat"]);
            command.env("KAPO_RUN_DIR", folder.path());
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    let visible = || -> BTreeSet<String> {
        files(&folder).into_iter().filter(|name| !name.starts_with(".kapo")).collect()
    };
    wait_for("a hundred sockets", || visible().len() == 100);
    let mut named: BTreeSet<String> = kapos.iter().map(|child| format!("cat.{}.sock", child.id())).collect();
    named.insert("cat.sock".to_owned());
    for socket in visible() {
        assert!(named.contains(&socket), "{socket}");
        assert_eq!(format!("{}.sock", name_at(&folder.path().join(&socket))), socket);
    }
    for kapo in &mut kapos {
        drop(kapo.stdin.take());
        assert!(kapo.wait().unwrap().success());
    }
    assert_eq!(files(&folder), BTreeSet::new());
}

#[test]
fn a_file_in_the_way_stays_and_the_pid_is_added() {
    let folder = TempDir::new().unwrap();
    let (file, link) = (folder.path().join("a.sock"), folder.path().join("b.sock"));
    std::fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
    for name in ["a", "b"] {
        let kapo = Kapo::launch(in_folder(&folder, &["--name", name, "run", "sleep", "60"])).listening();
        assert_eq!(kapo.status()["Name"], format!("{name}.{}", kapo.pid()).as_str());
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(link.is_symlink());
}

#[test]
fn a_missing_folder_prevents_the_start() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("none");
    let path = missing.to_str().unwrap();
    let (code, _, stderr) =
        run_to_the_end(kapo_on_a_free_port(["--run-dir", path, "run", "touch", &format!("{path}x")]));
    let line = format!("kapo: cannot bind {path}/touch.sock: No such file or directory\n");
    assert_eq!((code, stderr), (Some(125), line));
    assert_eq!(files(&folder), BTreeSet::new());
}

#[test]
fn the_socket_can_be_the_only_one_or_be_missing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut only = Kapo::launch(kapo(["-i", "none", "--run-dir", path, "run", "sleep", "60"]));
    let socket = folder.path().join("sleep.sock");
    only.wait_for("it listens in the folder", |_| socket.exists());
    assert_eq!(name_at(&socket), "sleep");
    assert_eq!(only.addresses(), [socket.to_str().unwrap()]);
    let missing = format!("{path}/none");
    let words = ["-i", "none", "--bind-failure", "warn", "--run-dir", &missing, "run", "sh", "-c", "exit 7"];
    let (code, _, stderr) = run_to_the_end(kapo(words));
    assert_eq!(code, Some(7), "{stderr}");
    assert!(
        stderr.contains("none/sh.sock") && stderr.lines().all(|line| line.ends_with(" name=sh")),
        "{stderr}"
    );
}

#[test]
fn watch_has_a_name_and_a_socket_too() {
    let folder = TempDir::new().unwrap();
    let kapo = Kapo::launch(in_folder(&folder, &["watch", "/no/such/daemon"])).listening();
    assert_eq!(name_at(&folder.path().join("daemon.sock")), "daemon");
    kapo.signal(15);
}

#[test]
fn clients_ignore_the_folder() {
    let folder = TempDir::new().unwrap();
    let kapo = Kapo::start(["run", "sleep", "60"]);
    let mut check =
        crate::harness::kapo(["-i", "127.0.0.1", "-p", &kapo.address().port().to_string(), "check"]);
    check.env("KAPO_RUN_DIR", folder.path().join("none")).env("KAPO_NAME", "x");
    assert_eq!(run_to_the_end(check).0, Some(0));
}
