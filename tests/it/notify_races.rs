//! Tests of notifications of the command under `--notify` at moments at which they are easily missed.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use serde_json::json;

use crate::harness::{Kapo, before_exec, clean, kapo_on_a_free_port};

/// The variable with the text that [`speaker`] sends.
pub(crate) const WORDS: &str = "TEST_WORDS";

/// Returns a socket, and the address in `NOTIFY_SOCKET`.
fn socket_to(name: &str) -> (UnixDatagram, SocketAddr) {
    let address = match name.trim().strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name.trim()),
    };
    (UnixDatagram::unbound().unwrap(), address.unwrap())
}

/// Not a test, but a program that other tests run: it sends a notification and exits.
#[test]
fn speaker() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let (socket, address) = socket_to(&std::env::var("NOTIFY_SOCKET").unwrap());
    socket.send_to_addr(words.as_bytes(), &address).unwrap();
    std::process::exit(0);
}

/// Returns a script that can run `"$0" --exact notify_races::speaker`.
fn speaking(script: &str) -> [String; 5] {
    let program = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
    ["--".to_owned(), "sh".to_owned(), "-c".to_owned(), script.to_owned(), program]
}

fn run_speaking(options: &[&str], script: &str) -> Command {
    let mut command = kapo_on_a_free_port(["run", "--notify"]);
    command.args(options).args(speaking(script));
    command
}

#[test]
fn a_notification_counts_if_its_sender_exits_at_once() {
    let script =
        format!("({WORDS}=READY=1 \"$0\" --exact notify_races::speaker >/dev/null &); exec sleep 60");
    for _ in 0..12 {
        let mut command = run_speaking(&[], &script);
        // On one CPU, the notifier has sent and exited before kapo wakes up.
        before_exec(&mut command, || {
            let mut one = rustix::thread::CpuSet::new();
            one.set(0);
            // If CPU 0 is not available, the test runs without this restriction.
            let _ = rustix::thread::sched_setaffinity(None, &one);
            Ok(())
        });
        let kapo = Kapo::launch(command).listening();
        kapo.wait_for_status("it is ready", |status| status["Ready"] == json!(true));
    }
}

#[test]
fn a_trigger_right_before_the_end_signals_no_other_process() {
    let script = format!("{WORDS}=WATCHDOG=trigger exec \"$0\" --exact notify_races::speaker");
    for _ in 0..5 {
        let kapo = Kapo::launch(run_speaking(&["--wait", "1m"], &script)).listening();
        let status = kapo.wait_for_status("it has ended", |status| status["Pid"] == 0);
        assert_eq!(status["Reason"], "watchdog", "{status}");
    }
}

#[test]
fn a_sender_outside_the_pid_namespace_does_not_count() {
    let inner = run_speaking(&[], "echo $NOTIFY_SOCKET; exec sleep 60");
    let mut command = clean("unshare");
    command
        .args(["--fork", "--kill-child", "--pid", "--mount-proc"])
        .arg(inner.get_program())
        .args(inner.get_args());
    let mut probe = Command::new("unshare");
    if !probe.args(["--fork", "--pid", "--mount-proc", "true"]).output().is_ok_and(|it| it.status.success()) {
        eprintln!("skipped: no PID namespace can be made here");
        return;
    }
    let mut kapo = Kapo::launch(command).listening();
    kapo.wait_for("it names its socket", |kapo| kapo.stdout().ends_with('\n'));
    let (socket, address) = socket_to(&kapo.stdout());
    // Far more datagrams than fit into the queue, so kapo has read some of them.
    for _ in 0..1_000 {
        socket.send_to_addr(b"READY=1\nSTATUS=from outside", &address).unwrap();
    }
    let status = kapo.status();
    assert_eq!((&status["Ready"], &status["StatusText"]), (&json!(false), &json!("")));
}
