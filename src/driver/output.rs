//! One captured stream: from the command's pipe to our own output, as it is or in lines.
//!
//! Nothing is read before all that was read is written: a reader who stalls us stalls the command, through its full
//! pipe, as he would without kapo. Small output is read and written. Where reads come back large and our output is a
//! pipe, pages are moved instead (splice), and the command's pipe is enlarged; not before, as the kernel limits the
//! pages of a user's pipes and there may be thousands of us.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use super::sink::{Sink, Sinks, Written};
use crate::error::reason;
use crate::logic::lines::Lines;
use crate::logic::pace::{self, Pace};
use crate::logic::pieces;
use crate::logic::record::Record;
use crate::logic::status::Counters;
use crate::logic::tail::Tail;
use crate::logic::{Now, Stream};

/// The first buffer; a command that says little never makes us touch more.
const SMALL: usize = 4 * 1024;
/// The buffer once a read has filled the small one: more than a pipe holds, so that a read empties it and ends where a
/// write of the command's ended.
const LARGE: usize = 68 * 1024;
/// After this many bytes the loop gets its turn.
const BUDGET: usize = 256 * 1024;

/// A read of this size is large.
const BULKY: usize = 32 * 1024;
/// So many large reads in a row, and pages are moved, if the last one has ended between two writes of the command's;
/// after so many they are moved in any case: the command has a pipe that holds more than our buffer. So many turns in a row that moved less than [`SMALL_MOVE`], and
/// bytes are copied again.
const IN_A_ROW: u8 = 4;
const IN_ANY_CASE: u8 = 64;
const SMALL_MOVE: u64 = 16 * 1024;
/// What one move asks for, and what the command's pipe is made to hold.
const MOVE: usize = 1024 * 1024;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing to do before [`Output::wants`] comes true.
    Wait,
    /// There is more to do at once.
    Again,
    /// The pipe is closed and all that came out of it is written (or discarded, where our output is broken).
    Closed,
}

/// What an output waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// No run has begun, or all of it is written.
    Nothing,
    /// [`Output::pipe`] to be readable.
    Input,
    /// The sink's source to be writable. The pipe must not be polled meanwhile: it may be readable all the time.
    Room,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Output {
    stream: Stream,
    /// `None`: raw.
    lines: Option<Lines>,
    /// The read end, while the run's output has not ended.
    pipe: Option<OwnedFd>,
    /// Set when the command has ended: how much of what it wrote is still in the pipe.
    left: Option<u64>,
    /// What was read; dealt with up to `start`.
    input: Vec<u8>,
    start: usize,
    /// For how much a read is to have room.
    room: usize,
    /// The last read has emptied the pipe.
    dry: bool,
    /// Lines to be written, written up to `sent`, made of this many bytes of input.
    rendered: Vec<u8>,
    sent: usize,
    batch: usize,
    /// The sink is full.
    stalled: bool,
    /// The last byte written raw was not a newline.
    mid_line: bool,
    bulk: Bulk,
    pace: Pace,
    counters: Counters,
    /// Set while the sink fails: how many bytes were discarded since.
    lost: Option<u64>,
    troubles: Vec<Record>,
}

/// Whether pages are moved.
#[derive(Debug)]
enum Bulk {
    /// Bytes are copied; this many reads in a row were large.
    Copying(u8),
    /// Pages are moved; this many turns in a row brought little.
    Moving(u8),
}

/// What came of asking for more.
enum Got {
    Something,
    Nothing,
    End,
    /// Nothing could be moved: the sink is full.
    Stalled,
}

impl Output {
    /// Of no run yet; allocates nothing.
    pub fn new(stream: Stream, in_lines: bool) -> Output {
        Output {
            stream,
            lines: in_lines.then(|| Lines::new(stream)),
            pipe: None,
            left: None,
            input: Vec::new(),
            start: 0,
            room: SMALL,
            dry: false,
            rendered: Vec::new(),
            sent: 0,
            batch: 0,
            stalled: false,
            mid_line: false,
            bulk: Bulk::Copying(0),
            pace: Pace::new(&pace::OUTPUT),
            counters: Counters::default(),
            lost: None,
            troubles: Vec::new(),
        }
    }

    /// Begins a run, the one before being drained: makes its pipe and gives back the end that becomes the command's.
    pub fn begin(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // Not by the flag of pipe2, which would make the command's end non-blocking too.
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        self.pipe = Some(ours);
        self.left = None;
        self.copy();
        (self.stalled, self.mid_line) = (false, false);
        self.lines = self.lines.as_ref().map(|_| Lines::new(self.stream));
        Ok(theirs)
    }

    /// The command has ended: all that it wrote is in the pipe now, and no more than that will be read, although a
    /// process that it left behind may hold the pipe and go on writing. Call [`Output::on_ready`] until it is closed.
    pub fn end(&mut self) {
        if let Some(pipe) = &self.pipe {
            // A pipe that cannot tell is read until it is empty.
            self.left = Some(ioctl_fionread(pipe).unwrap_or(u64::MAX));
        }
    }

    /// Passes on what there is, within a budget. To be called whenever what it wants has come, and again at once after
    /// [`Fate::Again`].
    pub fn on_ready(&mut self, now: Now, sinks: &mut Sinks<'_>, tail: &mut Tail) -> Fate {
        let sink = sinks.of(self.stream);
        let before = self.counters.bytes;
        let resumed = std::mem::take(&mut self.stalled);
        self.dry = false;
        let fate = loop {
            if !self.write_out(sink) {
                break self.stall();
            }
            if self.counters.bytes - before >= BUDGET as u64 && !self.dry {
                break Fate::Again;
            }
            match self.more(now, sink, tail) {
                Got::Something => {}
                Got::Nothing => break Fate::Wait,
                Got::End => break Fate::Closed,
                Got::Stalled => break self.stall(),
            }
        };
        // A turn that only wrote what an earlier one had read says nothing about how much the command says.
        let brought = self.counters.bytes - before;
        if fate == Fate::Wait && !self.stalled && !resumed {
            self.pace.turn(now.mono, usize::try_from(brought).unwrap_or(usize::MAX));
            if let Bulk::Moving(small) = &mut self.bulk {
                *small = if brought < SMALL_MOVE { *small + 1 } else { 0 };
                if *small >= IN_A_ROW {
                    self.copy();
                }
            }
        }
        if fate != Fate::Again
            && !self.stalled
            && !resumed
            && brought < SMALL as u64
            && self.pace.rest().is_none()
        {
            self.shrink();
        }
        sink.hold(self.stream, self.mid_line && (fate == Fate::Again || self.stalled));
        fate
    }

    fn stall(&mut self) -> Fate {
        self.stalled = true;
        Fate::Wait
    }

    /// What to wait for.
    pub fn wants(&self) -> Wants {
        match &self.pipe {
            _ if self.stalled => Wants::Room,
            Some(_) => Wants::Input,
            None => Wants::Nothing,
        }
    }

    /// For how long its pipe should be left alone, so that more gathers in it.
    pub fn rest(&self) -> Option<Duration> {
        self.pace.rest().filter(|_| self.wants() == Wants::Input)
    }

    /// The read end, to be polled; `None` when the run's output has ended.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// All of the run's output is written or discarded.
    pub fn is_drained(&self) -> bool {
        self.pipe.is_none() && self.input.len() == self.start && self.rendered.len() == self.sent
    }

    /// What passed through since kapo's start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes what is to be logged about our own output: that it has failed, or that it works again.
    pub fn troubles(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.troubles)
    }

    /// Writes all that was read, except for the beginning of a line of which more is to come at once; false when the
    /// sink is full.
    fn write_out(&mut self, sink: &mut Sink<'_>) -> bool {
        let goes_on = self.goes_on();
        loop {
            let (bytes, done) = match self.lines {
                Some(_) => (&self.rendered, &mut self.sent),
                None => (&self.input, &mut self.start),
            };
            let mut all = bytes.get(*done..).unwrap_or_default();
            // What was offered before is offered again, whatever has changed meanwhile.
            let free = !sink.is_cut_short(self.stream);
            if goes_on && free {
                all = all.get(..pieces::complete(all)).unwrap_or(all);
            }
            // Records that wait get their place at the end of a line.
            let records = free && sink.has_records();
            let line_end = records.then(|| all.iter().rposition(|&b| b == b'\n')).flatten();
            let piece = line_end.and_then(|at| all.get(..=at)).unwrap_or(all);
            if piece.is_empty() {
                break;
            }
            let written = sink.write(self.stream, piece);
            match written {
                Written::All | Written::Part(_) => {
                    let taken = if let Written::Part(taken) = written { taken } else { piece.len() };
                    *done += taken;
                    self.mid_line = taken.checked_sub(1).and_then(|last| piece.get(last)) != Some(&b'\n');
                    if line_end.is_some() && written == Written::All {
                        sink.hold(self.stream, false);
                    }
                    if let Some(lost) = self.lost.take() {
                        self.troubles.push(recovered(self.stream, lost));
                    }
                }
                Written::Full => return false,
                Written::Failed(errno) => {
                    let lost = if self.lines.is_some() { self.batch } else { bytes.len() - *done };
                    *done = bytes.len();
                    // What was already written of a batch of lines is not lost, and a batch is lost once.
                    self.batch = 0;
                    self.lose(lost as u64, errno);
                }
            }
        }
        match self.lines {
            Some(_) => {
                self.rendered.clear();
                (self.sent, self.batch) = (0, 0);
            }
            None if self.start == self.input.len() => {
                self.input.clear();
                self.start = 0;
            }
            None => {}
        }
        true
    }

    /// Whether raw input ends in the middle of what the command wrote: there is more in the pipe, so the last line is
    /// completed first. A line that is written in two pieces could be torn by another writer of the same pipe.
    fn goes_on(&self) -> bool {
        let copies = matches!(self.bulk, Bulk::Copying(_));
        self.lines.is_none() && !self.dry && copies && self.pipe.is_some() && self.left != Some(0)
    }

    /// So many bytes cannot be written.
    fn lose(&mut self, bytes: u64, errno: Errno) {
        self.counters.discarded_bytes += bytes;
        if self.lost.is_none() {
            self.troubles.push(
                Record::error("output cannot be written and is discarded")
                    .with("stream", self.stream.name())
                    .with("error", reason(&errno.into())),
            );
        }
        *self.lost.get_or_insert(0) += bytes;
    }

    /// Gets something to write, from what was read or else from the pipe.
    fn more(&mut self, now: Now, sink: &mut Sink<'_>, tail: &mut Tail) -> Got {
        loop {
            if self.render(now) {
                return Got::Something;
            }
            if self.left == Some(0) {
                self.pipe = None;
                self.left = None;
                continue;
            }
            let waits = self.lines.is_none() && self.start < self.input.len();
            if self.pipe.is_none() {
                return if waits { Got::Something } else { Got::End };
            }
            if self.dry && self.left.is_none() {
                return if waits { Got::Something } else { Got::Nothing };
            }
            let before = self.counters.bytes;
            if let Some(got) = self.move_pages(sink, tail).or_else(|| self.read(sink, tail)) {
                return got;
            }
            if self.lines.is_none() && self.counters.bytes > before {
                return Got::Something;
            }
        }
    }

    /// Makes lines of what was read; false when there is no whole one.
    fn render(&mut self, now: Now) -> bool {
        let Some(lines) = &mut self.lines else { return false };
        let input = self.input.get(self.start..).unwrap_or_default();
        let done = lines.render(now.wall, input, self.pipe.is_none(), &mut self.rendered);
        self.start += done.consumed;
        self.batch = done.consumed;
        self.counters.lines += done.lines;
        done.consumed > 0
    }

    /// `None`: something was read, or the pipe has ended, which [`Output::count`] has noted.
    fn read(&mut self, sink: &mut Sink<'_>, tail: &mut Tail) -> Option<Got> {
        self.make_room();
        let (pipe, filled) = (self.pipe.as_ref()?, self.input.len());
        let asked = self.input.capacity() - filled;
        let read = match retry_on_intr(|| read(pipe, spare_capacity(&mut self.input))) {
            Ok(read) => read,
            Err(Errno::AGAIN) if self.left.is_none() => {
                self.dry = true;
                // The beginning of a line that waited for its end.
                let waits = self.lines.is_none() && self.start < self.input.len();
                return Some(if waits { Got::Something } else { Got::Nothing });
            }
            // Less came than the pipe said, which cannot be; that is the end, too.
            Err(_) => 0,
        };
        tail.push(self.stream, self.input.get(filled..).unwrap_or_default());
        self.count(read);
        // A read that leaves room has emptied the pipe; asking again would cost a call to learn it.
        self.dry = read < asked;
        if !self.dry {
            self.room = LARGE;
        }
        self.bulk = match self.bulk {
            Bulk::Copying(large) if read >= BULKY => Bulk::Copying(large.saturating_add(1)),
            // The buffer was too small to tell.
            Bulk::Copying(large) if !self.dry => Bulk::Copying(large),
            _ => Bulk::Copying(0),
        };
        let Bulk::Copying(large) = self.bulk else { return None };
        let moves = self.lines.is_none() && !tail.is_on();
        let begins =
            if moves { large >= IN_A_ROW && self.dry || large >= IN_ANY_CASE } else { large == IN_A_ROW };
        if begins && sink.can_splice() {
            let grown = self.grow_pipes(sink);
            if moves {
                self.bulk = Bulk::Moving(0);
                // Pipes that hold little would be full before a rest is over.
                self.pace = Pace::new(if grown { &pace::PAGES } else { &pace::OUTPUT });
            }
        }
        None
    }

    /// Makes the command's pipe hold much; the reader's as well, since one that holds less would have us woken for each of
    /// its fills. False: it was refused, as the user's pipes hold too many pages already.
    fn grow_pipes(&self, sink: &mut Sink<'_>) -> bool {
        [self.pipe.as_ref().map(AsFd::as_fd), sink.splice_target()].into_iter().all(|pipe| {
            pipe.is_some_and(|pipe| {
                let size = fcntl_getpipe_size(pipe).unwrap_or(0);
                size >= MOVE || fcntl_setpipe_size(pipe, MOVE).is_ok_and(|size| size >= MOVE)
            })
        })
    }

    /// `None`: it is not the time for that; bytes are to be copied.
    fn move_pages(&mut self, sink: &mut Sink<'_>, tail: &Tail) -> Option<Got> {
        let (Bulk::Moving(_), Some(pipe)) = (&self.bulk, &self.pipe) else { return None };
        let Some(target) = sink.splice_target().filter(|_| !tail.is_on()) else {
            self.copy();
            return None;
        };
        match retry_on_intr(|| splice(pipe, None, target, None, MOVE, SpliceFlags::NONBLOCK)) {
            // The kernel does not say which end is meant.
            Err(Errno::AGAIN) if ioctl_fionread(pipe).is_ok_and(|left| left > 0) => Some(Got::Stalled),
            Err(Errno::AGAIN) if self.left.is_none() => Some(Got::Nothing),
            Err(Errno::AGAIN) | Ok(0) => {
                self.count(0);
                Some(Got::Something)
            }
            Ok(moved) => {
                // The rest, if there is any, has gathered by the next turn.
                self.dry = true;
                self.count(moved);
                // Whether a line ends here is not known: nobody has seen the bytes.
                self.mid_line = false;
                Some(Got::Something)
            }
            Err(errno) => {
                // All other errors are about the call: the bytes are still in the pipe and are copied.
                if errno == Errno::PIPE {
                    sink.break_off(errno);
                }
                self.copy();
                None
            }
        }
    }

    /// Bytes are copied from now on.
    fn copy(&mut self) {
        self.bulk = Bulk::Copying(0);
        self.pace = Pace::new(&pace::OUTPUT);
    }

    /// So many bytes came out of the pipe; none: it has ended.
    fn count(&mut self, read: usize) {
        self.counters.bytes += read as u64;
        if read == 0 {
            self.left = Some(0);
        } else if let Some(left) = &mut self.left {
            *left = left.saturating_sub(read as u64);
        }
    }

    /// Moves what is not dealt with to the front, and sees to it that there is room for a read behind it.
    fn make_room(&mut self) {
        self.input.drain(..self.start);
        self.start = 0;
        if self.input.capacity() - self.input.len() < self.room / 2 {
            self.input.reserve_exact(self.room);
        }
    }

    /// Gives back what a burst took.
    fn shrink(&mut self) {
        if self.input.len() == self.start && self.input.capacity() > SMALL {
            self.input = Vec::new();
            self.start = 0;
            self.room = SMALL;
        }
        if self.rendered.is_empty() && self.rendered.capacity() > 2 * SMALL {
            self.rendered = Vec::new();
        }
    }
}

/// What the log says when an output that has failed can be written again.
fn recovered(stream: Stream, lost: u64) -> Record {
    Record::warn("output can be written again").with("stream", stream.name()).with("discarded_bytes", lost)
}

#[cfg(test)]
mod tests;
