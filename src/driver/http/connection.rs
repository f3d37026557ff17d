//! One connection's socket: reads once and sends once per readiness, and leaves every decision to
//! [`Conn`]. It is registered level-triggered, so a read that left bytes behind is simply called again; a peer's
//! errors end its connection and are nobody else's business.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

use crate::logic::Now;
use crate::logic::http::Handler;
use crate::logic::http::conn::{Conn, Feed, READ_SIZE, Rank};
use crate::logic::http::quota::Share;
use crate::logic::http::response::Out;

/// What becomes of a source after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionFate {
    /// Nothing more to do until the next event; its interest may have changed.
    Wait,
    /// Drop it.
    Gone,
}

/// The loop's buffers, shared by all connections: none of them owns one while it is idle.
pub(crate) struct Buffers {
    input: Vec<u8>,
    out: Out,
}

impl Buffers {
    /// Own no memory before the first read: an instance that nobody asks needs none.
    pub(crate) fn new() -> Buffers {
        Buffers { input: Vec::new(), out: Out::new() }
    }
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers::new()
    }
}

/// An accepted stream, TCP or Unix.
pub(crate) struct Connection {
    socket: OwnedFd,
    conn: Conn,
    /// What epoll was last told; `None` while it does not know the socket.
    registered: Option<EventFlags>,
    /// The kernel keeps bytes back for the end that is to follow.
    corked: bool,
}

impl Connection {
    /// Takes an accepted socket. It is read and written with MSG_DONTWAIT, so it may be in blocking mode, as an
    /// inherited one is. Call [`Connection::on_ready`] at once: the request is often there already.
    pub(crate) fn new(now: Now, socket: OwnedFd) -> Connection {
        Connection { socket, conn: Conn::new(now), registered: None, corked: false }
    }

    /// One read, one send; call it when the socket is ready for what [`Connection::interest`] said, or has an error.
    pub(crate) fn on_ready(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        site: &mut dyn Handler,
    ) -> ConnectionFate {
        let result = self.serve(now, buffers, site);
        self.settle(now, result, &mut buffers.out)
    }

    /// The state has changed: asks again for a request that is held; does nothing for others.
    pub(crate) fn resume(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        site: &mut dyn Handler,
    ) -> ConnectionFate {
        self.conn.resume(now, site, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// Kapo ends: a request that is held must be answered now, as if its time had passed.
    pub(crate) fn give_up_waiting(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        site: &mut dyn Handler,
    ) -> ConnectionFate {
        self.conn.give_up_waiting(now, site, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// The next part of a stream that [`Connection::feed`] names.
    pub(crate) fn push(&mut self, now: Now, bytes: &[u8], buffers: &mut Buffers) -> ConnectionFate {
        self.conn.push(bytes, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// The stream is complete: the connection ends once it was taken.
    pub(crate) fn end_of_stream(&mut self, now: Now, buffers: &mut Buffers) -> ConnectionFate {
        self.conn.end_of_stream(&mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// It is dropped in the middle of whatever it is about.
    pub(crate) fn give_up(&mut self) {
        self.conn.give_up();
        self.end();
    }

    /// Its deadline has passed.
    pub(crate) fn expire(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        site: &mut dyn Handler,
    ) -> ConnectionFate {
        self.conn.expire(now, site, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// When to call [`Connection::expire`]; `None` for an idle one.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.conn.deadline()
    }

    /// Who has the least is closed for a newcomer.
    pub(crate) fn rank(&self) -> Rank {
        self.conn.rank()
    }

    /// What is streamed to it.
    pub(crate) fn feed(&self) -> Option<Feed> {
        self.conn.feed()
    }

    /// Requests that are here already wait for a turn of their own.
    pub(crate) fn is_crowded(&self) -> bool {
        self.conn.is_crowded()
    }

    /// What it takes of what all connections share; `network`: it is not a Unix socket.
    pub(crate) fn share(&self, network: bool) -> Share {
        self.conn.share(network)
    }

    /// It holds a request that is asked again when the state changes.
    pub(crate) fn is_held(&self) -> bool {
        self.conn.is_held()
    }

    /// An answer is on its way: bytes are unsent, or requests that were read are not answered yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.conn.wants().write
    }

    /// What epoll is to wait for; errors and hang-ups are always told.
    pub(crate) fn interest(&self) -> EventFlags {
        let wants = self.conn.wants();
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, wants.read);
        flags.set(EventFlags::OUT, wants.write);
        flags
    }

    /// Tells epoll what to wait for, level-triggered, if that has changed since the last time. No system call
    /// otherwise.
    pub(crate) fn register(&mut self, epoll: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let interest = self.interest();
        let data = EventData::new_u64(token);
        match self.registered {
            Some(registered) if registered == interest => return Ok(()),
            Some(_) => epoll::modify(epoll, &self.socket, data, interest)?,
            None => epoll::add(epoll, &self.socket, data, interest)?,
        }
        self.registered = Some(interest);
        Ok(())
    }

    fn serve(&mut self, now: Now, buffers: &mut Buffers, site: &mut dyn Handler) -> io::Result<()> {
        let wants = self.conn.wants();
        if !wants.read && !wants.write {
            return self.check_hang_up();
        }
        if wants.write {
            self.send_pending(now)?;
            if self.conn.pending().is_empty() {
                self.conn.resume(now, site, &mut buffers.out);
            }
        }
        if wants.read {
            buffers.input.clear();
            buffers.input.reserve_exact(READ_SIZE);
            let read =
                retry_on_intr(|| recv(&self.socket, spare_capacity(&mut buffers.input), RecvFlags::DONTWAIT));
            match read {
                Ok((_, 0)) => self.conn.eof(&mut buffers.out),
                Ok(_) => self.conn.receive(now, &buffers.input, site, &mut buffers.out),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// We wait for nothing, so what epoll told is an error or a hang-up, unless it is an event from before.
    fn check_hang_up(&self) -> io::Result<()> {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::empty())];
        match retry_on_intr(|| poll(&mut sockets, Some(&Timespec::default())))? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn send_pending(&mut self, now: Now) -> io::Result<()> {
        if !self.conn.pending().is_empty() {
            let more = self.cork();
            let sent = send_to(&self.socket, self.conn.pending(), more)?;
            self.conn.sent(now, sent);
        }
        Ok(())
    }

    /// Whether our end follows the bytes that are sent now. Then the kernel is told so (MSG_MORE), and the last bytes and
    /// the end leave in one segment: half the packets of who asks once and closes.
    fn cork(&mut self) -> bool {
        self.corked = self.conn.is_closing();
        self.corked
    }

    /// Our end. To close alone would lose what the kernel keeps back, where the peer has sent more meanwhile: the close
    /// of a socket with unread bytes is a reset. One who was given up is told so by a reset: it must not take what it
    /// has for all there is.
    fn end(&mut self) {
        // Whoever is gone already needs neither.
        let _ = match self.conn.is_given_up() {
            true => sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO)),
            false if self.corked => shutdown(&self.socket, Shutdown::Write),
            false => Ok(()),
        };
    }

    /// Sends what was answered, and does what is to be done once all of it has gone. The shared buffer is empty
    /// afterwards in any case: what is left in it would reach another peer.
    fn settle(&mut self, now: Now, result: io::Result<()>, out: &mut Out) -> ConnectionFate {
        let result = result.and_then(|()| self.flush(now, &out.bytes));
        out.clear();
        match result {
            Ok(()) if self.conn.is_done() => {
                self.end();
                ConnectionFate::Gone
            }
            Ok(()) => ConnectionFate::Wait,
            Err(_) => ConnectionFate::Gone,
        }
    }

    fn flush(&mut self, now: Now, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            let more = self.cork();
            let sent = if self.conn.pending().is_empty() { send_to(&self.socket, bytes, more)? } else { 0 };
            self.conn.keep(now, bytes.get(sent..).unwrap_or_default());
        }
        if self.conn.half_close(now) {
            shutdown(&self.socket, Shutdown::Write)?;
        }
        Ok(())
    }
}

/// How much the socket took, without waiting; `more`: our end follows at once.
fn send_to(socket: &OwnedFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    flags.set(SendFlags::MORE, more);
    match retry_on_intr(|| send(socket, bytes, flags)) {
        Err(Errno::AGAIN) => Ok(0),
        sent => Ok(sent?),
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::SystemTime;

    use super::*;
    use crate::logic::http::response::Reply;
    use crate::logic::http::{Next, Request};

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// `/wait` is held until `done`; all else is answered with `body`.
    struct Page {
        body: Vec<u8>,
        done: bool,
    }

    impl Handler for Page {
        fn answer(&mut self, _: Now, request: &Request<'_>, reply: Reply<'_>) -> Next {
            match request.path {
                "/wait" if !self.done => return Next::Wait(None),
                "/events" => {
                    reply.stream("text/event-stream", &[], b"first\n");
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

    /// The loop for one connection: waits by poll(2) for what it wants.
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

        /// Turns until it wants nothing that is there within 5 s, or is gone.
        fn wait_turn(&mut self) -> ConnectionFate {
            let interest = self.connection.interest();
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, interest.contains(EventFlags::IN));
            flags.set(PollFlags::OUT, interest.contains(EventFlags::OUT));
            let mut sockets = [PollFd::new(&self.connection, flags)];
            let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(poll(&mut sockets, Some(&limit)), Ok(1), "nothing came: {interest:?}");
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
    fn one_turn_reads_and_answers_all_that_is_there() {
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
        assert_eq!((served.connection.interest(), served.connection.deadline()), (EventFlags::IN, None));
    }

    #[test]
    fn a_request_with_connection_close_is_over_in_its_first_turn() {
        let (mut peer, mut served) = tcp();
        peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(served.wait_turn(), ConnectionFate::Gone);
        drop(served);
        assert!(read_to_end(peer).ends_with(b"\r\n\r\nhello"));
    }

    /// All that comes until the end or a reset.
    fn read_to_any_end(mut peer: impl Read) -> (Vec<u8>, io::Result<()>) {
        let mut seen = Vec::new();
        let ended = peer.read_to_end(&mut seen).map(drop);
        (seen, ended)
    }

    #[test]
    fn the_last_answer_is_not_lost_to_a_peer_who_sends_more_meanwhile() {
        for more in [&b"\r\n"[..], GET, &[b'x'; 65_536]] {
            let (mut peer, mut served) = tcp();
            peer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            assert_eq!(served.wait_turn(), ConnectionFate::Gone);
            assert!(served.connection.corked, "the answer is to leave together with the end");
            peer.write_all(more).unwrap();
            drop(served);
            assert!(read_to_any_end(peer).0.ends_with(b"\r\n\r\nhello"));
        }
    }

    #[test]
    fn who_is_given_up_in_the_middle_of_a_stream_does_not_take_it_for_the_whole() {
        let (mut peer, mut served) = tcp();
        peer.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(served.wait_turn(), ConnectionFate::Wait);
        let part = [b'x'; 65_536];
        let mut fate = ConnectionFate::Wait;
        // It does not read: first the socket is full, then our patience ends.
        while fate == ConnectionFate::Wait {
            fate = served.connection.push(served.now, &part, &mut served.buffers);
        }
        drop(served);
        let (_, ended) = read_to_any_end(peer);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    /// Its socket takes as little as possible, so that an answer is sent in many parts.
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
    fn what_a_short_send_left_is_sent_when_there_is_room() {
        let (mut peer, mut served) = narrow(tcp(), 400_000);
        peer.write_all(&[GET, GET].concat()).unwrap();
        assert_eq!(served.wait_turn(), ConnectionFate::Wait);
        assert_eq!(served.connection.interest(), EventFlags::OUT);
        let reader = std::thread::spawn({
            let peer = peer.try_clone().unwrap();
            move || read_to_end(peer)
        });
        while served.connection.is_busy() {
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
    fn what_was_held_is_answered_behind_what_is_unsent() {
        let (mut peer, mut served) = narrow(unix(), 60_000);
        peer.write_all(&[GET, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(served.wait_turn(), ConnectionFate::Wait);
        assert!(served.connection.is_held() && served.connection.is_busy());
        // There is room again when the state changes, and the rest was not sent yet.
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
    fn our_side_is_closed_as_soon_as_a_refusal_was_sent() {
        let (mut peer, mut served) = tcp();
        peer.write_all(b"\x16\x03\x01").unwrap();
        assert_eq!(served.wait_turn(), ConnectionFate::Wait);
        // The peer reads the end although it has not ended its own side.
        assert!(read_to_end(&peer).starts_with(b"HTTP/1.1 400 "));
        served.now.mono = served.connection.deadline().unwrap();
        assert_eq!(
            served.connection.expire(served.now, &mut served.buffers, &mut served.page),
            ConnectionFate::Gone
        );
    }

    #[test]
    fn a_half_closed_peer_that_is_held_gets_its_answer_without_being_read_again() {
        let (mut peer, mut served) = tcp();
        peer.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        while !served.connection.interest().is_empty() {
            assert_eq!(served.wait_turn(), ConnectionFate::Wait);
        }
        // An event from before the interest changed.
        assert_eq!(served.turn(), ConnectionFate::Wait);
        served.page.done = true;
        let fate = served.connection.resume(served.now, &mut served.buffers, &mut served.page);
        assert_eq!(fate, ConnectionFate::Gone);
        drop(served);
        assert!(read_to_end(peer).ends_with(b"hello"));
    }

    #[test]
    fn a_held_peer_that_has_left_is_let_go() {
        let (mut peer, mut served) = unix();
        peer.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(served.turn(), ConnectionFate::Wait);
        drop(peer);
        served.until_gone();
    }

    #[test]
    fn a_peer_that_leaves_without_a_word_or_resets_is_let_go() {
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
    fn what_one_peer_did_not_take_never_reaches_another() {
        let (mut gone, mut first) = unix();
        gone.write_all(GET).unwrap();
        gone.shutdown(std::net::Shutdown::Read).unwrap();
        drop(gone);
        assert_eq!(first.turn(), ConnectionFate::Gone);
        assert!(first.buffers.out.bytes.is_empty());
    }

    #[test]
    fn a_stream_is_pushed_and_its_reader_dropped_when_it_stalls() {
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
            assert!(pushed < 16 * 1024 * 1024, "it is buffered for ever");
        }
    }

    #[test]
    fn epoll_is_told_only_what_has_changed() {
        let (mut peer, mut served) = unix();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        served.connection.register(epoll.as_fd(), 7).unwrap();
        peer.write_all(GET).unwrap();
        let mut events = Vec::with_capacity(4);
        epoll::wait(&epoll, spare_capacity(&mut events), None).unwrap();
        assert_eq!(events.iter().map(|event| event.data.u64()).collect::<Vec<_>>(), [7]);
        served.turn();
        // Were it told anything, a closed epoll would say so.
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
        assert!(served.connection.is_busy());
        assert_eq!(served.turn(), ConnectionFate::Wait);
    }
}
