//! One of our own outputs, stdout or stderr: written to without ever blocking the loop and without changing a flag of
//! the descriptor, which others share.
//!
//! No single call does that on every kind of descriptor, so the kind is looked up at the first write:
//!
//! | kind | written with | because |
//! |---|---|---|
//! | regular file, /dev/null, block device | write | never waits for a reader; uses the shared offset and O_APPEND |
//! | pipe | pwritev2(RWF_NOWAIT) | a poll before a plain write can be overtaken by another writer |
//! | FIFO; pipe that somebody spliced on | a pipe of our own and splice(SPLICE_F_NONBLOCK) | RWF_NOWAIT is not supported there |
//! | socket | send(MSG_DONTWAIT) | splice blocks on a full socket, whatever its flags say |
//! | terminal | a description of our own, opened O_NONBLOCK | splice and poll-then-write both block |
//! | terminal that cannot be opened again | one byte after each poll | for our log only; nothing is captured to it |
//! | master's side of a pseudo-terminal | the same | opened again it would be that of a new pair |
//!
//! Up to three writers share a sink: the captured streams ([`Sink::write`]; both, where stdout and stderr are one pipe
//! or terminal) and kapo's own records ([`Sink::log`]). None begins while another is cut short in the middle of a
//! write, so lines are not torn.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, Timespec, fstat, open};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, retry_on_intr, write};
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use rustix::termios::{isatty, tcgetsid};

use crate::logic::Stream;
use crate::logic::record::Record;
use crate::sys;

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All were taken.
    All,
    /// This many were taken, more than none and fewer than all; the rest must be offered next.
    Part(usize),
    /// None were taken; try again when [`Sink::source`] is writable, with the same bytes.
    Full,
    /// Nothing can be written, now or later.
    Broken(Errno),
}

/// Records that wait for room, in bytes; what comes beyond is counted and dropped: log trouble never stops the work.
const QUEUE: usize = 16 * 1024;

/// See the head of the file.
#[derive(Debug)]
pub struct Sink<'fd> {
    fd: BorrowedFd<'fd>,
    /// `None` until the first write: a start that logs nothing asks for nothing.
    kind: Option<Kind>,
    /// Who was cut short in the middle, and must go on before the other may begin.
    unfinished: Option<Writer>,
    /// Records not yet written.
    queue: Vec<u8>,
    dropped: u64,
    /// Captured output of stdout and stderr stands in the middle of a line and goes on.
    held: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Captured(Stream),
    Records,
}

#[derive(Debug)]
enum Kind {
    Plain,
    Pipe,
    Relay(Relay),
    Socket,
    Terminal(OwnedFd),
    ForeignTerminal,
    Broken(Errno),
}

impl<'fd> Sink<'fd> {
    /// Makes no system call. A descriptor that is closed or not open for writing shows as broken at the first write.
    pub fn open(fd: BorrowedFd<'fd>) -> Sink<'fd> {
        Sink { fd, kind: None, unfinished: None, queue: Vec::new(), dropped: 0, held: [false; 2] }
    }

    /// Whether captured output can be passed on here without ever blocking. Where not (a terminal of another user that
    /// is not ours to control, the master's side of one), the stream must be left to the command as it is.
    pub fn can_capture(&mut self) -> bool {
        !matches!(self.kind(), Kind::ForeignTerminal)
    }

    /// Writes captured output of `stream`. After [`Written::Part`] and [`Written::Full`] the next call for that stream
    /// must offer exactly the bytes that were not taken (more may follow them).
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> Written {
        let writer = Writer::Captured(stream);
        if self.unfinished == Some(Writer::Records) {
            self.flush();
        }
        if self.unfinished.is_some_and(|other| other != writer) {
            return Written::Full;
        }
        let written = self.put(bytes);
        self.settle(writer, written);
        written
    }

    /// Writes a record of kapo's own, at once if possible, else as soon as there is room and no captured line is cut
    /// in two by it. Never fails: what cannot be written is dropped, and a later record tells how many were.
    pub fn log(&mut self, wall: SystemTime, record: &Record) {
        if matches!(self.kind, Some(Kind::Broken(_))) {
            return;
        }
        let before = self.queue.len();
        if self.dropped > 0 {
            Record::warn("log records dropped").with("count", self.dropped).render(wall, &mut self.queue);
        }
        record.render(wall, &mut self.queue);
        if self.queue.len() > QUEUE {
            self.queue.truncate(before);
            self.dropped += 1;
        } else {
            self.dropped = 0;
        }
        self.flush();
    }

    /// Writes the records that wait, unless captured output stands in the middle of something. True when none are left.
    pub fn flush(&mut self) -> bool {
        while !self.queue.is_empty() {
            if !self.may_log() {
                return false;
            }
            let queue = std::mem::take(&mut self.queue);
            let written = self.put(&queue);
            self.queue = queue;
            self.settle(Writer::Records, written);
            match written {
                // Not kept for later: an instance that logs once an hour need not hold the memory meanwhile.
                Written::All | Written::Broken(_) => self.queue = Vec::new(),
                Written::Part(taken) => drop(self.queue.drain(..taken)),
                Written::Full => return false,
            }
        }
        true
    }

    /// Says that captured output has stopped in the middle of a line and goes on, at once or when there is room:
    /// records wait until `hold(stream, false)`, which writes them.
    pub fn hold(&mut self, stream: Stream, hold: bool) {
        let [stdout, stderr] = &mut self.held;
        match stream {
            Stream::Stdout => *stdout = hold,
            Stream::Stderr => *stderr = hold,
        }
        if !hold {
            self.flush();
        }
    }

    fn may_log(&self) -> bool {
        match self.unfinished {
            Some(Writer::Captured(_)) => false,
            Some(Writer::Records) => true,
            None => self.held == [false; 2],
        }
    }

    /// Records wait for room: [`Sink::flush`] is to be called when [`Sink::source`] is writable.
    pub fn wants_room(&self) -> bool {
        !self.queue.is_empty() && self.may_log()
    }

    /// Records wait, for room or for captured output to come to the end of a line.
    pub fn has_records(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What to poll for writability after [`Written::Full`] or while [`Sink::wants_room`]; `None` before the first
    /// write. A broken one polls as writable, so that whoever waited for room learns of it.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        match self.kind.as_ref()? {
            Kind::Terminal(own) => Some(own.as_fd()),
            Kind::Plain
            | Kind::Pipe
            | Kind::Relay(_)
            | Kind::Socket
            | Kind::ForeignTerminal
            | Kind::Broken(_) => Some(self.fd),
        }
    }

    /// Whether this is a pipe or FIFO, to which pages can be moved.
    pub fn can_splice(&mut self) -> bool {
        matches!(self.kind(), Kind::Pipe | Kind::Relay(_))
    }

    /// The descriptor, if it is a pipe or FIFO to which pages may be moved now: nothing of ours is cut short.
    pub fn splice_target(&mut self) -> Option<BorrowedFd<'fd>> {
        let fd = self.fd;
        if !self.flush() || self.unfinished.is_some() {
            return None;
        }
        self.can_splice().then_some(fd)
    }

    /// Marks the sink as broken, for who moved pages to it himself.
    pub fn break_off(&mut self, errno: Errno) {
        self.settle(Writer::Records, Written::Broken(errno));
    }

    fn kind(&mut self) -> &mut Kind {
        let fd = self.fd;
        self.kind.get_or_insert_with(|| Kind::of(fd))
    }

    /// Remembers whether `writer` was cut short, or that all is over.
    fn settle(&mut self, writer: Writer, written: Written) {
        match written {
            Written::All => self.unfinished = None,
            Written::Part(_) => self.unfinished = Some(writer),
            // What lies in the relay cannot be called back: nobody else may write until it has gone.
            Written::Full if matches!(&self.kind, Some(Kind::Relay(relay)) if relay.inside > 0) => {
                self.unfinished = Some(writer);
            }
            Written::Full => {}
            Written::Broken(errno) => {
                self.kind = Some(Kind::Broken(errno));
                self.unfinished = None;
                self.queue = Vec::new();
            }
        }
    }

    /// One attempt, and another where the first call turned out not to be supported.
    fn put(&mut self, bytes: &[u8]) -> Written {
        if bytes.is_empty() {
            return Written::All;
        }
        let fd = self.fd;
        let result = retry_on_intr(|| match self.kind() {
            Kind::Plain => write(fd, bytes),
            Kind::Pipe => match pwritev2(fd, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
                Err(Errno::OPNOTSUPP) => match Relay::new() {
                    Ok(mut relay) => {
                        let result = relay.write(fd, bytes);
                        self.kind = Some(Kind::Relay(relay));
                        result
                    }
                    // Out of descriptors: a page fits where poll says so, unless another writer is faster.
                    Err(_) => write_polled(fd, bytes, PAGE),
                },
                result => result,
            },
            Kind::Relay(relay) => relay.write(fd, bytes),
            Kind::Socket => send_some(fd, bytes),
            Kind::Terminal(own) => write(own, bytes),
            Kind::ForeignTerminal => write_polled(fd, bytes, 1),
            Kind::Broken(errno) => Err(*errno),
        });
        match result {
            Ok(taken) if taken >= bytes.len() => Written::All,
            Ok(0) | Err(Errno::AGAIN) => Written::Full,
            Ok(taken) => Written::Part(taken),
            Err(errno) => Written::Broken(errno),
        }
    }
}

/// Both outputs. Records go to stderr.
#[derive(Debug)]
pub struct Sinks<'fd> {
    stdout: Sink<'fd>,
    stderr: Sink<'fd>,
    shared: bool,
}

impl<'fd> Sinks<'fd> {
    /// Makes no system call.
    pub fn open(stdout: BorrowedFd<'fd>, stderr: BorrowedFd<'fd>) -> Sinks<'fd> {
        Sinks { stdout: Sink::open(stdout), stderr: Sink::open(stderr), shared: false }
    }

    /// To be called where a stream is captured: if both go to one pipe, socket or terminal (`2>&1`), they share one sink
    /// from now on, so that neither the other stream nor a record of ours cuts a line in two.
    pub fn share(&mut self) {
        let (Ok(stdout), Ok(stderr)) = (fstat(self.stdout.fd), fstat(self.stderr.fd)) else { return };
        // Two descriptors of one file may have offsets of their own, and a file takes every write whole anyway.
        self.shared = stdout.st_dev == stderr.st_dev
            && stdout.st_ino == stderr.st_ino
            && FileType::from_raw_mode(stdout.st_mode) != FileType::RegularFile;
    }

    /// Both streams go to one sink.
    pub fn are_shared(&self) -> bool {
        self.shared
    }

    /// Where `stream` goes.
    pub fn of(&mut self, stream: Stream) -> &mut Sink<'fd> {
        match stream {
            Stream::Stdout if !self.shared => &mut self.stdout,
            Stream::Stdout | Stream::Stderr => &mut self.stderr,
        }
    }

    /// Writes a record of kapo's own, see [`Sink::log`].
    pub fn log(&mut self, wall: SystemTime, record: &Record) {
        self.stderr.log(wall, record);
    }
}

impl Kind {
    fn of(fd: BorrowedFd<'_>) -> Kind {
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

/// What a pipe takes without waiting when it polls as writable.
const PAGE: usize = 4096;

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

/// A pipe of our own in front of one that supports no write without waiting: bytes are written into ours, which is
/// empty enough, and moved from there. What lies in it is always the beginning of what is offered next, so nothing is
/// lost or repeated, and no byte counts as taken before it has gone.
#[derive(Debug)]
struct Relay {
    read: OwnedFd,
    write: OwnedFd,
    inside: usize,
}

impl Relay {
    fn new() -> Result<Relay, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Relay { read, write, inside: 0 })
    }

    fn write(&mut self, target: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let fresh = rest.get(self.inside..).unwrap_or_default();
            if !fresh.is_empty() {
                match write(&self.write, fresh) {
                    Ok(n) => self.inside += n,
                    Err(Errno::AGAIN) if self.inside > 0 => {}
                    Err(errno) => return Err(errno),
                }
            }
            match splice(&self.read, None, target, None, self.inside, SpliceFlags::NONBLOCK) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(moved) => {
                    self.inside -= moved;
                    taken += moved;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
pub(crate) mod tests;
