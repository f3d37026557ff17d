//! Determines the kind of a descriptor and makes the system call that writes to that kind without blocking. The table
//! in the documentation of `sink` gives the reasons.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, Timespec, fstat, open};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, write};
use rustix::net::{SendFlags, send};
use rustix::termios::{isatty, tcgetsid};

use crate::driver::output::sink::relay::Relay;
use crate::logic::output::pieces;
use crate::logic::output::pieces::PIPE_BUF;
use crate::sys;

/// Maximum number of bytes that a local stream socket takes atomically: the size of one kernel buffer.
const SOCKET_PIECE: usize = 32 * 1024;

/// Up to this many bytes, a pipe gets one system call for each piece. Larger writes use a relay, which also costs one
/// call for each piece and one more for splice, but wakes the reader once.
const MANY_PIECES: usize = 4 * PIPE_BUF;

/// The kind of a descriptor, with what is needed to write to it.
#[derive(Debug)]
pub(super) enum SinkKind {
    Plain,
    Pipe,
    Relay(Relay),
    /// A pipe for which the kernel or a seccomp filter refuses both pwritev2 and splice.
    PolledPipe,
    Socket,
    Terminal(OwnedFd),
    ForeignTerminal,
    /// Writing has failed for good, with this error.
    Broken(Errno),
}

impl SinkKind {
    /// Determines the kind of `fd`.
    pub(super) fn of(fd: BorrowedFd<'_>) -> SinkKind {
        let stat = match fstat(fd) {
            Ok(stat) => stat,
            Err(errno) => return SinkKind::Broken(errno),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => SinkKind::Pipe,
            FileType::Socket => SinkKind::Socket,
            FileType::CharacterDevice if isatty(fd) => match own_terminal(fd) {
                Ok(own) => SinkKind::Terminal(own),
                Err(_) => SinkKind::ForeignTerminal,
            },
            _ => SinkKind::Plain,
        }
    }

    /// Returns the descriptor to poll for room.
    pub(super) fn source<'a>(&'a self, fd: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self {
            SinkKind::Terminal(own) => own.as_fd(),
            SinkKind::Plain
            | SinkKind::Pipe
            | SinkKind::Relay(_)
            | SinkKind::PolledPipe
            | SinkKind::Socket
            | SinkKind::ForeignTerminal
            | SinkKind::Broken(_) => fd,
        }
    }

    /// Whether a relay holds bytes that have not reached the target and cannot be taken back.
    pub(super) fn is_loaded(&self) -> bool {
        matches!(self, SinkKind::Relay(relay) if relay.is_loaded())
    }

    /// Discards the bytes that a relay holds.
    pub(super) fn unload(&mut self) {
        if self.is_loaded() {
            *self = SinkKind::Pipe;
        }
    }

    /// Writes as many bytes as possible without blocking. If a system call turns out to be unavailable, this write and
    /// all later ones use the next one in the table.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            SinkKind::Plain => write_plain(fd, bytes),
            // Move many pieces with one call, so that the reader is woken once.
            SinkKind::Pipe if bytes.len() > MANY_PIECES => self.relay(fd, bytes),
            SinkKind::Pipe => {
                let now =
                    |piece: &[u8]| pwritev2(fd, &[IoSlice::new(piece)], u64::MAX, ReadWriteFlags::NOWAIT);
                match pieces::write(bytes, PIPE_BUF, now) {
                    Err(errno) if !says_something_about_a_pipe(errno) => self.relay(fd, bytes),
                    result => result,
                }
            }
            SinkKind::Relay(relay) => match relay.write(fd, bytes) {
                // The bytes in the relay are part of `bytes`, so they are written again.
                Err(errno) if !says_something_about_a_pipe(errno) => {
                    *self = SinkKind::PolledPipe;
                    self.write(fd, bytes)
                }
                result => result,
            },
            SinkKind::PolledPipe => write_polled_pipe(fd, bytes),
            SinkKind::Socket => pieces::write(bytes, SOCKET_PIECE, |piece| send_some(fd, piece)),
            SinkKind::Terminal(own) => write(own, bytes),
            SinkKind::ForeignTerminal => write_polled(fd, bytes, 1),
            SinkKind::Broken(errno) => Err(*errno),
        }
    }

    /// Writes to a pipe through a relay, now and from now on.
    fn relay(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        match Relay::new() {
            Ok(relay) => {
                *self = SinkKind::Relay(relay);
                self.write(fd, bytes)
            }
            // No descriptor is free for a relay at the moment; the next write tries again.
            Err(_) => write_polled_pipe(fd, bytes),
        }
    }
}

/// Whether an error is permanent: the reader has closed its end, or the descriptor is not open for writing. All other
/// errors may be temporary: a full disk, a quota, a device that refuses one record, a network file system.
pub(super) fn is_final(errno: Errno) -> bool {
    matches!(errno, Errno::PIPE | Errno::BADF | Errno::CONNRESET | Errno::NOTCONN)
}

/// Whether an error is about the pipe; all others are about the call, which an old kernel lacks, a seccomp profile
/// forbids (ENOSYS, EPERM) or the open file does not support (EOPNOTSUPP, EINVAL).
fn says_something_about_a_pipe(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INTR | Errno::NOMEM) || is_final(errno)
}

/// Writes to a file or device. A device such as /dev/kmsg takes one line at a time and refuses a longer text with
/// EINVAL.
fn write_plain(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    match write(fd, bytes) {
        Err(Errno::INVAL) => {
            let line = pieces::first(bytes, 1);
            if line.len() < bytes.len() { write(fd, line) } else { Err(Errno::INVAL) }
        }
        result => result,
    }
}

/// Opens the terminal again, because only the flags of kapo's own file description may be changed. Opening it through
/// /proc fails if the terminal belongs to another user (su, sudo). /dev/tty needs no permission, but is the same
/// terminal only if that is the controlling one.
fn own_terminal(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // The master of a pseudo-terminal must not be opened again. It counts as a terminal, but all masters have the same
    // name, and opening this name creates a new pseudo-terminal, from which no process reads.
    if sys::stdio::is_pty_master(fd) {
        return Err(Errno::NXIO);
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(link, flags, Mode::empty()).or_else(|_| {
        // Fails with ENOTTY for every terminal except the controlling one.
        tcgetsid(fd)?;
        open("/dev/tty", flags, Mode::empty())
    })
}

/// Sends bytes to a socket. If they are too long for one datagram, sends half as many until they fit.
fn send_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut piece = bytes;
    loop {
        match send(fd, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::MSGSIZE) if piece.len() > 1 => piece = piece.get(..piece.len() / 2).unwrap_or(piece),
            result => return result,
        }
    }
}

/// Writes pieces to a pipe after polling it. A pipe that polls as writable takes `PIPE_BUF` bytes without blocking,
/// unless another writer fills it first.
fn write_polled_pipe(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    pieces::write(bytes, PIPE_BUF, |piece| write_polled(fd, piece, PIPE_BUF))
}

/// Polls before each piece of at most `piece` bytes. If poll(2) reports that a terminal is writable, a write of more
/// than one byte may still block.
fn write_polled(fd: BorrowedFd<'_>, bytes: &[u8], piece: usize) -> Result<usize, Errno> {
    let mut taken = 0;
    for piece in bytes.chunks(piece) {
        let mut ask = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut ask, Some(&at_once))? == 0 {
            break;
        }
        match write(fd, piece) {
            Ok(n) => taken += n,
            Err(errno) if taken == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(taken)
}
