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
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

use crate::logic::Now;
use crate::logic::http::Site;
use crate::logic::http::conn::{Conn, Feed, READ_SIZE, Rank};
use crate::logic::http::response::Out;

/// A peer that has closed its sending side while it is kept waiting: after this the kernel asks whether it is there.
const HALF_OPEN_PROBE: Duration = Duration::from_secs(60);

/// What becomes of a source after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing more to do until the next event; its interest may have changed.
    Wait,
    /// Drop it.
    Gone,
}

/// The loop's buffers, shared by all connections: none of them owns one while it is idle.
pub struct Buffers {
    input: Vec<u8>,
    out: Out,
}

impl Buffers {
    /// The memory of the input is reserved here and first touched by what is read into it.
    pub fn new() -> Buffers {
        Buffers { input: Vec::with_capacity(READ_SIZE), out: Out::new() }
    }
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers::new()
    }
}

/// An accepted stream, TCP or Unix.
pub struct Connection {
    socket: OwnedFd,
    conn: Conn,
    /// What epoll was last told; `None` while it does not know the socket.
    registered: Option<EventFlags>,
}

impl Connection {
    /// Takes an accepted socket. It is read and written with MSG_DONTWAIT, so it may be in blocking mode, as an
    /// inherited one is. Call [`Connection::on_ready`] at once: the request is often there already.
    pub fn new(now: Now, socket: OwnedFd) -> Connection {
        Connection { socket, conn: Conn::new(now), registered: None }
    }

    /// One read, one send; call it when the socket is ready for what [`Connection::interest`] said, or has an error.
    pub fn on_ready(&mut self, now: Now, buffers: &mut Buffers, site: &mut dyn Site) -> Fate {
        let result = self.serve(now, buffers, site);
        self.settle(now, result, &mut buffers.out)
    }

    /// The state has changed: asks again for a request that is held; does nothing for others.
    pub fn resume(&mut self, now: Now, buffers: &mut Buffers, site: &mut dyn Site) -> Fate {
        self.conn.resume(now, site, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// The next part of a stream that [`Connection::feed`] names.
    pub fn push(&mut self, now: Now, bytes: &[u8], buffers: &mut Buffers) -> Fate {
        self.conn.push(bytes, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// The stream is complete: the connection ends once it was taken.
    pub fn end_of_stream(&mut self, now: Now, buffers: &mut Buffers) -> Fate {
        self.conn.end_of_stream();
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// Its deadline has passed.
    pub fn expire(&mut self, now: Now, buffers: &mut Buffers, site: &mut dyn Site) -> Fate {
        self.conn.expire(now, site, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// When to call [`Connection::expire`]; `None` for an idle one.
    pub fn deadline(&self) -> Option<Instant> {
        self.conn.deadline()
    }

    /// Who has the least is closed for a newcomer.
    pub fn rank(&self) -> Rank {
        self.conn.rank()
    }

    /// What is streamed to it.
    pub fn feed(&self) -> Option<Feed> {
        self.conn.feed()
    }

    /// It holds a request that is asked again when the state changes.
    pub fn is_held(&self) -> bool {
        self.conn.is_held()
    }

    /// An answer is on its way: bytes are unsent, or requests that were read are not answered yet.
    pub fn is_busy(&self) -> bool {
        self.conn.wants().write
    }

    /// What epoll is to wait for; errors and hang-ups are always told.
    pub fn interest(&self) -> EventFlags {
        let wants = self.conn.wants();
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, wants.read);
        flags.set(EventFlags::OUT, wants.write);
        flags
    }

    /// Tells epoll what to wait for, level-triggered, if that has changed since the last time. No system call
    /// otherwise.
    pub fn register(&mut self, epoll: BorrowedFd<'_>, token: u64) -> io::Result<()> {
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

    fn serve(&mut self, now: Now, buffers: &mut Buffers, site: &mut dyn Site) -> io::Result<()> {
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
            let read =
                retry_on_intr(|| recv(&self.socket, spare_capacity(&mut buffers.input), RecvFlags::DONTWAIT));
            match read {
                Ok((_, 0)) => self.eof()?,
                Ok(_) => self.conn.receive(now, &buffers.input, site, &mut buffers.out),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn eof(&mut self) -> io::Result<()> {
        self.conn.eof();
        if self.conn.is_held() && sockopt::socket_domain(&self.socket)? != AddressFamily::UNIX {
            // A peer that only half-closed and one that went away look the same until the kernel has asked.
            sockopt::set_tcp_keepidle(&self.socket, HALF_OPEN_PROBE)?;
            sockopt::set_socket_keepalive(&self.socket, true)?;
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
            let sent = self.send(self.conn.pending())?;
            self.conn.sent(now, sent);
        }
        Ok(())
    }

    /// How much the socket took, without waiting.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match retry_on_intr(|| send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)) {
            Err(Errno::AGAIN) => Ok(0),
            sent => Ok(sent?),
        }
    }

    /// Sends what was answered, and does what is to be done once all of it has gone. The shared buffer is empty
    /// afterwards in any case: what is left in it would reach another peer.
    fn settle(&mut self, now: Now, result: io::Result<()>, out: &mut Out) -> Fate {
        let result = result.and_then(|()| self.flush(now, &out.bytes));
        out.clear();
        match result {
            Ok(()) if self.conn.is_done() => Fate::Gone,
            Ok(()) => Fate::Wait,
            Err(_) => Fate::Gone,
        }
    }

    fn flush(&mut self, now: Now, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            let sent = if self.conn.pending().is_empty() { self.send(bytes)? } else { 0 };
            self.conn.keep(now, bytes.get(sent..).unwrap_or_default());
        }
        if self.conn.half_close(now) {
            shutdown(&self.socket, Shutdown::Write)?;
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
