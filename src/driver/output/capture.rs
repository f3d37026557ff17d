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
    lanes: Vec<Lane>,
    tail: Tail,
    /// The position in `tail` at which the output of this run begins.
    begun: Position,
    /// Whether the command has exited, but [`Capture::take_drained`] has not yet returned true.
    draining: bool,
}

#[derive(Debug)]
struct Lane {
    stream: Stream,
    output: CapturedStream,
    /// Whether it belongs to the current run.
    current: bool,
    /// Whether its pipe is registered with epoll.
    listening: bool,
    /// Whether it must be served in the next turn even without an event.
    again: bool,
}

impl Capture {
    /// Returns the captures that the options ask for. If a sink cannot be written to without blocking, the command
    /// inherits that stream instead, and a log record reports this.
    pub(crate) fn new(
        now: Now,
        options: &config::Capture,
        format: LogFormat,
        sinks: &mut Sinks<'_>,
    ) -> Capture {
        let mut lane = |stream: Stream, wanted: bool| {
            let captured = wanted && sinks.of(stream).can_capture();
            if wanted && !captured {
                let record = Record::warn("not captured: this terminal cannot be opened again");
                sinks.log(now.wall, &record.with("stream", stream.name()));
            }
            captured.then(|| Lane::new(stream, CapturedStream::new(stream, options.lines.then_some(format))))
        };
        let lanes = [lane(Stream::Stdout, options.stdout), lane(Stream::Stderr, options.stderr)];
        let lanes: Vec<Lane> = lanes.into_iter().flatten().collect();
        if !lanes.is_empty() {
            sinks.share();
        }
        Capture { lanes, tail: Tail::new(options.tail), begun: 0, draining: false }
    }

    /// Whether `stream` is captured.
    pub(crate) fn captures(&self, stream: Stream) -> bool {
        self.lanes.iter().any(|lane| lane.stream == stream)
    }

    /// Begins a run. Returns the write ends of the pipes, which become the command's stdout and stderr.
    pub(crate) fn begin(&mut self, epoll: &Epoll, sinks: &Sinks<'_>) -> io::Result<[Option<OwnedFd>; 2]> {
        let mut ends = [None, None];
        self.begun = self.tail.end();
        self.keep_open_pipes();
        for (stream, end) in Stream::BOTH.into_iter().zip(&mut ends) {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.current && lane.stream == stream) {
                let pipe = lane.output.begin()?;
                resemble(&pipe, sinks.descriptor(stream));
                *end = Some(pipe);
                lane.listen(epoll, false);
            }
        }
        Ok(ends)
    }

    /// Sets aside the pipes of the last run that are still open, so that their output is still forwarded.
    fn keep_open_pipes(&mut self) {
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else { return };
            if !lane.current || lane.output.pipe().is_none() {
                continue;
            }
            let (stream, fresh) = (lane.stream, Lane::new(lane.stream, lane.output.successor()));
            let mut old = std::mem::replace(lane, fresh);
            old.current = false;
            self.lanes.push(old);
            // Keep a stream with a short write pending: it must complete that write before another one may use the
            // sink.
            let mut old =
                self.lanes.iter().enumerate().filter(|(_, lane)| !lane.current && lane.stream == stream);
            let oldest = old.clone().find(|(_, lane)| lane.output.wants() != StreamInterest::Room);
            if old.nth(OLD_PIPES).is_some()
                && let Some((oldest, _)) = oldest
            {
                self.drop_lane(oldest);
            }
        }
    }

    /// Drops the pipe of an earlier run and adds its counters to the current stream.
    fn drop_lane(&mut self, index: usize) {
        let old = self.lanes.remove(index);
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.current && lane.stream == old.stream) {
            lane.output.count_in(old.output.counters());
        }
    }

    /// Closes the pipes of a command that could not be started.
    pub(crate) fn abandon(&mut self, now: Now, epoll: &Epoll, sinks: &mut Sinks<'_>) {
        self.end(now);
        self.turn(now, epoll, sinks, |_| true);
        self.draining = false;
    }

    /// Begins the drain after the command has exited. What the command wrote is read, and what its descendants write
    /// shortly afterwards, see [`crate::logic::output::drain`].
    pub(crate) fn end(&mut self, now: Now) {
        self.draining = true;
        for lane in self.lanes.iter_mut().filter(|lane| lane.current) {
            lane.output.end(now);
            lane.again = true;
        }
    }

    /// Returns true once after [`Capture::end`], when all output of the run has been forwarded.
    pub(crate) fn take_drained(&mut self, now: Now) -> bool {
        if !self.draining {
            return false;
        }
        let mut drained = true;
        for lane in self.lanes.iter_mut().filter(|lane| lane.current) {
            lane.again |= lane.output.complete(now);
            drained &= lane.output.is_drained();
        }
        self.draining = !drained;
        drained
    }

    /// Returns the time at which [`Capture::take_drained`] may return true without an event.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let current = self.lanes.iter().filter(|lane| self.draining && lane.current);
        current.filter_map(|lane| lane.output.deadline()).min()
    }

    /// Whether a stream must be served without waiting for an event.
    pub(crate) fn has_more(&self) -> bool {
        self.lanes.iter().enumerate().any(|(index, lane)| lane.again && !self.is_blocked(index))
    }

    /// Whether another pipe of the same stream has a short write pending, whose remainder must come next.
    fn is_blocked(&self, index: usize) -> bool {
        let stream = self.lanes.get(index).map(|lane| lane.stream);
        let cut_short =
            |lane: &Lane| Some(lane.stream) == stream && lane.output.wants() == StreamInterest::Room;
        self.lanes.iter().enumerate().any(|(other, lane)| other != index && cut_short(lane))
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
        for index in 0..self.lanes.len() {
            let waits = |lane: &Lane| lane.output.wants() == StreamInterest::Room;
            if self.lanes.get(index).is_some_and(|lane| waits(lane) && (sink_ready || lane.again)) {
                let rest = self.serve(index, now, epoll, sinks);
                gather = [gather, rest].into_iter().flatten().min();
            }
        }
        for index in 0..self.lanes.len() {
            let blocked = self.is_blocked(index);
            let Some(lane) = self.lanes.get_mut(index) else { break };
            let wanted = lane.output.wants() == StreamInterest::Input && ready(Source::Pipe(lane.stream));
            if blocked || !lane.again && !wanted {
                lane.listen(epoll, blocked);
                continue;
            }
            let rest = self.serve(index, now, epoll, sinks);
            gather = [gather, rest].into_iter().flatten().min();
        }
        for index in (0..self.lanes.len()).rev() {
            let over = |lane: &Lane| !lane.current && lane.output.pipe().is_none();
            if self.lanes.get(index).is_some_and(|lane| over(lane) && !lane.again && lane.output.is_drained())
            {
                self.drop_lane(index);
            }
        }
        gather.filter(|_| !self.draining && !self.has_more())
    }

    /// Serves one stream. Returns how long output should gather before it is served again.
    fn serve(&mut self, index: usize, now: Now, epoll: &Epoll, sinks: &mut Sinks<'_>) -> Option<Duration> {
        let lane = self.lanes.get_mut(index)?;
        // Closing the read end removes it from epoll, because no other descriptor refers to it.
        let fate = lane.output.on_ready(now, sinks, &mut self.tail);
        lane.again = fate == StreamFate::Again;
        if fate == StreamFate::Closed {
            lane.listening = false;
        }
        for record in lane.output.troubles() {
            sinks.log(now.wall, &record);
        }
        lane.listen(epoll, false);
        lane.output.rest()
    }

    /// Whether `stream` waits for room in its sink.
    pub(crate) fn wants_room(&self, stream: Stream) -> bool {
        self.lanes.iter().any(|lane| lane.stream == stream && lane.output.wants() == StreamInterest::Room)
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
        self.tail.last_lines(self.begun, count)
    }

    /// Returns the counters of stdout and stderr; `None` for a stream that is not captured.
    pub(crate) fn counters(&self) -> [Option<status::Counters>; 2] {
        Stream::BOTH.map(|stream| {
            let lanes = self.lanes.iter().filter(|lane| lane.stream == stream);
            lanes.map(|lane| lane.output.counters()).reduce(status::Counters::and)
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
fn resemble(pipe: &OwnedFd, original: BorrowedFd<'_>) {
    let Ok(stat) = fstat(original) else { return };
    let _ = fchown(pipe, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let _ = fchmod(pipe, Mode::from_raw_mode(stat.st_mode & 0o777));
}

impl Lane {
    fn new(stream: Stream, output: CapturedStream) -> Lane {
        Lane { stream, output, current: true, listening: false, again: false }
    }

    /// Registers or removes the pipe according to what the stream waits for. A pipe without writers is always ready,
    /// so it must not be registered while its sink is full or the stream is `blocked`.
    fn listen(&mut self, epoll: &Epoll, blocked: bool) {
        let wanted = self.output.wants() == StreamInterest::Input && !blocked;
        let Some(pipe) = self.output.pipe() else { return };
        if wanted && !self.listening {
            // This fails only if no memory is left; the stream is then served in every turn.
            self.listening = epoll.add(pipe, Source::Pipe(self.stream), EventFlags::IN).is_ok();
            self.again |= !self.listening;
        } else if !wanted && self.listening {
            epoll.delete(pipe);
            self.listening = false;
        }
    }
}
