//! The epoll instance, and the source of each event, encoded in the 64 bits of user data that epoll stores.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::logic::Stream;
use crate::logic::http::table::{GENERATION_MASK, Key};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("mio stores tokens as usize, and these need 64 bits");

/// A source of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The signalfd.
    Signals,
    /// A listening socket, by its index.
    Listener(u32),
    /// A connection.
    Connection(Key),
    /// The read end of one of the command's pipes.
    Pipe(Stream),
    /// The sink of a captured stream, while it is full.
    Sink(Stream),
    /// The command's NOTIFY_SOCKET.
    Notify,
    /// The counter of OOM kills.
    Oom,
    /// The watcher's own epoll instance, which contains all watched processes.
    Watch,
    /// The pidfd of kapo's parent.
    Parent,
    /// The pidfd of the process that the command has named with `MAINPID=`.
    MainPid,
    /// The output of any helper.
    Helper,
    /// The socket of any probe.
    Probe,
    /// The epoll instance of the requests that fleet passes through.
    Proxy,
    /// The epoll instance of the folder that fleet serves, and of its sockets.
    Folder,
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
            Source::Helper => 1 << 10,
            Source::Probe => 1 << 11,
            Source::Proxy => 1 << 12,
            Source::Folder => 1 << 13,
            Source::Listener(_) | Source::Connection(_) => return None,
        })
    }

    /// Returns the user data for epoll.
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
            Source::Helper => (10, 0, 0),
            Source::Probe => (11, 0, 0),
            Source::Proxy => (12, 0, 0),
            Source::Folder => (13, 0, 0),
        };
        kind << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot)
    }

    /// Decodes a token; `None` if the value is not one.
    #[expect(clippy::cast_possible_truncation, reason = "extracts the parts of 32 and 24 bits")]
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
            10 => Source::Helper,
            11 => Source::Probe,
            12 => Source::Proxy,
            13 => Source::Folder,
            _ => return None,
        })
    }
}

/// The ready sources of a turn, without the individual listeners and connections, of which there may be many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    bits: u16,
    /// Whether a listener or a connection is ready.
    clients: bool,
}

impl Ready {
    /// Adds a ready source.
    pub(crate) fn add(&mut self, source: Source) {
        match source.bit() {
            Some(bit) => self.bits |= bit,
            None => self.clients = true,
        }
    }

    /// Whether this source is ready. For a listener or a connection: whether any of them is.
    pub(crate) fn has(self, source: Source) -> bool {
        match source.bit() {
            Some(bit) => self.bits & bit != 0,
            None => self.clients,
        }
    }

    /// Whether a pipe or a sink is ready.
    pub(crate) fn has_output(self) -> bool {
        self.bits & OUTPUT != 0
    }

    /// Whether only signals are ready.
    pub(crate) fn is_signals_alone(self) -> bool {
        Some(self.bits) == Source::Signals.bit() && !self.clients
    }

    /// Whether only listeners and connections are ready.
    pub(crate) fn is_clients_alone(self) -> bool {
        self.bits == 0 && self.clients
    }

    /// Whether only pipes and sinks are ready.
    pub(crate) fn is_output_alone(self) -> bool {
        self.bits & !OUTPUT == 0 && !self.clients
    }
}

/// The bits of both pipes and both sinks.
const OUTPUT: u16 = 0b1111;

/// mio's poll with level-triggered registration through rustix. A source that was not read completely is reported
/// again, and a source that is not wanted for now costs no wake-up.
#[derive(Debug)]
pub(crate) struct Epoll(mio::Poll);

impl Epoll {
    /// Creates an epoll instance.
    pub(crate) fn new() -> io::Result<Epoll> {
        mio::Poll::new().map(Epoll)
    }

    /// Waits for events, for at most `timeout`, or for ever if it is `None`. Returns false without events if the wait
    /// was interrupted. Signals cannot interrupt it because all are blocked, but a stop followed by CONT does, and a
    /// frozen cgroup may. Deadlines may have passed meanwhile, but the events of that time came first, so the caller
    /// must wait again.
    pub(crate) fn wait(&mut self, events: &mut mio::Events, timeout: Option<Duration>) -> bool {
        self.0.poll(events, timeout).is_ok()
    }

    /// Registers `fd` for `interest`.
    pub(crate) fn add(&self, fd: impl AsFd, source: Source, interest: EventFlags) -> Result<(), Errno> {
        epoll::add(self, fd, EventData::new_u64(source.token()), interest)
    }

    /// Changes the interest in `fd`. Errors and hang-ups are always reported, even if `interest` is empty.
    pub(crate) fn modify(&self, fd: impl AsFd, source: Source, interest: EventFlags) -> Result<(), Errno> {
        epoll::modify(self, fd, EventData::new_u64(source.token()), interest)
    }

    /// Removes `fd`. Closing it has the same effect if no duplicate of it exists.
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
    fn ready_sources_are_distinguished() {
        let pipe = Source::Pipe(Stream::Stderr);
        let mut ready = Ready::default();
        ready.add(pipe);
        assert!(ready.has(pipe) && ready.has_output() && ready.is_output_alone());
        assert!(!ready.has(Source::Pipe(Stream::Stdout)) && !ready.has(Source::Listener(0)));
        ready.add(Source::Connection(Key { slot: 1, generation: 1 }));
        assert!(ready.has(Source::Listener(0)) && !ready.is_output_alone());
        let mut ready = Ready::default();
        ready.add(Source::Signals);
        assert!(ready.is_signals_alone());
        ready.add(Source::Oom);
        assert!(!ready.is_signals_alone());
        assert!(ready.has(Source::Oom) && !ready.has_output() && !ready.is_output_alone());
    }

    #[test]
    fn every_source_is_decoded_from_its_token() {
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
            Source::Helper,
            Source::Probe,
            Source::Proxy,
            Source::Folder,
        ] {
            assert_eq!(Source::of(source.token()), Some(source));
        }
        assert_eq!(Source::of(u64::MAX), None);
    }
}
