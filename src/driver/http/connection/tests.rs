//! One connection over a real socket pair, driven as the event loop drives it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Instant, SystemTime};

use super::*;
use crate::logic::http::response::Reply;
use crate::logic::http::{Next, Request};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Holds `/wait` until `done` and answers every other request with `body`.
struct Page {
    body: Vec<u8>,
    done: bool,
}

impl Handler for Page {
    fn answer(&mut self, _: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
        match request.path {
            "/wait" if !self.done => return Next::Wait(None),
            "/events" => {
                reply.stream("text/event-stream", b"first\n");
                return Next::Events;
            }
            _ => reply.send(200, "text/plain", &[], &self.body),
        }
        Next::Answered
    }

    fn again(&mut self, _: Now, _: bool, reply: Reply<'_>) -> Next {
        if !self.done {
            return Next::Wait(None);
        }
        reply.send(200, "text/plain", &[], &self.body);
        Next::Answered
    }
}

/// The event loop for one connection: polls its interest, then serves it.
struct Served {
    connection: Connection,
    buffers: Buffers,
    page: Page,
    now: Now,
}

impl Served {
    #[expect(clippy::disallowed_methods, reason = "a test needs some Instant to begin with")]
    fn new(socket: impl Into<OwnedFd>) -> Served {
        let now = Now { mono: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        let page = Page { body: b"hello".to_vec(), done: false };
        Served { connection: Connection::new(now, socket.into()), buffers: Buffers::new(), page, now }
    }

    fn turn(&mut self) -> ConnectionFate {
        self.connection.on_ready(self.now, &mut self.buffers, &mut self.page)
    }

    /// Waits up to 5 s until the connection is ready for its interest, then serves it once.
    fn wait_turn(&mut self) -> ConnectionFate {
        let interest = self.connection.interest();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, interest.contains(EventFlags::IN));
        flags.set(PollFlags::OUT, interest.contains(EventFlags::OUT));
        let mut sockets = [PollFd::new(&self.connection, flags)];
        let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(poll(&mut sockets, Some(&limit)), Ok(1), "not ready within 5 s: {interest:?}");
        self.turn()
    }

    fn until_gone(&mut self) {
        while self.wait_turn() == ConnectionFate::Wait {}
    }
}

fn tcp() -> (TcpStream, Served) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    (peer, Served::new(socket))
}

fn unix() -> (UnixStream, Served) {
    let (peer, socket) = UnixStream::pair().unwrap();
    (peer, Served::new(socket))
}

fn read_to_end(mut peer: impl Read) -> Vec<u8> {
    let mut seen = Vec::new();
    peer.read_to_end(&mut seen).unwrap();
    seen
}

#[test]
fn one_turn_answers_all_requests_that_can_be_read() {
    let (mut peer, mut served) = unix();
    peer.write_all(&[GET, GET].concat()).unwrap();
    assert_eq!(served.turn(), ConnectionFate::Wait);
    assert_eq!(served.connection.interest(), EventFlags::IN);
    drop(served);
    let seen = String::from_utf8(read_to_end(peer)).unwrap();
    assert_eq!(seen.matches("\r\n\r\nhello").count(), 2);
}

#[test]
fn a_turn_without_anything_to_read_changes_nothing() {
    let (_peer, mut served) = unix();
    assert_eq!(served.turn(), ConnectionFate::Wait);
    assert_eq!((served.connection.interest(), served.connection.facts().deadline), (EventFlags::IN, None));
}

#[test]
fn connection_close_ends_the_connection_in_its_first_turn() {
    let (mut peer, mut served) = tcp();
    peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(served.wait_turn(), ConnectionFate::Gone);
    drop(served);
    assert!(read_to_end(peer).ends_with(b"\r\n\r\nhello"));
}

/// Reads until the end of the stream or a reset.
fn read_to_any_end(mut peer: impl Read) -> (Vec<u8>, io::Result<()>) {
    let mut seen = Vec::new();
    let ended = peer.read_to_end(&mut seen).map(drop);
    (seen, ended)
}

#[test]
fn the_last_answer_survives_more_input_from_the_peer() {
    for more in [&b"\r\n"[..], GET, &[b'x'; 65_536]] {
        let (mut peer, mut served) = tcp();
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(served.wait_turn(), ConnectionFate::Gone);
        assert!(served.connection.corked, "the answer and the FIN must leave in one segment");
        peer.write_all(more).unwrap();
        drop(served);
        assert!(read_to_any_end(peer).0.ends_with(b"\r\n\r\nhello"));
    }
}

#[test]
fn a_stream_that_is_given_up_ends_with_a_reset() {
    let (mut peer, mut served) = tcp();
    peer.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(served.wait_turn(), ConnectionFate::Wait);
    let part = [b'x'; 65_536];
    let mut fate = ConnectionFate::Wait;
    // The peer does not read, so the socket fills, and then the backlog limit is exceeded.
    while fate == ConnectionFate::Wait {
        fate = served.connection.push(served.now, &part, &mut served.buffers);
    }
    drop(served);
    let (_, ended) = read_to_any_end(peer);
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// Gives the connection a small send buffer, so that an answer is sent in many parts.
fn narrow<Peer>((peer, mut served): (Peer, Served), length: u32) -> (Peer, Served) {
    sockopt::set_socket_send_buffer_size(&served.connection, 4096).unwrap();
    served.page.body = (0..length).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    (peer, served)
}

fn assert_two_answers(seen: &[u8], body: &[u8]) {
    let (first, second) = seen.split_at(seen.len() / 2);
    assert!(first == second && first.ends_with(body));
}

#[test]
fn the_rest_of_a_short_send_is_sent_when_there_is_room() {
    let (mut peer, mut served) = narrow(tcp(), 400_000);
    peer.write_all(&[GET, GET].concat()).unwrap();
    assert_eq!(served.wait_turn(), ConnectionFate::Wait);
    assert_eq!(served.connection.interest(), EventFlags::OUT);
    let reader = std::thread::spawn({
        let peer = peer.try_clone().unwrap();
        move || read_to_end(peer)
    });
    while served.connection.facts().busy {
        assert_eq!(served.wait_turn(), ConnectionFate::Wait);
    }
    assert_eq!(served.connection.interest(), EventFlags::IN);
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(served.wait_turn(), ConnectionFate::Gone);
    let body = served.page.body.clone();
    drop(served);
    assert_two_answers(&reader.join().unwrap(), &body);
}

#[test]
fn a_held_request_is_answered_after_unsent_bytes() {
    let (mut peer, mut served) = narrow(unix(), 60_000);
    peer.write_all(&[GET, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(served.wait_turn(), ConnectionFate::Wait);
    assert!(served.connection.facts().held && served.connection.facts().busy);
    // The peer reads a part, so the socket has room when the state changes.
    let mut some = [0; 4096];
    let taken = peer.read(&mut some).unwrap();
    served.page.done = true;
    served.connection.resume(served.now, &mut served.buffers, &mut served.page);
    let reader = std::thread::spawn(move || [some[..taken].to_vec(), read_to_end(peer)].concat());
    served.until_gone();
    let body = served.page.body.clone();
    drop(served);
    assert_two_answers(&reader.join().unwrap(), &body);
}

#[test]
fn a_peer_that_is_still_sending_a_megabyte_gets_the_answer() {
    for head in ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", "BAD\r\n"] {
        let (peer, mut served) = tcp();
        let client = std::thread::spawn(move || {
            let mut peer = peer;
            peer.write_all(head.as_bytes()).unwrap();
            for _ in 0..1000 {
                peer.write_all(&[b'x'; 1000]).unwrap();
            }
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            read_to_end(peer)
        });
        served.until_gone();
        drop(served);
        let seen = String::from_utf8(client.join().unwrap()).unwrap();
        assert!(seen.starts_with("HTTP/1.1 40"), "{seen}");
        assert_eq!(seen.matches("HTTP/1.1 4").count(), 1);
    }
}

#[test]
fn our_side_is_closed_after_a_refusal_is_sent() {
    let (mut peer, mut served) = tcp();
    peer.write_all(b"\x16\x03\x01").unwrap();
    assert_eq!(served.wait_turn(), ConnectionFate::Wait);
    // The peer reads the end of the stream although it has not closed its own side.
    assert!(read_to_end(&peer).starts_with(b"HTTP/1.1 400 "));
    served.now.mono = served.connection.facts().deadline.unwrap();
    assert_eq!(
        served.connection.expire(served.now, &mut served.buffers, &mut served.page),
        ConnectionFate::Gone
    );
}

#[test]
fn a_held_request_of_a_half_closed_peer_is_answered() {
    let (mut peer, mut served) = tcp();
    peer.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    while !served.connection.interest().is_empty() {
        assert_eq!(served.wait_turn(), ConnectionFate::Wait);
    }
    // epoll may still report an event from before the interest changed.
    assert_eq!(served.turn(), ConnectionFate::Wait);
    served.page.done = true;
    let fate = served.connection.resume(served.now, &mut served.buffers, &mut served.page);
    assert_eq!(fate, ConnectionFate::Gone);
    drop(served);
    assert!(read_to_end(peer).ends_with(b"hello"));
}

#[test]
fn a_held_connection_ends_when_its_peer_disconnects() {
    let (mut peer, mut served) = unix();
    peer.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(served.turn(), ConnectionFate::Wait);
    drop(peer);
    served.until_gone();
}

#[test]
fn a_connection_ends_when_its_peer_closes_or_resets() {
    let (peer, mut served) = tcp();
    drop(peer);
    assert_eq!(served.wait_turn(), ConnectionFate::Gone);
    let (mut peer, mut served) = tcp();
    peer.write_all(&GET[..7]).unwrap();
    assert_eq!(served.wait_turn(), ConnectionFate::Wait);
    sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(served.wait_turn(), ConnectionFate::Gone);
}

#[test]
fn unsent_bytes_never_reach_another_peer() {
    let (mut gone, mut first) = unix();
    gone.write_all(GET).unwrap();
    gone.shutdown(std::net::Shutdown::Read).unwrap();
    drop(gone);
    assert_eq!(first.turn(), ConnectionFate::Gone);
    assert!(first.buffers.out.bytes.is_empty());
}

#[test]
fn a_stalled_reader_of_a_stream_is_dropped() {
    let (mut peer, mut served) = unix();
    peer.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(served.turn(), ConnectionFate::Wait);
    assert_eq!(served.connection.feed(), Some(Feed::Events));
    served.connection.push(served.now, b"second\n", &mut served.buffers);
    let mut seen = [0; 4096];
    let length = peer.read(&mut seen).unwrap();
    assert!(seen[..length].ends_with(b"6\r\nfirst\n\r\n7\r\nsecond\n\r\n"));
    let chunk = [b'x'; 8192];
    let mut pushed = 0;
    while served.connection.push(served.now, &chunk, &mut served.buffers) == ConnectionFate::Wait {
        pushed += chunk.len();
        assert!(pushed < 16 * 1024 * 1024, "the backlog of a stalled reader grows without a limit");
    }
}

#[test]
fn epoll_is_called_only_if_the_interest_has_changed() {
    let (mut peer, mut served) = unix();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    served.connection.register(epoll.as_fd(), 7).unwrap();
    peer.write_all(GET).unwrap();
    let mut events = Vec::with_capacity(4);
    epoll::wait(&epoll, spare_capacity(&mut events), None).unwrap();
    assert_eq!(events.iter().map(|event| event.data.u64()).collect::<Vec<_>>(), [7]);
    served.turn();
    // epoll_ctl(2) fails on this descriptor, so success shows that it was not called.
    let (not_epoll, _) = UnixStream::pair().unwrap();
    served.connection.register(not_epoll.as_fd(), 7).unwrap();
    peer.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    while !served.connection.interest().is_empty() {
        served.wait_turn();
    }
    assert!(served.connection.register(not_epoll.as_fd(), 7).is_err());
    served.connection.register(epoll.as_fd(), 7).unwrap();
}

#[test]
fn a_blocking_socket_is_served_without_blocking() {
    let (mut peer, mut served) = unix();
    served.page.body = vec![b'x'; 4_000_000];
    peer.write_all(GET).unwrap();
    assert_eq!(served.turn(), ConnectionFate::Wait);
    assert!(served.connection.facts().busy);
    assert_eq!(served.turn(), ConnectionFate::Wait);
}
