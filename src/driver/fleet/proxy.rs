//! Passes requests through to the kapos of the folder, and their answers back, streams included. One buffer is shared
//! by all: while a client takes its answer, a connection owns no memory. What the client has not taken yet is kept, and
//! nothing more is read from the kapo until it is sent.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, recv, send,
    shutdown, sockopt,
};

use crate::logic::Now;
use crate::logic::fleet::proxied;
use crate::logic::http::conn::EXCHANGE_TIMEOUT;
use crate::logic::http::response::{Out, Reply};
use crate::logic::http::{Method, Persist};

/// The maximum number of requests that are passed through at once.
pub(super) const MOST: usize = 256;
/// How many bytes are read at once.
const READ_SIZE: usize = 64 << 10;
/// How many bytes a client may send behind its request. They are discarded.
const MOST_IGNORED: usize = 1 << 20;

/// Why a request cannot be passed through: the status of the answer, and its text.
pub(super) type ProxyRefusal = (u16, &'static str);

/// A request for a kapo that has been sent to it.
pub(super) struct Forwarded {
    kapo: OwnedFd,
    method: Method,
}

/// A client and the kapo that answers it.
struct Link {
    client: OwnedFd,
    /// `None` at the end of the answer.
    kapo: Option<OwnedFd>,
    method: Method,
    /// The head of the answer, until it is complete; `None` afterwards.
    head: Option<Vec<u8>>,
    /// What the client has not taken yet; the first `sent` bytes have been sent.
    unsent: Vec<u8>,
    sent: usize,
    ignored: usize,
    /// The client has closed its sending side.
    half_closed: bool,
    /// When the kapo or the client has made no progress for too long.
    deadline: Option<Instant>,
    /// The events for which the client and the kapo are registered.
    registered: [Option<EventFlags>; 2],
}

/// Whether a connection continues.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkFate {
    Continues,
    /// The client has the whole answer.
    Complete,
    /// The client must not take the answer for a whole one.
    Broken,
}

/// What has happened to a connection.
enum LinkEvent {
    /// Events of the client.
    Client(EventFlags),
    /// The kapo has sent something, or its end.
    Kapo,
    /// The deadline has passed.
    Deadline,
}

/// All requests that are passed through.
pub(super) struct Proxy {
    epoll: OwnedFd,
    links: Vec<Option<Link>>,
    buffer: Vec<u8>,
    timeout: Duration,
}

impl Proxy {
    /// Returns a proxy without connections. A kapo must begin its answer within `timeout`.
    pub(super) fn new(timeout: Duration) -> Result<Proxy, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Proxy { epoll, links: Vec::new(), buffer: Vec::new(), timeout })
    }

    /// Returns the number of connections.
    pub(super) fn open(&self) -> usize {
        self.links.iter().flatten().count()
    }

    /// Connects to the kapo and sends the request. A kapo has room for it, because the connection is new.
    pub(super) fn forward(
        &self,
        folder: &OwnedFd,
        name: &[u8],
        method: Method,
        request: &[u8],
    ) -> Result<Forwarded, ProxyRefusal> {
        if self.open() >= MOST {
            return Err((503, "too many requests are passed through\n"));
        }
        let failure = |errno| match errno {
            Errno::NOENT | Errno::NAMETOOLONG => (404, "no such socket in the folder\n"),
            Errno::CONNREFUSED => (502, "nothing listens on the socket\n"),
            Errno::ACCESS | Errno::PERM => (502, "fleet may not connect to the socket\n"),
            Errno::AGAIN => (504, "the kapo accepts no connection\n"),
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => (503, "no descriptor is left\n"),
            _ => (502, "cannot connect to the socket\n"),
        };
        let connected = match connect(folder, name) {
            Err(Errno::NOENT) => connect(folder, &[name, b".sock"].concat()),
            result => result,
        };
        let kapo = connected.map_err(failure)?;
        // If the kapo is gone already, the read reports it.
        let _ = send(&kapo, request, SendFlags::NOSIGNAL);
        Ok(Forwarded { kapo, method })
    }

    /// Passes the answer on to the client, after the bytes that it has not taken yet.
    pub(super) fn add(&mut self, now: Now, forwarded: Forwarded, client: OwnedFd, unsent: Vec<u8>) {
        let Forwarded { kapo, method } = forwarded;
        let mut link = Link {
            client,
            kapo: Some(kapo),
            method,
            head: Some(Vec::new()),
            unsent,
            sent: 0,
            ignored: 0,
            half_closed: false,
            deadline: now.mono.checked_add(self.timeout),
            registered: [None; 2],
        };
        let place = self.links.iter().position(Option::is_none).unwrap_or(self.links.len());
        if link.register(&self.epoll, place).is_err() {
            // The client sees a closed connection, as if the limit of descriptors had prevented it.
            return;
        }
        match self.links.get_mut(place) {
            Some(free) => *free = Some(link),
            None => self.links.push(Some(link)),
        }
    }

    /// Serves the connections that are ready, and ends those whose deadline has passed.
    pub(super) fn turn(&mut self, now: Now, ready: bool) {
        if ready {
            let mut events = [MaybeUninit::<Event>::uninit(); 64];
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let Ok((ready, _)) = epoll::wait(&self.epoll, &mut events, Some(&none)) else { return };
            self.buffer.clear();
            self.buffer.reserve_exact(READ_SIZE);
            for event in ready {
                let Ok(token) = usize::try_from(event.data.u64()) else { continue };
                let kapo = token % 2 == 1;
                self.serve(
                    now,
                    token / 2,
                    if kapo { LinkEvent::Kapo } else { LinkEvent::Client(event.flags) },
                );
            }
        }
        for place in 0..self.links.len() {
            if self.links.get(place).is_some_and(|link| link.as_ref().is_some_and(|link| link.is_due(now))) {
                self.serve(now, place, LinkEvent::Deadline);
            }
        }
        if self.links.iter().all(Option::is_none) {
            (self.links, self.buffer) = (Vec::new(), Vec::new());
        }
    }

    /// Returns when [`Proxy::turn`] is due without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.links.iter().flatten().filter_map(|link| link.deadline).min()
    }

    fn serve(&mut self, now: Now, place: usize, event: LinkEvent) {
        let Some(slot) = self.links.get_mut(place) else { return };
        let Some(link) = slot else { return };
        let mut fate = match event {
            LinkEvent::Client(flags) => link.on_client(now, flags, &mut self.buffer),
            LinkEvent::Kapo => link.on_kapo(now, &mut self.buffer),
            LinkEvent::Deadline => link.expire(now),
        };
        if fate == LinkFate::Continues {
            fate = link.flush(now);
        }
        if fate == LinkFate::Continues && link.register(&self.epoll, place).is_err() {
            fate = LinkFate::Broken;
        }
        match fate {
            LinkFate::Continues => return,
            // A reset tells the client that the answer is not complete. It may also fail, if the client is gone.
            LinkFate::Broken => drop(sockopt::set_socket_linger(&link.client, Some(Duration::ZERO))),
            LinkFate::Complete => drop(shutdown(&link.client, Shutdown::Write)),
        }
        *slot = None;
    }
}

impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Link {
    /// Reads what the client sends behind its request, or its end.
    fn on_client(&mut self, now: Now, flags: EventFlags, buffer: &mut Vec<u8>) -> LinkFate {
        // Both directions are closed, so nobody reads the answer.
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return LinkFate::Broken;
        }
        if !flags.contains(EventFlags::IN) {
            return LinkFate::Continues;
        }
        match receive(&self.client, buffer) {
            Ok(0) => {
                self.half_closed = true;
                // The kapo still sends a whole answer, and ends a stream. A client that is gone looks the same, so the
                // rest may not take long.
                let _ = self.kapo.as_ref().map(|kapo| shutdown(kapo, Shutdown::Write));
                self.progressed(now);
            }
            Ok(length) => self.ignored += length,
            Err(Errno::AGAIN) => {}
            Err(_) => return LinkFate::Broken,
        }
        if self.ignored > MOST_IGNORED { LinkFate::Broken } else { LinkFate::Continues }
    }

    /// Reads the next part of the answer.
    fn on_kapo(&mut self, now: Now, buffer: &mut Vec<u8>) -> LinkFate {
        let Some(kapo) = &self.kapo else { return LinkFate::Continues };
        match receive(kapo, buffer) {
            Err(Errno::AGAIN) => return LinkFate::Continues,
            Ok(0) | Err(_) if self.head.is_some() => self.refuse(now, 502, "the kapo has sent no answer\n"),
            Ok(0) => self.kapo = None,
            Err(_) => return LinkFate::Broken,
            Ok(_) => match &mut self.head {
                None => self.unsent.extend_from_slice(buffer),
                Some(head) => {
                    head.extend_from_slice(buffer);
                    match proxied::head(head, &mut self.unsent) {
                        Ok(Some(length)) => {
                            self.unsent.extend_from_slice(head.get(length..).unwrap_or_default());
                            self.head = None;
                        }
                        Ok(None) => return LinkFate::Continues,
                        Err(_) => self.refuse(now, 502, "the answer is not that of a kapo\n"),
                    }
                }
            },
        }
        self.progressed(now);
        LinkFate::Continues
    }

    /// Answers instead of the kapo.
    fn refuse(&mut self, now: Now, status: u16, why: &str) {
        let mut out = Out::new();
        let reply = Reply::new(&mut out, now, self.method, Persist::Close);
        reply.send(status, "text/plain; charset=utf-8", &[], why.as_bytes());
        self.unsent.extend_from_slice(&out.bytes);
        (self.kapo, self.head, self.registered[1]) = (None, None, None);
    }

    /// Sends what the client has not taken yet.
    fn flush(&mut self, now: Now) -> LinkFate {
        let unsent = self.unsent.get(self.sent..).unwrap_or_default();
        if !unsent.is_empty() {
            match retry_on_intr(|| send(&self.client, unsent, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)) {
                Ok(sent) => {
                    self.sent += sent;
                    self.progressed(now);
                }
                Err(Errno::AGAIN) => {}
                Err(_) => return LinkFate::Broken,
            }
        }
        if self.sent < self.unsent.len() {
            return LinkFate::Continues;
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        if self.head.is_none() && !self.half_closed {
            self.deadline = None;
        }
        if self.kapo.is_none() { LinkFate::Complete } else { LinkFate::Continues }
    }

    /// Starts the time for the next progress, except while the head of the answer has a deadline.
    fn progressed(&mut self, now: Now) {
        if self.head.is_none() {
            self.deadline = now.mono.checked_add(EXCHANGE_TIMEOUT);
        }
    }

    fn is_due(&self, now: Now) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now.mono)
    }

    /// Handles the deadline.
    fn expire(&mut self, now: Now) -> LinkFate {
        if self.head.is_none() || self.sent < self.unsent.len() {
            return LinkFate::Broken;
        }
        self.refuse(now, 504, "the kapo does not answer\n");
        self.progressed(now);
        LinkFate::Continues
    }

    /// Waits for the kapo while the client has taken everything, and otherwise for the client.
    fn register(&mut self, epoll: &OwnedFd, place: usize) -> Result<(), Errno> {
        let waits = self.unsent.is_empty();
        let mut client = EventFlags::empty();
        client.set(EventFlags::IN, !self.half_closed);
        client.set(EventFlags::OUT, !waits);
        // A socket without interest would still report a hang-up, again and again, so it is removed.
        let wanted = [Some(client), waits.then_some(EventFlags::IN)];
        let sockets = [Some(&self.client), self.kapo.as_ref()];
        for (side, ((socket, wanted), registered)) in
            sockets.into_iter().zip(wanted).zip(&mut self.registered).enumerate()
        {
            let Some(socket) = socket else { continue };
            let data = EventData::new_u64(u64::try_from(2 * place + side).unwrap_or(u64::MAX));
            match (*registered, wanted) {
                (before, wanted) if before == wanted => continue,
                (None, Some(wanted)) => epoll::add(epoll, socket, data, wanted)?,
                (Some(_), Some(wanted)) => epoll::modify(epoll, socket, data, wanted)?,
                (_, None) => epoll::delete(epoll, socket)?,
            }
            *registered = wanted;
        }
        Ok(())
    }
}

/// Reads once into an empty buffer and returns the number of bytes.
fn receive(socket: &OwnedFd, buffer: &mut Vec<u8>) -> Result<usize, Errno> {
    buffer.clear();
    let (_, length) = retry_on_intr(|| recv(socket, spare_capacity(buffer), RecvFlags::DONTWAIT))?;
    Ok(length)
}

/// Connects without waiting to a socket of the folder. No link is followed: a descriptor is opened first, and the
/// connection goes to the file that it shows.
fn connect(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Socket {
        return Err(Errno::NOENT);
    }
    let path = rustix::path::DecInt::from_fd(&file);
    let address = SocketAddrUnix::new([b"/proc/self/fd/", path.as_bytes()].concat())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    crate::sys::passrights::refuse(socket.as_fd());
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}
