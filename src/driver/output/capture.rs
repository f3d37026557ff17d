//! The command's captured outputs and where they go: registration of pipes and outlets, and whose turn it is.

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

/// How many pipes of earlier runs stay open for each stream. Beyond that the oldest is closed, and who writes to it gets
/// SIGPIPE.
const OLD_PIPES: usize = 8;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Those of the current run, and pipes of earlier runs that descendants of their commands hold open.
    lanes: Vec<Lane>,
    tail: Tail,
    /// Where the output of this run begins in it.
    begun: Position,
    /// The command has ended, and the end of its output was not reported yet.
    draining: bool,
}

#[derive(Debug)]
struct Lane {
    stream: Stream,
    output: CapturedStream,
    /// Of the current run.
    current: bool,
    /// Its pipe is registered.
    listening: bool,
    /// It has more to do at once.
    again: bool,
}

impl Capture {
    /// What the options ask for. A stream whose outlet cannot be written to without blocking is left to the command,
    /// and the log says so.
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

    /// Whether `stream` passes through kapo.
    pub(crate) fn captures(&self, stream: Stream) -> bool {
        self.lanes.iter().any(|lane| lane.stream == stream)
    }

    /// Begins a run: the ends of the pipes that become the command's.
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

    /// Puts aside pipes of the last run that are still open: what comes there is passed on like any other output.
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
            // One that is cut short in the middle of a write must go on before others of its stream.
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

    /// Forgets an old pipe, and keeps what it has counted.
    fn drop_lane(&mut self, index: usize) {
        let old = self.lanes.remove(index);
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.current && lane.stream == old.stream) {
            lane.output.count_in(old.output.counters());
        }
    }

    /// The command could not be started: its pipes are closed unread.
    pub(crate) fn abandon(&mut self, now: Now, epoll: &Epoll, sinks: &mut Sinks<'_>) {
        self.end(now);
        self.turn(now, epoll, sinks, |_| true);
        self.draining = false;
    }

    /// The command has ended: what it wrote is read, and what comes soon after it, see [`crate::logic::output::drain`].
    pub(crate) fn end(&mut self, now: Now) {
        self.draining = true;
        for lane in self.lanes.iter_mut().filter(|lane| lane.current) {
            lane.output.end(now);
            lane.again = true;
        }
    }

    /// Once after [`Capture::end`]: all has passed through.
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

    /// When [`Capture::take_drained`] may come true although nothing is ready.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let current = self.lanes.iter().filter(|lane| self.draining && lane.current);
        current.filter_map(|lane| lane.output.deadline()).min()
    }

    /// Somebody must be served at once.
    pub(crate) fn has_more(&self) -> bool {
        self.lanes.iter().enumerate().any(|(index, lane)| lane.again && !self.is_blocked(index))
    }

    /// Whether another pipe of the same stream was cut short in the middle of a write, whose rest must come next.
    fn is_blocked(&self, index: usize) -> bool {
        let stream = self.lanes.get(index).map(|lane| lane.stream);
        let cut_short =
            |lane: &Lane| Some(lane.stream) == stream && lane.output.wants() == StreamInterest::Room;
        self.lanes.iter().enumerate().any(|(other, lane)| other != index && cut_short(lane))
    }

    /// Serves those whose pipe or outlet is `ready`, and those who had more to do. What they have to say about their
    /// outlets goes to the log. Says for how long output should gather, see [`crate::logic::output::coalesce`].
    pub(crate) fn turn(
        &mut self,
        now: Now,
        epoll: &Epoll,
        sinks: &mut Sinks<'_>,
        ready: impl Fn(Source) -> bool,
    ) -> Option<Duration> {
        let mut gather = None;
        // Both streams may wait for one outlet, which epoll knows by the name of one of them.
        let outlet = Stream::BOTH.iter().any(|stream| ready(Source::Sink(*stream)));
        // Those that were cut short go first.
        for index in 0..self.lanes.len() {
            let waits = |lane: &Lane| lane.output.wants() == StreamInterest::Room;
            if self.lanes.get(index).is_some_and(|lane| waits(lane) && (outlet || lane.again)) {
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

    /// Serves one; for how long more should gather.
    fn serve(&mut self, index: usize, now: Now, epoll: &Epoll, sinks: &mut Sinks<'_>) -> Option<Duration> {
        let lane = self.lanes.get_mut(index)?;
        // A pipe that closes is forgotten by epoll only if nobody else holds that end, which is ours alone.
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

    /// Whether `stream`'s outlet is awaited.
    pub(crate) fn wants_room(&self, stream: Stream) -> bool {
        self.lanes.iter().any(|lane| lane.stream == stream && lane.output.wants() == StreamInterest::Room)
    }

    /// To be held for those who follow it, see [`Tail::hold`].
    pub(crate) fn tail_mut(&mut self) -> &mut Tail {
        &mut self.tail
    }

    /// The last captured output; `None` without `--tail`.
    pub(crate) fn tail(&self) -> Option<&Tail> {
        self.tail.is_on().then_some(&self.tail)
    }

    /// The last lines of this run, so many at most; none without `--tail`.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        self.tail.last_lines(self.begun, count)
    }

    /// The counters of stdout and stderr.
    pub(crate) fn counters(&self) -> [Option<status::Counters>; 2] {
        Stream::BOTH.map(|stream| {
            let lanes = self.lanes.iter().filter(|lane| lane.stream == stream);
            lanes.map(|lane| lane.output.counters()).reduce(status::Counters::and)
        })
    }

    /// The document's `Output`: null without capture.
    pub(crate) fn document(&self) -> Option<status::Output> {
        let [stdout, stderr] = self.counters();
        (stdout.is_some() || stderr.is_some()).then_some(status::Output { stdout, stderr })
    }
}

/// Gives a pipe the mode and the owner of the descriptor it stands for, so that a command that has dropped its
/// privileges can open /dev/stdout as it could without kapo. A refusal leaves it to kapo's user alone.
fn resemble(pipe: &OwnedFd, original: BorrowedFd<'_>) {
    let Ok(stat) = fstat(original) else { return };
    let _ = fchown(pipe, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let _ = fchmod(pipe, Mode::from_raw_mode(stat.st_mode & 0o777));
}

impl Lane {
    fn new(stream: Stream, output: CapturedStream) -> Lane {
        Lane { stream, output, current: true, listening: false, again: false }
    }

    /// Listens to the pipe if that is what it wants, and it is not `blocked`. A pipe whose writers are gone would be told again and again while
    /// its outlet is full, so then epoll must not know it at all.
    fn listen(&mut self, epoll: &Epoll, blocked: bool) {
        let wanted = self.output.wants() == StreamInterest::Input && !blocked;
        let Some(pipe) = self.output.pipe() else { return };
        if wanted && !self.listening {
            // This fails only if no memory is left; the lane is then served in every turn.
            self.listening = epoll.add(pipe, Source::Pipe(self.stream), EventFlags::IN).is_ok();
            self.again |= !self.listening;
        } else if !wanted && self.listening {
            epoll.delete(pipe);
            self.listening = false;
        }
    }
}
