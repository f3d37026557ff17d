//! One connection's socket: reads once and sends once per readiness, and leaves every decision to
//! [`Conn`]. It is registered level-triggered, so a read that left bytes behind is simply called again; a peer's
//! errors end its connection and are nobody else's business.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

use crate::logic::Now;
use crate::logic::http::Handler;
use crate::logic::http::conn::{Conn, Facts, Feed, READ_SIZE};
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

    /// What the table of all connections must know, after anything was done with this one.
    pub(crate) fn facts(&self) -> Facts {
        self.conn.facts()
    }

    /// What is streamed to it.
    pub(crate) fn feed(&self) -> Option<Feed> {
        self.conn.feed()
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
mod tests;
