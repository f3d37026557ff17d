//! A world on paper for one life: a clock that jumps, children that behave as they are told to, and the promises
//! that hold after every step. What the promises say is worked out here from the options and from what happened,
//! never asked of the machine. Unit tests and the fuzz target live in it.

mod child;
mod effects;
mod events;
mod generators;
mod promises;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Effect, End, Event, JobContext, Lifecycle};
use crate::config::Job;
use crate::logic::{Exit, Now, Pid, Sender, Usage};
use crate::signal::Signal;

pub use child::{Behaviour, Leaves};
use child::{Child, Rest, Stop, StopCause, Watch};
pub use generators::any_life;

/// A process of somebody who may signal us.
pub const SOMEBODY: Sender = Sender::Process { pid: 7, uid: 1000 };

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
    /// The ends that count against `--max-restarts`.
    restarts: Vec<Duration>,
    /// The bounds of the moment that the machine has drawn: the end of the TTL, or of the pause.
    drawn: Option<(Duration, Duration)>,
    /// What the log gives as the reason for the stop that begins now.
    logged_cause: Option<StopCause>,
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
            restarts: Vec::new(),
            drawn: None,
            logged_cause: None,
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
            self.logged_cause = out.iter().find_map(effects::cause_of_stop);
            for effect in out {
                self.history.push((self.now, effect.clone()));
                self.perform(&event, effect, &mut queue);
            }
            if event == Event::Deadline {
                self.take_in_stable();
                self.take_in_start();
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
                    memory: None,
                    on_terminal,
                    hung_up,
                }));
            }
            Occurrence::RestGone => {
                let is_child = self.rest.take().is_some_and(|rest| rest.leaves.is_child);
                if is_child && self.awaited.is_some() {
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
}
