//! Writes to one of kapo's own outputs, stdout or stderr. A write never blocks the loop and never changes a flag of
//! the descriptor, because other processes share it.
//!
//! No single system call can do that on every kind of descriptor, so the kind is determined at the first write:
//!
//! | kind | written with | because |
//! |---|---|---|
//! | regular file, /dev/null, block device | write | never waits for a reader; honours the shared offset and O_APPEND |
//! | pipe | pwritev2(RWF_NOWAIT) | after a poll, another writer may fill the pipe before a plain write |
//! | FIFO; pipe that another process has spliced to; large writes to a pipe | a pipe of kapo's own and splice(SPLICE_F_NONBLOCK) | RWF_NOWAIT is unsupported there or forbidden |
//! | pipe, if splice is not available either | write of at most PIPE_BUF after poll | blocks only if another writer fills the pipe in between |
//! | socket | send(MSG_DONTWAIT) | splice blocks on a full socket even with SPLICE_F_NONBLOCK |
//! | terminal | a file description of kapo's own, opened with O_NONBLOCK | splice may block, and so may a write after poll |
//! | terminal that cannot be reopened | one byte after each poll | used for kapo's log only; output to it is not captured |
//! | master side of a pseudo-terminal | the same | reopening it would create a new pair |
//!
//! Up to three writers share a sink: the captured streams ([`Sink::write`]; both of them if stdout and stderr are one
//! pipe or terminal) and kapo's own records ([`Sink::log`]). After a short write in the middle of a line, no other
//! writer may begin until the line is complete, so lines are not torn. Lines of other processes stay whole because
//! kapo writes in units that a pipe takes atomically, see [`crate::logic::output::pieces`].
//!
//! A write that fails for any reason other than a closed pipe or descriptor is retried, see
//! [`crate::logic::output::outage`].

mod kind;
mod relay;

use std::os::fd::BorrowedFd;
use std::time::{Instant, SystemTime};

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, retry_on_intr};

use crate::driver::output::sink::kind::{SinkKind, is_final};
use crate::logic::Stream;
use crate::logic::log::record::{Record, Style};
use crate::logic::output::outage::Outage;

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All bytes were written.
    All,
    /// This many bytes were written: at least one, but not all. The remaining bytes must be offered next.
    Part(usize),
    /// No byte was written. Offer the same bytes again when [`Sink::source`] is writable.
    Full,
    /// The write failed, and there is no readiness to wait for. The caller must discard these bytes.
    Failed(Errno),
}

/// Maximum size of the queue of log records in bytes. Further records are dropped and counted, so that a full log
/// never stops the work.
const QUEUE: usize = 16 * 1024;

/// An output of kapo; the module's documentation describes how it is written to.
#[derive(Debug)]
pub(crate) struct Sink<'fd> {
    fd: BorrowedFd<'fd>,
    /// `None` until the first write, so that a start that logs nothing costs no system call.
    kind: Option<SinkKind>,
    /// The writer whose last write was short. It must complete it before another writer may begin.
    short_write: Option<Writer>,
    /// Rendered records that are not written yet.
    queue: Vec<u8>,
    /// Number of lost records that no queued record reports yet.
    dropped: u64,
    /// Number of lost records that a record in the queue reports.
    noted: u64,
    /// Set while the last write has failed.
    outage: Option<(Outage, Errno)>,
    /// The time of this turn of the loop; `None` before the first turn.
    now: Option<Instant>,
    /// Whether the captured output of stdout and of stderr has stopped in the middle of a line that will be continued.
    held: [bool; 2],
    /// The format of log records.
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Captured(Stream),
    Records,
}

impl<'fd> Sink<'fd> {
    /// Returns a sink without making a system call. A descriptor that is closed or not open for writing is detected at
    /// the first write.
    pub(crate) fn open(fd: BorrowedFd<'fd>) -> Sink<'fd> {
        Sink {
            fd,
            kind: None,
            short_write: None,
            queue: Vec::new(),
            dropped: 0,
            noted: 0,
            outage: None,
            now: None,
            held: [false; 2],
            style: Style::default(),
        }
    }

    /// Whether captured output can be written here without ever blocking. If not (a terminal of another user that is
    /// not the controlling terminal, or the master side of a pseudo-terminal), the command must inherit the
    /// descriptor.
    pub(crate) fn can_capture(&mut self) -> bool {
        !matches!(self.kind(), SinkKind::ForeignTerminal)
    }

    /// Writes captured output of `stream`. After [`Written::Part`] and [`Written::Full`], the next call for that
    /// stream must begin with exactly the bytes that were not written; more bytes may follow them.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> Written {
        let writer = Writer::Captured(stream);
        if self.short_write == Some(Writer::Records) {
            self.flush();
        }
        if self.short_write.is_some_and(|other| other != writer) {
            return Written::Full;
        }
        let written = self.attempt(bytes);
        self.note_short_write(writer, bytes, written);
        written
    }

    /// Whether the last write for `stream` was short, so that the complete remainder must be offered next.
    pub(crate) fn is_cut_short(&self, stream: Stream) -> bool {
        self.short_write == Some(Writer::Captured(stream))
    }

    /// Writes a log record, at once if possible, otherwise as soon as there is room and no captured line would be
    /// torn. Never fails: a record that cannot be written is dropped, and a later record reports the number of dropped
    /// records.
    pub(crate) fn log(&mut self, wall: SystemTime, record: &Record) {
        if matches!(self.kind, Some(SinkKind::Broken(_))) {
            return;
        }
        if self.is_paused() {
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

    /// Writes the queued records, unless captured output is in the middle of a line. Returns whether the queue is
    /// empty.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.queue.is_empty() {
            if !self.may_log() {
                return false;
            }
            let queue = std::mem::take(&mut self.queue);
            let written = self.attempt(&queue);
            self.note_short_write(Writer::Records, &queue, written);
            self.queue = queue;
            match written {
                // Free the buffer: an instance that logs once an hour need not hold the memory in between.
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

    /// Sets whether captured output has stopped in the middle of a line that will be continued. Records wait until
    /// `hold(stream, false)`, which writes them.
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
        match self.short_write {
            Some(Writer::Captured(_)) => false,
            Some(Writer::Records) => true,
            None => self.held == [false; 2],
        }
    }

    /// Whether records wait for room. If so, call [`Sink::flush`] when [`Sink::source`] is writable.
    pub(crate) fn wants_room(&self) -> bool {
        !self.queue.is_empty() && self.may_log()
    }

    /// Whether records wait, for room or for the end of a captured line.
    pub(crate) fn has_records(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns the descriptor to poll for writability after [`Written::Full`] or while [`Sink::wants_room`]; `None`
    /// before the first write. A broken descriptor polls as writable, so that the waiting writer sees the error.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.kind.as_ref()?.source(self.fd))
    }

    /// Whether this is a pipe or FIFO, to which pages can be moved with splice(2).
    pub(crate) fn can_splice(&mut self) -> bool {
        matches!(self.kind(), SinkKind::Pipe | SinkKind::Relay(_))
    }

    /// Returns the descriptor if it is a pipe or FIFO and pages may be moved to it now, which requires that no record
    /// and no short write is pending.
    pub(crate) fn splice_target(&mut self) -> Option<BorrowedFd<'fd>> {
        let fd = self.fd;
        if !self.flush() || self.short_write.is_some() {
            return None;
        }
        self.can_splice().then_some(fd)
    }

    /// Marks the sink as broken, for a caller that moved pages itself and found that the reader has closed its end.
    pub(crate) fn set_broken(&mut self, errno: Errno) {
        self.fail(errno);
    }

    fn kind(&mut self) -> &mut SinkKind {
        let fd = self.fd;
        self.kind.get_or_insert_with(|| SinkKind::of(fd))
    }

    /// Whether the last write has failed and the next attempt is not due yet.
    fn is_paused(&self) -> bool {
        self.outage.is_some_and(|(outage, _)| !outage.is_due(self.now))
    }

    fn fail(&mut self, errno: Errno) {
        if is_final(errno) {
            self.kind = Some(SinkKind::Broken(errno));
        } else {
            self.kind().unload();
            self.outage = Some((Outage::new(self.now), errno));
        }
        self.short_write = None;
    }

    /// Records whether the write of `writer` was short in the middle of a line. Bytes that are in a relay cannot be
    /// taken back, so no other writer may begin until they are written.
    fn note_short_write(&mut self, writer: Writer, bytes: &[u8], written: Written) {
        let loaded = self.kind().is_loaded();
        match written {
            Written::All => self.short_write = None,
            Written::Part(taken) => {
                let at_line_end = taken.checked_sub(1).and_then(|last| bytes.get(last)) == Some(&b'\n');
                self.short_write = (loaded || !at_line_end).then_some(writer);
            }
            Written::Full if loaded => self.short_write = Some(writer),
            Written::Full | Written::Failed(_) => {}
        }
    }

    /// Attempts one write, unless the sink is paused after a failure.
    fn attempt(&mut self, bytes: &[u8]) -> Written {
        if bytes.is_empty() {
            return Written::All;
        }
        if let Some((_, errno)) = self.outage.filter(|_| self.is_paused()) {
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

/// Both outputs of kapo. Log records go to stderr.
#[derive(Debug)]
pub(crate) struct Sinks<'fd> {
    stdout: Sink<'fd>,
    stderr: Sink<'fd>,
    shared: bool,
}

impl<'fd> Sinks<'fd> {
    /// Returns both sinks without making a system call.
    pub(crate) fn open(stdout: BorrowedFd<'fd>, stderr: BorrowedFd<'fd>) -> Sinks<'fd> {
        Sinks { stdout: Sink::open(stdout), stderr: Sink::open(stderr), shared: false }
    }

    /// Sets the format of log records.
    pub(crate) fn set_style(&mut self, style: Style) {
        self.stderr.style = style;
    }

    /// Sets the name that log records show.
    pub(crate) fn set_name(&mut self, name: &'static str) {
        self.stderr.style.name = Some(name);
    }

    /// Begins a turn of the loop. After a failure, the next write may now be due.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.stdout.now = Some(now);
        self.stderr.now = Some(now);
    }

    /// Makes both streams share one sink if stdout and stderr are the same pipe, socket or terminal (`2>&1`), so that
    /// neither the other stream nor a log record tears a line. Call it if a stream is captured.
    pub(crate) fn share(&mut self) {
        let (Ok(stdout), Ok(stderr)) = (fstat(self.stdout.fd), fstat(self.stderr.fd)) else { return };
        // Regular files need no shared sink, because a file takes each write whole; its two descriptors may have
        // separate offsets.
        self.shared = stdout.st_dev == stderr.st_dev
            && stdout.st_ino == stderr.st_ino
            && FileType::from_raw_mode(stdout.st_mode) != FileType::RegularFile;
    }

    /// Whether both streams go to one sink.
    pub(crate) fn are_shared(&self) -> bool {
        self.shared
    }

    /// Returns the descriptor that kapo was started with.
    pub(crate) fn descriptor(&self, stream: Stream) -> BorrowedFd<'fd> {
        match stream {
            Stream::Stdout => self.stdout.fd,
            Stream::Stderr => self.stderr.fd,
        }
    }

    /// Returns the sink of `stream`.
    pub(crate) fn of(&mut self, stream: Stream) -> &mut Sink<'fd> {
        match stream {
            Stream::Stdout if !self.shared => &mut self.stdout,
            Stream::Stdout | Stream::Stderr => &mut self.stderr,
        }
    }

    /// Writes a log record to stderr, see [`Sink::log`].
    pub(crate) fn log(&mut self, wall: SystemTime, record: &Record) {
        self.stderr.log(wall, record);
    }
}

#[cfg(test)]
pub(crate) mod tests;
