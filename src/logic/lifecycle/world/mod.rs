//! Simulates everything around one lifecycle: a clock, children with a given behaviour, and the invariants that must
//! hold after each step. The invariants are computed from the options and events, and the state machine is not asked
//! for them. Unit tests and the fuzz target use this simulation.

mod child;
mod effects;
mod events;
mod generators;
mod invariants;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Effect, End, Event, JobContext, Lifecycle};
use crate::config::JobOptions;
use crate::logic::{Exit, Now, ProcessId, Sender, Usage};
use crate::signal::Signal;

use child::{Before, Child, Rest, Stop, StopCause, Watch};
pub use child::{Behaviour, Leaves};
pub use generators::any_life;

/// Another process that may signal kapo.
pub const OTHER_PROCESS: Sender = Sender::Process { pid: 7, uid: 1000 };

/// What happens next in the simulation.
enum Occurrence {
    End(Exit),
    RestGone,
    Drained,
    Closed,
    Deadline,
}

/// The simulation of one lifecycle and its surroundings.
pub struct World {
    /// The lifecycle under test.
    pub life: Lifecycle,
    /// The behaviour of the children that are started from now on.
    pub behaviour: Behaviour,
    /// How long the connected clients take to get their answers at the end.
    pub closes_after: Duration,
    /// All effects so far with their times. A test may clear it.
    pub history: Vec<(Duration, Effect)>,
    job: JobOptions,
    context: JobContext,
    epoch: Now,
    now: Duration,
    child: Option<Child>,
    /// The pid of the last child that was reaped.
    reaped: Option<ProcessId>,
    begun: bool,
    /// A signal arrived before the first start.
    signalled_before_start: bool,
    /// When the drain of a run's output ends, and the number of the run.
    draining: Option<(Duration, u64)>,
    rest: Option<Rest>,
    /// The group that kapo waits for.
    awaited: Option<Watch>,
    /// The pause is over, and the next start waits for the remains of the last run.
    clearing: bool,
    /// kapo waits for the remains of the last run before it closes.
    finishing: bool,
    /// A second stop signal has arrived.
    stopped_again: bool,
    /// KILL did not end the rest of the group.
    gave_up: bool,
    /// The number of runs whose output was still being read when the next run ended.
    superseded: u64,
    closing: Option<Duration>,
    exited: Option<u8>,
    starts: u64,
    termination_messages: u64,
    /// The ends in the log, including those that it only counts.
    logged_ends: u64,
    /// The start of the present run is not in the log yet.
    start_kept: bool,
    asked: bool,
    /// The first stop signal and its sender.
    asked_by: Option<(Signal, Sender)>,
    /// A signal of the terminal ended the command and was also meant for kapo.
    interrupted: bool,
    /// The signal by which kapo must die when it ends now.
    dies_by: Option<(Signal, bool)>,
    stop: Option<Stop>,
    /// A drain or a dump, and when it ends.
    before_stop: Option<(Duration, Before)>,
    /// The signal that is passed on after the drain.
    passed_on: Option<Signal>,
    /// When and why the machine has begun to stop the present run by its own decision.
    left_running: Option<(Duration, StopCause)>,
    /// The last run ended during its dump.
    dumped: bool,
    /// When the silence of the output is checked next, and the last output.
    silence: Option<Duration>,
    output_seen: Option<Duration>,
    /// When the last run ended, and whether its start had failed.
    last_end: Option<(Duration, bool)>,
    expected_code: u8,
    failures: Vec<Duration>,
    /// The times of the ends that count against `--max-restarts`.
    restarts: Vec<Duration>,
    /// The bounds of the random moment that the machine has chosen: the end of the TTL or of the pause.
    random_deadline: Option<(Duration, Duration)>,
    /// The cause of the present stop, from the log record.
    logged_cause: Option<StopCause>,
    /// The last event that began the linger period.
    lingering: Option<Duration>,
    /// Siblings may want the terminal.
    shared: bool,
    command_ready: bool,
    /// When the next ping is due at the latest.
    watch: Option<Duration>,
    interval: Option<Duration>,
    ready_reports_allowed: u64,
    stopping_reported: bool,
}

impl World {
    /// Creates a simulation before its first event. Call [`World::start`] first.
    pub fn new(epoch: Now, job: JobOptions, context: JobContext) -> World {
        let shared = context.piped || context.ignored_at_start.interrupt;
        World {
            life: Lifecycle::new(Rc::new(job.clone()), context.clone()),
            behaviour: Behaviour::until_signalled(),
            closes_after: Duration::ZERO,
            history: Vec::new(),
            job,
            context,
            epoch,
            now: Duration::ZERO,
            child: None,
            reaped: None,
            begun: false,
            signalled_before_start: false,
            draining: None,
            rest: None,
            awaited: None,
            clearing: false,
            finishing: false,
            stopped_again: false,
            gave_up: false,
            superseded: 0,
            closing: None,
            exited: None,
            starts: 0,
            termination_messages: 0,
            logged_ends: 0,
            start_kept: false,
            asked: false,
            asked_by: None,
            interrupted: false,
            dies_by: None,
            stop: None,
            before_stop: None,
            passed_on: None,
            left_running: None,
            dumped: false,
            silence: None,
            output_seen: None,
            last_end: None,
            expected_code: 0,
            failures: Vec::new(),
            restarts: Vec::new(),
            random_deadline: None,
            logged_cause: None,
            lingering: None,
            shared,
            command_ready: false,
            watch: None,
            interval: None,
            ready_reports_allowed: 1,
            stopping_reported: false,
        }
    }

    /// Starts the event loop.
    pub fn start(&mut self) {
        self.handle(Event::Start);
    }

    /// Returns the simulated time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Returns kapo's exit code, if it has exited.
    pub fn exited(&self) -> Option<u8> {
        self.exited
    }

    /// Returns the effects since the last call.
    pub fn effects(&mut self) -> Vec<Effect> {
        self.history.drain(..).map(|(_, effect)| effect).collect()
    }

    /// Sends a signal from a process.
    pub fn signal(&mut self, signal: Signal) {
        self.handle(Event::Signal { signal, sender: OTHER_PROCESS });
    }

    /// Sends a signal from the kernel.
    pub fn kernel(&mut self, signal: Signal) {
        self.handle(Event::Signal { signal, sender: Sender::Kernel });
    }

    /// Sends a datagram from the command.
    pub fn datagram(&mut self, datagram: &[u8]) {
        self.handle(Event::Notified(crate::logic::notify::message::read(datagram)));
    }

    /// Lets the command print something.
    pub fn print(&mut self) {
        if self.child.is_some() {
            let at = self.instant(self.now);
            self.output_seen = Some(self.now);
            self.life.set_output_seen(at);
        }
    }

    /// Reports that the probes of the present run have failed.
    pub fn fail_probes(&mut self, run: u64) {
        self.handle(Event::Unhealthy { run, reason: "probe".to_owned() });
    }

    /// Kills the command without kapo's help.
    pub fn kill_command(&mut self) {
        if let Some(child) = &mut self.child {
            child.ends = Some((self.now, Exit::Signal { signal: Signal::KILL, core_dumped: false }));
        }
    }

    /// Advances the time while kapo does not run, so that deadlines come late.
    pub fn freeze(&mut self, time: Duration) {
        self.now += time;
    }

    /// Advances the time, and processes everything when it is due.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, what)) = self.next().filter(|(at, _)| *at <= until) {
            self.occur(at, what);
        }
        self.now = self.now.max(until);
    }

    /// Runs until kapo exits. Returns its exit code.
    pub fn run_to_the_end(&mut self) -> u8 {
        loop {
            match (self.exited, self.next()) {
                (Some(code), _) => return code,
                (None, Some((at, what))) => self.occur(at, what),
                (None, None) => self.violated("no event is left and kapo has not exited"),
            }
        }
    }

    /// Stops kapo with a stop signal, kills a command that ignores it, and returns the exit code.
    pub fn leave(&mut self) -> u8 {
        if self.exited.is_none() {
            self.signal(Signal::TERM);
        }
        self.kill_command();
        // With `--kill-after 0` kapo waits for the rest of the group until a second stop signal.
        if self.job.kill_after == Some(Duration::ZERO) {
            self.run_for(Duration::ZERO);
            if self.exited.is_none() {
                self.signal(Signal::TERM);
            }
        }
        self.run_to_the_end()
    }

    /// Handles an event now.
    pub fn handle(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            self.observe(&event);
            let at = Now { mono: self.instant(self.now), wall: self.epoch.wall + self.now };
            let mut out = Vec::new();
            self.life.handle(at, event.clone(), &mut out);
            self.logged_cause = out.iter().find_map(effects::cause_of_stop);
            if event == Event::Deadline && out.iter().any(effects::begins_drain) {
                self.observe_drain_of_ttl();
            }
            for effect in out {
                self.history.push((self.now, effect.clone()));
                self.perform(&event, effect, &mut queue);
            }
            if event == Event::Deadline {
                self.observe_stable();
                self.observe_start();
            }
            if queue.is_empty() {
                self.check(&event);
            }
        }
        // The driver renders the document once in each turn.
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
                self.handle(Event::Exited(End {
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
                    self.handle(Event::OrphansReaped);
                }
            }
            Occurrence::Drained => {
                let last_output = self.behaviour.last_output.clone();
                let (_, run) = self.draining.unwrap_or_default();
                self.handle(Event::Drained { run, last_output });
            }
            Occurrence::Closed => {
                self.closing = None;
                self.handle(Event::Closed);
            }
            Occurrence::Deadline => self.handle(Event::Deadline),
        }
    }
}
