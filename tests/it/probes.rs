//! Tests of kapo's own probes (`--probe`) with real servers, sockets and programs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use rustix::net::{AddressFamily, SocketType, socket};

use crate::harness::{
    EMULATED, Kapo, clean, kapo_after, kapo_on_a_free_port, lives, now, run_to_the_end, wait_for,
};
use crate::tools::{Events, Line, OtherProcess, Programs, expect_no_wakeup};

/// Starts kapo with a command that sleeps and these options.
fn sleeping(options: &[&str]) -> Kapo {
    Kapo::start([&["run"], options, &["--", "sleep", "60"]].concat())
}

/// Serves `answers`, one for each connection, and returns the address and the requests.
fn server(answers: Vec<String>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap() == 0 {
                    break;
                }
                request.extend_from_slice(&byte);
            }
            // The test may have ended.
            let _ = sender.send(String::from_utf8(request).unwrap());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, requests)
}

fn http(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn a_python_server_is_probed_and_its_errors_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut python = clean("python3");
    let script = "import functools, http.server, sys\n\
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n\
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n\
        print(server.server_port, flush=True)\n\
        server.serve_forever()\n";
    python.args(["-c", script]).arg(folder.path());
    let mut python = OtherProcess::start(python);
    let port = python.read_line();
    let url = format!("http://localhost:{}/health?token=secret", port.trim());
    let kapo = sleeping(&["--probe", &url, "--probe-interval", "0.01"]);
    let answer = kapo.get("/readyz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "GET /health 404, 1 of 3\n"));
    let verbose = kapo.get("/healthz?verbose");
    assert!(verbose.body.contains("\n[-]probe failed: GET /health 404, "), "{verbose:?}");
    assert_eq!(kapo.get("/livez").status, 200);
    fs::write(folder.path().join("health"), "well").unwrap();
    wait_for("the result is renewed", || kapo.get("/readyz").status == 200);
    assert_eq!(
        kapo.get("/healthz?verbose").body,
        "[+]running ok\n[+]flapping ok\n[+]probe ok\nhealthz check passed\n"
    );
    let status = kapo.status();
    assert_eq!(status["Ready"], true);
    let probe = &status["Probes"][0];
    assert_eq!((&probe["Name"], &probe["Up"], &probe["Failures"]), (&"0".into(), &true.into(), &0.into()));
    python.kill_all();
    wait_for("the server is gone", || {
        kapo.get("/readyz").body.starts_with("GET /health Connection refused, ")
    });
}

#[test]
fn the_request_of_a_probe_is_complete_and_no_redirect_is_followed() {
    let elsewhere = "302 Found\r\nLocation: http://127.0.0.1:1/".to_owned();
    let (address, requests) =
        server(vec![http(&elsewhere), http("400 No"), http("503 No"), "SSH-2.0\r\n\r\n\r\n".to_owned()]);
    let kapo = sleeping(&["--probe", &format!("web=http://{address}/x?y"), "--probe-interval", "0.001"]);
    assert_eq!(kapo.get("/readyz").body, "ok");
    let request = requests.recv().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET /x?y HTTP/1.1\r\nUser-Agent: kapo-probe/{version}\r\nAccept: */*\r\nConnection: close\r\n\
         Host: {address}\r\n\r\n"
    );
    assert_eq!(request, expected);
    for reason in ["400", "503", "no HTTP answer"] {
        // The interval is over when the next request is received.
        wait_for("a new result", || kapo.get("/readyz").body.starts_with(&format!("web: GET /x {reason}, ")));
    }
}

#[test]
fn sockets_are_probed_by_connecting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let unix = UnixListener::bind(&path).unwrap();
    let words = [
        format!("--probe=tcp://127.0.0.1:{port}"),
        format!("--probe=tcp://localhost:{port}"),
        format!("--probe=file=unix:{}", path.display()),
        "--probe-interval=0.01".to_owned(),
    ];
    let kapo = sleeping(&words.each_ref().map(String::as_str));
    assert_eq!(kapo.get("/readyz").status, 200);
    drop((tcp, unix));
    let probes = "[-]probe failed: 0: connect: Connection refused, ";
    wait_for("all fail", || {
        let body = kapo.get("/readyz?verbose").body;
        body.contains(probes) && body.contains("probe failed: file: connect: Connection refused, ")
    });
    fs::remove_file(&path).unwrap();
    wait_for("the socket is missed", || {
        kapo.get("/readyz?verbose").body.contains("file: connect: No such file or directory, ")
    });
}

#[test]
fn a_unix_socket_is_asked_for_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 9];
            stream.read_exact(&mut request).unwrap();
            let status = if request.starts_with(b"GET /well") { "204 No Content" } else { "500 No" };
            stream.write_all(http(status).as_bytes()).unwrap();
        }
    });
    let probe = |name: &str| format!("--probe=unix:{}:/{name}", path.display());
    assert_eq!(sleeping(&[&probe("well")]).get("/readyz").status, 200);
    assert_eq!(sleeping(&[&probe("ill!")]).get("/readyz").body, "GET /ill! 500, 1 of 3\n");
}

#[test]
fn fifty_requests_share_one_run_of_a_probe() {
    let programs = Programs::new();
    let script = programs.script("probe", "#!/bin/sh\necho run >> \"$0.log\"\nsleep 0.5\n");
    let log = script.with_extension("log");
    let kapo = sleeping(&[&format!("--probe=exec:{}", script.display())]);
    let mut clients: Vec<Line> = (0..50).map(|_| Line::to(&kapo)).collect();
    clients.iter_mut().for_each(|client| client.send("/readyz"));
    assert!(clients.iter_mut().all(|client| client.answer().status == 200));
    for path in ["/healthz", "/metrics", "/", "/startupz", "/livez"] {
        assert_eq!(kapo.get(path).status, 200, "{path}");
    }
    assert_eq!(fs::read_to_string(log).unwrap(), "run\n");
}

#[test]
fn a_stream_of_events_begins_with_the_results() {
    let kapo = sleeping(&["--probe", "exec:true"]);
    let first = Events::of(&kapo).next().unwrap();
    let object = if first.is_array() { &first[0] } else { &first };
    assert_eq!((&object["Ready"], &object["Probes"][0]["Up"]), (&true.into(), &true.into()));
}

#[test]
fn a_hanging_program_is_killed_and_nobody_waits_longer() {
    let programs = Programs::new();
    let script = programs.script("hang", "#!/bin/sh\nsleep 1000 &\necho $! > \"$0.pid\"\nwait\n");
    let timeout = if EMULATED { "--probe-timeout=4" } else { "--probe-timeout=0.5" };
    let kapo = sleeping(&[&format!("--probe=exec:{}", script.display()), timeout]);
    let mut waiting = Line::to(&kapo);
    waiting.send("/readyz");
    let mut other = Line::to(&kapo);
    assert_eq!(other.ask("/livez").status, 200);
    assert!(waiting.is_silent());
    let begin = now();
    assert_eq!(waiting.answer().body, "timed out, 1 of 3\n");
    assert!(begin.elapsed().as_secs() < 5);
    let left = fs::read_to_string(script.with_extension("pid")).unwrap().trim().parse().unwrap();
    wait_for("the rest of its group is gone", || !lives(left));
}

#[test]
fn programs_may_fork_and_print_without_end() {
    let programs = Programs::new();
    let print = programs.script(
        "print",
        "#!/bin/sh\nhead -c 10000000 /dev/zero | tr '\\0' x\necho\necho full disk >&2\nexit 1\n",
    );
    let fork = programs.script("fork", "#!/bin/sh\nsleep 1000 &\necho $! > \"$0.pid\"\n");
    let kapo = sleeping(&[
        &format!("--probe=print=exec:{}", print.display()),
        &format!("--probe=fork=exec:{}", fork.display()),
        "--probe=env=exec:sh -c exit",
        "--probe=code=exec:false",
        "--probe=none=exec:no-such-program",
        "--probe-timeout=30",
    ]);
    let body = kapo.get("/readyz?verbose").body;
    let failed: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("[-]probe failed: ")).collect();
    let expected =
        ["print: full disk, 1 of 3", "code: exit code 1, 1 of 3", "none: no-such-program not found, 1 of 3"];
    assert_eq!(failed, expected);
    let left = fs::read_to_string(fork.with_extension("pid")).unwrap().trim().parse().unwrap();
    wait_for("what it left behind is gone", || !lives(left));
    let metrics = kapo.get("/metrics").body;
    assert!(metrics.contains("\nkapo_probe_up{probe=\"fork\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nkapo_probe_failures_total{probe=\"print\"} 1\n"), "{metrics}");
    let is_quick = metrics.contains("\nkapo_probe_duration_seconds{probe=\"code\"} 0.0");
    assert!(is_quick || EMULATED, "{metrics}");
    assert!(metrics.contains("\nkapo_child_processes 1\n"), "{metrics}");
}

#[test]
fn a_probe_is_neither_an_orphan_nor_part_of_the_command() {
    let kapo =
        sleeping(&["--probe", "exec:true", "--probe", "p=exec:sh -c true", "--probe-interval", "0.001"]);
    for _ in 0..5 {
        assert_eq!(kapo.get("/readyz").status, 200);
    }
    let metrics = kapo.get("/metrics?name[]=kapo_orphans_reaped_total").body;
    assert!(metrics.ends_with("\nkapo_orphans_reaped_total 0\n"), "{metrics}");
    assert!(!kapo.stderr().contains("leftover"), "{}", kapo.stderr());
}

#[test]
fn under_report_probes_do_not_wake_kapo() {
    let kapo = sleeping(&["--probe", "exec:true", "--probe", "tcp://127.0.0.1:1", "--probe-interval", "0.1"]);
    assert_eq!(kapo.get("/readyz").status, 503);
    expect_no_wakeup(kapo.pid());
}

#[test]
fn connections_do_not_take_the_descriptors_of_probes() {
    // Connections to a listener that never accepts succeed, and the attempts last until the timeout.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let probe = format!("--probe=http://{}/", listener.local_addr().unwrap());
    let mut words = vec!["run", "--probe-timeout=1"];
    words.extend([probe.as_str(); 32]);
    words.extend(["--", "sleep", "60"]);
    let kapo = Kapo::launch(kapo_after("ulimit -n 96", words)).listening();
    // Many peers, because the number of connections from one peer has a lower limit.
    let silent = |host: u8| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 1, host], 0))).unwrap();
        rustix::net::connect(&socket, &kapo.address()).unwrap();
        socket
    };
    let _silent: Vec<_> = (1..=96).map(silent).collect();
    let answer = kapo.get("/readyz?verbose");
    assert_eq!(answer.body.matches("GET / timed out, 1 of 3").count(), 32, "{}", answer.body);
}

#[test]
fn a_drain_ends_the_timer_of_the_probes() {
    let options = ["--drain=600", "--probe=exec:true", "--unhealthy=stop", "--probe-interval=0.1"];
    let kapo = sleeping(&options);
    kapo.wait_for_status("it has passed", |status| status["Ready"] == true);
    kapo.signal(15);
    kapo.wait_for_status("the drain", |status| status["StopsAt"] != "0001-01-01T00:00:00Z");
    expect_no_wakeup(kapo.pid());
}

#[test]
fn under_stop_an_unhealthy_command_is_stopped_and_started_again() {
    let programs = Programs::new();
    let script = programs.script("probe", "#!/bin/sh\necho run >> \"$0.log\"\nexit 1\n");
    let log = script.with_extension("log");
    let probe = format!("--probe=ill=exec:{}", script.display());
    let options = ["--unhealthy=stop", "--probe-interval=0.1", "--probe-failures=2"];
    let words = [&["supervise", "--wait=0.1", &probe][..], &options, &["--", "sleep", "60"]].concat();
    let kapo = Kapo::start(words);
    let status = kapo.wait_for_status("it was started again", |status| status["Restarts"] == 1);
    assert_eq!(status["LastRun"]["Reason"], "unhealthy");
    let stderr = kapo.stderr();
    assert!(
        stderr.contains("level=warn msg=\"unhealthy\"") && stderr.contains("exit code 1, 2 of 2"),
        "{stderr}"
    );
    assert!(fs::read_to_string(log).unwrap().lines().count() >= 2);
}

#[test]
fn a_run_that_its_probes_have_ended_exits_with_1_at_least() {
    let folder = tempfile::tempdir().unwrap();
    for (script, code) in
        [("trap 'exit 0' TERM; : > $0; while :; do sleep 0.01; done", 1), (": > $0; exec sleep 60", 143)]
    {
        let ill = folder.path().join(code.to_string()).display().to_string();
        let probe = format!("--probe=exec:test ! -e {ill}");
        let options = [&probe, "--unhealthy=stop", "--probe-interval=0.05", "--probe-failures=1"];
        let words = [&["run"][..], &options, &["--", "sh", "-c", script, &ill]].concat();
        Kapo::start(words).expect_exit(code);
    }
}

#[test]
fn failures_of_a_stopped_command_do_not_count() {
    let answers = std::iter::once("200 OK").chain(std::iter::repeat_n("500 No", 1_000));
    let (address, requests) = server(answers.map(http).collect());
    let probe = format!("--probe=http://{address}/");
    let kapo = sleeping(&[&probe, "--probe-interval=0.2"]);
    let command = kapo.command_pid();
    kapo::sys::signal::send(command, 19).unwrap();
    wait_for("it is stopped", || crate::harness::process_state(command) == Some('T'));
    let mut asked = 0;
    wait_for("it was probed again", || {
        assert_eq!(kapo.get("/readyz").status, 200);
        asked += requests.try_iter().count();
        asked > 1
    });
    kapo::sys::signal::send(command, 18).unwrap();
    wait_for("failures count", || kapo.get("/readyz").body.starts_with("GET / 500, "));
}

#[test]
fn the_end_of_a_run_ends_its_probes_and_answers_requests() {
    let programs = Programs::new();
    let script = programs.script("hang", "#!/bin/sh\necho $$ >> \"$0.pid\"\nexec sleep 1000\n");
    let file = script.with_extension("pid");
    let probe = format!("--probe=exec:{}", script.display());
    let kapo = Kapo::start(["supervise", "--wait=60", &probe, "--probe-timeout=1000", "--", "sleep", "60"]);
    let mut waiting = Line::to(&kapo);
    waiting.send("/readyz");
    let pid = || fs::read_to_string(&file).ok()?.lines().last()?.parse::<i32>().ok();
    wait_for("the probe runs", || pid().is_some());
    let hanging = pid().unwrap();
    // The document would wait for the probe.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", kapo.pid())).unwrap();
    let command =
        children.split_whitespace().map(|pid| pid.parse().unwrap()).find(|pid| *pid != hanging).unwrap();
    kapo::sys::signal::send(command, 9).unwrap();
    let answer = waiting.answer();
    assert!(answer.status == 503 && answer.body.contains("killed by SIGKILL"), "{answer:?}");
    wait_for("the probe is gone", || !lives(hanging));
    assert_eq!(kapo.get("/healthz").status, 503);
}

#[test]
fn startupz_is_sticky_in_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let well = folder.path().join("well");
    let probe = format!("--probe=exec:test -e {}", well.display());
    let words = ["supervise", "--wait=0.1", &probe, "--probe-interval=0.01", "--", "sleep", "60"];
    let kapo = Kapo::start(words);
    let startup = |status: u16| kapo.get("/startupz").status == status;
    assert_eq!(kapo.get("/startupz").body, "has not been ready in this run\n");
    fs::write(&well, "").unwrap();
    wait_for("it has started", || startup(200));
    fs::remove_file(&well).unwrap();
    wait_for("it fails", || kapo.get("/readyz").status == 503);
    assert!(startup(200));
    kapo::sys::signal::send(kapo.command_pid(), 9).unwrap();
    let after = kapo.wait_for_status("the next run has begun", |status| status["Restarts"] == 1);
    assert_eq!((&after["Ready"], &after["Probes"][0]["Up"]), (&false.into(), &false.into()));
    wait_for("it runs", || kapo.get("/startupz").body == "has not been ready in this run\n");
}

#[test]
fn without_probes_startupz_follows_the_start() {
    let kapo = Kapo::start(["run", "--wait", "60", "true"]);
    kapo.wait_for_status("it has ended", |status| status["Reason"] == "success");
    assert_eq!(kapo.get("/startupz").body, "ended with success\n");
    let kapo = sleeping(&[]);
    assert_eq!((kapo.get("/startupz").status, kapo.status()["Probes"].is_null()), (200, true));
}

#[test]
fn the_variable_has_one_probe_in_each_line() {
    let mut command = kapo_on_a_free_port(["run", "sleep", "60"]);
    command.env("KAPO_PROBE", "a=exec:true\n\n b=exec:test 1, = 2\n");
    let kapo = Kapo::launch(command).listening();
    assert_eq!(
        kapo.get("/readyz").body,
        "b: test: extra argument '2', 1 of 3\n".replace("test: extra argument '2'", &reason_of_test())
    );
}

/// Returns what test(1) of this machine says about its wrong arguments.
fn reason_of_test() -> String {
    let output = Command::new("test").args(["1,", "=", "2"]).output().unwrap();
    match String::from_utf8(output.stderr).unwrap().trim() {
        "" => format!("exit code {}", output.status.code().unwrap()),
        text => text.to_owned(),
    }
}

#[test]
fn a_probe_of_kapo_itself_is_refused() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kapo").display().to_string();
    for (interface, probe, own) in [
        ("0.0.0.0", format!("http://127.0.0.1:{port}/readyz"), format!("0.0.0.0:{port}")),
        ("0.0.0.0", format!("tcp://localhost:{port}"), format!("0.0.0.0:{port}")),
        ("127.0.0.1", format!("tcp://[::ffff:127.0.0.1]:{port}"), format!("127.0.0.1:{port}")),
        (socket.as_str(), format!("unix:{socket}"), socket.clone()),
        ("@kapo-probes-test", "unix:@kapo-probes-test:/".to_owned(), "@kapo-probes-test".to_owned()),
    ] {
        let words = ["run", "--port", &port, "--interface", interface, "--probe", &probe, "true"];
        let (code, stdout, stderr) = run_to_the_end(crate::harness::kapo(words));
        let expected =
            format!("kapo: --probe: {own} is kapo's own address, which always answers; check the command\n");
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(2), "", expected.as_str()), "{probe}");
    }
}
