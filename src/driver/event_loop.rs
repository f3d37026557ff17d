//! The event loop: waits for events or the next deadline and serves each ready source. Signals are handled first, so
//! that the answers of the same turn describe the current state.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

use super::poll::{Epoll, Ready, Source};
use crate::config::STOP_ON;
use crate::driver::http::listener::Listener;
use crate::driver::http::server::{MetricsSource, Server};
use crate::driver::output::sink::{Sinks, Written};
use crate::driver::process::signals::Signals;
use crate::driver::process::terminal;
use crate::error::{Error, one_line, reason};
use crate::logic::lifecycle::{IgnoredAtStart, is_job_control, is_stop_signal};
use crate::logic::log::record::{Level, Record};
use crate::logic::trim::TrimPacer;
use crate::logic::{Now, Sender, Stream};
use crate::signal::Signal;
use crate::sys;

/// Maximum number of events that one turn takes from the kernel; the others stay ready.
const EVENTS: usize = 256;
/// The same until a turn has taken so many: most instances never have more than a few, and less memory is then used.
const FEW_EVENTS: usize = 16;

/// The state that all modes share.
pub(crate) struct LoopContext {
    /// The epoll instance and its registrations.
    pub epoll: Epoll,
    /// The HTTP server.
    pub server: Server,
    /// kapo's own stdout and stderr.
    pub sinks: Sinks<'static>,
    /// `--quiet`.
    pub quiet: bool,
    /// Whether a start has used much of the stack, whose pages are freed before the next wait.
    pub deep: bool,
    /// Whether requests were answered since kapo last had nothing to do.
    served: bool,
    /// How often the memory of requests is freed.
    trims: TrimPacer,
    /// How long to pause before the next turn, so that more work gathers.
    pub rest: Option<Duration>,
    /// If set, the loop ends after this turn with this exit code.
    pub exit: Option<u8>,
    /// The descriptors of sinks that are registered because a write did not succeed. They are kept by number, because
    /// a sink that fails may use another descriptor afterwards.
    registered_sinks: [Option<RawFd>; 2],
}

impl LoopContext {
    /// Returns the state before the first registration.
    pub(crate) fn new(epoll: Epoll, server: Server, quiet: bool) -> LoopContext {
        let sinks = Sinks::open(rustix::stdio::stdout(), rustix::stdio::stderr());
        LoopContext {
            epoll,
            server,
            sinks,
            quiet,
            deep: true,
            served: false,
            trims: TrimPacer::default(),
            rest: None,
            exit: None,
            registered_sinks: [None; 2],
        }
    }

    /// Writes a log record, unless `--quiet` suppresses it.
    pub(crate) fn log(&mut self, now: Now, record: &Record) {
        if !(self.quiet && record.level() == Level::Info) {
            self.sinks.log(now.wall, record);
        }
    }

    /// Writes one line to stderr for the user.
    pub(crate) fn complain(&mut self, text: &str) {
        let line = format!("kapo: {}\n", one_line(text));
        match self.sinks.of(Stream::Stderr).write(Stream::Stderr, line.as_bytes()) {
            // Ignore write errors: there is nowhere left to report them.
            Written::All | Written::Part(_) | Written::Full | Written::Failed(_) => {}
        }
    }

    /// Handles a signal to a kapo that has no command. Returns whether it must stop.
    pub(crate) fn is_stopped_by(
        &mut self,
        now: Now,
        signal: Signal,
        sender: Sender,
        ignored_at_start: IgnoredAtStart,
    ) -> bool {
        let stop = is_stop_signal(signal, sender, ignored_at_start, STOP_ON);
        if stop {
            self.log(now, &sender.told(Record::info("signal received").with("signal", signal)));
        } else if is_job_control(signal) && (sender != Sender::Kernel || signal == Signal::TSTP) {
            // The kernel sends TTIN and TTOU for kapo's own use of the terminal, and such a kapo does not use it.
            terminal::stop_self();
        }
        stop
    }

    /// Adds a listener to the server. See [`Server::listen`] for `ours`. `chosen` means that the kernel chose the
    /// port. The log record is then the only way to learn the port, so it is written even with `--quiet`.
    pub(crate) fn listen(
        &mut self,
        now: Now,
        listener: Listener,
        socket: Option<&str>,
        ours: bool,
        chosen: bool,
    ) -> Result<(), Error> {
        let mut record = Record::info("listening").with("address", listener.address());
        if let Some(socket) = socket {
            record = record.with("socket", socket);
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

    /// Serves the connections that kapo was started with.
    pub(crate) fn admit(&mut self, now: Now, given: Vec<OwnedFd>, subject: &dyn MetricsSource) {
        for socket in given {
            self.server.admit_given(now, &self.epoll, socket, subject);
        }
    }

    /// Registers the sinks that are full and have something to write, and removes the others.
    fn poll_sinks(&mut self, wanted: impl Fn(Stream) -> bool) {
        let shared = self.sinks.are_shared();
        for (stream, registered) in Stream::BOTH.into_iter().zip(&mut self.registered_sinks) {
            // A shared sink is registered once, under the name of stderr.
            let wanted = match (shared, stream) {
                (true, Stream::Stdout) => false,
                (true, Stream::Stderr) => wanted(Stream::Stdout) || wanted(Stream::Stderr),
                (false, stream) => wanted(stream),
            };
            let sink = self.sinks.of(stream);
            let wanted = wanted || (sink.wants_room() && !(shared && stream == Stream::Stdout));
            let Some(fd) = sink.source() else { continue };
            let number = wanted.then(|| fd.as_raw_fd());
            if number == *registered {
                continue;
            }
            *registered = if wanted {
                self.epoll.add(fd, Source::Sink(stream), EventFlags::OUT).ok().and(number)
            } else {
                self.epoll.delete(fd);
                None
            };
        }
    }
}

/// The part of the loop that depends on the mode.
pub(crate) trait LoopMode: MetricsSource {
    /// Handles a signal to kapo other than CHLD.
    fn on_signal(&mut self, now: Now, signal: Signal, sender: Sender, context: &mut LoopContext);
    /// Handles CHLD.
    fn on_child(&mut self, now: Now, context: &mut LoopContext);
    /// Handles an interrupted wait: kapo was stopped or frozen and has resumed.
    fn on_resumed(&mut self, now: Now, context: &mut LoopContext);
    /// Handles the ready sources that belong to the mode.
    fn on_sources(&mut self, now: Now, ready: Ready, context: &mut LoopContext);
    /// Handles a turn in which a request was answered.
    fn on_request(&mut self, now: Now, context: &mut LoopContext);
    /// Ends the turn, after all sources were served.
    fn finish_turn(&mut self, now: Now, context: &mut LoopContext);
    /// Returns when [`LoopMode::finish_turn`] has something to do.
    fn deadline(&self, now: Now) -> Option<Instant>;
    /// Whether captured output of this stream waits for room in its sink.
    fn wants_room(&self, stream: Stream) -> bool;
}

/// Returns the time of a turn.
pub(crate) fn clock() -> Now {
    let (mono, wall) = sys::clock::now();
    Now { mono, wall }
}

/// Runs the loop until the mode sets an exit code, and returns it.
pub(crate) fn run(mode: &mut dyn LoopMode, signals: &Signals, context: &mut LoopContext) -> u8 {
    let mut events = mio::Events::with_capacity(FEW_EVENTS);
    let mut now = clock();
    loop {
        let waited = wait(mode, now, &mut events, context);
        now = clock();
        context.sinks.turn(now.mono);
        if !waited {
            mode.on_resumed(now, context);
            // Wait again before the deadlines are checked: events that arrived before them must be handled first.
            continue;
        }
        let sources = || events.iter().filter_map(|event| Source::of(event.token().0 as u64));
        let mut ready = Ready::default();
        sources().for_each(|source| ready.add(source));
        let requests = context.server.requests();
        context.server.begin_turn(now);
        if ready.has(Source::Signals) {
            take_signals(now, mode, signals, context);
        }
        mode.on_sources(now, ready, context);
        serve(mode, now, sources(), context);
        if context.server.requests() != requests {
            context.served = true;
            mode.on_request(now, context);
        }
        mode.finish_turn(now, context);
        for record in context.server.take_notices() {
            context.log(now, &record);
        }
        // As with output, pause only if no other source is ready in this turn.
        context.rest = context.server.gather(now).filter(|_| ready.is_clients_alone()).or(context.rest);
        if let Some(code) = context.exit {
            context.server.abandon();
            return code;
        }
        if events.capacity() < EVENTS && events.iter().nth(FEW_EVENTS - 1).is_some() {
            events = mio::Events::with_capacity(EVENTS);
        }
    }
}

/// Waits for events, at most until the earliest deadline. Returns false if the wait was interrupted.
fn wait(mode: &dyn LoopMode, now: Now, events: &mut mio::Events, context: &mut LoopContext) -> bool {
    context.poll_sinks(|stream| mode.wants_room(stream));
    let deadline = [mode.deadline(now), context.server.deadline()].into_iter().flatten().min();
    // Do not pause past a deadline. A deadline that has already passed means that work is left over.
    if let Some(length) = context.rest.take()
        && deadline.is_none_or(|at| at.saturating_duration_since(now.mono) > length)
    {
        rest(length);
    }
    let timeout = deadline.map(|at| match at.saturating_duration_since(now.mono) {
        Duration::ZERO => Duration::ZERO,
        // The turn itself has used some of this time.
        _ => at.saturating_duration_since(clock().mono),
    });
    // If work is left over, the memory is needed again at once.
    if context.served && timeout != Some(Duration::ZERO) {
        context.served = false;
        if context.trims.allow(now.mono) {
            context.server.free_buffers();
            context.deep = true;
        }
    }
    if std::mem::take(&mut context.deep) {
        sys::stack::release_unused();
        sys::heap::release_unused();
    }
    context.epoll.wait(events, timeout)
}

/// Serves the listeners, connections and sinks that are ready, and the connections that are queued or overdue.
fn serve(mode: &dyn LoopMode, now: Now, sources: impl Iterator<Item = Source>, context: &mut LoopContext) {
    for source in sources {
        match source {
            Source::Listener(place) => context.server.on_listener(now, &context.epoll, place, mode),
            Source::Connection(key) => context.server.on_connection(now, &context.epoll, key, mode),
            Source::Sink(stream) => drop(context.sinks.of(stream).flush()),
            Source::Signals
            | Source::Pipe(_)
            | Source::Notify
            | Source::Oom
            | Source::Watch
            | Source::Parent
            | Source::MainPid
            | Source::Helper
            | Source::Probe
            | Source::Proxy
            | Source::Folder => {}
        }
    }
    context.server.serve_queued(now, &context.epoll, mode);
    context.server.expire(now, &context.epoll, mode);
}

/// Passes pending signals to the mode, at most as many as one turn takes.
pub(crate) fn take_signals(now: Now, mode: &mut dyn LoopMode, signals: &Signals, context: &mut LoopContext) {
    let mut taken = Vec::new();
    let child = signals.read(|signal, sender| taken.push((signal, sender)));
    for (signal, sender) in taken {
        mode.on_signal(now, signal, sender, context);
    }
    if child {
        mode.on_child(now, context);
    }
}

/// Pauses. Only a stop followed by CONT can interrupt the pause, because signals are blocked.
fn rest(length: Duration) {
    // The pause is always shorter than a second.
    match nanosleep(&Timespec { tv_sec: 0, tv_nsec: length.subsec_nanos().into() }) {
        NanosleepRelativeResult::Ok
        | NanosleepRelativeResult::Interrupted(_)
        | NanosleepRelativeResult::Err(_) => {}
    }
}
