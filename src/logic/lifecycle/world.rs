//! A world on paper for one life: a clock that jumps, children that behave as they are told to, and the promises
//! that hold after every step. What the promises say is worked out here from the options and from what happened,
//! never asked of the machine. Unit tests and the fuzz target live in it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::status::State as Shown;
use super::super::{Exit, Now, Pid, Sender, Usage};
use super::{
    Effect, End, Event, ForegroundOwner, IgnoredAtStart, JobContext, Lifecycle, SignalTarget, SpawnErrorKind,
};
use crate::config::{After, Job, KILL_AFTER, Linger, Restart, STOP_ON, Success, Ttl};
use crate::logic::notify::message::Notification;
use crate::logic::reason::Reason;
use crate::signal::Signal;

/// The pause before the second look at what is left of a group.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// A process of somebody who may signal us.
pub const SOMEBODY: Sender = Sender::Process { pid: 7, uid: 1000 };

/// How a child behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `Err`: it cannot be executed, and whether it was not found.
    pub start: Result<(), SpawnErrorKind>,
    /// It has the terminal when it ends.
    pub on_terminal: bool,
    /// The terminal is gone by then.
    pub hung_up: bool,
    /// It ends of its own accord after this long; `None`: never.
    pub lasts: Option<Duration>,
    /// How it ends then.
    pub exit: Exit,
    /// It ends by no signal but KILL.
    pub deaf: bool,
    /// It is stopped, and feels nothing but KILL and CONT.
    pub stopped: bool,
    /// kapo may not signal it.
    pub unreachable: bool,
    /// How it ends when it is signalled; `None`: by that signal.
    pub answer: Option<Exit>,
    /// How long it takes to end when it is signalled.
    pub dies_after: Duration,
    /// How long what it wrote takes to pass through.
    pub drains_after: Duration,
    /// What it wrote last.
    pub last_output: Vec<String>,
    /// The kernel counted an OOM kill while it ran.
    pub oom_killed: bool,
    /// What it leaves behind in its process group.
    pub leaves: Option<Leaves>,
}

/// How the rest of a process group behaves once the command has ended.
#[derive(Clone, Debug)]
pub struct Leaves {
    /// How long it takes to end when it was asked to; `None`: it ends by KILL alone.
    pub ends_after: Option<Duration>,
    /// Not even KILL ends it, as the kernel holds it up.
    pub stuck: bool,
    /// kapo's SIGCHLD tells of its end.
    pub is_child: bool,
    /// How many processes there are; `None`: it cannot be told.
    pub members: Option<usize>,
}

impl Leaves {
    /// Ends this long after the stop signal.
    pub fn obedient(ends_after: Duration) -> Leaves {
        Leaves { ends_after: Some(ends_after), stuck: false, is_child: true, members: Some(2) }
    }

    /// Ends by KILL alone.
    pub fn deaf() -> Leaves {
        Leaves { ends_after: None, ..Leaves::obedient(Duration::ZERO) }
    }
}

impl Behaviour {
    /// Runs until it is signalled, and does then what is asked at once.
    pub fn patient() -> Behaviour {
        Behaviour {
            start: Ok(()),
            on_terminal: false,
            hung_up: false,
            lasts: None,
            exit: Exit::Code(0),
            deaf: false,
            stopped: false,
            unreachable: false,
            answer: None,
            dies_after: Duration::ZERO,
            drains_after: Duration::ZERO,
            last_output: Vec::new(),
            oom_killed: false,
            leaves: None,
        }
    }

    /// Ends like this after that long.
    pub fn ends(lasts: Duration, exit: Exit) -> Behaviour {
        Behaviour { lasts: Some(lasts), exit, ..Behaviour::patient() }
    }

    /// Ends by KILL alone.
    pub fn deaf() -> Behaviour {
        Behaviour { deaf: true, ..Behaviour::patient() }
    }
}

/// The rest of the last run's process group.
#[derive(Clone, Debug)]
struct Rest {
    leaves: Leaves,
    /// When it ends, as things stand; `None`: never.
    ends: Option<Duration>,
}

impl Rest {
    fn lives(&self, now: Duration) -> bool {
        self.ends.is_none_or(|at| at > now)
    }
}

/// What kapo does about the rest of a group, as the world works it out.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// It has been asked to end, by the stop of the run or by TERM.
    asked: bool,
    /// It was asked by TERM.
    termed: bool,
    killed: bool,
    /// When it is killed, or given up after that.
    due: Option<Duration>,
    /// When it is looked at next, and the pause after that.
    look: Option<(Duration, Duration)>,
}

struct Child {
    pid: Pid,
    since: Duration,
    behaviour: Behaviour,
    ends: Option<(Duration, Exit)>,
    group_killed: bool,
    /// What it has got while it was stopped.
    pending: Vec<Signal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopCause {
    Ttl,
    Watchdog,
    Outside,
}

/// The stop of the run that there is, or of the last one.
#[derive(Clone, Copy, Debug)]
struct Stop {
    at: Duration,
    why: StopCause,
    killed: bool,
}

/// What comes next.
enum Occurrence {
    End(Exit),
    RestGone,
    Drained,
    Closed,
    Deadline,
}

/// One life and all around it.
pub struct World {
    /// The life itself.
    pub life: Lifecycle,
    /// How the children behave that are started from now on.
    pub behaviour: Behaviour,
    /// How long those who are connected take to be answered at the end.
    pub closes_after: Duration,
    /// All effects so far, and when; a test may clear it.
    pub history: Vec<(Duration, Effect)>,
    job: Job,
    context: JobContext,
    epoch: Now,
    now: Duration,
    child: Option<Child>,
    /// The last one that was reaped.
    reaped: Option<Pid>,
    begun: bool,
    /// A signal came before the first start.
    early: bool,
    /// When the output of which run is read.
    draining: Option<(Duration, u64)>,
    rest: Option<Rest>,
    /// Set while kapo waits for the group to be empty.
    awaited: Option<Watch>,
    /// The pause is over, and the start waits for what is left of the last run.
    clearing: bool,
    /// kapo waits for what is left of the last run, and then closes.
    finishing: bool,
    /// A second stop signal has come meanwhile.
    insisted: bool,
    /// Not even KILL has ended the rest of the group.
    gave_up: bool,
    /// Ends whose output was still being read when the next run ended.
    superseded: u64,
    closing: Option<Duration>,
    exited: Option<u8>,
    starts: u64,
    certificates: u64,
    asked: bool,
    /// Who asked first.
    asked_by: Option<(Signal, Sender)>,
    /// The terminal ended the command, and meant kapo.
    meant: bool,
    /// What kapo must die by when it ends now.
    dies_by: Option<(Signal, bool)>,
    stop: Option<Stop>,
    /// When the last run ended, and whether it had not even started.
    last_end: Option<(Duration, bool)>,
    expected_code: u8,
    failures: Vec<Duration>,
    /// The last thing on which the end of lingering depends.
    lingering: Option<Duration>,
    /// Siblings have wanted the terminal.
    shared: bool,
    said_ready: bool,
    /// When the next ping is due at the latest.
    watch: Option<Duration>,
    interval: Option<Duration>,
    may_tell_ready: u64,
    told_stopping: bool,
}

impl World {
    /// Nothing has happened yet; begin with [`World::start`].
    pub fn new(epoch: Now, job: Job, context: JobContext) -> World {
        let shared = context.piped || context.ignored_at_start.interrupt;
        World {
            life: Lifecycle::new(Box::new(job.clone()), context.clone()),
            behaviour: Behaviour::patient(),
            closes_after: Duration::ZERO,
            history: Vec::new(),
            job,
            context,
            epoch,
            now: Duration::ZERO,
            child: None,
            reaped: None,
            begun: false,
            early: false,
            draining: None,
            rest: None,
            awaited: None,
            clearing: false,
            finishing: false,
            insisted: false,
            gave_up: false,
            superseded: 0,
            closing: None,
            exited: None,
            starts: 0,
            certificates: 0,
            asked: false,
            asked_by: None,
            meant: false,
            dies_by: None,
            stop: None,
            last_end: None,
            expected_code: 0,
            failures: Vec::new(),
            lingering: None,
            shared,
            said_ready: false,
            watch: None,
            interval: None,
            may_tell_ready: 1,
            told_stopping: false,
        }
    }

    /// The loop begins to turn.
    pub fn start(&mut self) {
        self.happen(Event::Start);
    }

    /// How long the world has existed.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// What kapo has exited with.
    pub fn exited(&self) -> Option<u8> {
        self.exited
    }

    /// The effects since this was asked last.
    pub fn effects(&mut self) -> Vec<Effect> {
        self.history.drain(..).map(|(_, effect)| effect).collect()
    }

    /// A process sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.happen(Event::Signal { signal, sender: SOMEBODY });
    }

    /// The kernel raises a signal.
    pub fn kernel(&mut self, signal: Signal) {
        self.happen(Event::Signal { signal, sender: Sender::Kernel });
    }

    /// The command speaks.
    pub fn told(&mut self, datagram: &[u8]) {
        self.happen(Event::Notified(crate::logic::notify::message::read(datagram)));
    }

    /// Somebody kills the command behind our back.
    pub fn murder(&mut self) {
        if let Some(child) = &mut self.child {
            child.ends = Some((self.now, Exit::Signal { signal: Signal::KILL, core_dumped: false }));
        }
    }

    /// Time passes while kapo does not run; what was due comes late.
    pub fn oversleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// Time passes, and what is due happens in its order.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, what)) = self.next().filter(|(at, _)| *at <= until) {
            self.occur(at, what);
        }
        self.now = self.now.max(until);
    }

    /// Until kapo has exited, and with what.
    pub fn run_to_the_end(&mut self) -> u8 {
        loop {
            match (self.exited, self.next()) {
                (Some(code), _) => return code,
                (None, Some((at, what))) => self.occur(at, what),
                (None, None) => self.broken("nothing will ever happen again, and kapo has not left"),
            }
        }
    }

    /// A stop signal, the death of whoever does not care for it, and the end, which must follow.
    pub fn leave(&mut self) -> u8 {
        if self.exited.is_none() {
            self.signal(Signal::TERM);
        }
        self.murder();
        // Without a limit kapo waits for the rest of the group until a second signal comes.
        if self.job.kill_after == Some(Duration::ZERO) {
            self.run_for(Duration::ZERO);
            if self.exited.is_none() {
                self.signal(Signal::TERM);
            }
        }
        self.run_to_the_end()
    }

    /// Something happens now.
    pub fn happen(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            self.take_in(&event);
            let at = Now { mono: self.instant(self.now), wall: self.epoch.wall + self.now };
            let mut out = Vec::new();
            self.life.handle(at, event.clone(), &mut out);
            if matches!(event, Event::Exited(_)) {
                // The verdict of the policy is not worked out here.
                self.finishing |= self.lingering.is_none() && self.life.status().next_start.is_none();
            }
            for effect in out {
                self.history.push((self.now, effect.clone()));
                self.perform(&event, effect, &mut queue);
            }
            if queue.is_empty() {
                self.check(&event);
            }
        }
        // The driver renders the document once a turn.
        self.life.take_changed();
    }

    fn instant(&self, at: Duration) -> Instant {
        self.epoch.mono + at
    }

    fn next(&self) -> Option<(Duration, Occurrence)> {
        if self.exited.is_some() {
            return None;
        }
        let deadline = self.life.deadline().map(|at| at.saturating_duration_since(self.epoch.mono));
        [
            self.child.as_ref().and_then(|child| child.ends).map(|(at, exit)| (at, Occurrence::End(exit))),
            self.rest.as_ref().and_then(|rest| rest.ends).map(|at| (at, Occurrence::RestGone)),
            self.draining.map(|(at, _)| (at, Occurrence::Drained)),
            self.closing.map(|at| (at, Occurrence::Closed)),
            deadline.map(|at| (at, Occurrence::Deadline)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    fn occur(&mut self, at: Duration, what: Occurrence) {
        self.now = self.now.max(at);
        match what {
            Occurrence::End(exit) => {
                let oom_killed = self.child.as_ref().is_some_and(|child| child.behaviour.oom_killed);
                let on_terminal = self.behaviour.on_terminal;
                let by_hup = matches!(exit, Exit::Signal { signal: Signal::HUP, .. });
                let hung_up = by_hup && self.behaviour.hung_up;
                self.happen(Event::Exited(End {
                    exit,
                    usage: Usage::default(),
                    oom_killed,
                    on_terminal,
                    hung_up,
                }));
            }
            Occurrence::RestGone => {
                let is_child = self.rest.take().is_some_and(|rest| rest.leaves.is_child);
                if is_child && self.life.waits_for_group() {
                    self.happen(Event::OrphansReaped);
                }
            }
            Occurrence::Drained => {
                let last_output = self.behaviour.last_output.clone();
                let (_, run) = self.draining.unwrap_or_default();
                self.happen(Event::Drained { run, last_output });
            }
            Occurrence::Closed => {
                self.closing = None;
                self.happen(Event::Closed);
            }
            Occurrence::Deadline => self.happen(Event::Deadline),
        }
    }

    /// What the world knows of an event without asking the machine.
    fn take_in(&mut self, event: &Event) {
        match event {
            Event::Start => self.begun = true,
            Event::Signal { signal, sender } => {
                self.early |= !self.begun;
                let listed = self.job.stop_on.contains(signal);
                let stop = match *signal {
                    Signal::KILL => true,
                    Signal::TERM => listed,
                    Signal::INT | Signal::QUIT => {
                        listed && !(*sender == Sender::Kernel && self.context.ignored_at_start.interrupt)
                    }
                    Signal::HUP if *sender == Sender::Kernel => !self.context.ignored_at_start.hang_up,
                    _ => listed && *sender != Sender::Kernel,
                };
                let again = self.asked_by.is_some();
                self.asked |= stop;
                let typed = *sender == Sender::Kernel && matches!(*signal, Signal::INT | Signal::QUIT);
                let pausing = self.life.status().next_start.is_some() || self.clearing;
                if stop && (pausing || !self.begun) {
                    self.dies_by = (typed && !self.context.is_init).then_some((*signal, false));
                    if typed && pausing {
                        self.expected_code = 128 + signal.number();
                    }
                }
                if stop && self.asked_by.is_none() {
                    self.asked_by = Some((*signal, *sender));
                }
                if stop && self.child.is_some() && self.stop.is_none() {
                    self.stop = Some(Stop { at: self.now, why: StopCause::Outside, killed: false });
                }
                if stop && self.child.is_none() && self.begun {
                    self.insisted |= self.finishing && again;
                    (self.finishing, self.clearing, self.lingering) = (true, false, None);
                }
                if *signal == Signal::CONT {
                    self.ping_again();
                }
            }
            Event::Spawned { .. } => {
                self.said_ready = false;
                self.watch = None;
                self.interval = self.job.watchdog;
                self.stop =
                    self.asked.then_some(Stop { at: self.now, why: StopCause::Outside, killed: false });
            }
            Event::SpawnFailed { kind, .. } => {
                self.expected_code = match kind {
                    SpawnErrorKind::NotFound => 127,
                    SpawnErrorKind::NotExecutable => 126,
                    SpawnErrorKind::Before => 125,
                };
                self.last_end = Some((self.now, true));
                self.stop = None;
                self.failures.push(self.now);
                self.finishing = self.asked || self.meant;
                self.superseded += u64::from(self.draining.take().is_some());
            }
            Event::Exited(End { exit, on_terminal, hung_up, .. }) => {
                self.early = false;
                if *hung_up && !self.context.ignored_at_start.hang_up {
                    self.asked = true;
                    self.asked_by.get_or_insert((Signal::HUP, Sender::Kernel));
                }
                let why = self.stop.map(|stop| stop.why);
                self.meant |= why.is_none() && *on_terminal && matches!(exit.code(), 130 | 131);
                self.expected_code = match why {
                    Some(StopCause::Ttl) if self.job.success_exit.contains(&Success::Ttl) => 0,
                    Some(StopCause::Ttl) => 124,
                    Some(StopCause::Watchdog) => exit.code().max(1),
                    Some(StopCause::Outside) | None if self.is_success(*exit) => 0,
                    Some(StopCause::Outside) | None => exit.code(),
                };
                self.dies_by = self.must_die_by(*exit, why, *on_terminal);
                self.last_end = Some((self.now, false));
                if self.stable_at().is_some_and(|at| at <= self.now) {
                    self.failures.clear();
                }
                if why == Some(StopCause::Watchdog)
                    || (why != Some(StopCause::Ttl) && self.expected_code != 0)
                {
                    self.failures.push(self.now);
                }
                self.finishing = self.asked || self.meant;
                let lingers = matches!(self.job.after,
                    After::Once(Linger::Fixed(time) | Linger::Idle(time)) if !time.is_zero());
                self.lingering = (lingers && !self.finishing).then_some(self.now);
                self.leave_rest();
            }
            Event::Drained { run, .. } => drop(self.draining.take_if(|(_, reading)| reading == run)),
            Event::GroupCounted { members } => self.take_in_count(*members),
            Event::OrphansReaped | Event::KillFailed { .. } | Event::FoundStopped => {}
            Event::Asked => {
                if matches!(self.job.after, After::Once(Linger::Idle(_))) && self.lingering.is_some() {
                    self.lingering = Some(self.now);
                }
            }
            Event::Notified(told) => self.take_in_told(told),
            Event::Resumed => self.ping_again(),
            Event::SiblingStopped { foreground_owner, .. } => {
                self.shared |= *foreground_owner != ForegroundOwner::Other
            }
            Event::Deadline => {
                self.take_in_dues();
                // Who overslept does not judge others.
                let late = self.watch.and_then(|due| self.now.checked_sub(due));
                if let Some((late, interval)) = late.zip(self.interval)
                    && late > (interval / 4).max(Duration::from_millis(100))
                {
                    self.watch = self.now.checked_add(interval);
                }
            }
            Event::Stopped { .. } | Event::Closed => {}
        }
    }

    /// The command has ended; what it has left lives on, and has got the stop signal if the command has.
    fn leave_rest(&mut self) {
        self.gave_up = false;
        let Some(Child { pid, behaviour, group_killed, .. }) = self.child.take() else { return };
        self.reaped = Some(pid);
        self.rest = behaviour.leaves.filter(|_| !group_killed).map(|leaves| {
            let ends = leaves.ends_after.filter(|_| self.stop.is_some()).map(|after| self.now + after);
            Rest { leaves, ends }
        });
        if let Some(stop) = self.stop.filter(|_| !self.job.single_child) {
            let due = match group_killed {
                true => Some(self.now + Duration::from_secs(1)),
                false => self.patience().and_then(|patience| stop.at.checked_add(patience)),
            };
            self.awaited = Some(Watch { asked: true, killed: group_killed, due, ..Watch::default() });
        }
    }

    /// For how long the rest of a group is waited for; `None`: without limit.
    fn patience(&self) -> Option<Duration> {
        Some(self.job.kill_after.unwrap_or(KILL_AFTER)).filter(|patience| !patience.is_zero())
    }

    fn take_in_count(&mut self, members: Option<usize>) {
        let patience = self.patience();
        let Some(watch) = &mut self.awaited else { return };
        if members == Some(0) {
            self.awaited = None;
            return;
        }
        if !watch.asked {
            watch.asked = true;
            watch.due = patience.and_then(|patience| self.now.checked_add(patience));
        }
        let pause = watch.look.map_or(FIRST_PAUSE, |(_, next)| next);
        watch.look = Some((self.now + pause, (2 * pause).min(Duration::from_secs(1))));
    }

    /// When the run has lasted for `--stable`.
    fn stable_at(&self) -> Option<Duration> {
        let stable = self.restart()?.stable;
        self.child.as_ref()?.since.checked_add(stable).filter(|_| !stable.is_zero())
    }

    /// Deadlines that have come.
    fn take_in_dues(&mut self) {
        // A TTL that passes at the same moment comes first; the length of the run counts at its end then.
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= self.now);
        let runs = self.stop.is_none() && !is_due(self.ttl_due());
        if runs && self.life.status().flapping && is_due(self.stable_at()) {
            self.failures.clear();
        }
        if let Some(watch) = &mut self.awaited
            && watch.due.is_some_and(|due| due <= self.now)
        {
            if watch.killed {
                self.awaited = None;
                self.gave_up = true;
            } else {
                watch.killed = true;
                watch.due = Some(self.now + Duration::from_secs(1));
                watch.look = None;
            }
        }
        let wall = self.epoch.wall + self.now;
        self.clearing |= self.life.status().next_start.is_some_and(|at| at <= wall);
        let (After::Once(Linger::Fixed(time) | Linger::Idle(time)), Some(since)) =
            (&self.job.after, self.lingering)
        else {
            return;
        };
        if since.checked_add(*time).is_some_and(|due| due <= self.now) {
            (self.lingering, self.finishing) = (None, true);
        }
    }

    /// Neither kapo nor the command has run; it has its whole time for the next ping.
    fn ping_again(&mut self) {
        if self.watch.is_some() {
            self.watch = self.interval.and_then(|interval| self.now.checked_add(interval));
        }
    }

    fn take_in_told(&mut self, told: &Notification) {
        if let (Some(main), Some(child)) = (told.main_pid, &mut self.child) {
            child.pid = main;
        }
        if self.child.is_none() {
            return;
        }
        if let Some(interval) = told.interval {
            self.interval = Some(interval).filter(|interval| !interval.is_zero());
        }
        if self.stop.is_some() {
            return;
        }
        if told.reloading {
            self.may_tell_ready += 1;
        }
        if told.reloading || told.stopping {
            self.said_ready = false;
        }
        self.said_ready |= told.ready;
        if told.stopping && !told.ready {
            self.watch = None;
        }
        let speaks = told.ready || ((told.ping || told.interval.is_some()) && !told.stopping);
        if speaks && (self.said_ready || self.watch.is_some()) {
            self.watch = self.interval.and_then(|interval| self.now.checked_add(interval));
        }
        if told.trigger {
            self.stop = Some(Stop { at: self.now, why: StopCause::Watchdog, killed: false });
        }
    }

    /// A shell that waits must see the end that ^C has made.
    fn must_die_by(&self, exit: Exit, why: Option<StopCause>, on_terminal: bool) -> Option<(Signal, bool)> {
        let Exit::Signal { signal: signal @ (Signal::INT | Signal::QUIT), .. } = exit else { return None };
        let typed = matches!(self.asked_by, Some((Signal::INT | Signal::QUIT, Sender::Kernel)));
        if self.context.is_init || self.is_success(exit) {
            return None;
        }
        match why {
            None => on_terminal.then_some((signal, true)),
            Some(StopCause::Outside) => typed.then_some((signal, false)),
            Some(StopCause::Ttl | StopCause::Watchdog) => None,
        }
    }

    fn is_success(&self, exit: Exit) -> bool {
        exit == Exit::Code(0)
            || self.job.success_exit.iter().any(|success| match (success, exit) {
                (Success::Code(code), exit) => exit.code() == *code,
                (Success::Signal(wanted), Exit::Signal { signal, .. }) => signal == *wanted,
                (Success::Signal(_), Exit::Code(_)) | (Success::Ttl, _) => false,
            })
    }

    fn restart(&self) -> Option<&Restart> {
        match &self.job.after {
            After::Once(_) => None,
            After::Again(restart) => Some(restart),
        }
    }

    fn perform(&mut self, event: &Event, effect: Effect, queue: &mut VecDeque<Event>) {
        if self.exited.is_some() {
            self.broken("something was done after the end");
        }
        match effect {
            Effect::Spawn => self.spawn(queue),
            Effect::Kill { signal, to, log: _ } => self.kill(event, signal, to, queue),
            Effect::CheckStopped(pid) => {
                let asked = self.stop.is_some_and(|stop| stop.why == StopCause::Outside || self.asked);
                self.promise(
                    asked && matches!(event, Event::Signal { .. }),
                    "a stop is looked for at a stop signal",
                );
                let child = self.child.as_ref().filter(|child| child.pid == pid);
                self.promise(child.is_some(), "only the living are looked at");
                if child.is_some_and(|child| child.behaviour.stopped) {
                    queue.push_back(Event::FoundStopped);
                }
            }
            Effect::Suspend { .. } => {}
            Effect::GiveTerminal(pid) => {
                self.promise(
                    self.child.as_ref().is_some_and(|child| child.pid == pid),
                    "who gets the terminal lives",
                );
                self.promise(!self.shared, "nobody is given unasked what siblings want");
            }
            Effect::WakeSiblings => {
                let ours = matches!(
                    event,
                    Event::SiblingStopped {
                        foreground_owner: ForegroundOwner::Own | ForegroundOwner::Command,
                        ..
                    }
                );
                self.promise(ours, "the terminal is taken from nobody else");
            }
            Effect::Drain { run } => {
                self.promise(self.child.is_none() && run == self.starts, "what is drained has ended");
                let reading = (self.now + self.behaviour.drains_after, run);
                self.superseded += u64::from(self.draining.replace(reading).is_some());
            }
            Effect::CountGroup { group, exactly } => self.count_group(group, exactly, queue),
            Effect::Notify(datagram) => {
                self.promise(self.context.manager, "nobody is told where nobody listens");
                if datagram == b"READY=1" {
                    self.promise(!self.told_stopping, "READY comes before STOPPING");
                    self.promise(self.may_tell_ready > 0, "READY is told once, and once after each reload");
                    self.may_tell_ready -= 1;
                }
                if datagram == b"STOPPING=1" {
                    self.promise(!self.told_stopping, "STOPPING is told once");
                    self.told_stopping = true;
                }
            }
            Effect::Log(_) => {}
            Effect::Complain(_) => self.promise(self.restart().is_none(), "only run complains"),
            Effect::TerminationLog(text) => {
                self.promise(self.job.termination_log.is_some(), "nothing is written that was not asked for");
                self.promise(
                    text.len() <= 4096,
                    "a termination_message is not longer than the kubelet reads",
                );
                self.certificates += 1;
            }
            Effect::Close => {
                self.promise(self.child.is_none(), "a port is not closed over a living child");
                self.promise(self.closing.is_none(), "a port is closed once");
                let at_once = self.insisted;
                self.promise(self.draining.is_none() || at_once, "the last words are read before the end");
                self.promise(self.awaited.is_none() || at_once, "the rest of the group is waited for");
                let left = self.rest.as_ref().is_some_and(|rest| !rest.leaves.stuck && rest.lives(self.now));
                let stopped = self.stop.is_some() && !self.job.single_child;
                self.promise(!(left && stopped), "nothing is left of the group of a stopped command");
                self.promise(
                    self.context.manager == self.told_stopping,
                    "STOPPING is told before the port is closed",
                );
                self.draining = None;
                self.closing = Some(self.now + self.closes_after);
                self.lingering = None;
            }
            Effect::DieBy { signal, all } => {
                let due = self.dies_by.take();
                self.promise(due == Some((signal, all)), "kapo dies as the terminal has ended the command");
            }
            Effect::Exit(code) => {
                self.promise(self.dies_by.is_none(), "who was interrupted does not just exit");
                self.promise(self.child.is_none(), "nobody exits over a living child");
                self.promise(
                    self.starts == 0 || code == self.expected_code,
                    "the code is that of the last run",
                );
                let starts = self.starts - self.superseded;
                let written = if self.job.termination_log.is_some() { starts } else { 0 };
                self.promise(self.certificates == written, "each end has its termination_message");
                self.exited = Some(code);
                self.closing = None;
            }
        }
    }

    fn spawn(&mut self, queue: &mut VecDeque<Event>) {
        self.promise(self.child.is_none(), "there is one child at most");
        self.promise(!self.asked && !self.meant, "nothing is started after a stop signal");
        self.promise(self.draining.is_none() && self.closing.is_none(), "a start follows an end");
        self.promise(self.awaited.is_none(), "a start waits for the end of the group");
        let lives = self.rest.as_ref().is_some_and(|rest| rest.lives(self.now));
        let alone = !lives || self.gave_up || self.job.single_child;
        self.promise(alone, "nothing of the last run is left when the next one starts");
        (self.rest, self.clearing) = (None, false);
        if let Some((end, never_ran)) = self.last_end {
            let Some(restart) = self.restart() else { self.broken("run starts once") };
            let least = if never_ran { restart.wait.max(Duration::from_secs(1)) } else { restart.wait };
            self.promise(self.now >= end + least, "no start comes before the pause is over");
        }
        self.starts += 1;
        let Ok(number) = i32::try_from(self.starts % 1_000_000) else { return };
        let Some(pid) = Pid::new(100 + number) else { return };
        match self.behaviour.start {
            Ok(()) => {
                let behaviour = self.behaviour.clone();
                let ends = behaviour.lasts.map(|lasts| (self.now + lasts, behaviour.exit));
                self.child = Some(Child {
                    pid,
                    since: self.now,
                    behaviour,
                    ends,
                    group_killed: false,
                    pending: Vec::new(),
                });
                queue.push_back(Event::Spawned { pid });
            }
            Err(kind) => {
                queue.push_back(Event::SpawnFailed { reason: "for a reason".to_owned(), kind });
            }
        }
    }

    fn kill(&mut self, event: &Event, signal: Signal, to: SignalTarget, queue: &mut VecDeque<Event>) {
        let living = self.child.as_ref().map(|child| child.pid);
        match to {
            SignalTarget::Process(pid) => {
                self.promise(self.job.single_child, "the group is signalled");
                self.promise(living == Some(pid), "only the living are signalled");
            }
            SignalTarget::Followed { pid, .. } | SignalTarget::Group(pid) => {
                self.promise(!self.job.single_child, "under --single-child the group is left alone");
                self.promise(living == Some(pid), "only the living are signalled");
            }
            SignalTarget::LeftoverGroup(pid) => {
                self.promise(
                    living.is_none() && self.reaped == Some(pid),
                    "a leftover_group is what the last run left",
                );
                self.promise(!self.job.single_child, "under --single-child the group is left alone");
                self.judge_signal_to_rest(event, signal);
                return self.rest_feels(signal);
            }
        }
        let stop_signal = self.job.stop_signal;
        match event {
            Event::Signal { signal: received, sender } => {
                self.promise(
                    *sender != Sender::Kernel
                        || !matches!(*received, Signal::PIPE | Signal::TTIN | Signal::SEGV),
                    "what the kernel raised for kapo itself is not passed on",
                );
                self.promise(
                    self.rewritten(*received) == Some(signal),
                    "a signal is passed on as it was asked",
                );
            }
            Event::SiblingStopped { signal: felt, foreground_owner } => self.promise(
                *foreground_owner == ForegroundOwner::Other && self.rewritten(*felt) == Some(signal),
                "the command is stopped with the job",
            ),
            Event::Spawned { .. } => {
                self.promise(self.asked || self.early, "nobody is signalled at birth for nothing")
            }
            Event::FoundStopped => self.promise(
                signal == Signal::CONT && self.child.as_ref().is_some_and(|child| child.behaviour.stopped),
                "who is stopped is continued, nobody else",
            ),
            Event::Notified(told) => self.promise(told.trigger, "words kill only where they ask for it"),
            Event::Deadline if self.stop.is_none() => self.judge_our_own_stop(),
            Event::Deadline if signal == Signal::KILL => {
                let due = self.kill_due();
                self.promise(due.is_some_and(|due| self.now >= due), "no SIGKILL comes before its time");
            }
            Event::Deadline => {
                self.promise(signal == stop_signal || signal == Signal::CONT, "one stop is enough")
            }
            Event::Start
            | Event::SpawnFailed { .. }
            | Event::Exited(_)
            | Event::Stopped { .. }
            | Event::Drained { .. }
            | Event::GroupCounted { .. }
            | Event::OrphansReaped
            | Event::KillFailed { .. }
            | Event::Resumed
            | Event::Asked
            | Event::Closed => self.broken("a signal for no reason"),
        }
        if let (Signal::KILL, Some(stop)) = (signal, &mut self.stop) {
            stop.killed |= stop.at < self.now || stop.why == StopCause::Outside;
        }
        if let (Signal::KILL, SignalTarget::Group(_), Some(child)) = (signal, to, &mut self.child) {
            child.group_killed = true;
        }
        if self.child.as_ref().is_some_and(|child| child.behaviour.unreachable) {
            queue.push_back(Event::KillFailed { signal, reason: "for a reason".to_owned() });
        } else {
            self.feel(signal);
        }
    }

    fn count_group(&mut self, group: Pid, exactly: bool, queue: &mut VecDeque<Event>) {
        self.promise(self.reaped == Some(group) && self.child.is_none(), "the last run's group is counted");
        self.promise(!self.job.single_child, "under --single-child the group is left alone");
        let first = self.awaited.is_none_or(|watch| watch.look.is_none() && !watch.killed);
        self.promise(exactly == first, "only the first count is logged");
        if self.awaited.is_none() {
            self.promise(self.restart().is_some(), "what run leaves behind on purpose is left alone");
            self.awaited = Some(Watch::default());
        }
        let members = match &self.rest {
            Some(rest) if rest.lives(self.now) => rest.leaves.members,
            _ => Some(0),
        };
        queue.push_back(Event::GroupCounted { members });
    }

    /// What the rest of a group gets, and when.
    fn judge_signal_to_rest(&mut self, event: &Event, signal: Signal) {
        let stopped = self.stop.is_some();
        let allowed = match (event, signal) {
            (Event::Deadline, Signal::KILL) => self.awaited.is_some_and(|watch| watch.killed),
            (Event::Signal { .. }, Signal::KILL) => self.insisted,
            (Event::GroupCounted { .. }, Signal::TERM | Signal::CONT) => !stopped && self.restart().is_some(),
            (Event::Exited(_), Signal::TERM) => !stopped && self.job.setsid && self.restart().is_none(),
            _ => false,
        };
        self.promise(allowed, "the rest of a group is signalled when it is due");
        if let (Signal::TERM, Some(watch)) = (signal, &mut self.awaited) {
            let first = !std::mem::replace(&mut watch.termed, true);
            self.promise(first, "the rest of a group is asked to end once");
        }
    }

    fn rest_feels(&mut self, signal: Signal) {
        let Some(rest) = &mut self.rest else { return };
        let after = match signal {
            Signal::KILL if !rest.leaves.stuck => Some(Duration::ZERO),
            Signal::TERM => rest.leaves.ends_after,
            _ => None,
        };
        let end = after.map(|after| self.now + after);
        rest.ends = [rest.ends, end].into_iter().flatten().min();
    }

    /// What the child does about a signal.
    fn feel(&mut self, signal: Signal) {
        let harmless = [Signal::CHLD, Signal::CONT, Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let Some(child) = &mut self.child else { return };
        if child.behaviour.stopped && signal != Signal::KILL {
            if signal != Signal::CONT {
                return child.pending.push(signal);
            }
            child.behaviour.stopped = false;
            let pending = std::mem::take(&mut child.pending);
            return pending.into_iter().for_each(|signal| self.feel(signal));
        }
        let (after, exit) = if signal == Signal::KILL {
            (Duration::ZERO, None)
        } else if child.behaviour.deaf || harmless.contains(&signal) || signal == Signal::WINCH {
            return;
        } else {
            (child.behaviour.dies_after, child.behaviour.answer)
        };
        let end = (self.now + after, exit.unwrap_or(Exit::Signal { signal, core_dumped: false }));
        if child.ends.is_none_or(|(at, _)| end.0 < at) {
            child.ends = Some(end);
        }
    }

    fn rewritten(&self, signal: Signal) -> Option<Signal> {
        let rule = self.job.rewrite_signal.iter().rev().find(|(from, _)| *from == signal);
        let signal = rule.map_or(Some(signal), |(_, to)| *to)?;
        let stops = matches!(signal, Signal::TSTP | Signal::TTIN | Signal::TTOU);
        Some(if stops && self.job.setsid { Signal::STOP } else { signal })
    }

    /// The machine begins a stop: its TTL has passed or a ping is missing.
    fn judge_our_own_stop(&mut self) {
        let why = if self.ttl_due().is_some_and(|due| self.now >= due) {
            StopCause::Ttl
        } else if self.watch.is_some_and(|due| self.now >= due) {
            StopCause::Watchdog
        } else {
            self.broken("nobody is stopped before the time")
        };
        self.stop = Some(Stop { at: self.now, why, killed: false });
    }

    fn ttl_due(&self) -> Option<Duration> {
        let child = self.child.as_ref()?;
        self.life.status().ttl.and_then(|ttl| child.since.checked_add(ttl))
    }

    fn kill_due(&self) -> Option<Duration> {
        let stop = self.stop?;
        let patience = match stop.why {
            StopCause::Outside => self.job.kill_after?,
            StopCause::Ttl | StopCause::Watchdog => self.job.kill_after.unwrap_or(KILL_AFTER),
        };
        if patience.is_zero() || stop.killed { None } else { stop.at.checked_add(patience) }
    }

    /// Until when it is flapping, worked out from all that failed.
    fn flapping_until(&self) -> Option<Duration> {
        let restart = self.restart()?;
        let tolerated = usize::try_from(restart.max_restarts.unwrap_or(3).min(3)).ok()?;
        let first = self.failures.len().checked_sub(tolerated + 1)?;
        self.failures.get(first)?.checked_add(restart.within).filter(|until| self.now < *until)
    }

    fn is_pausing(&self) -> bool {
        let busy = self.child.is_some() || self.closing.is_some();
        let over = self.finishing || self.clearing || self.exited.is_some();
        self.restart().is_some() && self.starts > 0 && !busy && !over
    }

    /// The next moment at which something is to be done.
    fn owed(&self) -> Option<Duration> {
        if self.closing.is_some() || self.exited.is_some() {
            return None;
        }
        let run = match (&self.child, self.stop) {
            (Some(_), None) => {
                let stable = self.stable_at().filter(|_| self.life.status().flapping);
                [self.ttl_due(), self.watch, stable]
            }
            (Some(_), Some(_)) => [self.kill_due(), None, None],
            (None, _) => [None; 3],
        };
        let start = self.life.status().next_start.and_then(|at| at.duration_since(self.epoch.wall).ok());
        let linger = match self.job.after {
            After::Once(Linger::Fixed(time) | Linger::Idle(time)) => {
                self.lingering.and_then(|since| since.checked_add(time))
            }
            After::Again(_) => None,
        };
        let group = self.awaited.map_or([None; 2], |watch| [watch.due, watch.look.map(|(at, _)| at)]);
        run.into_iter().chain(group).chain([start, linger, self.flapping_until()]).flatten().min()
    }

    /// The promises that are about a state and not about an effect.
    fn check(&self, event: &Event) {
        let status = self.life.status();
        let pid = self.child.as_ref().map(|child| child.pid);
        let next = self.life.deadline();
        if *event == Event::Deadline {
            self.promise(
                next.is_none_or(|at| at > self.instant(self.now)),
                "nothing is overdue after a deadline",
            );
        }
        if self.exited.is_none() {
            let owed = self.owed();
            let overdue = next.is_some_and(|at| at <= self.instant(self.now));
            if !overdue {
                self.promise(
                    next == owed.map(|at| self.instant(at)),
                    "kapo wakes when something is due, only then",
                );
                let flapping = self.closing.is_some() || status.flapping == self.flapping_until().is_some();
                self.promise(flapping, "flapping begins and ends with the failures in the window");
            }
        }
        self.promise(self.life.pid() == pid, "there is a pid to wait for as long as there is a process");
        self.promise(status.pid == pid, "the document shows the pid");
        self.promise(
            (status.state == Shown::Running) == pid.is_some(),
            "it is shown as running while it runs",
        );
        let ready = pid.is_some() && self.stop.is_none() && (self.said_ready || !self.job.notify);
        self.promise(
            status.ready == ready,
            "it is ready while it runs, has said so and is not being stopped",
        );
        if pid.is_some() {
            let quiet = status.exit_code == 0 && status.reason.is_none() && status.signal.is_none();
            self.promise(quiet, "a running command has not ended in any way");
            let (due, expires) = (self.ttl_due().map(|at| self.epoch.wall + at), status.expires_at);
            self.promise(expires == due, "ExpiresAt is when the TTL passes");
            let drawn = match self.job.ttl {
                Some(Ttl { min, max }) => status.ttl.is_some_and(|ttl| (min..=max).contains(&ttl)),
                None => status.ttl.is_none(),
            };
            self.promise(drawn, "the TTL is in its range");
        } else {
            self.promise(status.expires_at.is_none(), "what has ended does not expire");
        }
        let ended = self.last_end.is_some();
        self.promise(status.end_time.is_some() == ended, "EndTime is set after the first end");
        self.promise(
            self.life.ended_with().is_some()
                == (pid.is_none() && (ended || self.closing.is_some() || self.exited.is_some())),
            "an end is told while it lasts",
        );
        self.promise(status.reason.is_none() != (pid.is_none() && ended), "an end has its reason");
        self.promise(status.next_start.is_some() == self.is_pausing(), "NextStart is shown while pausing");
        if let (Some(restart), Some(at)) = (self.restart(), status.next_start) {
            let pause = at.duration_since(self.epoch.wall + self.now).unwrap_or_default();
            let cap = restart.backoff_max.unwrap_or_default().max(restart.wait);
            let failed_start = status.reason == Some(Reason::ExecFailed);
            let cap = if failed_start { cap.max(Duration::from_secs(1)) } else { cap };
            self.promise(pause <= cap, "no pause is longer than the cap");
        }
        self.promise(self.life.starts() == self.starts, "starts are counted");
        self.promise(
            status.restarts == self.starts.saturating_sub(1),
            "restarts are the starts after the first",
        );
        let asked = status.stop_signal_from.is_some();
        self.promise(asked == self.asked || self.exited.is_some(), "who asked us to stop is known");
        let waits = self.draining.is_some() || self.awaited.is_some();
        let idle = self.begun && pid.is_none() && !waits;
        let leaves = self.closing.is_some() || self.exited.is_some();
        self.promise(!((self.asked || self.meant) && idle) || leaves, "asked to leave, it leaves");
        self.promise(
            !(self.clearing || self.finishing) || waits || leaves,
            "nothing is waited for without need",
        );
    }

    #[track_caller]
    fn promise(&self, kept: bool, what: &str) {
        if !kept {
            self.broken(what);
        }
    }

    #[track_caller]
    fn broken(&self, what: &str) -> ! {
        let first = self.history.len().saturating_sub(20);
        let story: String = self
            .history
            .iter()
            .skip(first)
            .map(|(at, effect)| format!("\n  {at:?} {}", shown(effect)))
            .collect();
        panic!(
            "broken promise: {what}\nseed {} at {:?}, deadline {:?}, owed {:?}\n{:?}\n{:?}{story}",
            self.context.seed,
            self.now,
            self.life.deadline().map(|at| at.saturating_duration_since(self.epoch.mono)),
            self.owed(),
            self.job,
            self.life,
        );
    }
}

/// An effect for people: bytes as text.
fn shown(effect: &Effect) -> String {
    let mut line = Vec::new();
    match effect {
        Effect::Log(record) => record.render(std::time::SystemTime::UNIX_EPOCH, &mut line),
        Effect::Notify(bytes) | Effect::TerminationLog(bytes) => line.clone_from(bytes),
        other => return format!("{other:?}"),
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// One whole life, of options and accidents that `pick` chooses: `pick(n)` gives 0 to n - 1.
pub fn any_life(epoch: Now, seed: u64, pick: &mut dyn FnMut(u64) -> u64) {
    let job = any_job(pick);
    let context = JobContext {
        hide_args: false,
        sidebind_port: 0,
        manager: pick(2) == 0,
        ignored_at_start: IgnoredAtStart { hang_up: pick(2) == 0, interrupt: pick(2) == 0 },
        piped: pick(2) == 0,
        is_init: pick(4) == 0,
        seed,
    };
    let mut world = World::new(epoch, job, context);
    world.behaviour = any_behaviour(pick);
    if pick(30) == 0 {
        world.signal(Signal::TERM);
    }
    world.start();
    for _ in 0..pick(40) {
        world.behaviour = any_behaviour(pick);
        world.closes_after = any_time(pick);
        match pick(18) {
            0..=6 => world.run_for(any_time(pick)),
            7 => world.oversleep(any_time(pick)),
            8 => {
                if let Some(signal) = any_signal(pick) {
                    world.signal(signal);
                }
            }
            9 => {
                if let Some(signal) = any_signal(pick) {
                    world.kernel(signal);
                }
            }
            10..=12 => world.told(any_words(pick)),
            13 => world.happen(Event::Asked),
            14 => world.happen(Event::Stopped { signal: Signal::TSTP }),
            16 => world.happen(Event::Resumed),
            15 => {
                let signal = if pick(2) == 0 { Signal::TTIN } else { Signal::TTOU };
                let foreground_owner = match pick(3) {
                    0 => ForegroundOwner::Own,
                    1 => ForegroundOwner::Command,
                    _ => ForegroundOwner::Other,
                };
                world.happen(Event::SiblingStopped { signal, foreground_owner });
            }
            _ => world.happen(Event::Deadline),
        }
    }
    world.leave();
}

fn any_time(pick: &mut dyn FnMut(u64) -> u64) -> Duration {
    let most = [1, 50, 1_000, 10_000, 100_000].get(usize::try_from(pick(5)).unwrap_or(0)).copied();
    Duration::from_millis(pick(most.unwrap_or(1)))
}

fn any_signal(pick: &mut dyn FnMut(u64) -> u64) -> Option<Signal> {
    let number = i32::try_from(pick(64)).ok()? + 1;
    let unseen = [Signal::KILL, Signal::STOP, Signal::CHLD];
    // Half of them those that mean something to us.
    let telling =
        [Signal::TERM, Signal::INT, Signal::HUP, Signal::CONT, Signal::TSTP, Signal::TTIN, Signal::QUIT];
    let which = usize::try_from(pick(14)).ok()?;
    telling.get(which).copied().or_else(|| Signal::new(number).filter(|signal| !unseen.contains(signal)))
}

/// Signals that `--stop-on` takes.
fn any_stop_signals(pick: &mut dyn FnMut(u64) -> u64) -> Vec<Signal> {
    let uses = [Signal::CONT, Signal::TSTP, Signal::TTIN, Signal::TTOU];
    (0..3)
        .filter_map(|_| any_signal(pick))
        .filter(|signal| !uses.contains(signal))
        .chain([Signal::TERM])
        .collect()
}

fn any_words(pick: &mut dyn FnMut(u64) -> u64) -> &'static [u8] {
    let words: [&[u8]; 10] = [
        b"READY=1",
        b"READY=1\nSTATUS=up",
        b"WATCHDOG=1",
        b"WATCHDOG=1\nSTATUS=busy",
        b"RELOADING=1\nMONOTONIC_USEC=1",
        b"STOPPING=1",
        b"WATCHDOG=trigger",
        b"WATCHDOG_USEC=3000000",
        b"WATCHDOG_USEC=0",
        b"ERRNO=5",
    ];
    usize::try_from(pick(10)).ok().and_then(|which| words.get(which)).copied().unwrap_or_default()
}

fn any_exit(pick: &mut dyn FnMut(u64) -> u64) -> Exit {
    match pick(4) {
        0 => Exit::Code(0),
        1 => Exit::Signal { signal: any_signal(pick).unwrap_or(Signal::SEGV), core_dumped: pick(2) == 0 },
        _ => Exit::Code(u8::try_from(pick(256)).unwrap_or(1)),
    }
}

/// Long enough that a life without a pause is not all starts.
fn any_lasting_time(pick: &mut dyn FnMut(u64) -> u64) -> Duration {
    Duration::from_millis(200) + any_time(pick)
}

fn any_behaviour(pick: &mut dyn FnMut(u64) -> u64) -> Behaviour {
    Behaviour {
        start: match pick(24) {
            0 => Err(SpawnErrorKind::NotFound),
            1 => Err(SpawnErrorKind::NotExecutable),
            2 => Err(SpawnErrorKind::Before),
            _ => Ok(()),
        },
        on_terminal: pick(3) == 0,
        hung_up: pick(3) == 0,
        lasts: (pick(3) > 0).then(|| any_lasting_time(pick)),
        exit: any_exit(pick),
        deaf: pick(4) == 0,
        stopped: pick(6) == 0,
        unreachable: pick(8) == 0,
        answer: (pick(3) == 0).then(|| any_exit(pick)),
        dies_after: any_time(pick),
        drains_after: any_time(pick),
        last_output: vec!["x".repeat(usize::try_from(pick(600)).unwrap_or(0)); 10],
        oom_killed: pick(5) == 0,
        leaves: (pick(3) == 0).then(|| Leaves {
            ends_after: (pick(3) > 0).then(|| any_time(pick)),
            stuck: pick(8) == 0,
            is_child: pick(2) == 0,
            members: (pick(3) > 0).then(|| 1 + usize::try_from(pick(3)).unwrap_or(0)),
        }),
    }
}

fn any_job(pick: &mut dyn FnMut(u64) -> u64) -> Job {
    let after = match pick(4) {
        0 => After::Once(Linger::Fixed(any_time(pick))),
        1 => After::Once(Linger::Idle(any_time(pick))),
        _ => After::Again(Restart {
            wait: any_time(pick),
            backoff_max: (pick(2) == 0).then(|| any_time(pick)),
            stable: any_time(pick),
            max_restarts: (pick(3) == 0).then(|| u32::try_from(1 + pick(5)).unwrap_or(1)),
            within: any_time(pick),
            on_failure_only: pick(4) == 0,
        }),
    };
    let min = any_lasting_time(pick);
    Job {
        command: "command".into(),
        arguments: Vec::new(),
        ttl: (pick(2) == 0).then(|| Ttl { min, max: min + any_time(pick) }),
        stop_signal: any_signal(pick).unwrap_or(Signal::TERM),
        stop_on: match pick(2) {
            0 => STOP_ON.to_vec(),
            _ => any_stop_signals(pick),
        },
        kill_after: (pick(2) == 0).then(|| any_time(pick)),
        single_child: pick(4) == 0,
        setsid: pick(3) == 0,
        rewrite_signal: (0..pick(3)).filter_map(|_| Some((any_signal(pick)?, any_signal(pick)))).collect(),
        success_exit: (0..pick(3))
            .filter_map(|_| match pick(3) {
                0 => Some(Success::Ttl),
                _ => any_signal(pick).map(Success::Signal),
            })
            .collect(),
        parent_death_signal: None,
        orphan_signal: None,
        termination_log: (pick(2) == 0).then(|| "/dev/termination-log".into()),
        notify: pick(2) == 0,
        watchdog: (pick(2) == 0).then(|| any_lasting_time(pick)),
        after,
    }
}
