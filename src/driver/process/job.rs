//! One command of ours: carries out what `logic::lifecycle` decides. The driver's half of `run` and `supervise`.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::process::Pid as RawPid;
use rustix::termios::isatty;

use crate::config::{After, Config, Job as Options};
use crate::driver::event_loop::{LoopContext, LoopMode, clock};
use crate::driver::http::server::MetricsSource;
use crate::driver::notify::notify_socket::{NotifySocket, Run};
use crate::driver::notify::service_manager::ServiceManager;
use crate::driver::output::capture::Capture;
use crate::driver::poll::{Ready, Source};
use crate::driver::proc::process_usage;
use crate::driver::proc::process_usage::Sampler;
use crate::driver::process::cgroup::Cgroup;
use crate::driver::process::directory::Directory;
use crate::driver::process::leftover_group;
use crate::driver::process::main_pid::{MainPid, Outcome};
use crate::driver::process::oom::OomCounter;
use crate::driver::process::parent_death::ParentWatch;
use crate::driver::process::program::{Program, Start};
use crate::driver::process::signals::Signals;
use crate::driver::process::terminal;
use crate::driver::process::terminal::Terminal;
use crate::driver::process::termination_log::TerminationLog;
use crate::error::{Error, reason};
use crate::logic::endpoints::StateFacts;
use crate::logic::history::History;
use crate::logic::lifecycle::{
    AfterStop, Effect, End, Event, ForegroundOwner, JobContext, Lifecycle, SignalTarget, SpawnErrorKind,
    TerminalView, origin,
};
use crate::logic::log::record::Record;
use crate::logic::metrics::{Snapshot, Sources};
use crate::logic::output::tail::Tail;
use crate::logic::status::State;
use crate::logic::{Exit, Now, Pid, Sender, Stream, Usage};
use crate::signal::Signal;
use crate::sys;
use crate::sys::spawn::{SpawnError, Step};
use crate::sys::wait::{Change, WaitStatus};

/// So many children are reaped before the status port gets its turn.
const REAPED_AT_ONCE: usize = 1_000;

/// So often the command's notifications are read before its end counts, and that of others: enough for all that can
/// wait on a socket (net.unix.max_dgram_qlen, 512 at most by default), and an end where somebody never ceases to send.
const ROUNDS_OF_NOTIFICATIONS: usize = 34;

/// See the head of the file.
pub(crate) struct Job {
    options: Options,
    life: Lifecycle,
    program: Program,
    directory: Directory,
    capture: Capture,
    /// The run whose output is read to its end, or was last.
    draining: u64,
    terminal: Option<Terminal>,
    /// Who started kapo.
    parent: Option<RawPid>,
    /// Under `--parent-death-signal`.
    parent_watch: Option<ParentWatch>,
    manager: Option<ServiceManager>,
    /// Under `--notify`, where the command speaks to us.
    notify: Option<NotifySocket>,
    /// The process that the command has named by MAINPID.
    main_pid: Option<MainPid>,
    /// A MAINPID was ignored in this run, and logged.
    main_pid_ignored: bool,
    /// When the run's first process was born, while another one is followed.
    run_since: Option<u64>,
    oom: OomCounter,
    /// Looked for at the first scrape.
    cgroup: OnceCell<Cgroup>,
    termination_log: Option<TerminationLog>,
    /// We sent SIGKILL in this run.
    killed: bool,
    /// The command was stopped in this run, and may have been continued.
    was_stopped: bool,
    blocked: sys::signal::AllBlocked,
    ignore_chld: bool,
    open_files: Option<(u64, u64)>,
    /// Children may be left to reap.
    reaping: bool,
    orphans: u64,
    sampler: RefCell<Sampler>,
    started: SystemTime,
    /// When the latest start had succeeded or failed.
    last_start: Option<Now>,
    /// What is not needed of stdin and stdout is closed already.
    standard_closed: bool,
    closing: bool,
    dies_by: Option<(Signal, bool)>,
    /// We have stopped ourselves, and the CONT that has woken us was not passed on yet: the command is stopped as well,
    /// and to hear of that once more is nothing new.
    suspended: bool,
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
        let notify = options
            .notify
            .then(|| NotifySocket::open(&stage.epoll, options.watchdog, beginning.variable))
            .transpose()?;
        let path = options.termination_log.as_deref();
        let termination_log = path.and_then(|path| TerminationLog::open(beginning.now, path, stage));
        let mut seed = [0; 8];
        // Without entropy (early boot) all draws are alike, which harms nobody.
        let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK);
        let context = JobContext {
            history: config.history,
            hide_args: config.hide_args,
            sidebind_port: beginning.sidebind_port,
            manager: manager.is_some(),
            ignored_at_start: beginning.signals.ignored_at_start,
            // Asked only where it matters.
            piped: terminal.is_some() && terminal::are_piped_in_a_script(),
            is_init: beginning.signals.are_of_init(),
            seed: u64::from_ne_bytes(seed),
        };
        Ok(Job {
            life: Lifecycle::new(Box::new(options.clone()), context),
            options: options.clone(),
            program,
            directory: Directory::current(),
            capture: Capture::new(beginning.now, &config.capture, &mut stage.sinks),
            draining: 0,
            terminal,
            parent: rustix::process::getppid(),
            parent_watch: None,
            manager,
            notify,
            main_pid: None,
            main_pid_ignored: false,
            run_since: None,
            oom: OomCounter::default(),
            cgroup: OnceCell::new(),
            termination_log,
            killed: false,
            was_stopped: false,
            blocked: beginning.signals.blocked,
            ignore_chld: beginning.signals.chld_was_ignored,
            open_files: beginning.open_files,
            // Whoever was executed as kapo may have left children that had ended before.
            reaping: true,
            orphans: 0,
            sampler: RefCell::default(),
            started: beginning.now.wall,
            last_start: None,
            standard_closed: false,
            closing: false,
            dies_by: None,
            suspended: false,
        })
    }

    /// Tells the lifecycle what happened and does what it says.
    pub(crate) fn handle(&mut self, now: Now, event: Event, stage: &mut LoopContext) {
        // What happens later in a turn that has started the command does not happen before its start.
        let mut now = self.last_start.filter(|start| start.mono > now.mono).unwrap_or(now);
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
                    self.last_start = Some(now);
                }
                let mut more = Vec::new();
                self.life.handle(now, event, &mut more);
                effects.extend(more);
            }
        }
        self.publish(now, stage);
    }

    fn perform(&mut self, now: Now, effect: Effect, stage: &mut LoopContext) -> Option<Event> {
        match effect {
            Effect::Spawn => return Some(self.spawn(now, stage)),
            Effect::Kill { signal, to, log } => match self.kill(signal, to) {
                Ok(()) => log.iter().for_each(|record| stage.log(now, record)),
                Err(error) => return Some(Event::KillFailed { signal, reason: reason(&error) }),
            },
            Effect::CheckStopped(pid) => return self.is_stopped(pid).then_some(Event::FoundStopped),
            Effect::Suspend { signal, all } => {
                if let (Some(terminal), Some(pid)) = (&self.terminal, self.life.group()) {
                    terminal.take_back(Some(group(pid)));
                }
                self.suspended = terminal::can_be_stopped();
                terminal::suspend(self.terminal.as_ref(), signal, all);
            }
            Effect::GiveTerminal(pid) => {
                if let Some(terminal) = &self.terminal {
                    terminal.give(group(pid));
                }
            }
            Effect::WakeSiblings => {
                if let Some(terminal) = &self.terminal {
                    terminal.wake_siblings(self.life.group().map(group));
                }
            }
            Effect::Drain { run } => {
                self.draining = run;
                self.capture.end(now);
                self.serve_capture(now, stage, &|_| false);
                return self.drained(now);
            }
            Effect::CountGroup { group, exactly } => {
                return Some(Event::GroupCounted { members: leftover_group::count(group, exactly) });
            }
            Effect::Notify(datagram) => {
                if let Some(manager) = &mut self.manager {
                    manager.tell(now, datagram);
                }
            }
            Effect::Log(record) => stage.log(now, &record),
            Effect::Complain(text) => stage.complain(&text),
            Effect::TerminationLog(text) => {
                if let Some(log) = &mut self.termination_log {
                    log.write(now, &text, stage);
                }
            }
            Effect::Close => {
                self.close_unused_standard(stage);
                self.publish(now, stage);
                stage.server.close(now, &stage.epoll, self);
                self.closing = true;
            }
            Effect::DieBy { signal, all } => self.dies_by = Some((signal, all)),
            Effect::Exit(code) => stage.exit = Some(code),
        }
        None
    }

    fn spawn(&mut self, now: Now, stage: &mut LoopContext) -> Event {
        match self.try_spawn(stage) {
            Ok(pid) => {
                self.killed = false;
                self.was_stopped = false;
                self.main_pid_ignored = false;
                self.oom.run_started(now, stage);
                if matches!(self.options.after, After::Once(_)) {
                    self.close_unused_standard(stage);
                }
                Event::Spawned { pid }
            }
            Err(failure) => {
                self.capture.abandon(now, &stage.epoll, &mut stage.sinks);
                if let Some(terminal) = &self.terminal {
                    terminal.take_back(None);
                }
                self.failed(&failure)
            }
        }
    }

    /// Closes stdin, and stdout unless it is captured, once no further start needs them: the reader of the command's
    /// output meets its end when the command and its descendants have closed it, not when kapo ends. Terminals stay,
    /// because they tell whether they have hung up, and stderr, because the log goes there.
    fn close_unused_standard(&mut self, stage: &LoopContext) {
        if std::mem::replace(&mut self.standard_closed, true) {
            return;
        }
        let [stdin, stdout, _] = sys::stdio::standard();
        let unused = [Some(stdin), Some(stdout).filter(|_| !self.capture.captures(Stream::Stdout))];
        for fd in unused.into_iter().flatten().filter(|fd| !isatty(fd)) {
            // The epoll instance can be neither read nor written. Without a descriptor to spare things stay as they are.
            let _ = sys::stdio::close_but_keep_number(fd, stage.epoll.as_fd());
        }
    }

    fn failed(&self, failure: &SpawnError) -> Event {
        let why = reason(&failure.error);
        let (kind, reason) = match failure.step {
            Step::Execute if failure.error.kind() == io::ErrorKind::NotFound => match self.program.is_there()
            {
                true => {
                    (SpawnErrorKind::NotExecutable, "its interpreter or dynamic loader is missing".to_owned())
                }
                false => (SpawnErrorKind::NotFound, why),
            },
            Step::Execute => (SpawnErrorKind::NotExecutable, why),
            Step::Prepare => (SpawnErrorKind::Before, why),
            Step::Enter => {
                let directory = self.program.directory().unwrap_or_default().to_string_lossy();
                (SpawnErrorKind::Before, format!("cannot enter {directory}: {why}"))
            }
        };
        Event::SpawnFailed { reason, kind }
    }

    fn try_spawn(&mut self, stage: &mut LoopContext) -> Result<Pid, SpawnError> {
        let before = |error| SpawnError { step: Step::Prepare, error };
        let [stdout, stderr] = self.capture.begin(&stage.epoll, &stage.sinks).map_err(before)?;
        let terminal = if self.options.setsid {
            Terminal::for_new_session()
        } else {
            let given = self.terminal.as_ref().filter(|_| self.life.gives_terminal());
            given.filter(|terminal| terminal.is_at_hand()).map(AsFd::as_fd)
        };
        let start = Start {
            stdout: stdout.as_ref().map(AsFd::as_fd),
            stderr: stderr.as_ref().map(AsFd::as_fd),
            terminal,
            blocked: self.blocked,
            ignore_chld: self.ignore_chld,
            open_files: self.open_files,
            set: self.notify.as_ref().map_or(&[], NotifySocket::variables),
            pid_variable: self.options.watchdog.map(|_| "WATCHDOG_PID"),
        };
        let pid = self.program.start(&self.options, &start);
        stage.deep = true;
        if let Some(directory) = self.directory.leave() {
            self.program.starts_in(directory);
        }
        Pid::new(pid?).ok_or_else(|| before(io::ErrorKind::Other.into()))
    }

    /// Sends a signal. A process that is gone needs none any more.
    fn kill(&mut self, signal: Signal, to: SignalTarget) -> io::Result<()> {
        let number = i32::from(signal.number());
        let sent = match to {
            SignalTarget::Process(pid) => sys::signal::send(pid.get(), number),
            SignalTarget::Group(pid) => {
                // A command that has moved to another group would miss it.
                let moved = sys::group::of(pid.get()).is_some_and(|now| now != pid.get());
                let direct = moved.then(|| sys::signal::send(pid.get(), number));
                let group = sys::signal::send(-pid.get(), number);
                direct.unwrap_or(group)
            }
            SignalTarget::Followed { pid, group } if sys::group::of(pid.get()) == Some(group.get()) => {
                sys::signal::send(-group.get(), number)
            }
            SignalTarget::Followed { pid, group } => {
                if leftover_group::count(group, false) != Some(0) {
                    // The answer for the command itself is the one that counts.
                    let _ = sys::signal::send(-group.get(), number);
                }
                sys::signal::send(pid.get(), number)
            }
            SignalTarget::LeftoverGroup(pid) if leftover_group::count(pid, false) != Some(0) => {
                sys::signal::send(-pid.get(), number)
            }
            SignalTarget::LeftoverGroup(_) => Ok(()),
        };
        match sent {
            Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => Err(error),
            Ok(()) | Err(_) => {
                self.killed |= signal == Signal::KILL;
                Ok(())
            }
        }
    }

    /// Whether the command is stopped now. Where kapo waits for stops it has taken the news of the last one.
    fn is_stopped(&self, pid: Pid) -> bool {
        let pid = pid.get();
        sys::wait::is_stopped(pid) || (self.was_stopped && !sys::wait::is_continued(pid))
    }

    /// Reaps all that have ended, within bounds.
    fn reap(&mut self, now: Now, stage: &mut LoopContext) {
        let orphans = self.orphans;
        self.reap_each(now, stage);
        if self.orphans != orphans && self.life.waits_for_group() {
            self.handle(now, Event::OrphansReaped, stage);
        }
    }

    fn reap_each(&mut self, now: Now, stage: &mut LoopContext) {
        self.reaping = true;
        let stops = self.terminal.is_some();
        let mut rounds = ROUNDS_OF_NOTIFICATIONS;
        for _ in 0..REAPED_AT_ONCE {
            let mut child = None;
            if self.notify.is_some() {
                child = sys::wait::peek_change(stops);
                if child.is_none() {
                    self.reaping = false;
                    return;
                }
                // What it said before it ended was meant for this run; whose word it is can be seen only until it is
                // reaped, and until then no signal can go astray.
                while rounds > 0 {
                    rounds -= 1;
                    if !self.listen_to_command(now, stage) {
                        break;
                    }
                }
            }
            let change = match child {
                Some(child) => sys::wait::next_change_of(child, stops),
                None => sys::wait::next_change(stops),
            };
            let Some(change) = change else {
                // Who was stopped has gone on meanwhile.
                if child.is_some() {
                    continue;
                }
                self.reaping = false;
                return;
            };
            let command = self.life.pid().filter(|pid| pid.get() == change.pid);
            let exit = match change.status {
                WaitStatus::Stopped(signal) => {
                    if let Some(pid) = command {
                        self.was_stopped = true;
                        self.stopped(now, pid, signal, stage);
                    }
                    continue;
                }
                WaitStatus::Exited(code) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
                WaitStatus::Signaled { signal, core_dumped } => {
                    Exit::Signal { signal: Signal::new(signal).unwrap_or(Signal::KILL), core_dumped }
                }
            };
            if let Some(pid) = command {
                let Change { user, system, max_rss_bytes, .. } = change;
                self.ended(now, pid, exit, Usage { user, system, max_rss_bytes }, stage);
            } else {
                self.orphans += 1;
                if matches!(exit, Exit::Signal { signal: Signal::KILL, .. }) {
                    self.oom.expect_kill();
                }
            }
        }
    }

    /// The command was stopped.
    fn stopped(&mut self, now: Now, pid: Pid, signal: i32, stage: &mut LoopContext) {
        let leader = self.life.group().unwrap_or(pid);
        let Some(terminal) = self.terminal.as_ref().filter(|_| !self.suspended) else { return };
        let Some(signal) = Signal::new(signal) else { return };
        let view = terminal.view(group(leader));
        let mut answer = self.life.after_stop(signal, view);
        if answer == AfterStop::GiveTerminal && !terminal.give(group(leader)) {
            answer = self.life.after_stop(signal, TerminalView { is_free: false, ..view });
        }
        match answer {
            AfterStop::Continue | AfterStop::GiveTerminal => {
                let _ = sys::signal::send(-leader.get(), i32::from(Signal::CONT.number()));
            }
            AfterStop::StopWithIt => self.handle(now, Event::Stopped { signal }, stage),
            AfterStop::StayStopped => {}
        }
    }

    fn ended(&mut self, now: Now, pid: Pid, exit: Exit, usage: Usage, stage: &mut LoopContext) {
        let leader = self.life.group().unwrap_or(pid);
        (self.main_pid, self.run_since) = (None, None);
        // The rest of a line, which the record of its end must not cut in two where both go one way.
        self.serve_capture(now, stage, &|source| matches!(source, Source::Pipe(_)));
        let on_terminal = self.terminal.as_ref().is_some_and(|terminal| terminal.is_with(group(leader)));
        if let Some(terminal) = &self.terminal {
            terminal.take_back(Some(group(leader)));
        }
        // Also if the command has succeeded: a descendant may have been killed.
        self.oom.look(now, stage);
        let oom_killed = self.oom.is_cause(now, exit, self.killed);
        let by_hup = matches!(exit, Exit::Signal { signal: Signal::HUP, .. });
        let hung_up = by_hup && self.terminal_is_gone();
        // A `run` that ends kapo at once shows it to nobody who is not connected already.
        let shown = self.life.goes_on_after_end() || stage.server.connections() > 0;
        let memory = if shown { self.oom.memory() } else { None };
        self.handle(now, Event::Exited(End { exit, usage, oom_killed, on_terminal, hung_up, memory }), stage);
    }

    /// Takes in what the command has said on its NOTIFY_SOCKET; whether there may be more.
    fn listen_to_command(&mut self, now: Now, stage: &mut LoopContext) -> bool {
        let Some(socket) = &self.notify else { return false };
        let mut all = Vec::new();
        // Without a command nobody's word counts, but what is unread would be told again and again.
        let nobody = Pid::MAX;
        let run = Run { command: self.life.pid().unwrap_or(nobody), since: self.run_since };
        let more = socket.read(run, |told| all.push(told));
        for mut told in all {
            if let Some(text) = &told.invalid_main_pid {
                self.ignore_main_pid(now, text, "not a process id", stage);
            }
            told.main_pid = told.main_pid.filter(|pid| self.follow(now, *pid, stage));
            self.handle(now, Event::Notified(told), stage);
        }
        more
    }

    /// Follows this process from now on, if it belongs to the run. Returns whether it is another one than before.
    fn follow(&mut self, now: Now, pid: Pid, stage: &mut LoopContext) -> bool {
        let Some(command) = self.life.pid().filter(|command| *command != pid) else { return false };
        let run = Run { command, since: self.run_since };
        // The pidfd first: afterwards the number cannot come to mean another process unnoticed.
        let main_pid = MainPid::open(&stage.epoll, pid)
            .and_then(|main_pid| run.has(pid).then_some(main_pid).ok_or("not a process of this run".into()));
        match main_pid {
            Ok(main_pid) => {
                self.run_since = self.run_since.or_else(|| run.birth());
                self.main_pid = Some(main_pid);
                true
            }
            Err(why) => {
                self.ignore_main_pid(now, pid, &why, stage);
                false
            }
        }
    }

    /// Logs the first MAINPID of a run that is not followed.
    fn ignore_main_pid(&mut self, now: Now, pid: impl fmt::Display, why: &str, stage: &mut LoopContext) {
        if !std::mem::replace(&mut self.main_pid_ignored, true) {
            stage.log(now, &Record::warn("MAINPID ignored").with("pid", pid).with("why", why));
        }
    }

    /// The followed process has ended. If it is kapo's child it is reaped like any other, which tells more.
    fn look_at_main_pid(&mut self, now: Now, stage: &mut LoopContext) {
        self.reap(now, stage);
        let Some(main_pid) = &self.main_pid else { return };
        let pid = main_pid.pid();
        if let Outcome::Reaped(exit) = main_pid.outcome(&stage.epoll) {
            self.main_pid = None;
            if self.life.pid() == Some(pid) {
                self.ended(now, pid, exit, Usage::default(), stage);
            }
        }
    }

    /// Passes captured output on; for how long more should gather.
    fn serve_capture(
        &mut self,
        now: Now,
        stage: &mut LoopContext,
        ready: &dyn Fn(Source) -> bool,
    ) -> Option<Duration> {
        if !stage.server.is_followed() {
            return self.capture.turn(now, &stage.epoll, &mut stage.sinks, ready);
        }
        // A turn may bring more than the tail keeps.
        self.capture.tail_mut().hold();
        let gather = self.capture.turn(now, &stage.epoll, &mut stage.sinks, ready);
        stage.server.publish_output(now, &stage.epoll, self.capture.tail_mut());
        self.capture.tail_mut().release();
        gather
    }

    fn drained(&mut self, now: Now) -> Option<Event> {
        let drained = self.capture.take_drained(now);
        drained.then(|| Event::Drained { run: self.draining, last_output: self.capture.last_lines(10) })
    }

    fn publish(&mut self, now: Now, stage: &mut LoopContext) {
        if self.life.take_changed() {
            self.life.set_output(self.capture.document());
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
        self.notify = None;
        // Who has wanted the terminal right before it came back would stay stopped.
        if let Some(terminal) = &self.terminal {
            let mut wanted = false;
            signals.read(|signal, sender| wanted |= origin::is_want_of_terminal(signal, sender));
            if wanted {
                terminal.wake_siblings(None);
            }
        }
        if let Some((signal, all)) = self.dies_by {
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
            self.parent_watch = Some(watch);
        }
    }

    fn orphaned(&mut self, now: Now, signal: Signal, stage: &mut LoopContext) {
        self.handle(now, Event::Signal { signal, sender: Sender::Process { pid: 0, uid: 0 } }, stage);
    }
}

impl LoopMode for Job {
    fn on_signal(&mut self, now: Now, signal: Signal, sender: Sender, stage: &mut LoopContext) {
        let sender = if signal == Signal::HUP {
            let parent = self.parent.map(|parent| parent.as_raw_nonzero().get());
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
        if self.capture.has_more() || ready.has_output() {
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
            self.oom.look(now, stage);
        }
        // Closes the pidfd, which would stay readable.
        if ready.has(Source::Parent)
            && let Some(signal) = self.parent_watch.take().and_then(ParentWatch::ended)
        {
            self.orphaned(now, signal, stage);
        }
    }

    fn on_request(&mut self, now: Now, stage: &mut LoopContext) {
        self.handle(now, Event::Asked, stage);
    }

    fn finish_turn(&mut self, now: Now, stage: &mut LoopContext) {
        if self.reaping {
            self.reap(now, stage);
        }
        self.oom.finish_turn(now, stage);
        if let Some(event) = self.drained(now) {
            self.handle(now, event, stage);
        }
        if let Some(record) = self.manager.as_mut().and_then(|manager| manager.turn(now)) {
            stage.log(now, &record);
        }
        if self.life.deadline().is_some_and(|at| at <= now.mono) {
            self.handle(now, Event::Deadline, stage);
        }
        if self.closing && stage.exit.is_none() && stage.server.is_closed(now) {
            self.handle(now, Event::Closed, stage);
        }
    }

    fn deadline(&self, now: Now) -> Option<Instant> {
        let at_once = (self.reaping || self.capture.has_more()).then_some(now.mono);
        let manager = self.manager.as_ref().and_then(ServiceManager::deadline);
        [at_once, self.life.deadline(), manager, self.capture.deadline()].into_iter().flatten().min()
    }

    fn wants_room(&self, stream: Stream) -> bool {
        self.capture.wants_room(stream)
    }
}

impl MetricsSource for Job {
    fn snapshot(&self, connections: usize, sources: Sources) -> Snapshot {
        let status = self.life.status();
        Snapshot {
            started: self.started,
            up: status.state == State::Running,
            ready: status.ready,
            start_time: status.start_time,
            starts: Some(self.life.starts()),
            exits: Some(self.life.exits()),
            last_exit_code: self.life.last_exit_code(),
            flapping: Some(status.flapping),
            oom_kills: if sources.oom_kills { self.oom.total() } else { None },
            orphans_reaped: Some(self.orphans),
            output: self.capture.counters(),
            connections,
            last_end: None,
            last_success: None,
            last_lasted: None,
            tree: if sources.tree { self.sampler.borrow_mut().tree() } else { None },
            own: if sources.own { process_usage::own() } else { None },
            cgroup: sources.cgroup.then(|| self.cgroup.get_or_init(Cgroup::find).usage()),
        }
        .with_last_run(self.life.history())
    }

    fn tail(&self) -> Option<&Tail> {
        self.capture.tail()
    }

    fn history(&self) -> Option<&History> {
        Some(self.life.history()).filter(|history| history.is_on())
    }
}

fn group(pid: Pid) -> RawPid {
    // A Pid of ours is positive.
    RawPid::from_raw(pid.get()).unwrap_or(RawPid::INIT)
}
