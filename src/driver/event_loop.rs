//! The loop: waits for events or the next deadline, in one place, and gives each source its turn. Signals come first,
//! so that the answers given in the same turn are true.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

use super::poll::{Epoll, Ready, Source};
use crate::driver::http::listener::Listener;
use crate::driver::http::server::{MetricsSource, Server};
use crate::driver::output::sink::{Sinks, Written};
use crate::driver::process::signals::Signals;
use crate::error::{Error, one_line, reason};
use crate::logic::log::record::{Level, Record};
use crate::logic::{Now, Sender, Stream};
use crate::signal::Signal;
use crate::sys;

/// So many events are taken out of the kernel at once; those that are ready stay ready. Memory of which an idle kapo
/// touches the first few bytes.
const EVENTS: usize = 256;

/// What every mode works with.
pub(crate) struct LoopContext {
    /// Who is waited for.
    pub epoll: Epoll,
    /// The HTTP side.
    pub server: Server,
    /// Our own stdout and stderr.
    pub sinks: Sinks<'static>,
    /// `--quiet`.
    pub quiet: bool,
    /// A start has gone deep into the stack, whose pages are given back before the next wait.
    pub deep: bool,
    /// For how long nobody should be served, so that more work gathers.
    pub rest: Option<Duration>,
    /// Set: the loop ends after this turn, with this code.
    pub exit: Option<u8>,
    /// Outlets that epoll waits for, because something could not be written; by number, as an outlet that breaks may
    /// be another descriptor afterwards.
    outlets: [Option<RawFd>; 2],
}

impl LoopContext {
    /// Nobody is waited for yet.
    pub(crate) fn new(epoll: Epoll, server: Server, quiet: bool) -> LoopContext {
        let sinks = Sinks::open(rustix::stdio::stdout(), rustix::stdio::stderr());
        LoopContext { epoll, server, sinks, quiet, deep: true, rest: None, exit: None, outlets: [None; 2] }
    }

    /// Writes a record of kapo's own, as far as `--quiet` allows.
    pub(crate) fn log(&mut self, now: Now, record: &Record) {
        if !(self.quiet && record.level() == Level::Info) {
            self.sinks.log(now.wall, record);
        }
    }

    /// One line for people on stderr.
    pub(crate) fn complain(&mut self, text: &str) {
        let line = format!("kapo: {}\n", one_line(text));
        match self.sinks.of(Stream::Stderr).write(Stream::Stderr, line.as_bytes()) {
            // Whoever does not read what we say does not hear it.
            Written::All | Written::Part(_) | Written::Full | Written::Failed(_) => {}
        }
    }

    /// Serves on a listener from now on. `ours`: see [`Server::listen`]. `chosen`: the kernel chose the port, so the log line
    /// is the only place that tells it and is written even with `--quiet`.
    pub(crate) fn listen(
        &mut self,
        now: Now,
        listener: Listener,
        name: Option<&str>,
        ours: bool,
        chosen: bool,
    ) -> Result<(), Error> {
        let mut record = Record::info("listening").with("address", listener.address());
        if let Some(name) = name {
            record = record.with("name", name);
        }
        if chosen {
            self.sinks.log(now.wall, &record);
        } else {
            self.log(now, &record);
        }
        let address = listener.address().to_owned();
        self.server
            .listen(&self.epoll, listener, ours)
            .map_err(|e| Error::setup("listen on", address, reason(&e.into())))
    }

    /// Serves the connections that kapo was started for.
    pub(crate) fn admit(&mut self, now: Now, given: Vec<OwnedFd>, subject: &dyn MetricsSource) {
        for socket in given {
            self.server.admit_given(now, &self.epoll, socket, subject);
        }
    }

    /// Waits for those outlets that somebody wants to write to and cannot.
    fn poll_sinks(&mut self, wanted: impl Fn(Stream) -> bool) {
        let shared = self.sinks.are_shared();
        for (stream, minded) in Stream::BOTH.into_iter().zip(&mut self.outlets) {
            // One outlet is known to epoll once, under the name of stderr.
            let wanted = match (shared, stream) {
                (true, Stream::Stdout) => false,
                (true, Stream::Stderr) => wanted(Stream::Stdout) || wanted(Stream::Stderr),
                (false, stream) => wanted(stream),
            };
            let sink = self.sinks.of(stream);
            let wanted = wanted || (sink.wants_room() && !(shared && stream == Stream::Stdout));
            let Some(fd) = sink.source() else { continue };
            let number = wanted.then(|| fd.as_raw_fd());
            if number == *minded {
                continue;
            }
            *minded = if wanted {
                self.epoll.add(fd, Source::Sink(stream), EventFlags::OUT).ok().and(number)
            } else {
                self.epoll.delete(fd);
                None
            };
        }
    }
}

/// What differs between the modes.
pub(crate) trait LoopMode: MetricsSource {
    /// A signal for us, other than CHLD.
    fn on_signal(&mut self, now: Now, signal: Signal, sender: Sender, stage: &mut LoopContext);
    /// CHLD has come.
    fn on_child(&mut self, now: Now, stage: &mut LoopContext);
    /// The wait was interrupted: kapo was stopped or frozen, and goes on.
    fn on_resumed(&mut self, now: Now, stage: &mut LoopContext);
    /// What is ready, of which some may be the machine's own.
    fn on_sources(&mut self, now: Now, ready: Ready, stage: &mut LoopContext);
    /// A request was answered.
    fn on_request(&mut self, now: Now, stage: &mut LoopContext);
    /// Everybody else has had their turn.
    fn finish_turn(&mut self, now: Now, stage: &mut LoopContext);
    /// When [`LoopMode::finish_turn`] has something to do.
    fn deadline(&self, now: Now) -> Option<Instant>;
    /// Whether captured output waits for room in this outlet.
    fn wants_room(&self, stream: Stream) -> bool;
}

/// The time of a turn.
pub(crate) fn clock() -> Now {
    let (mono, wall) = sys::clock::now();
    Now { mono, wall }
}

/// Turns until the machine says the exit code.
pub(crate) fn run(machine: &mut dyn LoopMode, signals: &Signals, stage: &mut LoopContext) -> u8 {
    let mut events = mio::Events::with_capacity(EVENTS);
    let mut now = clock();
    loop {
        stage.poll_sinks(|stream| machine.wants_room(stream));
        let deadline = [machine.deadline(now), stage.server.deadline()].into_iter().flatten().min();
        // Not over a deadline: one that has come already stands for work that is left over.
        if let Some(length) = stage.rest.take()
            && deadline.is_none_or(|at| at.saturating_duration_since(now.mono) > length)
        {
            rest(length);
        }
        let timeout = deadline.map(|at| match at.saturating_duration_since(now.mono) {
            Duration::ZERO => Duration::ZERO,
            // The turn itself has taken some of it.
            _ => at.saturating_duration_since(clock().mono),
        });
        if std::mem::take(&mut stage.deep) {
            sys::stack::release_unused();
        }
        let waited = stage.epoll.wait(&mut events, timeout);
        now = clock();
        stage.sinks.turn(now.mono);
        if !waited {
            machine.on_resumed(now, stage);
            // Else this turn would see the deadlines that have passed, and not what came before them.
            continue;
        }
        let sources = || events.iter().filter_map(|event| Source::of(event.token().0 as u64));
        let mut ready = Ready::default();
        sources().for_each(|source| ready.add(source));
        let requests = stage.server.requests();
        stage.server.begin_turn(now);
        if ready.has(Source::Signals) {
            take_signals(now, machine, signals, stage);
        }
        machine.on_sources(now, ready, stage);
        for source in sources() {
            match source {
                Source::Listener(place) => stage.server.on_listener(now, &stage.epoll, place, &*machine),
                Source::Connection(key) => stage.server.on_connection(now, &stage.epoll, key, &*machine),
                Source::Sink(stream) => drop(stage.sinks.of(stream).flush()),
                Source::Signals
                | Source::Pipe(_)
                | Source::Notify
                | Source::Oom
                | Source::Watch
                | Source::Parent
                | Source::MainPid => {}
            }
        }
        stage.server.serve_queued(now, &stage.epoll, &*machine);
        stage.server.expire(now, &stage.epoll, &*machine);
        if stage.server.requests() != requests {
            machine.on_request(now, stage);
        }
        machine.finish_turn(now, stage);
        for record in stage.server.take_notices() {
            stage.log(now, &record);
        }
        // As with output: not while anybody else is to be served in this turn.
        stage.rest = stage.server.gather(now).filter(|_| ready.is_clients_alone()).or(stage.rest);
        if let Some(code) = stage.exit {
            stage.server.abandon();
            return code;
        }
    }
}

/// Hands the signals that are pending to the machine, as many as one turn takes.
pub(crate) fn take_signals(now: Now, machine: &mut dyn LoopMode, signals: &Signals, stage: &mut LoopContext) {
    let mut taken = Vec::new();
    let child = signals.read(|signal, sender| taken.push((signal, sender)));
    for (signal, sender) in taken {
        machine.on_signal(now, signal, sender, stage);
    }
    if child {
        machine.on_child(now, stage);
    }
}

/// Rests. Cut short by a stop and CONT alone, as signals are blocked.
fn rest(length: Duration) {
    // Always below a second.
    match nanosleep(&Timespec { tv_sec: 0, tv_nsec: length.subsec_nanos().into() }) {
        NanosleepRelativeResult::Ok
        | NanosleepRelativeResult::Interrupted(_)
        | NanosleepRelativeResult::Err(_) => {}
    }
}
