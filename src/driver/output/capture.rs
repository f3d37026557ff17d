//! The command's captured streams: registers their pipes with epoll and decides which one is served next.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, fstat};

use crate::config::{self, LogFormat};
use crate::driver::output::sink::Sinks;
use crate::driver::output::stream::{CapturedStream, StreamFate, StreamInterest};
use crate::driver::poll::{Epoll, Source};
use crate::logic::log::record::Record;
use crate::logic::output::ready_line::ReadyLine;
use crate::logic::output::tail::{Position, Tail};
use crate::logic::{Now, Stream, status};

/// How many pipes of earlier runs stay open for each stream. If there are more, the oldest is closed, and a process
/// that writes to it gets SIGPIPE.
const OLD_PIPES: usize = 8;

/// All captured streams, with the tail of their output.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The streams of the current run, followed by those of earlier runs whose pipes are still held open by
    /// descendants of their commands.
    entries: Vec<CapturedPipe>,
    tail: Tail,
    /// The position in `tail` at which the output of this run begins.
    run_begin: Position,
    /// Whether the command has exited, but [`Capture::take_drained`] has not yet returned true.
    draining: bool,
    /// When the last output of this run was read.
    last_read: Option<Instant>,
    /// The search that each run begins anew, under `--ready-line`.
    ready_line: Option<ReadyLine>,
}

#[derive(Debug)]
struct CapturedPipe {
    stream: Stream,
    output: CapturedStream,
    /// Whether the pipe belongs to the current run.
    current: bool,
    /// Whether its pipe is registered with epoll.
    registered: bool,
    /// Whether it must be served in the next turn even without an event.
    again: bool,
}

impl Capture {
    /// Returns the captures that the options ask for. If a sink cannot be written to without blocking, the command
    /// inherits that stream instead, and a log record reports this.
    pub(crate) fn new(
        now: Now,
        options: &config::CaptureOptions,
        format: LogFormat,
        sinks: &mut Sinks<'_>,
    ) -> Capture {
        let mut entry = |stream: Stream, wanted: bool| {
            let captured = wanted && sinks.of(stream).can_capture();
            if wanted && !captured {
                let record =
                    Record::warn("stream not captured").with("why", "this terminal cannot be opened again");
                sinks.log(now.wall, &record.with("stream", stream.name()));
            }
            captured.then(|| {
                CapturedPipe::new(stream, CapturedStream::new(stream, options.lines.then_some(format)))
            })
        };
        let entries = [entry(Stream::Stdout, options.stdout), entry(Stream::Stderr, options.stderr)];
        let entries: Vec<CapturedPipe> = entries.into_iter().flatten().collect();
        if !entries.is_empty() {
            sinks.share();
        }
        Capture {
            entries,
            tail: Tail::new(options.tail),
            run_begin: 0,
            draining: false,
            last_read: None,
            ready_line: None,
        }
    }

    /// Searches the output of each run for the text of `--ready-line`.
    pub(crate) fn set_ready_line(&mut self, text: &[u8]) {
        self.ready_line = Some(ReadyLine::new(text));
    }

    /// Returns true once in each run, when its output contains the text of `--ready-line`. The search then ends.
    pub(crate) fn take_ready_line(&mut self) -> bool {
        let found = self.entries.iter().any(|entry| entry.output.has_ready_line());
        if found {
            self.search(None);
        }
        found
    }

    /// Begins or ends the search in the streams of this run.
    fn search(&mut self, ready_line: Option<ReadyLine>) {
        for entry in &mut self.entries {
            entry.output.search(ready_line.filter(|_| entry.current));
        }
    }

    /// Whether `stream` is captured.
    pub(crate) fn captures(&self, stream: Stream) -> bool {
        self.entries.iter().any(|entry| entry.stream == stream)
    }

    /// Begins a run. Returns the write ends of the pipes, which become the command's stdout and stderr.
    pub(crate) fn begin(&mut self, epoll: &Epoll, sinks: &Sinks<'_>) -> io::Result<[Option<OwnedFd>; 2]> {
        let mut ends = [None, None];
        self.run_begin = self.tail.end();
        self.last_read = None;
        self.keep_open_pipes();
        self.search(self.ready_line);
        for (stream, end) in Stream::BOTH.into_iter().zip(&mut ends) {
            if let Some(entry) = self.entries.iter_mut().find(|entry| entry.current && entry.stream == stream)
            {
                let pipe = entry.output.begin()?;
                copy_permissions(&pipe, sinks.descriptor(stream));
                *end = Some(pipe);
                entry.register(epoll, false);
            }
        }
        Ok(ends)
    }

    /// Sets aside the pipes of the last run that are still open, so that their output is still forwarded.
    fn keep_open_pipes(&mut self) {
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get_mut(index) else { return };
            if !entry.current || entry.output.pipe().is_none() {
                continue;
            }
            let (stream, fresh) = (entry.stream, CapturedPipe::new(entry.stream, entry.output.successor()));
            let mut old = std::mem::replace(entry, fresh);
            old.current = false;
            self.entries.push(old);
            // Keep a stream with a short write pending: it must complete that write before another one may use the
            // sink.
            let mut old =
                self.entries.iter().enumerate().filter(|(_, entry)| !entry.current && entry.stream == stream);
            let oldest = old.clone().find(|(_, entry)| entry.output.wants() != StreamInterest::Room);
            if old.nth(OLD_PIPES).is_some()
                && let Some((oldest, _)) = oldest
            {
                self.drop_entry(oldest);
            }
        }
    }

    /// Drops the pipe of an earlier run and adds its counters to the current stream.
    fn drop_entry(&mut self, index: usize) {
        let old = self.entries.remove(index);
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.current && entry.stream == old.stream)
        {
            entry.output.count_in(old.output.counters());
        }
    }

    /// Closes the pipes of a command that could not be started.
    pub(crate) fn abandon(&mut self, now: Now, epoll: &Epoll, sinks: &mut Sinks<'_>) {
        self.end(now);
        self.turn(now, epoll, sinks, |_| true);
        self.draining = false;
    }

    /// Begins the drain after the command has exited. kapo reads what the command has written, and what its descendants
    /// write shortly afterwards; see [`crate::logic::output::drain`].
    pub(crate) fn end(&mut self, now: Now) {
        self.draining = true;
        for entry in self.entries.iter_mut().filter(|entry| entry.current) {
            entry.output.end(now);
            entry.again = true;
        }
    }

    /// Returns true once after [`Capture::end`], when all output of the run has been forwarded.
    pub(crate) fn take_drained(&mut self, now: Now) -> bool {
        if !self.draining {
            return false;
        }
        let mut drained = true;
        for entry in self.entries.iter_mut().filter(|entry| entry.current) {
            entry.again |= entry.output.complete(now);
            drained &= entry.output.is_drained();
        }
        self.draining = !drained;
        drained
    }

    /// Returns the time at which [`Capture::take_drained`] may return true without an event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let current = self.entries.iter().filter(|entry| self.draining && entry.current);
        current.filter_map(|entry| entry.output.deadline()).min()
    }

    /// Whether a stream must be served without waiting for an event.
    pub(crate) fn has_more(&self) -> bool {
        self.entries.iter().enumerate().any(|(index, entry)| entry.again && !self.is_blocked(index))
    }

    /// Whether another pipe of the same stream has a short write pending, whose remainder must come next.
    fn is_blocked(&self, index: usize) -> bool {
        let stream = self.entries.get(index).map(|entry| entry.stream);
        let cut_short = |entry: &CapturedPipe| {
            Some(entry.stream) == stream && entry.output.wants() == StreamInterest::Room
        };
        self.entries.iter().enumerate().any(|(other, entry)| other != index && cut_short(entry))
    }

    /// Serves the streams whose pipe or sink is `ready`, and those that had more to do. Logs the failures of their
    /// sinks. Returns how long output should gather before the next turn, see [`crate::logic::output::coalesce`].
    pub(crate) fn turn(
        &mut self,
        now: Now,
        epoll: &Epoll,
        sinks: &mut Sinks<'_>,
        ready: impl Fn(Source) -> bool,
    ) -> Option<Duration> {
        let mut gather = None;
        // Both streams may wait for one sink, which is registered under the name of one of them.
        let sink_ready = Stream::BOTH.iter().any(|stream| ready(Source::Sink(*stream)));
        // Streams with a short write pending are served first.
        for index in 0..self.entries.len() {
            let waits = |entry: &CapturedPipe| entry.output.wants() == StreamInterest::Room;
            if self.entries.get(index).is_some_and(|entry| waits(entry) && (sink_ready || entry.again)) {
                let rest = self.serve(index, now, epoll, sinks);
                gather = [gather, rest].into_iter().flatten().min();
            }
        }
        for index in 0..self.entries.len() {
            let blocked = self.is_blocked(index);
            let Some(entry) = self.entries.get_mut(index) else { break };
            let wanted = entry.output.wants() == StreamInterest::Input && ready(Source::Pipe(entry.stream));
            if blocked || !entry.again && !wanted {
                entry.register(epoll, blocked);
                continue;
            }
            let rest = self.serve(index, now, epoll, sinks);
            gather = [gather, rest].into_iter().flatten().min();
        }
        for index in (0..self.entries.len()).rev() {
            let over = |entry: &CapturedPipe| !entry.current && entry.output.pipe().is_none();
            if self
                .entries
                .get(index)
                .is_some_and(|entry| over(entry) && !entry.again && entry.output.is_drained())
            {
                self.drop_entry(index);
            }
        }
        gather.filter(|_| !self.draining && !self.has_more())
    }

    /// Serves one stream. Returns how long output should gather before it is served again.
    fn serve(&mut self, index: usize, now: Now, epoll: &Epoll, sinks: &mut Sinks<'_>) -> Option<Duration> {
        let entry = self.entries.get_mut(index)?;
        // Closing the read end removes it from epoll, because no other descriptor refers to it.
        let before = entry.output.counters().bytes;
        let fate = entry.output.on_ready(now, sinks, &mut self.tail);
        if entry.current && entry.output.counters().bytes != before {
            self.last_read = Some(now.mono);
        }
        entry.again = fate == StreamFate::Again;
        if fate == StreamFate::Closed {
            entry.registered = false;
        }
        for record in entry.output.take_records() {
            sinks.log(now.wall, &record);
        }
        entry.register(epoll, false);
        entry.output.rest()
    }

    /// Returns when the last output of this run was read.
    pub(crate) fn last_read(&self) -> Option<Instant> {
        self.last_read
    }

    /// Whether `stream` waits for room in its sink.
    pub(crate) fn wants_room(&self, stream: Stream) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.stream == stream && entry.output.wants() == StreamInterest::Room)
    }

    /// Returns the tail, so that it can be held for followers, see [`Tail::hold`].
    pub(crate) fn tail_mut(&mut self) -> &mut Tail {
        &mut self.tail
    }

    /// Returns the last captured output; `None` without `--tail`.
    pub(crate) fn tail(&self) -> Option<&Tail> {
        self.tail.is_on().then_some(&self.tail)
    }

    /// Returns at most `count` of the last lines of this run; none without `--tail`.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        self.tail.last_lines(self.run_begin, count)
    }

    /// Returns the counters of stdout and stderr; `None` for a stream that is not captured.
    pub(crate) fn counters(&self) -> [Option<status::Counters>; 2] {
        Stream::BOTH.map(|stream| {
            let entries = self.entries.iter().filter(|entry| entry.stream == stream);
            entries.map(|entry| entry.output.counters()).reduce(status::Counters::and)
        })
    }

    /// Returns the `Output` of the status document; `None` without capture.
    pub(crate) fn document(&self) -> Option<status::Output> {
        let [stdout, stderr] = self.counters();
        (stdout.is_some() || stderr.is_some()).then_some(status::Output { stdout, stderr })
    }
}

/// Gives a pipe the mode and the owner of the descriptor that it replaces, so that a command that has dropped its
/// privileges can open /dev/stdout as it could without kapo. If the kernel refuses, only kapo's user can open it.
fn copy_permissions(pipe: &OwnedFd, original: BorrowedFd<'_>) {
    let Ok(stat) = fstat(original) else { return };
    let _ = fchown(pipe, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let _ = fchmod(pipe, Mode::from_raw_mode(stat.st_mode & 0o777));
}

impl CapturedPipe {
    fn new(stream: Stream, output: CapturedStream) -> CapturedPipe {
        CapturedPipe { stream, output, current: true, registered: false, again: false }
    }

    /// Registers or removes the pipe according to what the stream waits for. A pipe without writers is always ready,
    /// so it must not be registered while its sink is full or the stream is `blocked`.
    fn register(&mut self, epoll: &Epoll, blocked: bool) {
        let wanted = self.output.wants() == StreamInterest::Input && !blocked;
        let Some(pipe) = self.output.pipe() else { return };
        if wanted && !self.registered {
            // This fails only if no memory is left; the stream is then served in every turn.
            self.registered = epoll.add(pipe, Source::Pipe(self.stream), EventFlags::IN).is_ok();
            self.again |= !self.registered;
        } else if !wanted && self.registered {
            epoll.delete(pipe);
            self.registered = false;
        }
    }
}
