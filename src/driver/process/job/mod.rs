//! The driver's part of `run` and `supervise`: performs what `logic::lifecycle` decides for one command.

mod children;
mod effects;
mod hooks;
mod main_process;
mod parts;
mod probing;

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::Pid as RawPid;

use crate::config::{Config, JobOptions};
use crate::driver::event_loop::{LoopContext, LoopMode, clock};
use crate::driver::http::server::MetricsSource;
use crate::driver::notify::notify_socket::NotifySocket;
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::output::capture::Capture;
use crate::driver::poll::{Ready, Source};
use crate::driver::probe::Prober;
use crate::driver::process::cgroup::Cgroup;
use crate::driver::process::directory::Directory;
use crate::driver::process::oom::OomCounter;
use crate::driver::process::parent_death::ParentWatch;
use crate::driver::process::program::Program;
use crate::driver::process::signals::Signals;
use crate::driver::process::terminal;
use crate::driver::process::terminal::Terminal;
use crate::driver::process::termination_log::TerminationLog;
use crate::driver::process::textfile::Textfile;
use crate::error::Error;
use crate::logic::endpoints::StateFacts;
use crate::logic::history::History;
use crate::logic::lifecycle::foreground_check::ForegroundCheck;
use crate::logic::lifecycle::{Effect, Event, ForegroundOwner, JobContext, Lifecycle, origin};
use crate::logic::metrics::{Selection, Snapshot, Sources};
use crate::logic::notify::message::Notification;
use crate::logic::output::tail::Tail;
use crate::logic::status::{State, Status};
use crate::logic::{Now, ProcessId, Sender, Stream};
use crate::signal::Signal;
use crate::sys;
use hooks::Hooks;
use parts::{Children, CommandOutput, CurrentRun, Ending, Measuring, Notify, Parent, Starter};

/// One command and the resources that kapo uses to run it.
pub(crate) struct Job {
    options: Rc<JobOptions>,
    life: Lifecycle,
    starter: Starter,
    output: CommandOutput,
    terminal: Option<Terminal>,
    foreground_check: ForegroundCheck,
    /// kapo has stopped itself together with the command, and the CONT that resumed kapo was not forwarded yet. Until
    /// then, further reports that the command is stopped are ignored.
    suspended: bool,
    parent: Parent,
    notify: Notify,
    run: CurrentRun,
    children: Children,
    measuring: Measuring,
    ending: Ending,
    /// `--probe`.
    prober: Option<Prober>,
    hooks: Option<Box<Hooks>>,
}

/// The facts about kapo's start that a job needs.
pub(crate) struct JobSetup<'a> {
    /// When kapo was started.
    pub now: Now,
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The signals, all of which are blocked.
    pub signals: &'a Signals,
    /// RLIMIT_NOFILE before kapo changed its own limit.
    pub open_files: Option<(u64, u64)>,
    /// SidebindPort of the document.
    pub sidebind_port: u16,
    /// The name of this kapo.
    pub name: &'static str,
}

impl Job {
    /// Prepares everything that can fail. Does not start the command. The job is on the heap, because the frame of the
    /// caller exists for as long as kapo runs, and the copies that a value passes through would be in it.
    #[inline(never)]
    pub(crate) fn new(
        config: &Config,
        options: &Rc<JobOptions>,
        setup: &JobSetup<'_>,
        context: &mut LoopContext,
    ) -> Result<Box<Job>, Error> {
        let path = (setup.variable)("PATH");
        let program = Program::new(&options.command, &options.arguments, path.as_deref())?;
        let manager = ServiceManager::of(setup.now, setup.variable);
        let terminal = if options.setsid { None } else { Terminal::controlling() };
        let socket = options
            .notify
            .then(|| NotifySocket::open(&context.epoll, options.watchdog, setup.variable))
            .transpose()?;
        let path = options.termination_log.as_deref();
        let termination_log = path.and_then(|path| TerminationLog::open(setup.now, path, context));
        let mut capture = Capture::new(setup.now, &config.capture, config.log_format, &mut context.sinks);
        if let Some(text) = &options.ready_line {
            capture.set_ready_line(text.as_bytes());
        }
        let textfile = options.textfile.as_deref().map(|path| Textfile::new(path, &config.name));
        let job_context = job_context(config, setup, manager.is_some(), terminal.is_some());
        let mut life = Lifecycle::new(Rc::clone(options), job_context);
        let prober = options.probes.as_ref().map(Prober::new);
        if let Some(prober) = &prober {
            life.set_probes(setup.now, prober.probes.status(), &mut Vec::new());
        }
        Ok(Box::new(Job {
            life,
            options: Rc::clone(options),
            starter: Starter {
                program,
                directory: Directory::current(),
                blocked: setup.signals.blocked,
                ignore_chld: setup.signals.chld_was_ignored,
                open_files: setup.open_files,
                last_start: None,
            },
            output: CommandOutput { capture, draining: 0, termination_log, textfile },
            terminal,
            foreground_check: ForegroundCheck::default(),
            suspended: false,
            parent: Parent { pid: rustix::process::getppid(), watch: None },
            notify: Notify { manager, socket },
            run: CurrentRun::default(),
            children: Children::default(),
            measuring: Measuring {
                started: setup.now.wall,
                oom: OomCounter::default(),
                sampler: RefCell::default(),
                cgroup: OnceCell::new(),
            },
            ending: Ending::default(),
            prober,
            hooks: Job::hooks(options),
        }))
    }

    /// Passes an event to the lifecycle and performs the effects.
    pub(crate) fn handle(&mut self, now: Now, event: Event, context: &mut LoopContext) {
        // An event that follows a start in the same turn must not have an earlier time than the start.
        let mut now = self.starter.last_start.filter(|start| start.mono > now.mono).unwrap_or(now);
        let mut effects = Vec::new();
        self.note_unhealthy(&event);
        self.life.handle(now, event, &mut effects);
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let spawns = effect == Effect::Spawn;
            if let Some(event) = self.perform(now, effect, context) {
                if spawns {
                    // kapo blocks until the exec has succeeded or failed. This may take long (a network file system, a
                    // virus scanner), so the time that was read at the beginning of the turn is out of date.
                    now = clock();
                    self.starter.last_start = Some(now);
                }
                let mut more = Vec::new();
                self.life.handle(now, event, &mut more);
                effects.extend(more);
            }
        }
        self.note_events();
        self.publish(now, context);
    }

    /// Forwards captured output to the sinks. Returns how long to wait for more output before the next turn.
    fn serve_capture(
        &mut self,
        now: Now,
        context: &mut LoopContext,
        ready: &dyn Fn(Source) -> bool,
    ) -> Option<Duration> {
        if !context.server.is_followed() {
            return self.output.capture.turn(now, &context.epoll, &mut context.sinks, ready);
        }
        // Hold the tail, because one turn may bring more output than it keeps.
        self.output.capture.tail_mut().hold();
        let gather = self.output.capture.turn(now, &context.epoll, &mut context.sinks, ready);
        context.server.publish_output(now, &context.epoll, self.output.capture.tail_mut());
        self.output.capture.tail_mut().release();
        gather
    }

    /// Tells the lifecycle when the command has printed something, if `--silence` is due. A command that is suspended,
    /// or that waits because kapo cannot write its output, is not silent.
    fn tell_output_seen(&mut self, now: Now) {
        if !self.life.wants_output_seen(now.mono) {
            return;
        }
        let held = Stream::BOTH.into_iter().any(|stream| self.output.capture.wants_room(stream));
        let suspended = self.life.pid().is_some_and(|pid| self.is_stopped(pid));
        let seen = if held || suspended { Some(now.mono) } else { self.output.capture.last_read() };
        if let Some(seen) = seen {
            self.life.set_output_seen(seen);
        }
    }

    fn drained(&mut self, now: Now) -> Option<Event> {
        let drained = self.output.capture.take_drained(now);
        drained.then(|| Event::Drained {
            run: self.output.draining,
            last_output: self.output.capture.last_lines(10),
        })
    }

    fn publish(&mut self, now: Now, context: &mut LoopContext) {
        if self.life.take_changed() {
            if let Some(textfile) = &mut self.output.textfile {
                let status = self.life.status();
                let ended = self.life.exits().iter().map(|(_, n)| n).sum();
                textfile.update(now, (self.life.starts(), ended, status.ready, status.flapping));
            }
            self.life.set_output(self.output.capture.document());
            let facts = StateFacts {
                stopping: self.life.is_stopping(),
                ended: self.life.ended_with(),
                retry_at: self.life.retry_at(),
                failures: self.life.failures(now.mono),
                ready_line: self.options.ready_line.is_some(),
                started: self.life.has_been_ready(),
            };
            context.server.publish(now, &context.epoll, facts, self);
        }
    }

    /// Writes the file of `--textfile` if it is due; at the end of kapo, if anything has changed.
    fn write_textfile(&mut self, now: Now, at_end: bool, context: &mut LoopContext) {
        let due = |textfile: &mut Textfile| textfile.deadline().is_some_and(|at| at_end || at <= now.mono);
        let Some(mut textfile) = self.output.textfile.take_if(due) else { return };
        let sources = if at_end { Sources::default() } else { Selection::textfile().sources() };
        let source: &dyn MetricsSource = self;
        let mut snapshot = source.snapshot(0, sources);
        if at_end {
            // To read the sources again would take a tenth of the time of a short job.
            snapshot.tree = Some(self.measuring.sampler.borrow_mut().at_the_end(&self.children.helpers));
            snapshot.oom_kills = self.measuring.oom.observed();
        }
        textfile.write(now, snapshot, context);
        self.output.textfile = Some(textfile);
    }

    /// Removes the NOTIFY_SOCKET file, and ends kapo by a signal if that was decided; otherwise returns. Must be called
    /// last.
    pub(crate) fn end(&mut self, signals: &Signals) {
        self.children.helpers.kill_all();
        self.notify.socket = None;
        // Wake siblings that were stopped just before the terminal came back, because nothing else would continue them.
        if let Some(terminal) = &self.terminal {
            let mut wanted = false;
            signals.read(|signal, sender| wanted |= origin::wants_terminal(signal, sender));
            if wanted {
                terminal.wake_siblings(None);
            }
        }
        if let Some((signal, all)) = self.ending.dies_by {
            sys::signal::die_by(i32::from(signal.number()), all);
        }
    }

    fn terminal_is_gone(&self) -> bool {
        terminal::is_gone(self.terminal.as_ref().map(AsFd::as_fd))
    }

    /// Watches `parent`, the process that started kapo; its end counts as `signal`. Must be called before the start: if
    /// the parent has already ended, a signal that asks kapo to stop prevents the start, and any other is forwarded
    /// right after it.
    pub(crate) fn watch_parent(
        &mut self,
        now: Now,
        signal: Signal,
        parent: Option<RawPid>,
        context: &mut LoopContext,
    ) {
        let watch = ParentWatch::begin(signal, parent, &context.epoll);
        if ParentWatch::has_already_ended(parent) {
            self.orphaned(now, signal, context);
        } else {
            self.parent.watch = Some(watch);
        }
    }

    fn orphaned(&mut self, now: Now, signal: Signal, context: &mut LoopContext) {
        self.handle(now, Event::Signal { signal, sender: Sender::Process { pid: 0, uid: 0 } }, context);
    }
}

impl LoopMode for Job {
    fn on_signal(&mut self, now: Now, signal: Signal, sender: Sender, context: &mut LoopContext) {
        self.skip_hooks(signal);
        let sender = if signal == Signal::HUP {
            let parent = self.parent.pid.map(|parent| parent.as_raw_nonzero().get());
            origin::of_hang_up(sender, [parent, sys::group::session_of(0)], self.terminal_is_gone())
        } else {
            sender
        };
        if origin::wants_terminal(signal, sender) {
            let command = self.life.group().map(group);
            let foreground_owner = self
                .terminal
                .as_ref()
                .map_or(ForegroundOwner::Other, |terminal| terminal.foreground_owner(command));
            return self.handle(now, Event::SiblingStopped { signal, foreground_owner }, context);
        }
        self.suspended &= signal != Signal::CONT;
        self.handle(now, Event::Signal { signal, sender }, context);
    }

    fn on_child(&mut self, now: Now, context: &mut LoopContext) {
        context.rest = self.reap(now, context);
    }

    fn on_resumed(&mut self, now: Now, context: &mut LoopContext) {
        self.handle(now, Event::Resumed, context);
    }

    fn on_sources(&mut self, now: Now, ready: Ready, context: &mut LoopContext) {
        // Coalesce only if nothing else is ready in this turn.
        context.rest = context.rest.filter(|_| ready.is_signals_alone());
        if self.output.capture.has_more() || ready.has_output() {
            let gather = self.serve_capture(now, context, &|source| ready.has(source));
            if self.output.capture.take_ready_line() {
                self.handle(
                    now,
                    Event::Notified(Notification { ready: true, ..Notification::default() }),
                    context,
                );
            }
            context.rest = gather.filter(|_| ready.is_output_alone());
        }
        if ready.has(Source::Notify) {
            self.read_notifications(now, context);
        }
        if ready.has(Source::MainPid) {
            self.check_main_pid(now, context);
        }
        if ready.has(Source::Helper) {
            self.children.helpers.read();
        }
        self.serve_probes(now, Some(ready), context);
        if ready.has(Source::Oom) {
            self.measuring.oom.update(now, context);
        }
        // `take` closes the pidfd, which would stay readable.
        if ready.has(Source::Parent)
            && let Some(signal) = self.parent.watch.take().and_then(ParentWatch::ended)
        {
            self.orphaned(now, signal, context);
        }
    }

    fn on_request(&mut self, now: Now, context: &mut LoopContext) {
        self.handle(now, Event::RequestAnswered, context);
    }

    fn finish_turn(&mut self, now: Now, context: &mut LoopContext) {
        if self.children.unreaped {
            self.reap(now, context);
        }
        self.measuring.oom.finish_turn(now, context);
        if let Some(event) = self.drained(now) {
            self.handle(now, event, context);
        }
        self.write_textfile(now, false, context);
        if let Some(record) = self.notify.manager.as_mut().and_then(|manager| manager.turn(now)) {
            context.log(now, &record);
        }
        if self.life.deadline().is_some_and(|at| at <= now.mono) {
            self.tell_output_seen(now);
            self.handle(now, Event::Deadline, context);
        }
        self.serve_probes(now, None, context);
        if self.foreground_check.take_due(now.mono) {
            self.restore_foreground();
        }
        if self.ending.closing && context.exit.is_none() && context.server.is_closed(now) {
            self.handle(now, Event::Closed, context);
        }
        // At the end, so that a hook does not delay the start of the command.
        self.run_hooks(now, context);
    }

    fn deadline(&self, now: Now) -> Option<Instant> {
        let at_once = (self.children.unreaped || self.output.capture.has_more()).then_some(now.mono);
        let manager = self.notify.manager.as_ref().and_then(ServiceManager::deadline);
        let foreground = self.foreground_check.deadline();
        let helpers = self.children.helpers.deadline();
        let textfile = self.output.textfile.as_ref().and_then(Textfile::deadline);
        let probes = self.prober.as_ref().and_then(Prober::deadline);
        let capture = self.output.capture.deadline();
        let hooks = self.hooks_deadline(now);
        [at_once, self.life.deadline(), manager, capture, foreground, helpers, textfile, probes, hooks]
            .into_iter()
            .flatten()
            .min()
    }

    fn wants_room(&self, stream: Stream) -> bool {
        self.output.capture.wants_room(stream)
    }
}

impl MetricsSource for Job {
    fn objects(&self) -> &[Status] {
        std::slice::from_ref(self.life.status())
    }

    fn snapshot(&self, connections: usize, sources: Sources) -> Snapshot {
        let status = self.life.status();
        Snapshot {
            name: status.name,
            started: self.measuring.started,
            up: status.state == State::Running,
            ready: status.ready,
            start_time: status.start_time,
            starts: Some(self.life.starts()),
            exits: Some(self.life.exits()),
            last_exit_code: self.life.last_exit_code(),
            flapping: Some(status.flapping),
            oom_kills: if sources.oom_kills { self.measuring.oom.total() } else { None },
            orphans_reaped: Some(self.children.orphans),
            output: self.output.capture.counters(),
            connections,
            last_end: None,
            last_success: None,
            last_lasted: None,
            tree: if sources.tree {
                self.measuring.sampler.borrow_mut().tree(&self.children.helpers)
            } else {
                None
            },
            own: if sources.own { self.measuring.sampler.borrow().own(sources.tree) } else { None },
            watched: Vec::new(),
            probes: self.prober.as_ref().map(|prober| prober.probes.samples()).unwrap_or_default(),
            cgroup: (!sources.cgroup.is_empty())
                .then(|| self.measuring.cgroup.get_or_init(Cgroup::find).usage(sources.cgroup)),
        }
        .with_last_run(self.life.history())
    }

    fn tail(&self) -> Option<&Tail> {
        self.output.capture.tail()
    }

    fn probed_at(&self, now: Now) -> Option<Instant> {
        // No attempt begins while the command is being stopped, so there is nothing to wait for.
        self.prober.as_ref().filter(|_| !self.life.is_stopping())?.probes.wait(now)
    }

    fn history(&self) -> Option<&History> {
        Some(self.life.history()).filter(|history| history.is_on())
    }
}

/// Collects the facts about kapo's surroundings that the lifecycle needs.
fn job_context(config: &Config, setup: &JobSetup<'_>, manager: bool, has_terminal: bool) -> JobContext {
    let mut seed = [0; 8];
    // Without entropy (early boot) the seed is zero. It is used only for jitter and TTL ranges, so this is harmless.
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK);
    JobContext {
        history: config.history,
        hide_args: config.hide_args,
        sidebind_port: setup.sidebind_port,
        name: setup.name,
        manager,
        ignored_at_start: setup.signals.ignored_at_start,
        // Without a terminal there is nothing to share.
        piped: has_terminal && terminal::is_piped_in_script(),
        is_init: setup.signals.is_init(),
        seed: u64::from_ne_bytes(seed),
    }
}

fn group(pid: ProcessId) -> RawPid {
    // A `Pid` is always positive, so the default is never used.
    RawPid::from_raw(pid.get()).unwrap_or(RawPid::INIT)
}
