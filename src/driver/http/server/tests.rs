//! One turn of the server: which connections it serves, when it reads /proc, and what it pushes to streams.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::logic::status::ModeName;
use crate::logic::tests::epoch;

const EVENTS: &[u8] = b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n";

/// Returns the bytes that can be read without waiting.
fn read_now(peer: &mut (impl Read + AsFd)) -> String {
    rustix::io::ioctl_fionbio(&*peer, true).unwrap();
    let mut seen = Vec::new();
    let error = peer.read_to_end(&mut seen).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    String::from_utf8(seen).unwrap()
}

fn later(seconds: u64) -> Now {
    let passed = Duration::from_secs(seconds);
    Now { mono: epoch().mono + passed, wall: epoch().wall + passed }
}

#[test]
fn a_silent_tcp_stream_gets_a_heartbeat_every_30_s() {
    let (epoll, source) = (Epoll::new().unwrap(), CountingSource(Cell::new(0)));
    let mut server = Server::new(10, "kapo".to_owned(), Page::new(1, true));
    let (mut unix, ours) = UnixStream::pair().unwrap();
    unix.write_all(EVENTS).unwrap();
    server.admit_given(epoch(), &epoll, ours.into(), &source);
    assert_eq!(server.deadline(), None, "a Unix socket needs no heartbeat");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    tcp.write_all(EVENTS).unwrap();
    server.admit_given(epoch(), &epoll, listener.accept().unwrap().0.into(), &source);
    assert_eq!(server.deadline(), Some(later(30).mono));
    assert!(
        read_now(&mut unix).starts_with("HTTP/1.1 200 ") && read_now(&mut tcp).starts_with("HTTP/1.1 200 ")
    );
    for half_minute in 1..4 {
        server.expire(later(30 * half_minute - 1), &epoll, &source);
        assert_eq!(read_now(&mut tcp), "");
        server.expire(later(30 * half_minute), &epoll, &source);
        assert_eq!((read_now(&mut tcp), read_now(&mut unix)), ("3\r\n:\n\n\r\n".to_owned(), String::new()));
    }
    server.table.remove(1);
    server.give_up(1);
    assert_eq!(server.deadline(), None, "without a stream there is no deadline");
}

/// A source that makes each connection take longer than half of a turn's budget.
struct SlowSource;

impl MetricsSource for SlowSource {
    fn objects(&self) -> &[Status] {
        &[]
    }

    fn snapshot(&self, _: usize, _: Sources) -> Snapshot {
        Snapshot::blank()
    }

    fn tail(&self) -> Option<&Tail> {
        let until = sys::clock::monotonic() + crate::logic::http::turn::BUDGET * 3 / 4;
        while sys::clock::monotonic() < until {}
        None
    }

    fn history(&self) -> Option<&History> {
        None
    }
}

#[test]
fn connections_beyond_the_budget_wait_for_the_next_turn() {
    let epoll = Epoll::new().unwrap();
    let mut server = Server::new(100, "kapo".to_owned(), Page::new(1, true));
    server.begin_turn(epoch());
    let mut peers: Vec<_> = (0..20)
        .map(|_| {
            let (mut peer, ours) = UnixStream::pair().unwrap();
            peer.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            server.admit_given(epoch(), &epoll, ours.into(), &SlowSource);
            peer
        })
        .collect();
    server.serve_queued(epoch(), &epoll, &SlowSource);
    let mut turns = 1;
    let mut before = 0;
    loop {
        let served = usize::try_from(server.requests()).unwrap();
        // A turn serves the first connection, then the one that starts the time budget, and those that start within it.
        assert!((1..=4).contains(&(served - before)), "turn {turns} served {}", served - before);
        before = served;
        if served == peers.len() {
            break;
        }
        assert_eq!(server.deadline(), Some(epoch().mono), "the next turn begins at once");
        turns += 1;
        server.begin_turn(epoch());
        server.serve_queued(epoch(), &epoll, &SlowSource);
    }
    assert_eq!(server.deadline(), None);
    assert!(peers.iter_mut().all(|peer| read_now(peer).ends_with("\r\n\r\nok")));
}

#[test]
fn a_state_is_rendered_when_a_client_asks_for_it() {
    struct Objects(Cell<u32>, [Status; 1]);
    impl MetricsSource for Objects {
        fn objects(&self) -> &[Status] {
            self.0.set(self.0.get() + 1);
            &self.1
        }

        fn snapshot(&self, _: usize, _: Sources) -> Snapshot {
            Snapshot::blank()
        }

        fn tail(&self) -> Option<&Tail> {
            None
        }

        fn history(&self) -> Option<&History> {
            None
        }
    }
    let epoll = Epoll::new().unwrap();
    let mut source = Objects(Cell::new(0), [Status::blank(ModeName::Run)]);
    let mut server = Server::new(10, "kapo".to_owned(), Page::new(1, true));
    for _ in 0..3 {
        server.publish(epoch(), &epoll, StateFacts::default(), &source);
    }
    assert_eq!(source.0.get(), 0);
    let (mut peer, ours) = UnixStream::pair().unwrap();
    peer.write_all(EVENTS).unwrap();
    server.admit_given(epoch(), &epoll, ours.into(), &source);
    assert!(read_now(&mut peer).contains("\nid: 2\n"), "the states before have no event");
    assert_eq!(source.0.get(), 1);
    source.1 = [Status { flapping: true, ..Status::blank(ModeName::Run) }];
    server.publish(epoch(), &epoll, StateFacts::default(), &source);
    assert_eq!(source.0.get(), 2);
    assert!(read_now(&mut peer).contains("id: 3\n"), "the stream gets the state at once");
}

/// Counts the snapshots.
struct CountingSource(Cell<u32>);

impl MetricsSource for CountingSource {
    fn objects(&self) -> &[Status] {
        &[]
    }

    fn snapshot(&self, connections: usize, _: Sources) -> Snapshot {
        self.0.set(self.0.get() + 1);
        Snapshot { connections, ..Snapshot::blank() }
    }

    fn tail(&self) -> Option<&Tail> {
        None
    }

    fn history(&self) -> Option<&History> {
        None
    }
}

#[test]
fn one_snapshot_serves_all_scrapes_of_a_turn() {
    let (epoll, source) = (Epoll::new().unwrap(), CountingSource(Cell::new(0)));
    let mut server = Server::new(10, "kapo".to_owned(), Page::new(1, true));
    let mut peers = Vec::new();
    for connections in 1..=3 {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        peer.write_all("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5).as_bytes()).unwrap();
        server.admit_given(epoch(), &epoll, ours.into(), &source);
        assert_eq!(source.0.get(), 1);
        peers.push((peer, connections));
    }
    server.abandon();
    for (mut peer, connections) in peers {
        let mut seen = String::new();
        peer.read_to_string(&mut seen).unwrap();
        // The number of connections is current, not copied from the first snapshot.
        assert_eq!(seen.matches(&format!("\nkapo_http_connections {connections}\n")).count(), 5);
    }
    let later = Now { mono: epoch().mono + Duration::from_millis(1), ..epoch() };
    let (mut peer, ours) = UnixStream::pair().unwrap();
    peer.write_all(b"GET /debug/vars HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.admit_given(later, &epoll, ours.into(), &source);
    assert_eq!(source.0.get(), 2);
}
