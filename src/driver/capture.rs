//! The command's captured outputs and where they go: registration of pipes and outlets, and whose turn it is.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, fstat};

use super::output::{Fate, Output, Wants};
use super::poll::{Epoll, Source};
use super::sink::Sinks;
use crate::config;
use crate::logic::record::Record;
use crate::logic::tail::{Position, Tail};
use crate::logic::{Now, Stream, status};

/// See the head of the file.
#[derive(Debug)]
pub struct Capture {
    lanes: [Option<Lane>; 2],
    tail: Tail,
    /// Where the output of this run begins in it.
    begun: Position,
    /// The command has ended, and nobody was told yet that all is drained.
    draining: bool,
}

#[derive(Debug)]
struct Lane {
    stream: Stream,
    output: Output,
    /// Its pipe is registered.
    listening: bool,
    /// It has more to do at once.
    again: bool,
}

impl Capture {
    /// What the options ask for. A stream whose outlet cannot be written to without blocking is left to the command,
    /// and the log says so.
    pub fn new(now: Now, options: &config::Capture, sinks: &mut Sinks<'_>) -> Capture {
        let mut lane = |stream: Stream, wanted: bool| {
            let captured = wanted && sinks.of(stream).can_capture();
            if wanted && !captured {
                let record = Record::warn("not captured: this terminal cannot be opened again");
                sinks.log(now.wall, &record.with("stream", stream.name()));
            }
            captured.then(|| Lane {
                stream,
                output: Output::new(stream, options.lines),
                listening: false,
                again: false,
            })
        };
        let lanes = [lane(Stream::Stdout, options.stdout), lane(Stream::Stderr, options.stderr)];
        if lanes.iter().any(Option::is_some) {
            sinks.share();
        }
        Capture { lanes, tail: Tail::new(options.tail), begun: 0, draining: false }
    }

    /// Whether `stream` passes through kapo.
    pub fn captures(&self, stream: Stream) -> bool {
        self.lanes.iter().flatten().any(|lane| lane.stream == stream)
    }

    /// Begins a run: the ends of the pipes that become the command's.
    pub fn begin(&mut self, epoll: &Epoll, sinks: &Sinks<'_>) -> io::Result<[Option<OwnedFd>; 2]> {
        let mut ends = [None, None];
        self.begun = self.tail.end();
        for (lane, end) in self.lanes.iter_mut().zip(&mut ends) {
            if let Some(lane) = lane {
                let pipe = lane.output.begin()?;
                resemble(&pipe, sinks.descriptor(lane.stream));
                *end = Some(pipe);
                lane.listen(epoll);
            }
        }
        Ok(ends)
    }

    /// The command could not be started: its pipes are closed unread.
    pub fn abandon(&mut self, now: Now, epoll: &Epoll, sinks: &mut Sinks<'_>) {
        self.end();
        self.turn(now, epoll, sinks, |_| true);
        self.draining = false;
    }

    /// The command has ended: what it wrote is read, no more.
    pub fn end(&mut self) {
        self.draining = true;
        for lane in self.lanes.iter_mut().flatten() {
            lane.output.end();
            lane.again = true;
        }
    }

    /// Once after [`Capture::end`]: all has passed through.
    pub fn take_drained(&mut self) -> bool {
        let drained = self.draining && self.lanes.iter().flatten().all(|lane| lane.output.is_drained());
        self.draining &= !drained;
        drained
    }

    /// Somebody must be served at once.
    pub fn has_more(&self) -> bool {
        self.lanes.iter().flatten().any(|lane| lane.again)
    }

    /// Serves those whose pipe or outlet is `ready`, and those who had more to do. What they have to say about their
    /// outlets goes to the log. Says for how long output should gather, see [`crate::logic::pace`].
    pub fn turn(
        &mut self,
        now: Now,
        epoll: &Epoll,
        sinks: &mut Sinks<'_>,
        ready: impl Fn(Source) -> bool,
    ) -> Option<Duration> {
        let mut gather = None;
        for lane in self.lanes.iter_mut().flatten() {
            // Both may wait for one outlet, which epoll knows by the name of one of them.
            let outlet = lane.output.wants() == Wants::Room
                && Stream::BOTH.iter().any(|stream| ready(Source::Outlet(*stream)));
            if !lane.again && !outlet && !ready(Source::Pipe(lane.stream)) {
                continue;
            }
            // A pipe that closes is forgotten by epoll only if nobody else holds that end, which is ours alone.
            let fate = lane.output.on_ready(now, sinks, &mut self.tail);
            gather = [gather, lane.output.rest()].into_iter().flatten().min();
            lane.again = fate == Fate::Again;
            if fate == Fate::Closed {
                lane.listening = false;
            }
            for record in lane.output.troubles() {
                sinks.log(now.wall, &record);
            }
            lane.listen(epoll);
        }
        gather.filter(|_| !self.draining && !self.has_more())
    }

    /// Whether `stream`'s outlet is awaited.
    pub fn wants_room(&self, stream: Stream) -> bool {
        self.lanes.iter().flatten().any(|lane| lane.stream == stream && lane.output.wants() == Wants::Room)
    }

    /// To be held for those who follow it, see [`Tail::hold`].
    pub fn tail_mut(&mut self) -> &mut Tail {
        &mut self.tail
    }

    /// The last captured output; `None` without `--tail`.
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.is_on().then_some(&self.tail)
    }

    /// The last lines of this run, so many at most; none without `--tail`.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.tail.last_lines(self.begun, count)
    }

    /// The counters of stdout and stderr.
    pub fn counters(&self) -> [Option<status::Counters>; 2] {
        self.lanes.each_ref().map(|lane| lane.as_ref().map(|lane| lane.output.counters()))
    }

    /// The document's `Output`: null without capture.
    pub fn document(&self) -> Option<status::Output> {
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
    /// Listens to the pipe if that is what it wants. A pipe whose writers are gone would be told again and again while
    /// its outlet is full, so then epoll must not know it at all.
    fn listen(&mut self, epoll: &Epoll) {
        let wanted = self.output.wants() == Wants::Input;
        let Some(pipe) = self.output.pipe() else { return };
        if wanted && !self.listening {
            // Fails for want of memory only; then the lane is served at every turn.
            self.listening = epoll.add(pipe, Source::Pipe(self.stream), EventFlags::IN).is_ok();
            self.again |= !self.listening;
        } else if !wanted && self.listening {
            epoll.delete(pipe);
            self.listening = false;
        }
    }
}
