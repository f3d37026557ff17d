//! Tests of sockets that kapo inherits instead of binding its own: from systemd (LISTEN_FDS), from inetd (stdin), and
//! the side port.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Answer, Kapo, LIMIT, before_exec, binary, clean, kapo, kapo_on_a_free_port, now, process_state,
    run_to_the_end, wait_for,
};
use crate::tools::{Gate, Line, descriptors};

/// Returns kapo with these sockets from descriptor 3 on, and with its own pid in LISTEN_PID.
pub(crate) fn handed<'a>(sockets: impl IntoIterator<Item = &'a dyn AsFd>, words: &[&str]) -> Command {
    let sockets: Vec<OwnedFd> = sockets
        .into_iter()
        // A number that does not collide with 3 and those after it.
        .map(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 100).unwrap())
        .collect();
    let numbers: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let mut script: String =
        numbers.iter().zip(3..).map(|(from, to)| format!("exec {to}<&{from} {from}<&-\n")).collect();
    script.push_str(&format!("LISTEN_PID=$$ LISTEN_FDS=${{FDS-{}}} exec \"$@\"", numbers.len()));
    // Not every sh supports descriptor numbers above 9.
    let mut command = clean("bash");
    command.args(["-c", &script, "bash"]).arg(binary()).args(words);
    before_exec(&mut command, move || {
        for socket in &sockets {
            rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    });
    command
}

pub(crate) fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Reads one answer that ends with the connection.
fn read_answer(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::parse(&bytes)
}

const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

fn ask(mut stream: impl Read + Write) -> Answer {
    stream.write_all(CLOSING).unwrap();
    read_answer(stream)
}

fn object(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut document: Value = serde_json::from_str(&answer.body).unwrap();
    document[0].take()
}

/// Returns both ends of a TCP connection.
pub(crate) fn connection() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn sockets_of_every_kind_are_served_and_logged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let (tcp, address) = listener();
    let six = TcpListener::bind("[::1]:0").unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let mut command =
        handed([&tcp as &dyn AsFd, &six, &unix], &["--socket-activation", "run", "sleep", "60"]);
    command.env("LISTEN_FDNAMES", "web::with a blank");
    let mut kapo = Kapo::launch(command).at(&address);
    assert_eq!(object(&kapo.get("/"))["Command"], "sleep");
    assert_eq!(object(&ask(TcpStream::connect(six.local_addr().unwrap()).unwrap()))["Command"], "sleep");
    assert_eq!(object(&ask(UnixStream::connect(&path).unwrap()))["Command"], "sleep");
    let log = kapo.stderr();
    for line in [
        format!("msg=\"listening\" address={address} socket=web\n"),
        format!("msg=\"listening\" address={} socket=unknown\n", six.local_addr().unwrap()),
        format!("msg=\"listening\" address={} socket=\"with a blank\"\n", path.display()),
    ] {
        assert!(log.contains(&line), "{line} {log}");
    }
    // The command inherits none of the sockets and none of the variables.
    let command = kapo.command_pid();
    let open = descriptors(command);
    assert!(open.len() >= 3 && !open.iter().any(|link| link.contains("socket:")), "{open:?}");
    let environment = std::fs::read(format!("/proc/{command}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(!environment.contains("LISTEN_"), "{environment}");
    // An inherited socket file is not removed, and kapo does not bind its own port.
    assert!(!log.contains(":6666"), "{log}");
    kapo.signal(15);
    kapo.expect_exit(143);
    assert!(path.exists());
}

#[test]
fn a_connection_before_the_start_of_kapo_is_answered() {
    let (tcp, address) = listener();
    let mut early = TcpStream::connect(&address).unwrap();
    early.set_read_timeout(Some(LIMIT)).unwrap();
    early.write_all(CLOSING).unwrap();
    let _kapo = Kapo::launch(handed([&tcp as &dyn AsFd], &["-s", "run", "sleep", "60"]));
    let status = object(&read_answer(early));
    // The command is started before the first request is answered.
    assert_eq!((&status["Status"], &status["Ready"]), (&json!("running"), &json!(true)), "{status}");
}

/// The job may have ended before the loop first polls the listener, and a job that cannot be executed always has. The
/// connection then stayed in the queue and started the next instance.
#[test]
fn the_connection_that_starts_kapo_is_answered_by_that_instance() {
    for (job, code, reason) in [
        (&["true"][..], 0, "success"),
        (&["sh", "-c", "exit 3"], 3, "exit-code"),
        (&["/nonexistent"], 127, "exec-failed"),
        (&["/etc/passwd"], 126, "exec-failed"),
    ] {
        for round in 0..20 {
            let (tcp, address) = listener();
            let mut early = TcpStream::connect(&address).unwrap();
            early.set_read_timeout(Some(LIMIT)).unwrap();
            early.write_all(CLOSING).unwrap();
            let words = ["-q", "-s", "run"];
            let mut kapo = Kapo::launch(handed([&tcp as &dyn AsFd], &[&words[..], job].concat()));
            kapo.expect_exit(code);
            tcp.set_nonblocking(true).unwrap();
            let left = tcp.accept().map_err(|e| e.kind());
            assert_eq!(left.err(), Some(std::io::ErrorKind::WouldBlock), "{job:?}, round {round}");
            let status = object(&read_answer(early));
            // An answer before the end shows that the job runs.
            if status["Status"] == "running" {
                assert_ne!(reason, "exec-failed");
            } else {
                assert_eq!(
                    (&status["ExitCode"], &status["Reason"]),
                    (&json!(code), &json!(reason)),
                    "{job:?}"
                );
            }
        }
    }
}

/// Each of these connections would have started kapo alone. A readiness probe among them reports the failed start.
#[test]
fn all_connections_that_wait_at_the_start_are_answered() {
    let (tcp, address) = listener();
    let early: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let mut kapo = Kapo::launch(handed([&tcp as &dyn AsFd], &["-q", "-s", "run", "/nonexistent"]));
    for stream in early {
        let answer = read_answer(stream);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.body.contains("could not be executed"), "{answer:?}");
    }
    kapo.expect_exit(127);
}

/// The request comes later than the end of the job, as from a client on a busy machine.
#[test]
fn a_request_that_comes_after_the_end_of_the_job_is_answered() {
    let (tcp, address) = listener();
    let early = TcpStream::connect(&address).unwrap();
    early.set_read_timeout(Some(LIMIT)).unwrap();
    let mut kapo = Kapo::launch(handed([&tcp as &dyn AsFd], &["-s", "run", "sh", "-c", "exit 4"]));
    kapo.wait_for("the job has ended", |kapo| kapo.stderr().contains("msg=\"exited\""));
    let ended = now();
    wait_for("a while has passed", || ended.elapsed() > Duration::from_millis(400));
    assert_eq!(object(&ask(early))["ExitCode"], 4);
    kapo.expect_exit(4);
}

#[test]
fn a_shared_blocking_listener_does_not_block_kapo() {
    let (tcp, address) = listener();
    let kapo = Kapo::launch(handed([&tcp as &dyn AsFd], &["-s", "run", "sleep", "60"])).at(&address);
    // Another process accepts the connections.
    for _ in 0..50 {
        drop(TcpStream::connect(&address).unwrap());
        let _ = tcp.accept();
    }
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn a_listener_that_was_shut_down_is_logged_once() {
    let (shared, _) = listener();
    let (other, address) = listener();
    let words = ["--socket-activation", "run", "sleep", "60"];
    let kapo = Kapo::launch(handed([&shared as &dyn AsFd, &other], &words)).listening().at(&address);
    rustix::net::shutdown(&shared, rustix::net::Shutdown::Both).unwrap();
    let told = |kapo: &Kapo| kapo.stderr().matches("level=error msg=\"listener failed\"").count();
    wait_for("it is told", || told(&kapo) == 1);
    let (begin, before) = (now(), crate::idle::cpu_ticks(kapo.pid()));
    wait_for("some time has passed", || begin.elapsed() > Duration::from_secs(1));
    assert_eq!(told(&kapo), 1, "{}", kapo.stderr());
    assert!(crate::idle::cpu_ticks(kapo.pid()) - before <= 1);
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn a_connection_is_answered_even_when_the_job_ends_at_once() {
    for words in [&["-s", "run", "true"][..], &["-s", "run", "sh", "-c", "exit 4"]] {
        let (client, server) = connection();
        let mut command = handed([&server as &dyn AsFd], words);
        command.env("LISTEN_FDNAMES", "connection");
        let mut kapo = Kapo::launch(command);
        drop(server);
        kapo.wait_for("the job has ended", |kapo| kapo.stderr().contains("msg=\"exited\""));
        // The request comes only now, later than kapo waits for a silent connection.
        let ended = now();
        wait_for("a while has passed", || ended.elapsed() > Duration::from_millis(400));
        let status = object(&ask(client));
        assert_eq!((&status["Status"], &status["Mode"]), (&json!("stopped"), &json!("run")));
        kapo.expect_exit(i32::try_from(status["ExitCode"].as_i64().unwrap()).unwrap());
        assert!(
            kapo.stderr().contains("msg=\"serving connection\" socket=connection\n"),
            "{}",
            kapo.stderr()
        );
    }
    let (client, server) = UnixStream::pair().unwrap();
    let mut kapo = Kapo::launch(handed([&server as &dyn AsFd], &["-s", "run", "sh", "-c", "exit 3"]));
    drop(server);
    assert_eq!(object(&ask(client))["Command"], "sh");
    kapo.expect_exit(3);
}

#[test]
fn connections_and_listeners_may_come_together() {
    let (client, server) = connection();
    let (tcp, address) = listener();
    let kapo = Kapo::launch(handed([&server as &dyn AsFd, &tcp], &["-s", "run", "sleep", "60"])).at(&address);
    drop(server);
    let mut line = Line::of(client);
    for _ in 0..3 {
        assert_eq!(line.ask("/livez").status, 200);
        assert_eq!(kapo.get("/livez").status, 200);
    }
}

#[test]
fn a_socket_of_inetd_is_stdin_and_stdout() {
    let (client, server) = connection();
    let mut command = kapo([
        "-s",
        "run",
        "sh",
        "-c",
        "echo out; a=$(readlink /proc/$$/fd/0); b=$(readlink /proc/$$/fd/1); echo \"$a $b\" >&2; cat; exit 5",
    ]);
    command.stdin(OwnedFd::from(server.try_clone().unwrap())).stdout(OwnedFd::from(server));
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("stderr");
    command.stderr(File::create(&log).unwrap());
    let mut kapo = Kapo::launch_with_its_outputs(command, folder);
    kapo.wait_for("the job has ended", |kapo| kapo.stderr().contains("msg=\"exited\""));
    // The command has not read the request, and its output is not in the answer.
    let status = object(&ask(client));
    assert_eq!((&status["ExitCode"], &status["Reason"]), (&json!(5), &json!("exit-code")));
    kapo.expect_exit(5);
    assert!(kapo.stderr().contains("\n/dev/null /dev/null\n"), "{}", kapo.stderr());
    assert!(kapo.stderr().contains("msg=\"serving connection\" socket=stdin\n"), "{}", kapo.stderr());
}

#[test]
fn connections_at_the_end_are_answered_before_kapo_exits() {
    let mut gate = Gate::new();
    let (tcp, address) = listener();
    let words = ["-s", "run", "sh", "-c", "read x < \"$0\"; exit 6", gate.path()];
    let mut kapo = Kapo::launch(handed([&tcp as &dyn AsFd], &words)).at(&address);
    let (mut waiting, mut half, mut idle) = (Line::to(&kapo), kapo.connect(), Line::to(&kapo));
    waiting.send("/wait");
    half.write_all(&CLOSING[..20]).unwrap();
    assert_eq!(idle.ask("/livez").status, 200);
    assert!(waiting.is_silent());
    gate.open();
    let answer = waiting.answer();
    assert_eq!((answer.status, answer.field("kapo-exit-code")), (200, Some("6")), "{answer:?}");
    // The rest of a request that had begun comes late and is answered.
    half.write_all(&CLOSING[20..]).unwrap();
    assert_eq!(object(&read_answer(half))["ExitCode"], 6);
    kapo.expect_exit(6);
}

#[test]
fn connections_not_accepted_stay_for_the_next_instance() {
    let mut gate = Gate::new();
    let (tcp, address) = listener();
    let words = ["-s", "run", "sh", "-c", "read x < \"$0\"; exit 6", gate.path()];
    let mut first = Kapo::launch(handed([&tcp as &dyn AsFd], &words)).at(&address);
    let mut half = first.connect();
    half.write_all(&CLOSING[..20]).unwrap();
    assert_eq!(first.get("/livez").status, 200);
    let command = first.command_pid();
    let late = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        stream
    };
    // One connection comes before kapo has noticed the end, the other while it only waits for a request that has
    // begun.
    first.signal(19);
    wait_for("kapo stands still", || process_state(first.pid()) == Some('T'));
    gate.open();
    wait_for("the job has ended", || process_state(command) == Some('Z'));
    let one = late("/one");
    first.signal(18);
    first.wait_for("the end is noticed", |kapo| kapo.stderr().contains("msg=\"exited\""));
    let two = late("/two");
    drop(half);
    first.expect_exit(6);
    let _second = Kapo::launch(handed([&tcp as &dyn AsFd], &["-s", "run", "sleep", "61"]));
    for stream in [one, two] {
        assert_eq!(object(&read_answer(stream))["Arguments"], json!(["61"]));
    }
}

#[test]
fn other_kinds_of_descriptors_are_refused_with_the_reason() {
    let folder = TempDir::new().unwrap();
    let (tcp, _) = listener();
    let file = File::create(folder.path().join("file")).unwrap();
    let directory = File::open(folder.path()).unwrap();
    let null = File::open("/dev/null").unwrap();
    let (pipe, _other_end) = std::io::pipe().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagram = UnixDatagram::bind(folder.path().join("datagram")).unwrap();
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let fresh = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let packets =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET, None);
    let (fresh, packets) = (fresh.unwrap(), packets.unwrap());
    for (what, why) in [
        (&file as &dyn AsFd, "it is a regular file, not a socket"),
        (&directory, "it is a directory, not a socket"),
        (&null, "it is a character device, not a socket"),
        (&pipe, "it is a pipe, not a socket"),
        (&epoll, "it is an unnamed file, not a socket"),
        (&udp, "it is a datagram socket; HTTP needs a stream"),
        (&datagram, "it is a datagram socket; HTTP needs a stream"),
        (&packets, "it is not a stream socket"),
        (&fresh, "it neither listens nor is connected"),
    ] {
        let marker = folder.path().join("started");
        let mut command = handed([&tcp as &dyn AsFd, what], &["-s", "run", "touch"]);
        command.arg(&marker).env("LISTEN_FDNAMES", "good:bad");
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!(code, Some(125), "{stderr}");
        let line = format!("kapo: cannot serve on inherited descriptor 4 (bad): {why}");
        assert_eq!(stderr.lines().last(), Some(line.as_str()));
        assert!(!marker.exists(), "nothing is started");
    }
}

#[test]
fn more_sockets_than_open_descriptors_are_refused() {
    let (tcp, _) = listener();
    for (count, fd) in [("2", 4), ("3", 4), ("9", 4)] {
        let mut command = handed([&tcp as &dyn AsFd], &["-s", "run", "true"]);
        command.env("FDS", count);
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!(code, Some(125), "{stderr}");
        let line = format!("kapo: cannot serve on inherited descriptor {fd} (unknown): Bad file descriptor");
        assert_eq!(stderr.lines().last(), Some(line.as_str()));
    }
    let mut command = handed([], &["-s", "run", "true"]);
    command.env("FDS", "1");
    let (code, _, stderr) = run_to_the_end(command);
    let line = "kapo: cannot serve on inherited descriptor 3 (unknown): Bad file descriptor\n";
    assert_eq!((code, stderr.as_str()), (Some(125), line));
}

#[test]
fn invalid_numbers_are_refused_with_the_variable() {
    let (tcp, _) = listener();
    for count in ["0", "abc", "-1", "1000000000", "99999999999999999999", "1 ", "+", ""] {
        let mut command = handed([&tcp as &dyn AsFd], &["-s", "run", "true"]);
        command.env("FDS", count);
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!((code, stderr.lines().count()), (Some(125), 1), "{count}: {stderr}");
        if !count.is_empty() {
            assert!(stderr.starts_with(&format!("kapo: LISTEN_FDS={count}")), "{stderr}");
        }
    }
}

#[test]
fn sockets_for_another_process_are_refused() {
    for (pid, says) in [
        ("1", "LISTEN_PID=1: the sockets are meant for that process"),
        ("x", "LISTEN_PID=x is not a process id"),
    ] {
        let mut command = clean("env");
        command
            .args([&format!("LISTEN_PID={pid}"), "LISTEN_FDS=1"])
            .arg(binary())
            .args(["-s", "run", "true"]);
        let (code, _, stderr) = run_to_the_end(command);
        assert_eq!(code, Some(125), "{stderr}");
        assert!(stderr.contains(says) && stderr.lines().count() == 1, "{stderr}");
    }
    // No socket is inherited at all.
    let (code, _, stderr) = run_to_the_end(kapo(["-s", "run", "true"]));
    assert_eq!(code, Some(125), "{stderr}");
    assert!(stderr.contains("LISTEN_FDS is not set, and stdin is no socket"), "{stderr}");
    // Without --socket-activation kapo ignores the sockets.
    let mut command = kapo_on_a_free_port(["run", "sleep", "60"]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let kapo = Kapo::launch(command).listening();
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn the_side_port_is_right_from_the_first_answer_on() {
    let kapo = Kapo::start(["--sidebind", "run", "sleep", "60"]);
    let side = u16::try_from(kapo.status()["SidebindPort"].as_u64().unwrap()).unwrap();
    assert!(side > kapo.address().port());
    assert_eq!(object(&ask(TcpStream::connect(("127.0.0.1", side)).unwrap()))["SidebindPort"], side);
    assert!(
        kapo.stderr().contains(&format!("address=127.0.0.1:{side} socket=sidebind\n")),
        "{}",
        kapo.stderr()
    );
    // The next kapo finds the port in use and takes the next free one.
    let port = kapo.address().port().to_string();
    let (tcp, address) = listener();
    let words = ["-s", "-b", "-p", &port, "-i", "127.0.0.1", "supervise", "sleep", "60"];
    let second = Kapo::launch(handed([&tcp as &dyn AsFd], &words)).at(&address);
    let other = second.status()["SidebindPort"].as_u64().unwrap();
    assert!(other > u64::from(side), "{other} {side}");
    let other = u16::try_from(other).unwrap();
    assert_eq!(object(&ask(TcpStream::connect(("127.0.0.1", other)).unwrap()))["Mode"], "supervise");
    // The same in watch mode.
    let watch = Kapo::start(["--sidebind", "watch", "no such process"]);
    assert!(watch.status()["SidebindPort"].as_u64() > Some(u64::from(watch.address().port())));
}

#[test]
fn many_at_once_get_side_ports_of_their_own() {
    let (tcp, _) = listener();
    let port = tcp.local_addr().unwrap().port().to_string();
    let mut all: Vec<Kapo> = (0..8)
        .map(|_| {
            let (client, server) = connection();
            drop(client);
            let words = ["-s", "-b", "-p", &port, "-i", "127.0.0.1", "run", "sleep", "60"];
            Kapo::launch(handed([&server as &dyn AsFd], &words))
        })
        .collect();
    let mut ports = Vec::new();
    // All of them run until the last one has its port.
    for kapo in &mut all {
        let mut address = String::new();
        kapo.wait_for("it has a side port", |kapo| {
            let log = kapo.stderr();
            let found =
                log.split_once("address=").and_then(|(_, rest)| rest.split_once(" socket=sidebind\n"));
            address = found.map_or(String::new(), |(address, _)| address.to_owned());
            !address.is_empty()
        });
        let status = object(&ask(TcpStream::connect(&address).unwrap()));
        assert_eq!(address, format!("127.0.0.1:{}", status["SidebindPort"]));
        ports.push(address);
    }
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 8);
}

#[test]
fn after_the_last_port_there_is_no_side_port() {
    let (tcp, _) = listener();
    let words = ["-s", "-b", "-p", "65535", "-i", "127.0.0.1", "run", "true"];
    let (code, _, stderr) = run_to_the_end(handed([&tcp as &dyn AsFd], &words));
    assert_eq!(code, Some(125), "{stderr}");
    assert_eq!(
        stderr.lines().last(),
        Some("kapo: cannot bind a port above 65535 on 127.0.0.1: none is free")
    );
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let mut command = kapo(["-b", "-i"]);
    command.arg(&path).args(["run", "true"]);
    let (code, _, stderr) = run_to_the_end(command);
    assert!(matches!(code, Some(2 | 125)), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("Unix socket"), "{stderr}");
}
