//! One captured stream: from the command's pipe to our own output, as it is or in lines.
//!
//! Nothing is read before all that was read is written: a reader who stalls us stalls the command, through its full
//! pipe, as he would without kapo. Small output is read and written. Where reads come back large and our output is a
//! pipe, pages are moved instead (splice), and the command's pipe is enlarged; not before, as the kernel limits the
//! pages of a user's pipes and there may be thousands of us.

mod writing;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use crate::driver::output::sink::{Sink, Sinks};
use crate::logic::log::record::Record;
use crate::logic::output::batch::Batch;
use crate::logic::output::coalesce;
use crate::logic::output::coalesce::Coalescer;
use crate::logic::output::drain::Drain;
use crate::logic::output::lines::Lines;
use crate::logic::output::tail::Tail;
use crate::logic::status::Counters;
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
pub(crate) enum StreamFate {
    /// Nothing to do before [`CapturedStream::wants`] comes true.
    Wait,
    /// There is more to do at once.
    Again,
    /// The pipe is closed and all that came out of it is written (or discarded, where our output is broken).
    Closed,
}

/// What an output waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamInterest {
    /// No run has begun, or all of it is written.
    Nothing,
    /// [`CapturedStream::pipe`] to be readable.
    Input,
    /// The sink's source to be writable. The pipe must not be polled meanwhile: it may be readable all the time.
    Room,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct CapturedStream {
    stream: Stream,
    /// `None`: raw.
    lines: Option<Lines>,
    /// The read end, while the run's output has not ended.
    pipe: Option<OwnedFd>,
    /// Set while the output of a run is read after its end.
    drain: Option<Drain>,
    /// The limits of the drain have passed: the last line is to be written, even without a newline.
    completing: bool,
    /// The run's output is written; what comes now belongs to descendants.
    complete: bool,
    /// The pipe has ended.
    ended: bool,
    /// What was read; dealt with up to `start`.
    input: Vec<u8>,
    start: usize,
    /// For how much a read is to have room.
    room: usize,
    /// The last read has emptied the pipe.
    dry: bool,
    /// Lines to be written, written up to `sent`, made of this many bytes of input.
    rendered: Batch,
    sent: usize,
    batch: usize,
    /// How many bytes behind the written ones the sink was offered and has not taken.
    offered: usize,
    /// The sink is full.
    stalled: bool,
    /// The last byte written raw was not a newline.
    mid_line: bool,
    bulk: Bulk,
    pace: Coalescer,
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

impl CapturedStream {
    /// Of no run yet; allocates nothing.
    pub(crate) fn new(stream: Stream, in_lines: bool) -> CapturedStream {
        CapturedStream {
            stream,
            lines: in_lines.then(|| Lines::new(stream)),
            pipe: None,
            drain: None,
            completing: false,
            complete: false,
            ended: false,
            input: Vec::new(),
            start: 0,
            room: SMALL,
            dry: false,
            rendered: Batch::default(),
            sent: 0,
            batch: 0,
            offered: 0,
            stalled: false,
            mid_line: false,
            bulk: Bulk::Copying(0),
            pace: Coalescer::new(&coalesce::OUTPUT),
            counters: Counters::default(),
            lost: None,
            troubles: Vec::new(),
        }
    }

    /// Begins a run, the one before being drained: makes its pipe and gives back the end that becomes the command's.
    pub(crate) fn begin(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // Not by the flag of pipe2, which would make the command's end non-blocking too.
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        self.pipe = Some(ours);
        self.drain = None;
        (self.completing, self.complete, self.ended) = (false, false, false);
        self.copy();
        (self.stalled, self.mid_line) = (false, false);
        self.lines = self.lines.as_ref().map(|_| Lines::new(self.stream));
        Ok(theirs)
    }

    /// Returns an output of the same stream for the next run, while this one goes on with what descendants of the last
    /// command write.
    pub(crate) fn successor(&self) -> CapturedStream {
        CapturedStream { lost: self.lost, ..CapturedStream::new(self.stream, self.lines.is_some()) }
    }

    /// The command has ended: all that it wrote is in the pipe now. Call [`CapturedStream::on_ready`] until
    /// [`CapturedStream::is_drained`].
    pub(crate) fn end(&mut self, now: Now) {
        if let Some(pipe) = &self.pipe {
            // A pipe that cannot tell is read until it is empty.
            self.drain = Some(Drain::new(now.mono, ioctl_fionread(pipe).unwrap_or(u64::MAX)));
        }
    }

    /// When the run's output counts as complete although the pipe is open, see [`Drain`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.drain.as_ref()?.deadline()
    }

    /// Looks at the limits of the drain. If they have passed, the last line is complete and is to be written at once.
    pub(crate) fn complete(&mut self, now: Now) -> bool {
        let over = self.drain.is_some_and(|drain| drain.is_over(now.mono));
        self.completing |= over;
        if over {
            self.drain = None;
        }
        over
    }

    /// Passes on what there is, within a budget. To be called whenever what it wants has come, and again at once after
    /// [`StreamFate::Again`].
    pub(crate) fn on_ready(&mut self, now: Now, sinks: &mut Sinks<'_>, tail: &mut Tail) -> StreamFate {
        let sink = sinks.of(self.stream);
        let before = self.counters.bytes;
        let resumed = std::mem::take(&mut self.stalled);
        self.dry = false;
        let fate = loop {
            if !self.write_out(sink) {
                break self.stall();
            }
            if self.counters.bytes - before >= BUDGET as u64 && !self.dry {
                break StreamFate::Again;
            }
            match self.more(now, sink, tail) {
                Got::Something => {}
                Got::Nothing => break StreamFate::Wait,
                Got::End => break StreamFate::Closed,
                Got::Stalled => break self.stall(),
            }
        };
        // A turn that only wrote what an earlier one had read says nothing about how much the command says.
        let brought = self.counters.bytes - before;
        if fate == StreamFate::Wait && !self.stalled && !resumed {
            self.pace.turn(now.mono, usize::try_from(brought).unwrap_or(usize::MAX));
            if let Bulk::Moving(small) = &mut self.bulk {
                *small = if brought < SMALL_MOVE { *small + 1 } else { 0 };
                if *small >= IN_A_ROW {
                    self.copy();
                }
            }
        }
        if fate != StreamFate::Again
            && !self.stalled
            && !resumed
            && brought < SMALL as u64
            && self.pace.rest().is_none()
        {
            self.shrink();
        }
        sink.hold(self.stream, self.mid_line && (fate == StreamFate::Again || self.stalled));
        fate
    }

    fn stall(&mut self) -> StreamFate {
        self.stalled = true;
        StreamFate::Wait
    }

    /// What to wait for.
    pub(crate) fn wants(&self) -> StreamInterest {
        match &self.pipe {
            _ if self.stalled => StreamInterest::Room,
            Some(_) => StreamInterest::Input,
            None => StreamInterest::Nothing,
        }
    }

    /// For how long its pipe should be left alone, so that more gathers in it.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.pace.rest().filter(|_| self.wants() == StreamInterest::Input)
    }

    /// The read end, to be polled; `None` when the run's output has ended.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// All of the run's output is written or discarded. The pipe may still be open, for descendants of the command.
    pub(crate) fn is_drained(&self) -> bool {
        let written = self.input.len() == self.start && self.rendered.len() == self.sent;
        self.complete || self.drain.is_none() && self.pipe.is_none() && written
    }

    /// What passed through since kapo's start.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Adds what another output of the stream has counted.
    pub(crate) fn count_in(&mut self, others: Counters) {
        self.counters = self.counters.and(others);
    }

    /// Takes what is to be logged about our own output: that it has failed, or that it works again.
    pub(crate) fn troubles(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.troubles)
    }

    /// Gets something to write, from what was read or else from the pipe.
    fn more(&mut self, now: Now, sink: &mut Sink<'_>, tail: &mut Tail) -> Got {
        loop {
            if self.render(now) {
                return Got::Something;
            }
            self.complete |= std::mem::take(&mut self.completing);
            if self.ended && self.pipe.is_some() {
                self.pipe = None;
                self.drain = None;
                continue;
            }
            let waits = self.lines.is_none() && self.start < self.input.len();
            if self.pipe.is_none() {
                return if waits { Got::Something } else { Got::End };
            }
            // While the run is drained, the read after the last one tells whether the pipe has ended.
            if self.dry && self.drain.is_none() {
                return if waits { Got::Something } else { Got::Nothing };
            }
            let before = self.counters.bytes;
            if let Some(got) = self.move_pages(now, sink, tail).or_else(|| self.read(now, sink, tail)) {
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
        let ended = self.pipe.is_none() || self.completing;
        let done = lines.render(now.wall, input, ended, &mut self.rendered);
        self.start += done.consumed;
        self.batch = done.consumed;
        self.counters.lines += done.lines;
        done.consumed > 0
    }

    /// `None`: something was read, or the pipe has ended, which [`CapturedStream::count`] has noted.
    fn read(&mut self, now: Now, sink: &mut Sink<'_>, tail: &mut Tail) -> Option<Got> {
        self.make_room();
        let (pipe, filled) = (self.pipe.as_ref()?, self.input.len());
        let asked = self.input.capacity() - filled;
        let read = match retry_on_intr(|| read(pipe, spare_capacity(&mut self.input))) {
            Ok(read) => read,
            Err(Errno::AGAIN) => {
                self.dry = true;
                self.drain.as_mut().map(Drain::emptied);
                // The beginning of a line that waited for its end.
                let waits = self.lines.is_none() && self.start < self.input.len();
                return Some(if waits { Got::Something } else { Got::Nothing });
            }
            // Cannot be; that is the end, too.
            Err(_) => 0,
        };
        tail.push(self.stream, self.input.get(filled..).unwrap_or_default());
        self.count(now, read);
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
                self.pace = Coalescer::new(if grown { &coalesce::PAGES } else { &coalesce::OUTPUT });
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
    fn move_pages(&mut self, now: Now, sink: &mut Sink<'_>, tail: &Tail) -> Option<Got> {
        let (Bulk::Moving(_), Some(pipe)) = (&self.bulk, &self.pipe) else { return None };
        let Some(target) = sink.splice_target().filter(|_| !tail.is_on()) else {
            self.copy();
            return None;
        };
        match retry_on_intr(|| splice(pipe, None, target, None, MOVE, SpliceFlags::NONBLOCK)) {
            // The kernel does not say which end is meant.
            Err(Errno::AGAIN) if ioctl_fionread(pipe).is_ok_and(|left| left > 0) => Some(Got::Stalled),
            Err(Errno::AGAIN) => {
                self.drain.as_mut().map(Drain::emptied);
                Some(Got::Nothing)
            }
            Ok(0) => {
                self.ended = true;
                Some(Got::Something)
            }
            Ok(moved) => {
                // The rest, if there is any, has gathered by the next turn.
                self.dry = true;
                self.count(now, moved);
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
        self.pace = Coalescer::new(&coalesce::OUTPUT);
    }

    /// So many bytes came out of the pipe; none: it has ended.
    fn count(&mut self, now: Now, read: usize) {
        self.counters.bytes += read as u64;
        if read == 0 {
            self.ended = true;
        } else if let Some(drain) = &mut self.drain {
            drain.read(now.mono, read as u64);
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
            self.rendered = Batch::default();
        }
    }
}

#[cfg(test)]
mod tests;
