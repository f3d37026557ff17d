//! What kind of descriptor an outlet is, and the system call that writes to that kind without waiting. The table at the
//! head of `sink` says why.

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

/// What a stream socket of this machine takes whole or not at all: one buffer of the kernel.
const SOCKET_PIECE: usize = 32 * 1024;

/// Up to this many bytes a pipe gets its pieces in one call each; a relay costs one call for each piece and one more.
const MANY_PIECES: usize = 4 * PIPE_BUF;

/// See the head of the file.
#[derive(Debug)]
pub(super) enum Kind {
    Plain,
    Pipe,
    Relay(Relay),
    /// A pipe for which the kernel, or a filter of system calls, refuses both pwritev2 and splice.
    PolledPipe,
    Socket,
    Terminal(OwnedFd),
    ForeignTerminal,
    /// Nothing can be written any more.
    Broken(Errno),
}

impl Kind {
    /// Looks it up.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Kind {
        let stat = match fstat(fd) {
            Ok(stat) => stat,
            Err(errno) => return Kind::Broken(errno),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice if isatty(fd) => match own_terminal(fd) {
                Ok(own) => Kind::Terminal(own),
                Err(_) => Kind::ForeignTerminal,
            },
            _ => Kind::Plain,
        }
    }

    /// What to poll for room.
    pub(super) fn source<'a>(&'a self, fd: BorrowedFd<'a>) -> BorrowedFd<'a> {
        match self {
            Kind::Terminal(own) => own.as_fd(),
            Kind::Plain
            | Kind::Pipe
            | Kind::Relay(_)
            | Kind::PolledPipe
            | Kind::Socket
            | Kind::ForeignTerminal
            | Kind::Broken(_) => fd,
        }
    }

    /// Whether bytes were handed over that have not gone and cannot be called back.
    pub(super) fn is_loaded(&self) -> bool {
        matches!(self, Kind::Relay(relay) if relay.is_loaded())
    }

    /// Forgets what was handed over and has not gone.
    pub(super) fn unload(&mut self) {
        if self.is_loaded() {
            *self = Kind::Pipe;
        }
    }

    /// Writes as much as goes without waiting. A call that turns out not to be available is replaced by another one, now
    /// and for all writes to come.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Kind::Plain => write_plain(fd, bytes),
            // Many pieces are moved at once, so that the reader is woken once.
            Kind::Pipe if bytes.len() > MANY_PIECES => self.relay(fd, bytes),
            Kind::Pipe => {
                let now =
                    |piece: &[u8]| pwritev2(fd, &[IoSlice::new(piece)], u64::MAX, ReadWriteFlags::NOWAIT);
                match pieces::write(bytes, PIPE_BUF, now) {
                    Err(errno) if !says_something_about_a_pipe(errno) => self.relay(fd, bytes),
                    result => result,
                }
            }
            Kind::Relay(relay) => match relay.write(fd, bytes) {
                // What lies in the relay is offered again with `bytes`.
                Err(errno) if !says_something_about_a_pipe(errno) => {
                    *self = Kind::PolledPipe;
                    self.write(fd, bytes)
                }
                result => result,
            },
            Kind::PolledPipe => write_polled_pipe(fd, bytes),
            Kind::Socket => pieces::write(bytes, SOCKET_PIECE, |piece| send_some(fd, piece)),
            Kind::Terminal(own) => write(own, bytes),
            Kind::ForeignTerminal => write_polled(fd, bytes, 1),
            Kind::Broken(errno) => Err(*errno),
        }
    }

    /// Writes to a pipe by way of a relay, now and from now on.
    fn relay(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        match Relay::new() {
            Ok(relay) => {
                *self = Kind::Relay(relay);
                self.write(fd, bytes)
            }
            // Out of descriptors, perhaps not for ever.
            Err(_) => write_polled_pipe(fd, bytes),
        }
    }
}

/// Whether an error means that nothing will ever be taken again: the reader has gone, or the descriptor is not open for
/// writing. All others may pass: a full disk, a quota, a device that refuses one record, a network file system.
pub(super) fn is_final(errno: Errno) -> bool {
    matches!(errno, Errno::PIPE | Errno::BADF | Errno::CONNRESET | Errno::NOTCONN)
}

/// Whether an error is about the pipe; all others are about the call, which an old kernel lacks, a seccomp profile
/// forbids (ENOSYS, EPERM) or the open file does not support (EOPNOTSUPP, EINVAL).
fn says_something_about_a_pipe(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INTR | Errno::NOMEM) || is_final(errno)
}

/// Devices such as /dev/kmsg take one line at a time and refuse longer texts with EINVAL.
fn write_plain(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    match write(fd, bytes) {
        Err(Errno::INVAL) => {
            let line = pieces::first(bytes, 1);
            if line.len() < bytes.len() { write(fd, line) } else { Err(Errno::INVAL) }
        }
        result => result,
    }
}

/// Opens the terminal again, for a description whose flags are ours. /proc refuses where another user owns the
/// terminal (su, sudo); /dev/tty asks for no permission, but is the same terminal only if it is the controlling one.
fn own_terminal(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // Its name, and that it is a terminal, it shares with all masters; a new one has nobody who reads.
    if sys::stdio::is_pty_master(fd) {
        return Err(Errno::NXIO);
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(link, flags, Mode::empty()).or_else(|_| {
        // Fails with ENOTTY for every terminal but the controlling one.
        tcgetsid(fd)?;
        open("/dev/tty", flags, Mode::empty())
    })
}

/// A datagram socket refuses what is too long for one datagram: shorter ones are tried.
fn send_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut piece = bytes;
    loop {
        match send(fd, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::MSGSIZE) if piece.len() > 1 => piece = piece.get(..piece.len() / 2).unwrap_or(piece),
            result => return result,
        }
    }
}

/// A pipe that polls as writable takes `PIPE_BUF` bytes at once, unless another writer is faster.
fn write_polled_pipe(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    pieces::write(bytes, PIPE_BUF, |piece| write_polled(fd, piece, PIPE_BUF))
}

/// Polls before each piece. A terminal that polls as writable has room for one byte, and no more is promised.
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
