//! One command of ours: carries out what `logic::lifecycle` decides. The driver's half of `run` and `supervise`.

mod children;
mod effects;
mod main_process;
mod parts;

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::Pid as RawPid;

use crate::config::{Config, Job as Options};
use crate::driver::event_loop::{LoopContext, LoopMode, clock};
use crate::driver::http::server::MetricsSource;
use crate::driver::notify::notify_socket::NotifySocket;
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::output::capture::Capture;
use crate::driver::poll::{Ready, Source};
use crate::driver::proc::process_usage;
use crate::driver::process::cgroup::Cgroup;
use crate::driver::process::directory::Directory;
use crate::driver::process::foreground_check::ForegroundCheck;
use crate::driver::process::oom::OomCounter;
use crate::driver::process::parent_death::ParentWatch;
use crate::driver::process::program::Program;
use crate::driver::process::signals::Signals;
use crate::driver::process::terminal;
use crate::driver::process::terminal::Terminal;
use crate::driver::process::termination_log::TerminationLog;
use crate::error::Error;
use crate::logic::endpoints::StateFacts;
use crate::logic::history::History;
use crate::logic::lifecycle::{Effect, Event, ForegroundOwner, JobContext, Lifecycle, origin};
use crate::logic::metrics::{Snapshot, Sources};
use crate::logic::output::tail::Tail;
use crate::logic::status::State;
use crate::logic::{Now, Pid, Sender, Stream};
use crate::signal::Signal;
use crate::sys;
use parts::{Children, CommandOutput, CurrentRun, Ending, Measuring, Notify, Parent, Starter};

/// See the head of the file.
pub(crate) struct Job {
    options: Options,
    life: Lifecycle,
    starter: Starter,
    output: CommandOutput,
    terminal: Option<Terminal>,
    foreground_check: ForegroundCheck,
    /// We have stopped ourselves, and the CONT that has woken us was not passed on yet: the command is stopped as well,
    /// and to hear of that once more is nothing new.
    suspended: bool,
    parent: Parent,
    notify: Notify,
    run: CurrentRun,
    children: Children,
    measuring: Measuring,
    ending: Ending,
}

/// What is known of kapo's start.
pub(crate) struct JobSetup<'a> {
    /// The time.
    pub now: Now,
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The signals that are taken over.
    pub signals: &'a Signals,
    /// RLIMIT_NOFILE before kapo changed its own.
    pub open_files: Option<(u64, u64)>,
    /// SidebindPort.
    pub sidebind_port: u16,
}

impl Job {
    /// Prepares all that may fail; nothing is started.
    #[inline(never)]
    pub(crate) fn new(
        config: &Config,
        options: &Options,
        beginning: &JobSetup<'_>,
        stage: &mut LoopContext,
    ) -> Result<Job, Error> {
        let path = (beginning.variable)("PATH");
        let program = Program::new(options, path.as_deref())?;
        let manager = ServiceManager::of(beginning.now, beginning.variable);
        let terminal = if options.setsid { None } else { Terminal::controlling() };
        let socket = options
            .notify
            .then(|| NotifySocket::open(&stage.epoll, options.watchdog, beginning.variable))
            .transpose()?;
        let path = options.termination_log.as_deref();
        let termination_log = path.and_then(|path| TerminationLog::open(beginning.now, path, stage));
        let context = context(config, beginning, manager.is_some(), terminal.is_some());
        Ok(Job {
            life: Lifecycle::new(Box::new(options.clone()), context),
            options: options.clone(),
            starter: Starter {
                program,
                directory: Directory::current(),
                blocked: beginning.signals.blocked,
                ignore_chld: beginning.signals.chld_was_ignored,
                open_files: beginning.open_files,
                last_start: None,
            },
            output: CommandOutput {
                capture: Capture::new(beginning.now, &config.capture, config.log_format, &mut stage.sinks),
                draining: 0,
                termination_log,
            },
            terminal,
            foreground_check: ForegroundCheck::default(),
            suspended: false,
            parent: Parent { pid: rustix::process::getppid(), watch: None },
            notify: Notify { manager, socket },
            run: CurrentRun::default(),
            // Whoever was executed as kapo may have left children that had ended before.
            children: Children { unreaped: true, orphans: 0 },
            measuring: Measuring {
                started: beginning.now.wall,
                oom: OomCounter::default(),
                sampler: RefCell::default(),
                cgroup: OnceCell::new(),
            },
            ending: Ending::default(),
        })
    }

    /// Tells the lifecycle what happened and does what it says.
    pub(crate) fn handle(&mut self, now: Now, event: Event, stage: &mut LoopContext) {
        // What happens later in a turn that has started the command does not happen before its start.
        let mut now = self.starter.last_start.filter(|start| start.mono > now.mono).unwrap_or(now);
        let mut effects = Vec::new();
        self.life.handle(now, event, &mut effects);
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let spawns = effect == Effect::Spawn;
            if let Some(event) = self.perform(now, effect, stage) {
                if spawns {
                    // kapo stands still until the exec has succeeded or failed, which can take long (a network file
                    // system, a virus scanner): the time of the turn is from before that.
                    now = clock();
                    self.starter.last_start = Some(now);
                }
                let mut more = Vec::new();
                self.life.handle(now, event, &mut more);
                effects.extend(more);
            }
        }
        self.publish(now, stage);
    }

    /// Passes captured output on; for how long more should gather.
    fn serve_capture(
        &mut self,
        now: Now,
        stage: &mut LoopContext,
        ready: &dyn Fn(Source) -> bool,
    ) -> Option<Duration> {
        if !stage.server.is_followed() {
            return self.output.capture.turn(now, &stage.epoll, &mut stage.sinks, ready);
        }
        // A turn may bring more than the tail keeps.
        self.output.capture.tail_mut().hold();
        let gather = self.output.capture.turn(now, &stage.epoll, &mut stage.sinks, ready);
        stage.server.publish_output(now, &stage.epoll, self.output.capture.tail_mut());
        self.output.capture.tail_mut().release();
        gather
    }

    fn drained(&mut self, now: Now) -> Option<Event> {
        let drained = self.output.capture.take_drained(now);
        drained.then(|| Event::Drained {
            run: self.output.draining,
            last_output: self.output.capture.last_lines(10),
        })
    }

    fn publish(&mut self, now: Now, stage: &mut LoopContext) {
        if self.life.take_changed() {
            self.life.set_output(self.output.capture.document());
            let facts = StateFacts {
                stopping: self.life.is_stopping(),
                ended: self.life.ended_with(),
                next_start: self.life.next_start(),
                failures: self.life.failures(now.mono),
            };
            let status = self.life.status();
            stage.server.publish(now, &stage.epoll, std::slice::from_ref(status), facts, self);
        }
    }

    /// To be called when all is done: removes the file of the NOTIFY_SOCKET, and dies by a signal if that is how kapo is
    /// to end; else returns.
    pub(crate) fn end(&mut self, signals: &Signals) {
        self.notify.socket = None;
        // Who has wanted the terminal right before it came back would stay stopped.
        if let Some(terminal) = &self.terminal {
            let mut wanted = false;
            signals.read(|signal, sender| wanted |= origin::is_want_of_terminal(signal, sender));
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

    /// Has `signal` stand for the end of `parent`, which started kapo. To be called before the start: if the parent has
    /// ended already, a signal that asks for an end prevents the start, and any other is passed on right after it.
    pub(crate) fn watch_parent(
        &mut self,
        now: Now,
        signal: Signal,
        parent: Option<RawPid>,
        stage: &mut LoopContext,
    ) {
        let watch = ParentWatch::begin(signal, parent, &stage.epoll);
        if ParentWatch::came_too_late(parent) {
            self.orphaned(now, signal, stage);
        } else {
            self.parent.watch = Some(watch);
        }
    }

    fn orphaned(&mut self, now: Now, signal: Signal, stage: &mut LoopContext) {
        self.handle(now, Event::Signal { signal, sender: Sender::Process { pid: 0, uid: 0 } }, stage);
    }
}

impl LoopMode for Job {
    fn on_signal(&mut self, now: Now, signal: Signal, sender: Sender, stage: &mut LoopContext) {
        let sender = if signal == Signal::HUP {
            let parent = self.parent.pid.map(|parent| parent.as_raw_nonzero().get());
            origin::of_hang_up(sender, [parent, sys::group::session_of(0)], self.terminal_is_gone())
        } else {
            sender
        };
        if origin::is_want_of_terminal(signal, sender) {
            let command = self.life.group().map(group);
            let foreground_owner = self
                .terminal
                .as_ref()
                .map_or(ForegroundOwner::Other, |terminal| terminal.foreground_owner(command));
            return self.handle(now, Event::SiblingStopped { signal, foreground_owner }, stage);
        }
        self.suspended &= signal != Signal::CONT;
        self.handle(now, Event::Signal { signal, sender }, stage);
    }

    fn on_child(&mut self, now: Now, stage: &mut LoopContext) {
        self.reap(now, stage);
    }

    fn on_resumed(&mut self, now: Now, stage: &mut LoopContext) {
        self.handle(now, Event::Resumed, stage);
    }

    fn on_sources(&mut self, now: Now, ready: Ready, stage: &mut LoopContext) {
        if self.output.capture.has_more() || ready.has_output() {
            let gather = self.serve_capture(now, stage, &|source| ready.has(source));
            // Not while anybody else is to be served in this turn.
            stage.rest = gather.filter(|_| ready.is_output_alone());
        }
        if ready.has(Source::Notify) {
            self.listen_to_command(now, stage);
        }
        if ready.has(Source::MainPid) {
            self.look_at_main_pid(now, stage);
        }
        if ready.has(Source::Oom) {
            self.measuring.oom.look(now, stage);
        }
        // Closes the pidfd, which would stay readable.
        if ready.has(Source::Parent)
            && let Some(signal) = self.parent.watch.take().and_then(ParentWatch::ended)
        {
            self.orphaned(now, signal, stage);
        }
    }

    fn on_request(&mut self, now: Now, stage: &mut LoopContext) {
        self.handle(now, Event::Asked, stage);
    }

    fn finish_turn(&mut self, now: Now, stage: &mut LoopContext) {
        if self.children.unreaped {
            self.reap(now, stage);
        }
        self.measuring.oom.finish_turn(now, stage);
        if let Some(event) = self.drained(now) {
            self.handle(now, event, stage);
        }
        if let Some(record) = self.notify.manager.as_mut().and_then(|manager| manager.turn(now)) {
            stage.log(now, &record);
        }
        if self.life.deadline().is_some_and(|at| at <= now.mono) {
            self.handle(now, Event::Deadline, stage);
        }
        if self.foreground_check.take_due(now.mono) {
            self.give_terminal_again();
        }
        if self.ending.closing && stage.exit.is_none() && stage.server.is_closed(now) {
            self.handle(now, Event::Closed, stage);
        }
    }

    fn deadline(&self, now: Now) -> Option<Instant> {
        let at_once = (self.children.unreaped || self.output.capture.has_more()).then_some(now.mono);
        let manager = self.notify.manager.as_ref().and_then(ServiceManager::deadline);
        let foreground = self.foreground_check.deadline();
        [at_once, self.life.deadline(), manager, self.output.capture.deadline(), foreground]
            .into_iter()
            .flatten()
            .min()
    }

    fn wants_room(&self, stream: Stream) -> bool {
        self.output.capture.wants_room(stream)
    }
}

impl MetricsSource for Job {
    fn snapshot(&self, connections: usize, sources: Sources) -> Snapshot {
        let status = self.life.status();
        Snapshot {
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
            tree: if sources.tree { self.measuring.sampler.borrow_mut().tree() } else { None },
            own: if sources.own { process_usage::own() } else { None },
            cgroup: (!sources.cgroup.is_empty())
                .then(|| self.measuring.cgroup.get_or_init(Cgroup::find).usage(sources.cgroup)),
        }
        .with_last_run(self.life.history())
    }

    fn tail(&self) -> Option<&Tail> {
        self.output.capture.tail()
    }

    fn history(&self) -> Option<&History> {
        Some(self.life.history()).filter(|history| history.is_on())
    }
}

/// What the lifecycle has to know of kapo's surroundings.
fn context(config: &Config, beginning: &JobSetup<'_>, manager: bool, has_terminal: bool) -> JobContext {
    let mut seed = [0; 8];
    // Without entropy (early boot) all draws are alike, which harms nobody.
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK);
    JobContext {
        history: config.history,
        hide_args: config.hide_args,
        sidebind_port: beginning.sidebind_port,
        manager,
        ignored_at_start: beginning.signals.ignored_at_start,
        // Asked only where it matters.
        piped: has_terminal && terminal::are_piped_in_a_script(),
        is_init: beginning.signals.are_of_init(),
        seed: u64::from_ne_bytes(seed),
    }
}

fn group(pid: Pid) -> RawPid {
    // A Pid of ours is positive.
    RawPid::from_raw(pid.get()).unwrap_or(RawPid::INIT)
}
