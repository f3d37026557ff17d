//! The socket of one connection. It reads once and sends once per readiness, and leaves every decision to [`Conn`]. It
//! is registered level-triggered, so epoll reports it again if a read left bytes behind. A socket error ends this
//! connection only.

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
use crate::logic::http::head_cache::HeadCache;
use crate::logic::http::response::Out;

/// Whether a connection stays open after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionFate {
    /// The connection stays open; its interest may have changed.
    Wait,
    /// The connection has ended; drop it.
    Gone,
    /// Another part of kapo continues with the socket.
    HandOver,
}

/// The loop's buffers, shared by all connections so that an idle connection owns none.
pub(crate) struct Buffers {
    input: Vec<u8>,
    out: Out,
    /// The heads of the last requests.
    head_cache: HeadCache,
}

impl Buffers {
    /// Returns buffers without memory, which is allocated at the first read: an instance without clients needs none.
    pub(crate) fn new() -> Buffers {
        Buffers { input: Vec::new(), out: Out::new(), head_cache: HeadCache::default() }
    }
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers::new()
    }
}

/// An accepted stream socket, TCP or Unix.
pub(crate) struct Connection {
    socket: OwnedFd,
    conn: Conn,
    /// The events that epoll is registered for; `None` before the first registration.
    registered: Option<EventFlags>,
    /// The last send had MSG_MORE: the kernel holds those bytes back until our side is closed.
    corked: bool,
}

impl Connection {
    /// Takes an accepted socket. It may be in blocking mode, as an inherited one is, because reads and writes use
    /// MSG_DONTWAIT. Call [`Connection::on_ready`] at once, because the request is often readable already.
    pub(crate) fn new(now: Now, socket: OwnedFd) -> Connection {
        Connection { socket, conn: Conn::new(now), registered: None, corked: false }
    }

    /// Reads once and sends once. Call it when epoll reports an event of [`Connection::interest`] or an error.
    pub(crate) fn on_ready(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        handler: &mut dyn Handler,
    ) -> ConnectionFate {
        let result = self.serve(now, buffers, handler);
        self.settle(now, result, &mut buffers.out)
    }

    /// Asks the handler again for a held request after the state has changed. Without a held request or left-over
    /// requests it does nothing.
    pub(crate) fn resume(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        handler: &mut dyn Handler,
    ) -> ConnectionFate {
        self.conn.resume(now, &mut buffers.head_cache, handler, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// Answers a held request now, as if its deadline had passed, because kapo is closing.
    pub(crate) fn give_up_waiting(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        handler: &mut dyn Handler,
    ) -> ConnectionFate {
        self.conn.give_up_waiting(now, &mut buffers.head_cache, handler, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// Sends the next part of the stream that [`Connection::feed`] names.
    pub(crate) fn push(&mut self, now: Now, bytes: &[u8], buffers: &mut Buffers) -> ConnectionFate {
        self.conn.push(bytes, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// Ends the stream. The connection ends once the peer has taken the rest of it.
    pub(crate) fn end_of_stream(&mut self, now: Now, buffers: &mut Buffers) -> ConnectionFate {
        self.conn.end_of_stream(&mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// Gives the connection up in any phase. If an answer is incomplete, the peer gets a reset.
    pub(crate) fn give_up(&mut self) {
        self.conn.give_up();
        self.end();
    }

    /// Handles a deadline that has passed.
    pub(crate) fn expire(
        &mut self,
        now: Now,
        buffers: &mut Buffers,
        handler: &mut dyn Handler,
    ) -> ConnectionFate {
        self.conn.expire(now, &mut buffers.head_cache, handler, &mut buffers.out);
        self.settle(now, Ok(()), &mut buffers.out)
    }

    /// Returns the facts that the connection table needs; read them after each call on the connection.
    pub(crate) fn facts(&self) -> Facts {
        self.conn.facts()
    }

    /// Returns which stream the connection receives, if any.
    pub(crate) fn feed(&self) -> Option<Feed> {
        self.conn.feed()
    }

    /// Returns the events to register with epoll; epoll always reports errors and hang-ups.
    pub(crate) fn interest(&self) -> EventFlags {
        let wants = self.conn.wants();
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, wants.read);
        flags.set(EventFlags::OUT, wants.write);
        flags
    }

    /// Returns the socket, and the earlier answers that it did not take.
    pub(crate) fn into_parts(self) -> (OwnedFd, Vec<u8>) {
        let unsent = self.conn.pending().to_vec();
        (self.socket, unsent)
    }

    /// Registers the connection with epoll, level-triggered. Makes a system call only if the interest has changed.
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

    fn serve(&mut self, now: Now, buffers: &mut Buffers, handler: &mut dyn Handler) -> io::Result<()> {
        let wants = self.conn.wants();
        if !wants.read && !wants.write {
            return self.check_hang_up();
        }
        if wants.write {
            self.send_pending(now)?;
            if self.conn.pending().is_empty() {
                self.conn.resume(now, &mut buffers.head_cache, handler, &mut buffers.out);
            }
        }
        if wants.read {
            let idle = buffers.input.capacity() == 0;
            buffers.input.clear();
            buffers.input.reserve_exact(READ_SIZE);
            let read =
                retry_on_intr(|| recv(&self.socket, spare_capacity(&mut buffers.input), RecvFlags::DONTWAIT));
            match read {
                Ok((_, 0)) => {
                    // A connection that only ends is no reason for an idle instance to keep a buffer.
                    if idle {
                        buffers.input = Vec::new();
                    }
                    self.conn.eof(&mut buffers.out);
                }
                Ok(_) => {
                    self.conn.receive(now, &buffers.input, &mut buffers.head_cache, handler, &mut buffers.out)
                }
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Fails if poll(2) reports an error or a hang-up. Without interest in events nothing else is reported, except an
    /// event from before the interest changed.
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

    /// Whether our side is closed right after the bytes that are sent now. They are then sent with MSG_MORE, so that
    /// they leave in one segment with the FIN: half the packets for a client that sends one request and closes.
    fn cork(&mut self) -> bool {
        self.corked = self.conn.is_closing();
        self.corked
    }

    /// Prepares the close of the socket. Closing a socket that has unread bytes sends a reset and loses the bytes that
    /// the kernel holds back, so the write side is shut down first. A connection that is given up is reset on purpose,
    /// so that its peer does not take a partial answer for a complete one.
    fn end(&mut self) {
        // If the peer has disconnected already, these calls fail and are not needed.
        let _ = match self.conn.is_given_up() {
            true => sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO)),
            false if self.corked => shutdown(&self.socket, Shutdown::Write),
            false => Ok(()),
        };
    }

    /// Sends the answers in `out`, and half-closes or ends the connection if nothing remains to be sent. Always empties
    /// the shared buffer, because bytes left in it would reach another peer.
    fn settle(&mut self, now: Now, result: io::Result<()>, out: &mut Out) -> ConnectionFate {
        let result = result.and_then(|()| self.flush(now, &out.bytes));
        out.clear();
        match result {
            Ok(()) if self.conn.is_done() => {
                self.end();
                ConnectionFate::Gone
            }
            Ok(()) if self.conn.is_handed_over() => ConnectionFate::HandOver,
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

/// Sends without blocking and returns how many bytes the socket took. `more`: our side is closed right afterwards.
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
