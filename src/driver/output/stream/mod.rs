//! One captured stream: from the command's pipe to our own output, as it is or in lines.
//!
//! Nothing is read before all that was read is written: a reader who stalls us stalls the command, through its full
//! pipe, as he would without kapo. Whether bytes are copied or pages moved is the decision of
//! [`crate::logic::output::policy`].

mod writing;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread, read, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use crate::config::LogFormat;
use crate::driver::output::sink::{Sink, Sinks};
use crate::logic::log::record::Record;
use crate::logic::output::batch::Batch;
use crate::logic::output::drain::Drain;
use crate::logic::output::lines::Lines;
use crate::logic::output::loss::Loss;
use crate::logic::output::policy::{MOVE, SMALL, TransferPolicy, TurnSummary};
use crate::logic::output::tail::Tail;
use crate::logic::status::Counters;
use crate::logic::{Now, Stream};

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
    run: RunPipe,
    input: Input,
    rendered: Rendered,
    delivery: Delivery,
    policy: TransferPolicy,
    counters: Counters,
    loss: Loss,
}

/// The pipe of one run, and how far its output has come to an end.
#[derive(Debug, Default)]
struct RunPipe {
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
}

/// What was read from the pipe.
#[derive(Debug, Default)]
struct Input {
    /// Dealt with up to `start`.
    bytes: Vec<u8>,
    start: usize,
    /// The last read has emptied the pipe.
    dry: bool,
}

impl Input {
    /// What is not dealt with.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Moves what is not dealt with to the front, and sees to it that there is room for a read behind it.
    fn make_room(&mut self, room: usize) {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.capacity() - self.bytes.len() < room / 2 {
            self.bytes.reserve_exact(room);
        }
    }
}

/// Lines to be written.
#[derive(Debug, Default)]
struct Rendered {
    /// Written up to `sent`.
    lines: Batch,
    sent: usize,
    /// How many bytes of input they were made of.
    consumed: usize,
}

/// Where the sink stands.
#[derive(Debug, Default)]
struct Delivery {
    /// How many bytes behind the written ones the sink was offered and has not taken.
    offered: usize,
    /// The sink is full.
    stalled: bool,
    /// The last byte written raw was not a newline.
    mid_line: bool,
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
    /// Of no run yet; allocates nothing. `lines`: the format of `--stdlog`.
    pub(crate) fn new(stream: Stream, lines: Option<LogFormat>) -> CapturedStream {
        CapturedStream {
            stream,
            lines: lines.map(|format| Lines::new(stream, format)),
            run: RunPipe::default(),
            input: Input::default(),
            rendered: Rendered::default(),
            delivery: Delivery::default(),
            policy: TransferPolicy::new(),
            counters: Counters::default(),
            loss: Loss::default(),
        }
    }

    /// Begins a run, the one before being drained: makes its pipe and gives back the end that becomes the command's.
    pub(crate) fn begin(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // Not by the flag of pipe2, which would make the command's end non-blocking too.
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        self.run = RunPipe { pipe: Some(ours), ..RunPipe::default() };
        self.policy.copy();
        (self.delivery.stalled, self.delivery.mid_line) = (false, false);
        self.lines = self.lines.as_ref().map(|lines| Lines::new(self.stream, lines.format()));
        Ok(theirs)
    }

    /// Returns an output of the same stream for the next run, while this one goes on with what descendants of the last
    /// command write.
    pub(crate) fn successor(&self) -> CapturedStream {
        CapturedStream {
            loss: self.loss.successor(),
            ..CapturedStream::new(self.stream, self.lines.as_ref().map(Lines::format))
        }
    }

    /// The command has ended: all that it wrote is in the pipe now. Call [`CapturedStream::on_ready`] until
    /// [`CapturedStream::is_drained`].
    pub(crate) fn end(&mut self, now: Now) {
        if let Some(pipe) = &self.run.pipe {
            // A pipe that cannot tell is read until it is empty.
            self.run.drain = Some(Drain::new(now.mono, ioctl_fionread(pipe).unwrap_or(u64::MAX)));
        }
    }

    /// When the run's output counts as complete although the pipe is open, see [`Drain`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.run.drain.as_ref()?.deadline()
    }

    /// Looks at the limits of the drain. If they have passed, the last line is complete and is to be written at once.
    pub(crate) fn complete(&mut self, now: Now) -> bool {
        let over = self.run.drain.is_some_and(|drain| drain.is_over(now.mono));
        self.run.completing |= over;
        if over {
            self.run.drain = None;
        }
        over
    }

    /// Passes on what there is, within a budget. To be called whenever what it wants has come, and again at once after
    /// [`StreamFate::Again`].
    pub(crate) fn on_ready(&mut self, now: Now, sinks: &mut Sinks<'_>, tail: &mut Tail) -> StreamFate {
        let sink = sinks.of(self.stream);
        let before = self.counters.bytes;
        let resumed = std::mem::take(&mut self.delivery.stalled);
        self.input.dry = false;
        let fate = loop {
            if !self.write_out(sink) {
                break self.stall();
            }
            if self.policy.is_budget_spent(self.counters.bytes - before, self.input.dry) {
                break StreamFate::Again;
            }
            match self.more(now, sink, tail) {
                Got::Something => {}
                Got::Nothing => break StreamFate::Wait,
                Got::End => break StreamFate::Closed,
                Got::Stalled => break self.stall(),
            }
        };
        let turn = TurnSummary {
            brought: self.counters.bytes - before,
            again: fate == StreamFate::Again,
            closed: fate == StreamFate::Closed,
            stalled: self.delivery.stalled || resumed,
        };
        if self.policy.turn(now.mono, turn) {
            self.shrink();
        }
        sink.hold(self.stream, self.delivery.mid_line && (turn.again || self.delivery.stalled));
        fate
    }

    fn stall(&mut self) -> StreamFate {
        self.delivery.stalled = true;
        StreamFate::Wait
    }

    /// What to wait for.
    pub(crate) fn wants(&self) -> StreamInterest {
        match &self.run.pipe {
            _ if self.delivery.stalled => StreamInterest::Room,
            Some(_) => StreamInterest::Input,
            None => StreamInterest::Nothing,
        }
    }

    /// For how long its pipe should be left alone, so that more gathers in it.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.policy.rest().filter(|_| self.wants() == StreamInterest::Input)
    }

    /// The read end, to be polled; `None` when the run's output has ended.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.run.pipe.as_ref().map(AsFd::as_fd)
    }

    /// All of the run's output is written or discarded. The pipe may still be open, for descendants of the command.
    pub(crate) fn is_drained(&self) -> bool {
        let written = self.input.rest().is_empty() && self.rendered.lines.len() == self.rendered.sent;
        self.run.complete || self.run.drain.is_none() && self.run.pipe.is_none() && written
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
        self.loss.take_records()
    }

    /// Gets something to write, from what was read or else from the pipe.
    fn more(&mut self, now: Now, sink: &mut Sink<'_>, tail: &mut Tail) -> Got {
        loop {
            if self.render(now) {
                return Got::Something;
            }
            self.run.complete |= std::mem::take(&mut self.run.completing);
            if self.run.ended && self.run.pipe.is_some() {
                self.run.pipe = None;
                self.run.drain = None;
                continue;
            }
            let waits = self.lines.is_none() && !self.input.rest().is_empty();
            if self.run.pipe.is_none() {
                return if waits { Got::Something } else { Got::End };
            }
            // While the run is drained, the read after the last one tells whether the pipe has ended.
            if self.input.dry && self.run.drain.is_none() {
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
        let ended = self.run.pipe.is_none() || self.run.completing;
        let done = lines.render(now.wall, self.input.rest(), ended, &mut self.rendered.lines);
        self.input.start += done.consumed;
        self.rendered.consumed = done.consumed;
        self.counters.lines += done.lines;
        done.consumed > 0
    }

    /// `None`: something was read, or the pipe has ended, which [`CapturedStream::count`] has noted.
    fn read(&mut self, now: Now, sink: &mut Sink<'_>, tail: &mut Tail) -> Option<Got> {
        self.input.make_room(self.policy.room());
        let (pipe, filled) = (self.run.pipe.as_ref()?, self.input.bytes.len());
        let asked = self.input.bytes.capacity() - filled;
        let read = match retry_on_intr(|| read(pipe, spare_capacity(&mut self.input.bytes))) {
            Ok(read) => read,
            Err(Errno::AGAIN) => {
                self.input.dry = true;
                self.run.drain.as_mut().map(Drain::emptied);
                // The beginning of a line that waited for its end.
                let waits = self.lines.is_none() && !self.input.rest().is_empty();
                return Some(if waits { Got::Something } else { Got::Nothing });
            }
            // Cannot be; that is the end, too.
            Err(_) => 0,
        };
        tail.push(self.stream, self.input.bytes.get(filled..).unwrap_or_default());
        self.count(now, read);
        // A read that leaves room has emptied the pipe; asking again would cost a call to learn it.
        self.input.dry = read < asked;
        let movable = self.lines.is_none() && !tail.is_on();
        if self.policy.read(read, self.input.dry, movable) && sink.can_splice() {
            let granted = self.grow_pipes(sink);
            self.policy.enlarged(granted, movable);
        }
        None
    }

    /// Makes the command's pipe hold much; the reader's as well, since one that holds less would have us woken for each of
    /// its fills. False: it was refused, as the user's pipes hold too many pages already.
    fn grow_pipes(&self, sink: &mut Sink<'_>) -> bool {
        [self.pipe(), sink.splice_target()].into_iter().all(|pipe| {
            pipe.is_some_and(|pipe| {
                let size = fcntl_getpipe_size(pipe).unwrap_or(0);
                size >= MOVE || fcntl_setpipe_size(pipe, MOVE).is_ok_and(|size| size >= MOVE)
            })
        })
    }

    /// `None`: it is not the time for that; bytes are to be copied.
    fn move_pages(&mut self, now: Now, sink: &mut Sink<'_>, tail: &Tail) -> Option<Got> {
        let pipe = self.run.pipe.as_ref().filter(|_| self.policy.moves())?;
        let Some(target) = sink.splice_target().filter(|_| !tail.is_on()) else {
            self.policy.copy();
            return None;
        };
        match retry_on_intr(|| splice(pipe, None, target, None, MOVE, SpliceFlags::NONBLOCK)) {
            // The kernel does not say which end is meant.
            Err(Errno::AGAIN) if ioctl_fionread(pipe).is_ok_and(|left| left > 0) => Some(Got::Stalled),
            Err(Errno::AGAIN) => {
                self.run.drain.as_mut().map(Drain::emptied);
                Some(Got::Nothing)
            }
            Ok(0) => {
                self.run.ended = true;
                Some(Got::Something)
            }
            Ok(moved) => {
                // The rest, if there is any, has gathered by the next turn.
                self.input.dry = true;
                self.count(now, moved);
                // Whether a line ends here is not known: nobody has seen the bytes.
                self.delivery.mid_line = false;
                Some(Got::Something)
            }
            Err(errno) => {
                // All other errors are about the call: the bytes are still in the pipe and are copied.
                if errno == Errno::PIPE {
                    sink.break_off(errno);
                }
                self.policy.copy();
                None
            }
        }
    }

    /// So many bytes came out of the pipe; none: it has ended.
    fn count(&mut self, now: Now, read: usize) {
        self.counters.bytes += read as u64;
        if read == 0 {
            self.run.ended = true;
        } else if let Some(drain) = &mut self.run.drain {
            drain.read(now.mono, read as u64);
        }
    }

    /// Gives back what a burst took.
    fn shrink(&mut self) {
        if self.input.rest().is_empty() && self.input.bytes.capacity() > SMALL {
            self.input = Input { dry: self.input.dry, ..Input::default() };
            self.policy.buffer_released();
        }
        if self.rendered.lines.is_empty() && self.rendered.lines.capacity() > 2 * SMALL {
            self.rendered.lines = Batch::default();
        }
    }
}

#[cfg(test)]
mod tests;
