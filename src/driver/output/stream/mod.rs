//! Forwards one captured stream from the command's pipe to a sink, either as raw bytes or in lines.
//!
//! Nothing is read until everything that was read before is written. A slow reader of kapo's output therefore stops
//! the command at a full pipe, as it would without kapo. [`crate::logic::output::policy`] decides whether bytes are
//! copied or pages are moved.

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
use crate::logic::output::ready_line::ReadyLine;
use crate::logic::output::tail::Tail;
use crate::logic::status::Counters;
use crate::logic::{Now, Stream};

/// What must happen next after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamFate {
    /// Wait until what [`CapturedStream::wants`] names is ready.
    Wait,
    /// Serve the stream again in the next turn, without waiting.
    Again,
    /// The pipe is closed, and all that was read from it is written, or discarded because the sink is broken.
    Closed,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamInterest {
    /// The stream waits for nothing: no run has begun, or the whole output of the run is written.
    Nothing,
    /// [`CapturedStream::pipe`] to become readable.
    Input,
    /// The sink's source to become writable. Do not poll the pipe meanwhile: it may stay readable all the time.
    Room,
}

/// One captured stream of the command, over all its runs.
#[derive(Debug)]
pub(crate) struct CapturedStream {
    stream: Stream,
    /// `None` if the bytes are forwarded raw.
    lines: Option<Lines>,
    /// Set under `--ready-line` until the run is ready.
    ready_line: Option<ReadyLine>,
    run: RunPipe,
    input: PipeInput,
    rendered: RenderedLines,
    delivery: SinkProgress,
    policy: TransferPolicy,
    counters: Counters,
    loss: Loss,
}

/// The pipe of one run, and the state of its drain.
#[derive(Debug, Default)]
struct RunPipe {
    /// The read end; `None` when the run's output has ended.
    pipe: Option<OwnedFd>,
    /// Set while the output is read after the end of the run.
    drain: Option<Drain>,
    /// Whether the limits of the drain have passed, so that the last line must be written even without a newline.
    completing: bool,
    /// Whether the run's output is complete. Later output belongs to descendants of the command.
    complete: bool,
    /// Whether the end of the pipe was read.
    ended: bool,
}

/// The bytes that were read from the pipe.
#[derive(Debug, Default)]
struct PipeInput {
    /// The bytes before `start` are already processed.
    bytes: Vec<u8>,
    start: usize,
    /// Whether the last read has emptied the pipe.
    dry: bool,
}

impl PipeInput {
    /// Returns the bytes that are not processed yet.
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Moves the unprocessed bytes to the front and makes room for a read behind them.
    fn make_room(&mut self, room: usize) {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.capacity() - self.bytes.len() < room / 2 {
            self.bytes.reserve_exact(room);
        }
    }
}

/// Rendered lines that are waiting to be written.
#[derive(Debug, Default)]
struct RenderedLines {
    /// The bytes before `sent` are already written.
    lines: Batch,
    sent: usize,
    /// How many bytes of input the lines were rendered from.
    consumed: usize,
}

/// How far the sink has taken what was offered.
#[derive(Debug, Default)]
struct SinkProgress {
    /// How many bytes beyond the written ones were offered to the sink and refused.
    offered: usize,
    /// Whether the sink is full.
    stalled: bool,
    /// Whether the last byte that was written raw was not a newline.
    mid_line: bool,
}

/// The result of an attempt to get more output.
enum PipeProgress {
    Something,
    Nothing,
    End,
    /// No pages could be moved because the sink is full.
    Stalled,
}

impl CapturedStream {
    /// Returns a stream without a run. Allocates nothing.
    pub(crate) fn new(stream: Stream, lines: Option<LogFormat>) -> CapturedStream {
        CapturedStream {
            stream,
            lines: lines.map(|format| Lines::new(stream, format)),
            ready_line: None,
            run: RunPipe::default(),
            input: PipeInput::default(),
            rendered: RenderedLines::default(),
            delivery: SinkProgress::default(),
            policy: TransferPolicy::new(),
            counters: Counters::default(),
            loss: Loss::default(),
        }
    }

    /// Begins a run; the previous run must be drained. Creates the pipe and returns its write end, which becomes the
    /// command's.
    pub(crate) fn begin(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // The flag of pipe2 would make the command's end non-blocking, too.
        fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        self.run = RunPipe { pipe: Some(ours), ..RunPipe::default() };
        self.policy.copy();
        (self.delivery.stalled, self.delivery.mid_line) = (false, false);
        self.lines = self.lines.as_ref().map(|lines| Lines::new(self.stream, lines.format()));
        Ok(theirs)
    }

    /// Returns a new [`CapturedStream`] for the next run, while this one continues to forward what descendants of the
    /// last command write.
    pub(crate) fn successor(&self) -> CapturedStream {
        CapturedStream {
            loss: self.loss.successor(),
            ..CapturedStream::new(self.stream, self.lines.as_ref().map(Lines::format))
        }
    }

    /// Begins a search in the output of this run, or ends it. Meanwhile no pages are moved, because kapo must see the
    /// bytes.
    pub(crate) fn search(&mut self, ready_line: Option<ReadyLine>) {
        self.ready_line = ready_line;
    }

    /// Whether the search has found its text.
    pub(crate) fn has_ready_line(&self) -> bool {
        self.ready_line.as_ref().is_some_and(ReadyLine::is_found)
    }

    /// Begins the drain after the command has exited; all that it wrote is in the pipe now. Call
    /// [`CapturedStream::on_ready`] until [`CapturedStream::is_drained`].
    pub(crate) fn end(&mut self, now: Now) {
        if let Some(pipe) = &self.run.pipe {
            // If the length is unknown, the pipe is read until it is empty.
            self.run.drain = Some(Drain::new(now.mono, ioctl_fionread(pipe).unwrap_or(u64::MAX)));
        }
    }

    /// Returns the time at which the run's output counts as complete although the pipe is open, see [`Drain`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.run.drain.as_ref()?.deadline()
    }

    /// Checks the limits of the drain. Returns true if they have passed: the last line is then complete and must be
    /// written at once.
    pub(crate) fn complete(&mut self, now: Now) -> bool {
        let over = self.run.drain.is_some_and(|drain| drain.is_over(now.mono));
        self.run.completing |= over;
        if over {
            self.run.drain = None;
        }
        over
    }

    /// Forwards what is available, within a budget. Call it when what the stream waits for is ready, and again at once
    /// after [`StreamFate::Again`].
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
            match self.get_more(now, sink, tail) {
                PipeProgress::Something => {}
                PipeProgress::Nothing => break StreamFate::Wait,
                PipeProgress::End => break StreamFate::Closed,
                PipeProgress::Stalled => break self.stall(),
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

    /// Returns what the stream waits for.
    pub(crate) fn wants(&self) -> StreamInterest {
        match &self.run.pipe {
            _ if self.delivery.stalled => StreamInterest::Room,
            Some(_) => StreamInterest::Input,
            None => StreamInterest::Nothing,
        }
    }

    /// Returns for how long the pipe should not be read, so that more output gathers in it.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.policy.rest().filter(|_| self.wants() == StreamInterest::Input)
    }

    /// Returns the read end, to be polled; `None` when the run's output has ended.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.run.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Whether all of the run's output is written or discarded. Descendants of the command may still hold the pipe
    /// open.
    pub(crate) fn is_drained(&self) -> bool {
        let written = self.input.rest().is_empty() && self.rendered.lines.len() == self.rendered.sent;
        self.run.complete || self.run.drain.is_none() && self.run.pipe.is_none() && written
    }

    /// Returns the counters since the start of kapo.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Adds the counters of another pipe of the same stream.
    pub(crate) fn count_in(&mut self, others: Counters) {
        self.counters = self.counters.and(others);
    }

    /// Takes the pending log records about the sink: that it has failed, or that it works again.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        self.loss.take_records()
    }

    /// Gets output to write, from the buffer or else from the pipe.
    fn get_more(&mut self, now: Now, sink: &mut Sink<'_>, tail: &mut Tail) -> PipeProgress {
        loop {
            if self.render(now) {
                return PipeProgress::Something;
            }
            self.run.complete |= std::mem::take(&mut self.run.completing);
            if self.run.ended && self.run.pipe.is_some() {
                self.run.pipe = None;
                self.run.drain = None;
                continue;
            }
            let waits = self.lines.is_none() && !self.input.rest().is_empty();
            if self.run.pipe.is_none() {
                return if waits { PipeProgress::Something } else { PipeProgress::End };
            }
            // During a drain, one more read is needed to detect the end of the pipe.
            if self.input.dry && self.run.drain.is_none() {
                return if waits { PipeProgress::Something } else { PipeProgress::Nothing };
            }
            let before = self.counters.bytes;
            if let Some(got) = self.move_pages(now, sink, tail).or_else(|| self.read(now, sink, tail)) {
                return got;
            }
            if self.lines.is_none() && self.counters.bytes > before {
                return PipeProgress::Something;
            }
        }
    }

    /// Renders lines from the buffer. Returns false if it holds no complete line.
    fn render(&mut self, now: Now) -> bool {
        let Some(lines) = &mut self.lines else { return false };
        let ended = self.run.pipe.is_none() || self.run.completing;
        let done = lines.render(now.wall, self.input.rest(), ended, &mut self.rendered.lines);
        self.input.start += done.consumed;
        self.rendered.consumed = done.consumed;
        self.counters.lines += done.lines;
        done.consumed > 0
    }

    /// Reads from the pipe. Returns `None` if bytes were read or the pipe has ended; [`CapturedStream::count`] has
    /// recorded which.
    fn read(&mut self, now: Now, sink: &mut Sink<'_>, tail: &mut Tail) -> Option<PipeProgress> {
        self.input.make_room(self.policy.room());
        let (pipe, filled) = (self.run.pipe.as_ref()?, self.input.bytes.len());
        let asked = self.input.bytes.capacity() - filled;
        let read = match retry_on_intr(|| read(pipe, spare_capacity(&mut self.input.bytes))) {
            Ok(read) => read,
            Err(Errno::AGAIN) => {
                self.input.dry = true;
                self.run.drain.as_mut().map(Drain::emptied);
                // The pipe is empty, so the beginning of a line does not wait for its end any longer.
                let waits = self.lines.is_none() && !self.input.rest().is_empty();
                return Some(if waits { PipeProgress::Something } else { PipeProgress::Nothing });
            }
            // No other error is expected; treat it as the end of the pipe.
            Err(_) => 0,
        };
        let bytes = self.input.bytes.get(filled..).unwrap_or_default();
        tail.push(self.stream, bytes);
        if let Some(ready_line) = &mut self.ready_line {
            ready_line.push(bytes);
        }
        self.count(now, read);
        // A read that leaves room in the buffer has emptied the pipe. This saves a second call that would return
        // EAGAIN.
        self.input.dry = read < asked;
        let movable = self.lines.is_none() && self.ready_line.is_none() && !tail.is_on();
        if self.policy.read(read, self.input.dry, movable) && sink.can_splice() {
            let granted = self.grow_pipes(sink);
            self.policy.enlarged(granted, movable);
        }
        None
    }

    /// Enlarges the command's pipe and the reader's. The reader's pipe must be as large, because otherwise kapo would
    /// be woken each time the reader empties it. Returns false if the kernel refused, because the user's pipes have
    /// reached the limit on pages (pipe(7)).
    fn grow_pipes(&self, sink: &mut Sink<'_>) -> bool {
        [self.pipe(), sink.splice_target()].into_iter().all(|pipe| {
            pipe.is_some_and(|pipe| {
                let size = fcntl_getpipe_size(pipe).unwrap_or(0);
                size >= MOVE || fcntl_setpipe_size(pipe, MOVE).is_ok_and(|size| size >= MOVE)
            })
        })
    }

    /// Moves pages from the pipe to the sink. Returns `None` if the bytes must be copied instead.
    fn move_pages(&mut self, now: Now, sink: &mut Sink<'_>, tail: &Tail) -> Option<PipeProgress> {
        let pipe = self.run.pipe.as_ref().filter(|_| self.policy.moves())?;
        let Some(target) = sink.splice_target().filter(|_| !tail.is_on()) else {
            self.policy.copy();
            return None;
        };
        match retry_on_intr(|| splice(pipe, None, target, None, MOVE, SpliceFlags::NONBLOCK)) {
            // EAGAIN does not say whether the pipe is empty or the sink is full.
            Err(Errno::AGAIN) if ioctl_fionread(pipe).is_ok_and(|left| left > 0) => {
                Some(PipeProgress::Stalled)
            }
            Err(Errno::AGAIN) => {
                self.run.drain.as_mut().map(Drain::emptied);
                Some(PipeProgress::Nothing)
            }
            Ok(0) => {
                self.run.ended = true;
                Some(PipeProgress::Something)
            }
            Ok(moved) => {
                // Do not splice again in this turn: what is left gathers until the next one.
                self.input.dry = true;
                self.count(now, moved);
                // The bytes were not read, so it is unknown whether a line ends here.
                self.delivery.mid_line = false;
                Some(PipeProgress::Something)
            }
            Err(errno) => {
                // Any other error means that splice is not supported here. The bytes are still in the pipe and will be
                // copied.
                if errno == Errno::PIPE {
                    sink.set_broken(errno);
                }
                self.policy.copy();
                None
            }
        }
    }

    /// Counts `read` bytes from the pipe; 0 means that it has ended.
    fn count(&mut self, now: Now, read: usize) {
        self.counters.bytes += read as u64;
        if read == 0 {
            self.run.ended = true;
        } else if let Some(drain) = &mut self.run.drain {
            drain.read(now.mono, read as u64);
        }
    }

    /// Frees the buffers that a burst has enlarged.
    fn shrink(&mut self) {
        if self.input.rest().is_empty() && self.input.bytes.capacity() > SMALL {
            self.input = PipeInput { dry: self.input.dry, ..PipeInput::default() };
            self.policy.buffer_released();
        }
        if self.rendered.lines.is_empty() && self.rendered.lines.capacity() > 2 * SMALL {
            self.rendered.lines = Batch::default();
        }
    }
}

#[cfg(test)]
mod tests;
