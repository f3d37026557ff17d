//! Tests of connections: how long they stay open, which ones are evicted, and every kind of address.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use tempfile::TempDir;

use crate::harness::{Kapo, kapo, kapo_after, kapo_on_a_free_port, now, wait_for};
use crate::http::{get, is_at_its_end, one_answer, sleeping};
use crate::idle::cpu_ticks;

#[test]
fn an_idle_connection_stays_as_long_as_the_command_runs() {
    let mut kapo = sleeping();
    let mut silent = kapo.connect();
    let mut asked = kapo.connect();
    asked.write_all(&get("/livez")).unwrap();
    assert_eq!(one_answer(&mut asked).status, 200);
    // Neither connection receives data, and neither is closed.
    for stream in [&mut silent, &mut asked] {
        stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(crate::harness::LIMIT)).unwrap();
    }
    asked.write_all(&get("/livez")).unwrap();
    assert_eq!(one_answer(&mut asked).status, 200);
    kapo.signal(15);
    kapo.expect_exit(143);
    assert!(is_at_its_end(&mut silent) && is_at_its_end(&mut asked));
}

#[test]
fn among_a_thousand_stalled_requests_a_fresh_one_is_answered() {
    let kapo = Kapo::start(["--max-connections", "512", "run", "sleep", "60"]);
    let mut stalled = Vec::new();
    let mut slowest = std::time::Duration::ZERO;
    for number in 1..=1_000 {
        let mut stream = kapo.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
        stalled.push(stream);
        if number % 20 == 0 {
            let begin = now();
            assert_eq!(kapo.get("/livez").status, 200);
            slowest = slowest.max(begin.elapsed());
        }
    }
    assert!(slowest.as_millis() < 2_000, "{slowest:?}");
    // The oldest connections were evicted. The youngest is still open and is answered when it continues.
    let mut last = stalled.pop().unwrap();
    last.write_all(b"x\r\n\r\n").unwrap();
    assert_eq!(one_answer(&mut last).status, 200);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", kapo.pid())).unwrap().count();
    assert!((500..=512 + 16).contains(&descriptors), "{descriptors}");
    let before = cpu_ticks(kapo.pid());
    let begin = now();
    wait_for("a second has passed", || begin.elapsed().as_millis() > 1_000);
    assert!(cpu_ticks(kapo.pid()) - before <= 1, "no CPU use meanwhile");
}

#[test]
fn unfinished_requests_are_evicted_before_idle_connections() {
    let kapo = Kapo::start(["--max-connections", "4", "run", "sleep", "60"]);
    let mut idle = kapo.connect();
    idle.write_all(&get("/livez")).unwrap();
    assert_eq!(one_answer(&mut idle).status, 200);
    let mut events = kapo.connect();
    events.write_all(&get("/events")).unwrap();
    let mut first = [0; 15];
    events.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    for _ in 0..20 {
        let mut unfinished = kapo.connect();
        unfinished.write_all(b"GET /").unwrap();
        assert_eq!(kapo.get("/livez").status, 200);
        std::mem::forget(unfinished);
    }
    idle.write_all(&get("/livez")).unwrap();
    assert_eq!(one_answer(&mut idle).status, 200, "the idle one is still there");
    // 4 connections may be open, fewer than the 20 unfinished ones and the 20 checks.
    let metrics = kapo.get("/metrics").body;
    let evicted = metrics.lines().find_map(|line| line.strip_prefix("kapo_http_connections_evicted_total "));
    assert!((18..40).contains(&evicted.unwrap().parse::<u32>().unwrap()), "{evicted:?}");
    let told = "level=warn msg=\"connection evicted\" why=\"as many as may be are open\" limit=4";
    assert_eq!(kapo.stderr().matches(told).count(), 1, "{}", kapo.stderr());
}

#[test]
fn without_descriptors_kapo_continues_and_does_not_spin() {
    let kapo = Kapo::launch(kapo_after("ulimit -n 16", ["run", "sleep", "60"])).listening();
    let crowd: Vec<_> = (0..40).map(|_| kapo.connect()).collect();
    for _ in 0..10 {
        assert_eq!(kapo.get("/").status, 200);
    }
    let before = cpu_ticks(kapo.pid());
    let begin = now();
    wait_for("a second has passed", || begin.elapsed().as_millis() > 1_000);
    assert!(cpu_ticks(kapo.pid()) - before <= 2, "no CPU use meanwhile");
    drop(crowd);
    assert_eq!(kapo.get("/").status, 200);
}

#[test]
fn a_peer_that_disconnects_is_not_logged() {
    let kapo = sleeping();
    for _ in 0..20 {
        drop(kapo.connect());
        let stream = kapo.connect();
        // Closing a connection with unread data causes a reset.
        (&stream).write_all(&get("/")).unwrap();
        drop(stream);
    }
    assert_eq!(kapo.get("/livez").status, 200);
    assert_eq!(kapo.stderr().lines().count(), 2, "{}", kapo.stderr());
}

#[test]
fn all_interfaces_are_the_default() {
    let kapo = Kapo::launch(kapo(["-p", "0", "run", "sleep", "60"])).listening();
    assert!(kapo.address().ip().is_unspecified() && kapo.address().is_ipv4());
    assert_eq!(kapo.get("/livez").status, 200);
}

#[test]
fn ipv6_is_served() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    for interface in ["::1", "[::1]", "::"] {
        let kapo = Kapo::launch(kapo(["-p", "0", "-i", interface, "run", "sleep", "60"])).listening();
        let address = (Ipv6Addr::LOCALHOST, kapo.address().port());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&get("/livez")).unwrap();
        assert_eq!(one_answer(&mut stream).body, "ok", "{interface}");
        // A listener on `::` accepts IPv4 as well.
        let v4 = TcpStream::connect(("127.0.0.1", kapo.address().port()));
        assert_eq!(v4.is_ok(), interface == "::");
    }
}

#[test]
fn unix_sockets_are_served() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("kapo.sock");
    let text = path.to_str().unwrap();
    let name = format!("kapo-test-{}", std::process::id());
    for interface in [text, &format!("@{name}")] {
        let mut kapo = Kapo::launch(kapo(["-i", interface, "run", "sleep", "60"]));
        kapo.wait_for("it listens", |kapo| kapo.addresses() == [interface]);
        let mut stream = match interface.strip_prefix('@') {
            Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()),
            None => UnixStream::connect(interface),
        }
        .unwrap();
        stream.write_all(&get("/livez")).unwrap();
        assert_eq!(one_answer(&mut stream).body, "ok", "{interface}");
        kapo.signal(15);
        kapo.expect_exit(143);
    }
    assert!(!path.exists());
}

#[test]
fn the_side_port_is_the_next_free_one_and_is_shown() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = kapo_on_a_free_port(["--sidebind", "run", "sleep", "60"]);
    command.env("KAPO_TTL", "0");
    let mut kapo = Kapo::launch(command).listening();
    kapo.wait_for("it names two addresses", |kapo| kapo.addresses().len() == 2);
    let side = kapo.status()["SidebindPort"].as_u64().unwrap();
    assert_eq!(kapo.addresses()[1], format!("127.0.0.1:{side}"));
    assert!(side > u64::from(kapo.address().port()));
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(side).unwrap())).unwrap();
    stream.write_all(&get("/livez")).unwrap();
    assert_eq!(one_answer(&mut stream).body, "ok");
    drop(taken);
}
