//! One of our own outputs, stdout or stderr: written to without ever blocking the loop and without changing a flag of
//! the descriptor, which others share.
//!
//! No single call does that on every kind of descriptor, so the kind is looked up at the first write:
//!
//! | kind | written with | because |
//! |---|---|---|
//! | regular file, /dev/null, block device | write | never waits for a reader; uses the shared offset and O_APPEND |
//! | pipe | pwritev2(RWF_NOWAIT) | a poll before a plain write can be overtaken by another writer |
//! | FIFO; pipe that somebody spliced on; large writes to a pipe | a pipe of our own and splice(SPLICE_F_NONBLOCK) | RWF_NOWAIT is not supported there, or forbidden |
//! | pipe, if splice is not available either | write of at most PIPE_BUF after poll | blocks only if another writer takes the room in between |
//! | socket | send(MSG_DONTWAIT) | splice blocks on a full socket, whatever its flags say |
//! | terminal | a description of our own, opened O_NONBLOCK | splice and poll-then-write both block |
//! | terminal that cannot be opened again | one byte after each poll | for our log only; nothing is captured to it |
//! | master's side of a pseudo-terminal | the same | opened again it would be that of a new pair |
//!
//! Up to three writers share a sink: the captured streams ([`Sink::write`]; both, where stdout and stderr are one pipe
//! or terminal) and kapo's own records ([`Sink::log`]). None begins while another is cut short in the middle of a
//! line, so lines are not torn. Writers in other processes are kept from tearing them by writes that a pipe takes whole,
//! see [`crate::logic::output::pieces`].
//!
//! A write that fails for another reason than a closed pipe or descriptor is tried again, see [`crate::logic::output::outage`].

mod kind;
mod relay;

use std::os::fd::BorrowedFd;
use std::time::{Instant, SystemTime};

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, retry_on_intr};

use crate::driver::output::sink::kind::{Kind, is_final};
use crate::logic::Stream;
use crate::logic::log::record::{Record, Style};
use crate::logic::output::outage::Outage;

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All were taken.
    All,
    /// This many were taken, more than none and fewer than all; the rest must be offered next.
    Part(usize),
    /// None were taken; try again when [`Sink::source`] is writable, with the same bytes.
    Full,
    /// Nothing can be written now, and there is nothing to wait for: these bytes are to be discarded.
    Failed(Errno),
}

/// Records that wait for room, in bytes; what comes beyond is counted and dropped: log trouble never stops the work.
const QUEUE: usize = 16 * 1024;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Sink<'fd> {
    fd: BorrowedFd<'fd>,
    /// `None` until the first write: a start that logs nothing asks for nothing.
    kind: Option<Kind>,
    /// Who was cut short in the middle, and must go on before the other may begin.
    unfinished: Option<Writer>,
    /// Records not yet written.
    queue: Vec<u8>,
    /// Records that are lost, of which a later record is to tell.
    dropped: u64,
    /// Lost records of which a record in the queue tells.
    noted: u64,
    /// The last write has failed.
    outage: Option<(Outage, Errno)>,
    /// The time of this turn of the loop; `None` before the first.
    now: Option<Instant>,
    /// Captured output of stdout and stderr stands in the middle of a line and goes on.
    held: [bool; 2],
    /// How records are written.
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Captured(Stream),
    Records,
}

impl<'fd> Sink<'fd> {
    /// Makes no system call. A descriptor that is closed or not open for writing shows as broken at the first write.
    pub(crate) fn open(fd: BorrowedFd<'fd>) -> Sink<'fd> {
        Sink {
            fd,
            kind: None,
            unfinished: None,
            queue: Vec::new(),
            dropped: 0,
            noted: 0,
            outage: None,
            now: None,
            held: [false; 2],
            style: Style::default(),
        }
    }

    /// Whether captured output can be passed on here without ever blocking. Where not (a terminal of another user that
    /// is not ours to control, the master's side of one), the stream must be left to the command as it is.
    pub(crate) fn can_capture(&mut self) -> bool {
        !matches!(self.kind(), Kind::ForeignTerminal)
    }

    /// Writes captured output of `stream`. After [`Written::Part`] and [`Written::Full`] the next call for that stream
    /// must offer exactly the bytes that were not taken (more may follow them).
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> Written {
        let writer = Writer::Captured(stream);
        if self.unfinished == Some(Writer::Records) {
            self.flush();
        }
        if self.unfinished.is_some_and(|other| other != writer) {
            return Written::Full;
        }
        let written = self.put(bytes);
        self.settle(writer, bytes, written);
        written
    }

    /// Whether the last write for `stream` was cut short, so that its rest must be offered next, and all of it.
    pub(crate) fn is_cut_short(&self, stream: Stream) -> bool {
        self.unfinished == Some(Writer::Captured(stream))
    }

    /// Writes a record of kapo's own, at once if possible, else as soon as there is room and no captured line is cut
    /// in two by it. Never fails: what cannot be written is dropped, and a later record tells how many were.
    pub(crate) fn log(&mut self, wall: SystemTime, record: &Record) {
        if matches!(self.kind, Some(Kind::Broken(_))) {
            return;
        }
        if self.rests() {
            self.dropped += 1;
            return;
        }
        let before = self.queue.len();
        if self.dropped > 0 {
            Record::warn("log records dropped").number("count", self.dropped).render(
                self.style,
                wall,
                &mut self.queue,
            );
        }
        record.render(self.style, wall, &mut self.queue);
        if self.queue.len() > QUEUE {
            self.queue.truncate(before);
            self.dropped += 1;
        } else {
            self.noted += self.dropped;
            self.dropped = 0;
        }
        self.flush();
    }

    /// Writes the records that wait, unless captured output stands in the middle of something. True when none are left.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.queue.is_empty() {
            if !self.may_log() {
                return false;
            }
            let queue = std::mem::take(&mut self.queue);
            let written = self.put(&queue);
            self.settle(Writer::Records, &queue, written);
            self.queue = queue;
            match written {
                // Not kept for later: an instance that logs once an hour need not hold the memory meanwhile.
                Written::All => self.queue = Vec::new(),
                Written::Part(taken) => drop(self.queue.drain(..taken)),
                Written::Full => return false,
                Written::Failed(_) => {
                    let lines = memchr::memchr_iter(b'\n', &self.queue).count() as u64;
                    self.dropped += lines + self.noted - u64::from(self.noted > 0);
                    self.queue = Vec::new();
                }
            }
            self.noted = 0;
        }
        true
    }

    /// Says that captured output has stopped in the middle of a line and goes on, at once or when there is room:
    /// records wait until `hold(stream, false)`, which writes them.
    pub(crate) fn hold(&mut self, stream: Stream, hold: bool) {
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
    pub(crate) fn wants_room(&self) -> bool {
        !self.queue.is_empty() && self.may_log()
    }

    /// Records wait, for room or for captured output to come to the end of a line.
    pub(crate) fn has_records(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What to poll for writability after [`Written::Full`] or while [`Sink::wants_room`]; `None` before the first
    /// write. A broken one polls as writable, so that whoever waited for room learns of it.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.kind.as_ref()?.source(self.fd))
    }

    /// Whether this is a pipe or FIFO, to which pages can be moved.
    pub(crate) fn can_splice(&mut self) -> bool {
        matches!(self.kind(), Kind::Pipe | Kind::Relay(_))
    }

    /// The descriptor, if it is a pipe or FIFO to which pages may be moved now: nothing of ours is cut short.
    pub(crate) fn splice_target(&mut self) -> Option<BorrowedFd<'fd>> {
        let fd = self.fd;
        if !self.flush() || self.unfinished.is_some() {
            return None;
        }
        self.can_splice().then_some(fd)
    }

    /// Notes that the reader has gone, for a caller that moved pages itself.
    pub(crate) fn break_off(&mut self, errno: Errno) {
        self.fail(errno);
    }

    fn kind(&mut self) -> &mut Kind {
        let fd = self.fd;
        self.kind.get_or_insert_with(|| Kind::of(fd))
    }

    /// The last write has failed, and the next attempt is not due.
    fn rests(&self) -> bool {
        self.outage.is_some_and(|(outage, _)| !outage.is_due(self.now))
    }

    fn fail(&mut self, errno: Errno) {
        if is_final(errno) {
            self.kind = Some(Kind::Broken(errno));
        } else {
            self.kind().unload();
            self.outage = Some((Outage::new(self.now), errno));
        }
        self.unfinished = None;
    }

    /// Remembers whether `writer` was cut short in the middle of a line. What was handed over to a relay cannot be called
    /// back: no other writer may begin until it has gone.
    fn settle(&mut self, writer: Writer, bytes: &[u8], written: Written) {
        let loaded = self.kind().is_loaded();
        match written {
            Written::All => self.unfinished = None,
            Written::Part(taken) => {
                let at_line_end = taken.checked_sub(1).and_then(|last| bytes.get(last)) == Some(&b'\n');
                self.unfinished = (loaded || !at_line_end).then_some(writer);
            }
            Written::Full if loaded => self.unfinished = Some(writer),
            Written::Full | Written::Failed(_) => {}
        }
    }

    /// One attempt, unless the last one has failed a moment ago.
    fn put(&mut self, bytes: &[u8]) -> Written {
        if bytes.is_empty() {
            return Written::All;
        }
        if let Some((_, errno)) = self.outage.filter(|_| self.rests()) {
            return Written::Failed(errno);
        }
        let fd = self.fd;
        let result = retry_on_intr(|| self.kind().write(fd, bytes));
        if let Err(errno) = result
            && errno != Errno::AGAIN
        {
            self.fail(errno);
            return Written::Failed(errno);
        }
        self.outage = None;
        match result {
            Ok(taken) if taken >= bytes.len() => Written::All,
            Ok(0) | Err(_) => Written::Full,
            Ok(taken) => Written::Part(taken),
        }
    }
}

/// Both outputs. Records go to stderr.
#[derive(Debug)]
pub(crate) struct Sinks<'fd> {
    stdout: Sink<'fd>,
    stderr: Sink<'fd>,
    shared: bool,
}

impl<'fd> Sinks<'fd> {
    /// Makes no system call.
    pub(crate) fn open(stdout: BorrowedFd<'fd>, stderr: BorrowedFd<'fd>) -> Sinks<'fd> {
        Sinks { stdout: Sink::open(stdout), stderr: Sink::open(stderr), shared: false }
    }

    /// Sets how records are written.
    pub(crate) fn set_style(&mut self, style: Style) {
        self.stderr.style = style;
    }

    /// Begins a turn of the loop: outputs that have failed may be due for another attempt.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.stdout.now = Some(now);
        self.stderr.now = Some(now);
    }

    /// To be called where a stream is captured: if both go to one pipe, socket or terminal (`2>&1`), they share one sink
    /// from now on, so that neither the other stream nor a record of ours cuts a line in two.
    pub(crate) fn share(&mut self) {
        let (Ok(stdout), Ok(stderr)) = (fstat(self.stdout.fd), fstat(self.stderr.fd)) else { return };
        // Two descriptors of one file may have offsets of their own, and a file takes every write whole anyway.
        self.shared = stdout.st_dev == stderr.st_dev
            && stdout.st_ino == stderr.st_ino
            && FileType::from_raw_mode(stdout.st_mode) != FileType::RegularFile;
    }

    /// Both streams go to one sink.
    pub(crate) fn are_shared(&self) -> bool {
        self.shared
    }

    /// The descriptor that kapo was started with.
    pub(crate) fn descriptor(&self, stream: Stream) -> BorrowedFd<'fd> {
        match stream {
            Stream::Stdout => self.stdout.fd,
            Stream::Stderr => self.stderr.fd,
        }
    }

    /// Where `stream` goes.
    pub(crate) fn of(&mut self, stream: Stream) -> &mut Sink<'fd> {
        match stream {
            Stream::Stdout if !self.shared => &mut self.stdout,
            Stream::Stdout | Stream::Stderr => &mut self.stderr,
        }
    }

    /// Writes a record of kapo's own, see [`Sink::log`].
    pub(crate) fn log(&mut self, wall: SystemTime, record: &Record) {
        self.stderr.log(wall, record);
    }
}

#[cfg(test)]
pub(crate) mod tests;
