//! The poll, and who an event of it is for, packed into the 64 bits that epoll keeps for us.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::logic::Stream;
use crate::logic::http::table::{GENERATION_MASK, Key};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("mio hands tokens on as usize, and these need 64 bits");

/// A source of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The signalfd.
    Signals,
    /// A listening socket, by its place in the list.
    Listener(u32),
    /// A connection.
    Connection(Key),
    /// The read end of one of the command's pipes.
    Pipe(Stream),
    /// The outlet of a captured stream, which was full.
    Sink(Stream),
    /// The command's NOTIFY_SOCKET.
    Notify,
    /// The counter of OOM kills.
    Oom,
    /// The watcher's own epoll, with all the processes that it watches.
    Watch,
    /// The pidfd of kapo's parent.
    Parent,
    /// The pidfd of the process that the command has named by MAINPID.
    MainPid,
}

impl Source {
    fn bit(self) -> Option<u16> {
        Some(match self {
            Source::Pipe(Stream::Stdout) => 1 << 0,
            Source::Pipe(Stream::Stderr) => 1 << 1,
            Source::Sink(Stream::Stdout) => 1 << 2,
            Source::Sink(Stream::Stderr) => 1 << 3,
            Source::Signals => 1 << 4,
            Source::Notify => 1 << 5,
            Source::Oom => 1 << 6,
            Source::Watch => 1 << 7,
            Source::Parent => 1 << 8,
            Source::MainPid => 1 << 9,
            Source::Listener(_) | Source::Connection(_) => return None,
        })
    }

    /// For epoll's data.
    pub(crate) fn token(self) -> u64 {
        let (kind, generation, slot) = match self {
            Source::Signals => (0, 0, 0),
            Source::Listener(place) => (1, 0, place),
            Source::Connection(key) => (2, key.generation, key.slot),
            Source::Pipe(stream) => (3, 0, stream as u32),
            Source::Sink(stream) => (4, 0, stream as u32),
            Source::Notify => (5, 0, 0),
            Source::Oom => (6, 0, 0),
            Source::Watch => (7, 0, 0),
            Source::Parent => (8, 0, 0),
            Source::MainPid => (9, 0, 0),
        };
        kind << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot)
    }

    /// Back again; `None` for what was never a token.
    #[expect(clippy::cast_possible_truncation, reason = "takes the parts of 32 and 24 bits out")]
    pub(crate) fn of(token: u64) -> Option<Source> {
        let slot = token as u32;
        let generation = (token >> 32) as u32 & GENERATION_MASK;
        let stream = match slot {
            0 => Stream::Stdout,
            _ => Stream::Stderr,
        };
        Some(match token >> 56 {
            0 => Source::Signals,
            1 => Source::Listener(slot),
            2 => Source::Connection(Key { slot, generation }),
            3 => Source::Pipe(stream),
            4 => Source::Sink(stream),
            5 => Source::Notify,
            6 => Source::Oom,
            7 => Source::Watch,
            8 => Source::Parent,
            9 => Source::MainPid,
            _ => return None,
        })
    }
}

/// Who is ready in a turn, but for listeners and connections, of which there may be many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    bits: u16,
    /// A listener or a connection is, too.
    clients: bool,
}

impl Ready {
    /// Adds one.
    pub(crate) fn add(&mut self, source: Source) {
        match source.bit() {
            Some(bit) => self.bits |= bit,
            None => self.clients = true,
        }
    }

    /// Whether it is ready; for listeners and connections, whether any of them is.
    pub(crate) fn has(self, source: Source) -> bool {
        match source.bit() {
            Some(bit) => self.bits & bit != 0,
            None => self.clients,
        }
    }

    /// Whether a pipe or an outlet is.
    pub(crate) fn has_output(self) -> bool {
        self.bits & OUTPUT != 0
    }

    /// Whether nobody but listeners and connections is.
    pub(crate) fn is_clients_alone(self) -> bool {
        self.bits == 0 && self.clients
    }

    /// Whether nobody but pipes and outlets is.
    pub(crate) fn is_output_alone(self) -> bool {
        self.bits & !OUTPUT == 0 && !self.clients
    }
}

/// The bits of both pipes and both outlets.
const OUTPUT: u16 = 0b1111;

/// mio's poll with level-triggered registration, which rustix does on its epoll: what is left undone is told again, so
/// no source needs to be read dry, and a source that is not wanted for now costs no wake-up.
#[derive(Debug)]
pub(crate) struct Epoll(mio::Poll);

impl Epoll {
    /// A new one.
    pub(crate) fn new() -> io::Result<Epoll> {
        mio::Poll::new().map(Epoll)
    }

    /// Waits for events, for at most `timeout`; for ever without one. A signal handler cannot interrupt it, as all
    /// signals are blocked, but a stop and CONT do, and so may a frozen cgroup: then it is false, and no events were
    /// asked for. Deadlines may have passed meanwhile, but what came in that time came before them: wait again.
    pub(crate) fn wait(&mut self, events: &mut mio::Events, timeout: Option<Duration>) -> bool {
        self.0.poll(events, timeout).is_ok()
    }

    /// Waits for `interest` on `fd` from now on.
    pub(crate) fn add(&self, fd: impl AsFd, source: Source, interest: EventFlags) -> Result<(), Errno> {
        epoll::add(self, fd, EventData::new_u64(source.token()), interest)
    }

    /// Waits for something else on it; nothing, where `interest` is empty, but errors and hang-ups are told always.
    pub(crate) fn modify(&self, fd: impl AsFd, source: Source, interest: EventFlags) -> Result<(), Errno> {
        epoll::modify(self, fd, EventData::new_u64(source.token()), interest)
    }

    /// Forgets it. Closing does the same where no duplicate of `fd` exists.
    pub(crate) fn delete(&self, fd: impl AsFd) {
        let _ = epoll::delete(self, fd);
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.registry().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ready_is_told_apart() {
        let pipe = Source::Pipe(Stream::Stderr);
        let mut ready = Ready::default();
        ready.add(pipe);
        assert!(ready.has(pipe) && ready.has_output() && ready.is_output_alone());
        assert!(!ready.has(Source::Pipe(Stream::Stdout)) && !ready.has(Source::Listener(0)));
        ready.add(Source::Connection(Key { slot: 1, generation: 1 }));
        assert!(ready.has(Source::Listener(0)) && !ready.is_output_alone());
        let mut ready = Ready::default();
        ready.add(Source::Oom);
        assert!(ready.has(Source::Oom) && !ready.has_output() && !ready.is_output_alone());
    }

    #[test]
    fn every_source_comes_back_from_its_token() {
        let key = Key { slot: u32::MAX, generation: GENERATION_MASK };
        for source in [
            Source::Signals,
            Source::Listener(3),
            Source::Connection(key),
            Source::Pipe(Stream::Stdout),
            Source::Pipe(Stream::Stderr),
            Source::Sink(Stream::Stderr),
            Source::Notify,
            Source::Oom,
            Source::Watch,
            Source::Parent,
            Source::MainPid,
        ] {
            assert_eq!(Source::of(source.token()), Some(source));
        }
        assert_eq!(Source::of(u64::MAX), None);
    }
}
