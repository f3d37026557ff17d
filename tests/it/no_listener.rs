//! Tests of a job that runs without its port: `--interface none` and `--bind-failure warn`.

use std::net::TcpListener;

use crate::harness::{kapo, run_to_the_end, wait_for};

#[test]
fn without_an_interface_no_socket_is_open() {
    // Descriptors 0 to 2 may be sockets of the test runner.
    let script = "ls -l /proc/$PPID/fd | grep ' [3-9] .*socket:'; exit 3";
    for words in [
        &["--interface", "none", "run"][..],
        &["--interface", "none", "run", "--idle-exit", "0"],
        &["--interface", "none", "supervise", "--max-restarts", "1", "--wait", "0"],
    ] {
        let mut command = kapo(words);
        command.args(["sh", "-c", script]);
        let (code, stdout, stderr) = run_to_the_end(command);
        assert_eq!((code, stdout.as_str()), (Some(3), ""), "{words:?}: {stderr}");
        assert!(stderr.contains("msg=\"exited\"") && !stderr.contains("listening"), "{stderr}");
    }
}

#[test]
fn clients_say_that_nothing_listens() {
    let why = "--interface none is no address to query; give a URL\n";
    for (words, code, prefix) in [
        (&["check"][..], 1, ""),
        (&["wait"], 125, "kapo: "),
        (&["wait", "--ready"], 125, "kapo: "),
        (&["status"], 3, "kapo: "),
        (&["logs"], 3, "kapo: "),
    ] {
        let mut command = kapo(words);
        command.env("KAPO_INTERFACE", "none");
        let (ended, stdout, stderr) = run_to_the_end(command);
        assert_eq!((ended, stdout + &stderr), (Some(code), format!("{prefix}{why}")), "{words:?}");
    }
}

#[test]
fn a_taken_port_does_not_prevent_the_job() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = |mode: &str| {
        run_to_the_end(kapo([
            "-q",
            "-i",
            "127.0.0.1",
            "-p",
            &port,
            "--bind-failure",
            mode,
            "run",
            "echo",
            "ran",
        ]))
    };
    let (code, stdout, stderr) = run("warn");
    assert_eq!((code, stdout.as_str()), (Some(0), "ran\n"), "{stderr}");
    let why = format!(
        "level=warn msg=\"not listening\" error=\"cannot bind 127.0.0.1:{port}: Address already in use\"\n"
    );
    assert!(stderr.ends_with(&why) && stderr.lines().count() == 1, "{stderr}");
    let why = format!("kapo: cannot bind 127.0.0.1:{port}: Address already in use\n");
    assert_eq!(run("exit"), (Some(125), String::new(), why));
}

#[test]
fn a_job_without_its_port_is_reachable_at_the_side_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command =
        kapo(["-b", "-i", "127.0.0.1", "-p", &port, "--bind-failure", "warn", "run", "sleep", "60"]);
    let mut kapo = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let mut side = String::new();
    wait_for("kapo listens on the side port", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.ends_with("socket=sidebind"));
        let address = line.and_then(|line| line.split_once("address=")?.1.split(' ').next());
        side = address.unwrap_or_default().to_owned();
        !side.is_empty()
    });
    let (code, ..) = run_to_the_end(crate::harness::kapo(["check", "--live", &format!("http://{side}")]));
    rustix::process::kill_process(rustix::process::Pid::from_child(&kapo), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(kapo.wait().unwrap().code(), Some(143));
    assert_eq!(code, Some(0));
}
