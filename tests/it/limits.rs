//! Tests of exhausted resources: descriptors and memory of the system, connections, output memory, the time of a turn.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::activation::{connection, handed, listener};
use crate::harness::{Kapo, before_exec, kapo, kapo_after, lives, now, proc_status, wait_for};
use crate::http::{get, is_at_its_end, one_answer};
use crate::idle::cpu_ticks;
use crate::seccomp::refuse;
use crate::sinks::captured;
use crate::streams::read_head;
use crate::tools::Gate;

#[test]
fn exhausted_system_limits_close_no_connection() {
    for errno in [libc::ENFILE, libc::ENOMEM, libc::ENOBUFS] {
        let (listener, address) = listener();
        let (mut client, given) = connection();
        let mut command =
            handed([&listener as _, &given as _], &["--socket-activation", "run", "sleep", "60"]);
        before_exec(&mut command, move || refuse(libc::SYS_accept4, None, errno));
        let mut kapo = Kapo::launch(command);
        client.write_all(&get("/livez")).unwrap();
        assert_eq!(one_answer(&mut client).body, "ok");
        let _waiting = TcpStream::connect(&address).unwrap();
        let warning = "level=warn msg=\"cannot accept connections\"";
        kapo.wait_for("it says so", |kapo| kapo.stderr().contains(warning));
        client.write_all(&get("/livez")).unwrap();
        assert_eq!(one_answer(&mut client).body, "ok", "the open connection makes no room");
    }
}

/// Clients that send pipelined requests without end and read all answers. Dropping this value stops them.
struct Flood(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Flood {
    fn of(request: &str, connections: usize, address: SocketAddr) -> Flood {
        let batch = request.repeat(16_384 / request.len());
        let over = Arc::new(AtomicBool::new(false));
        let client = || {
            let (batch, over) = (batch.clone(), Arc::clone(&over));
            std::thread::spawn(move || {
                let Ok(mut stream) = TcpStream::connect(address) else { return };
                let mut reader = stream.try_clone().unwrap();
                let reader = std::thread::spawn(move || {
                    let mut answers = vec![0; 1 << 16];
                    while reader.read(&mut answers).is_ok_and(|read| read > 0) {}
                });
                while !over.load(Ordering::Relaxed) && stream.write_all(batch.as_bytes()).is_ok() {}
                let _ = stream.shutdown(std::net::Shutdown::Both);
                reader.join().unwrap();
            })
        };
        let clients = (0..connections).map(|_| client()).collect();
        Flood(over, clients)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.drain(..).for_each(|client| client.join().unwrap());
    }
}

#[test]
fn pipelined_heads_delay_neither_probes_nor_the_stop_signal() {
    let script = "head -c 1500000 /dev/zero; exec sleep 60";
    let mut kapo = Kapo::start(["-S", "--tail", "1M", "run", "sh", "-c", script]);
    kapo.wait_for("the tail is full", |kapo| captured(kapo, "stdout") == 1_500_000);
    let command = kapo.command_pid();
    let flood = Flood::of("HEAD /logs HTTP/1.1\r\nHost: x\r\n\r\n", 60, kapo.address());
    wait_for("the flood has come", || {
        let asked = kapo.get("/debug/vars").body;
        let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
        asked["kapo"]["Requests"].as_u64().unwrap() > 5_000
    });
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let begin = now();
        assert_eq!(kapo.get("/livez").status, 200);
        slowest = slowest.max(begin.elapsed());
    }
    // This takes milliseconds, while each turn took seconds before.
    assert!(slowest < Duration::from_millis(800), "{slowest:?}");
    let begin = now();
    kapo.signal(15);
    wait_for("the command has ended", || !lives(command));
    assert!(begin.elapsed() < Duration::from_millis(800), "{:?}", begin.elapsed());
    drop(flood);
    kapo.expect_exit(143);
}

#[test]
fn stalled_followers_have_a_memory_limit() {
    let mut gate = Gate::new();
    let script = "read x <\"$0\"; head -c 60000000 /dev/zero; exec sleep 60";
    let mut kapo = Kapo::start(["-S", "--tail", "64K", "run", "sh", "-c", script, gate.path()]);
    let stalled: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = kapo.connect();
            rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
            stream.write_all(&get("/logs?follow=1")).unwrap();
            assert_eq!(read_head(&mut stream).status, 200);
            stream
        })
        .collect();
    gate.open();
    kapo.wait_for("all output has passed", |kapo| captured(kapo, "stdout") == 60_000_000);
    let most = proc_status(kapo.pid(), "VmHWM").unwrap();
    let most: u64 = most.trim_end_matches(" kB").parse().unwrap();
    assert!(most < 32 * 1024, "{most} KiB for {} followers", stalled.len());
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn streams_leave_room_for_slow_checks() {
    let kapo = Kapo::start(["--max-connections", "8", "run", "sleep", "60"]);
    let events = || {
        let mut stream = kapo.connect();
        stream.write_all(&get("/events")).unwrap();
        assert_eq!(read_head(&mut stream).status, 200);
        stream
    };
    // Three quarters of eight may be held, so the oldest two are evicted for the last two.
    let mut streams: Vec<TcpStream> = (0..8).map(|_| events()).collect();
    for stream in &mut streams[..2] {
        let ended = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    }
    for _ in 0..20 {
        // Another client connects before the first one has sent a request.
        let mut checks = [kapo.connect(), kapo.connect()];
        for check in &mut checks {
            check.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            assert_eq!(one_answer(check).body, "ok");
            assert!(is_at_its_end(check));
        }
    }
    for stream in &mut streams[2..] {
        stream.set_nonblocking(true).unwrap();
        let ended = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::WouldBlock), "the streams stay");
    }
}

/// Whether the kernel has a keepalive timer of at most half a minute for the connection from `peer` (proc_net_tcp(5):
/// 02 and the remaining jiffies).
fn is_watched_over(kapo: &Kapo, peer: SocketAddr) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", kapo.pid())).unwrap();
    let remote = format!(":{:04X}", peer.port());
    let timer = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[2].ends_with(&remote) && words[3] == "01").then(|| words[5].to_owned())
    });
    let (kind, left) = timer.as_deref().and_then(|timer| timer.split_once(':')).unwrap_or(("none", "0"));
    kind == "02" && u64::from_str_radix(left, 16).unwrap() <= 31 * 100
}

#[test]
fn keepalive_is_enabled_on_every_listener() {
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = inherited.local_addr().unwrap();
    let command = handed([&inherited as _], &["--socket-activation", "run", "sleep", "60"]);
    drop(inherited);
    let activated = Kapo::launch(command).at(&address.to_string());
    for kapo in [Kapo::launch(kapo(["-p", "0", "run", "sleep", "60"])).listening(), activated] {
        let mut stream = TcpStream::connect(("127.0.0.1", kapo.address().port())).unwrap();
        stream.write_all(&get("/livez")).unwrap();
        assert_eq!(one_answer(&mut stream).body, "ok");
        let peer = stream.local_addr().unwrap();
        wait_for("a keepalive timer runs", || is_watched_over(&kapo, peer));
    }
}

#[test]
fn a_flood_of_signals_delays_neither_probes_nor_the_ttl() {
    // Four processes for at most 8 s. kapo's own limit keeps its signal queue from using up the system's.
    let script = "$SIG{NUM40} = 'IGNORE'; $kapo = getppid; fork; fork; alarm 8; kill 40, $kapo while 1";
    let words = ["run", "--ttl", "2", "perl", "-e", script];
    let mut kapo = Kapo::launch(kapo_after("prlimit --pid $$ --sigpending=20000", words)).listening();
    let begin = now();
    kapo.wait_for("the flood has come", |kapo| cpu_ticks(kapo.pid()) > 5);
    while kapo.try_wait().is_none() && begin.elapsed() < Duration::from_millis(1_500) {
        let asked = now();
        assert_eq!(kapo.get("/livez").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    kapo.expect_exit(124);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn requests_behind_held_ones_have_a_memory_limit() {
    let kapo = Kapo::start(["run", "sleep", "60"]);
    let behind = get("/livez").repeat(30_000 / get("/livez").len());
    let clients: Vec<TcpStream> = (0..380)
        .map(|_| {
            let mut stream = kapo.connect();
            // The connection may be closed while the client still sends.
            let _ = stream.write_all(&get("/wait")).and_then(|()| stream.write_all(&behind));
            stream
        })
        .collect();
    assert_eq!(kapo.get("/livez").status, 200);
    let most = proc_status(kapo.pid(), "VmHWM").unwrap();
    let most: u64 = most.trim_end_matches(" kB").parse().unwrap();
    assert!(most < 8 * 1024, "{most} KiB for {} clients", clients.len());
    assert!(kapo.stderr().contains("incomplete request evicted"), "{}", kapo.stderr());
}
