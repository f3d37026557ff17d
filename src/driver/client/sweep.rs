//! Queries many Unix sockets of the working directory at once, with one deadline for all of them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send};

use super::exchange::{Head, parse};
use crate::config::InstanceState;
use crate::logic::client::body::Body;
use crate::logic::client::ls::Instance;
use crate::sys::clock;

/// How many sockets are queried at once, besides those that are slow.
const AT_ONCE: usize = 64;
/// After this time a socket is slow. Stopped processes must not keep the others waiting.
const SLOW: Duration = Duration::from_millis(100);
/// The pause before a socket that refused a connection is queried again.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// How often a socket is queried if it refuses. A living kapo refuses between bind and listen, up to 30 ms were seen.
pub(super) const TRIES: u8 = 6;
/// The maximum length of a head, in bytes. The head of a kapo is shorter.
pub(super) const LONGEST_HEAD: usize = 8 << 10;
/// The maximum length of an answer, in bytes.
pub(super) const LONGEST: usize = 1 << 20;

const REQUEST: &[u8] = concat!(
    "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kapo/",
    env!("CARGO_PKG_VERSION"),
    "\r\nConnection: close\r\n\r\n"
)
.as_bytes();

/// An instance that is to be queried: its place in the list, and how often it was queried before.
#[derive(Clone, Copy)]
struct Candidate {
    place: usize,
    tries: u8,
}

/// An open connection.
struct Query {
    candidate: Candidate,
    socket: OwnedFd,
    began: Instant,
    received: Vec<u8>,
    /// The offset of the body and how it ends, when the head has been read.
    head: Option<(usize, Body)>,
}

/// The result of a read.
enum Reading {
    /// The answer is not complete.
    More,
    /// The body begins at this offset.
    Complete(usize),
    /// The connection has ended without an answer.
    Cut,
    /// This is not the answer of a kapo.
    Foreign,
}

/// One query of all instances.
pub(super) struct Sweep<'a> {
    instances: &'a mut Vec<Instance>,
    /// The place of the first instance that was not queried yet.
    next: usize,
    open: Vec<Query>,
    /// Instances that are queried again, with the time, the earliest first.
    again: VecDeque<(Instant, Candidate)>,
    deadline: Option<Instant>,
}

impl<'a> Sweep<'a> {
    /// Prepares to query these instances within `timeout`.
    pub(super) fn new(timeout: Duration, instances: &'a mut Vec<Instance>) -> Sweep<'a> {
        let deadline = clock::monotonic().checked_add(timeout);
        Sweep { instances, next: 0, open: Vec::new(), again: VecDeque::new(), deadline }
    }

    /// Queries the instances. One that has not answered at the deadline is stuck. One whose file is gone is removed
    /// from the list.
    pub(super) fn run(mut self) {
        loop {
            let now = clock::monotonic();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                break;
            }
            self.begin(now);
            if self.open.is_empty() && self.again.is_empty() {
                break;
            }
            self.wait(now);
        }
        self.instances.retain(|instance| !instance.file.is_empty());
    }

    /// Opens connections, up to the limit.
    fn begin(&mut self, now: Instant) {
        let fast = |query: &&Query| now.saturating_duration_since(query.began) < SLOW;
        let mut room = AT_ONCE.saturating_sub(self.open.iter().filter(fast).count());
        while room > 0 {
            let candidate = match self.again.front() {
                Some((at, candidate)) if *at <= now => {
                    let candidate = *candidate;
                    self.again.pop_front();
                    candidate
                }
                _ if self.next < self.instances.len() => {
                    self.next += 1;
                    Candidate { place: self.next - 1, tries: 0 }
                }
                _ => return,
            };
            room -= 1;
            self.query(now, candidate);
        }
    }

    fn query(&mut self, now: Instant, candidate: Candidate) {
        let Some(instance) = self.instances.get_mut(candidate.place) else { return };
        match connect(&instance.file) {
            Ok(socket) => {
                // The kernel reports the process that has called listen. A name can be planted, this cannot.
                instance.listener = crate::sys::peer::listener(socket.as_fd());
                // If the peer is gone already, the read reports it. The buffer of a new socket has room.
                let _ = send(&socket, REQUEST, SendFlags::NOSIGNAL);
                self.open.push(Query { candidate, socket, began: now, received: Vec::new(), head: None });
            }
            Err(Errno::CONNREFUSED) => self.retry(now, candidate, InstanceState::Dead),
            // The backlog is full. The kernel does not report when there is room again.
            Err(Errno::AGAIN) => self.again.push_back((now + PAUSE, candidate)),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                let oldest = self.open.iter().enumerate().min_by_key(|(_, query)| query.began);
                if let Some((place, query)) = oldest
                    && now.saturating_duration_since(query.began) >= SLOW
                {
                    self.open.swap_remove(place);
                }
                self.again.push_back((now + PAUSE, candidate));
            }
            Err(Errno::NOENT) => instance.file.clear(),
            Err(Errno::ACCESS | Errno::PERM) => instance.state = InstanceState::Denied,
            Err(_) => instance.state = InstanceState::Foreign,
        }
    }

    /// Queries an instance again after a pause or, after the last try, sets its state.
    fn retry(&mut self, now: Instant, candidate: Candidate, otherwise: InstanceState) {
        let tries = candidate.tries + 1;
        if tries < TRIES {
            self.again.push_back((now + PAUSE, Candidate { tries, ..candidate }));
        } else if let Some(instance) = self.instances.get_mut(candidate.place) {
            instance.state = otherwise;
        }
    }

    /// Waits for answers, until a pause is over or another connection may be opened.
    fn wait(&mut self, now: Instant) {
        let due = self.again.front().map(|(at, _)| *at);
        let slow = (self.next < self.instances.len() || due.is_some()).then(|| now + SLOW);
        let until = [self.deadline, due, slow].into_iter().flatten().min();
        let left = until.and_then(|until| Timespec::try_from(until.saturating_duration_since(now)).ok());
        let mut fds: Vec<PollFd<'_>> =
            self.open.iter().map(|query| PollFd::new(&query.socket, PollFlags::IN)).collect();
        if poll(&mut fds, left.as_ref()).is_err() {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let now = clock::monotonic();
        // The last element moves to the place of a removed one, so go backwards.
        for place in (0..ready.len()).rev().filter(|place| ready.get(*place) == Some(&true)) {
            let Some(query) = self.open.get_mut(place) else { continue };
            let reading = query.read();
            if let Reading::More = reading {
                continue;
            }
            let Query { candidate, received, .. } = self.open.swap_remove(place);
            let Some(instance) = self.instances.get_mut(candidate.place) else { continue };
            match reading {
                Reading::Complete(body) => instance.answered(received.get(body..).unwrap_or_default()),
                // A kapo that exits may close a connection that it has not read.
                Reading::Cut => self.retry(now, candidate, InstanceState::Foreign),
                _ => instance.state = InstanceState::Foreign,
            }
        }
    }
}

impl Query {
    /// Reads once.
    fn read(&mut self) -> Reading {
        let mut buffer = [0; 16_384];
        let bytes = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, length)) => buffer.get(..length).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return Reading::More,
            Err(_) => &[],
        };
        let ended = bytes.is_empty();
        self.received.extend_from_slice(bytes);
        if self.head.is_none() {
            self.head = match parse(&self.received) {
                Ok(Some(Head { status: 200, body, end, .. })) => Some((end, body)),
                Ok(None) if self.received.len() <= LONGEST_HEAD => None,
                _ => return Reading::Foreign,
            };
        }
        let length = self.received.len();
        match self.head {
            _ if length > LONGEST => Reading::Foreign,
            Some((start, Body::Length(body)))
                if u64::try_from(length - start).is_ok_and(|got| got >= body) =>
            {
                Reading::Complete(start)
            }
            Some((start, Body::Connection)) if ended => Reading::Complete(start),
            None if ended && length == 0 => Reading::Cut,
            _ if ended => Reading::Foreign,
            _ => Reading::More,
        }
    }
}

/// Connects without waiting to a socket of the working directory.
pub(super) fn connect(file: &[u8]) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(file)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    crate::sys::passrights::refuse(socket.as_fd());
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}
