//! Updates the model of the simulation from events, without asking the state machine.

use std::time::Duration;

use super::World;
use super::child::{Before, Child, Rest, Stop, StopCause, Watch};
use crate::config::{After, KILL_AFTER, Linger, Restart, Success, Ttl};
use crate::logic::lifecycle::{End, Event, ForegroundOwner, SpawnErrorKind};
use crate::logic::notify::message::Notification;
use crate::logic::{Exit, Sender};
use crate::signal::Signal;

/// The pause before the second count of a group.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

impl World {
    /// Updates the model from an event.
    pub(super) fn observe(&mut self, event: &Event) {
        match event {
            Event::Start => self.begun = true,
            Event::Signal { signal, sender } => self.observe_signal(*signal, *sender),
            Event::Spawned { .. } => self.observe_spawned(),
            Event::SpawnFailed { kind, .. } => self.observe_failed_start(*kind),
            Event::Exited(end) => self.observe_end(end),
            Event::Drained { run, .. } => drop(self.draining.take_if(|(_, reading)| reading == run)),
            Event::GroupCounted { members } => self.observe_count(*members),
            Event::RequestAnswered => {
                if matches!(self.job.after, After::Once(Linger::Idle(_))) && self.lingering.is_some() {
                    self.lingering = Some(self.now);
                }
            }
            Event::Notified(notification) => self.observe_notification(notification),
            Event::Resumed => self.restart_watchdog(),
            Event::SiblingStopped { foreground_owner, .. } => {
                self.shared |= *foreground_owner != ForegroundOwner::Other
            }
            Event::Deadline => self.observe_deadlines(),
            Event::Unhealthy { run, .. } => {
                if self.is_running() && *run == self.starts {
                    self.begin_own_stop(StopCause::Unhealthy);
                }
            }
            Event::OrphansReaped
            | Event::KillFailed { .. }
            | Event::FoundStopped
            | Event::Stopped { .. }
            | Event::Closed => {}
        }
    }

    fn observe_signal(&mut self, signal: Signal, sender: Sender) {
        self.signalled_before_start |= !self.begun;
        if self.is_stop_signal(signal, sender) {
            self.observe_stop_signal(signal, sender);
        }
        if signal == Signal::CONT {
            self.restart_watchdog();
        }
    }

    fn is_stop_signal(&self, signal: Signal, sender: Sender) -> bool {
        let listed = self.job.stop_on.contains(signal);
        let ignored = self.context.ignored_at_start;
        match signal {
            Signal::KILL => true,
            Signal::TERM => listed,
            Signal::INT | Signal::QUIT => listed && !(sender == Sender::Kernel && ignored.interrupt),
            Signal::HUP if sender == Sender::Kernel => !ignored.hang_up,
            _ => listed && sender != Sender::Kernel,
        }
    }

    fn observe_stop_signal(&mut self, signal: Signal, sender: Sender) {
        let again = self.asked_by.is_some();
        let typed = sender == Sender::Kernel && matches!(signal, Signal::INT | Signal::QUIT);
        let between_runs = self.is_pausing() || self.clearing;
        if between_runs || !self.begun {
            self.dies_by = (typed && !self.context.is_init).then_some((signal, false));
            if typed && between_runs {
                self.expected_code = 128 + signal.number();
            }
        }
        self.asked = true;
        self.asked_by.get_or_insert((signal, sender));
        if self.child.is_some() && self.stop.is_none() {
            let drains = !self.job.drain.is_zero()
                && !matches!(signal, Signal::INT | Signal::QUIT)
                && sender != Sender::Kernel;
            match self.before_stop {
                None if drains => {
                    let over = self.now + self.job.drain;
                    self.before_stop = Some((over, Before::Drain(StopCause::Outside)));
                    self.passed_on = Some(signal);
                }
                None => self.begin_stop(StopCause::Outside),
                Some((_, Before::Drain(StopCause::Ttl))) if !again && drains => {}
                Some((_, Before::Drain(why) | Before::Dump(why))) => self.begin_stop(why),
            }
        }
        if self.child.is_none() && self.begun {
            self.stopped_again |= self.finishing && again;
            (self.finishing, self.clearing, self.lingering) = (true, false, None);
        }
    }

    fn observe_spawned(&mut self) {
        self.command_ready = false;
        self.watch = None;
        self.interval = self.job.watchdog;
        self.stop = self.asked.then_some(Stop { at: self.now, why: StopCause::Outside, killed: false });
        (self.before_stop, self.passed_on, self.left_running) = (None, None, None);
        self.silence = self.job.silence.map(|silence| self.now + silence);
        self.output_seen = None;
        let moment = |ttl| self.now.checked_add(ttl);
        self.random_deadline = self.job.ttl.and_then(|Ttl { min, max }| moment(min).zip(moment(max)));
    }

    fn observe_failed_start(&mut self, kind: SpawnErrorKind) {
        self.expected_code = match kind {
            SpawnErrorKind::NotFound => 127,
            SpawnErrorKind::NotExecutable => 126,
            SpawnErrorKind::Setup => 125,
        };
        self.last_end = Some((self.now, true));
        self.stop = None;
        if !self.asked {
            self.failures.push(self.now);
        }
        self.superseded += u64::from(self.draining.take().is_some());
        self.observe_what_follows(false, false, Some(Exit::Code(self.expected_code)));
    }

    fn observe_end(&mut self, End { exit, on_terminal, hung_up, .. }: &End) {
        self.signalled_before_start = false;
        if *hung_up && !self.context.ignored_at_start.hang_up {
            self.asked = true;
            self.asked_by.get_or_insert((Signal::HUP, Sender::Kernel));
        }
        let dump = match self.before_stop.take() {
            Some((_, Before::Dump(why))) => Some(why),
            Some((_, Before::Drain(_))) | None => None,
        };
        self.dumped = dump.is_some();
        let why = self.stop.map(|stop| stop.why).or(dump);
        self.interrupted |= why.is_none() && *on_terminal && matches!(exit.code(), 130 | 131);
        self.expected_code = match why {
            Some(StopCause::Ttl) if self.job.success_exit.contains(&Success::Ttl) => 0,
            Some(StopCause::Ttl | StopCause::Silence) => 124,
            Some(StopCause::Watchdog | StopCause::Unhealthy) => exit.code().max(1),
            Some(StopCause::Outside) | None if self.is_success(*exit) => 0,
            Some(StopCause::Outside) | None => exit.code(),
        };
        self.dies_by = self.expected_death(*exit, why, *on_terminal);
        self.last_end = Some((self.now, false));
        if self.stable_at().is_some_and(|at| at <= self.now) {
            self.failures.clear();
        }
        let expired = why == Some(StopCause::Ttl);
        if !expired && self.expected_code != 0 && !self.asked && !self.interrupted {
            self.failures.push(self.now);
        }
        self.leave_group();
        self.observe_what_follows(self.expected_code == 0, expired, why.is_none().then_some(*exit));
    }

    /// Computes what follows a run: another run, lingering, or kapo's end.
    /// `by_itself` is an end that kapo did not cause.
    fn observe_what_follows(&mut self, success: bool, expired: bool, by_itself: Option<Exit>) {
        self.random_deadline = None;
        self.finishing = self.asked || self.interrupted;
        match self.job.after.clone() {
            After::Once(Linger::Fixed(time) | Linger::Idle(time)) => {
                let never_ran = self.last_end.is_some_and(|(_, never_ran)| never_ran);
                let lingers = !time.is_zero() && !never_ran && !self.finishing;
                self.lingering = lingers.then_some(self.now);
                self.finishing |= !lingers;
            }
            After::Again(restart) => {
                let is_final = by_itself.is_some_and(|exit| lists(&restart.no_restart_on, exit));
                let finished = is_final || (success && restart.on_failure_only);
                self.plan_start(&restart, finished, expired);
            }
        }
    }

    /// Computes the bounds of the pause from the options.
    fn plan_start(&mut self, restart: &Restart, finished: bool, expired: bool) {
        if let Some(limit) = restart.max_restarts.filter(|_| !finished && !expired) {
            let recent = |at: &&Duration| self.now - **at < restart.within;
            let restarts = self.restarts.iter().filter(recent).count();
            self.finishing |= u32::try_from(restarts).is_ok_and(|restarts| restarts >= limit);
            self.restarts.push(self.now);
        }
        self.finishing |= finished;
        if self.finishing {
            return;
        }
        let never_ran = self.last_end.is_some_and(|(_, never_ran)| never_ran);
        let least = if never_ran { restart.wait.max(Duration::from_secs(1)) } else { restart.wait };
        let most = restart.backoff_max.filter(|_| !expired).unwrap_or_default().max(least);
        self.random_deadline = self.now.checked_add(least).zip(self.now.checked_add(most));
    }

    /// Ends the command. The processes that it leaves behind have received the stop signal if the command has.
    pub(super) fn leave_group(&mut self) {
        self.gave_up = false;
        let Some(Child { pid, behaviour, group_killed, .. }) = self.child.take() else { return };
        self.reaped = Some(pid);
        self.rest = behaviour.leaves.filter(|_| !group_killed).map(|leaves| {
            let ends = leaves.ends_after.filter(|_| self.stop.is_some()).map(|after| self.now + after);
            Rest { leaves, ends }
        });
        if self.dumped && !self.job.single_child {
            self.awaited = Some(Watch::default());
        }
        if let Some(stop) = self.stop.filter(|_| !self.job.single_child) {
            let due = match group_killed {
                true => Some(self.now + Duration::from_secs(1)),
                false => self.patience().and_then(|patience| stop.at.checked_add(patience)),
            };
            self.awaited = Some(Watch { asked: true, killed: group_killed, due, ..Watch::default() });
        }
    }

    /// Returns how long kapo waits for the rest of a group; `None`: without limit.
    pub(super) fn patience(&self) -> Option<Duration> {
        Some(self.job.kill_after.unwrap_or(KILL_AFTER)).filter(|patience| !patience.is_zero())
    }

    pub(super) fn observe_count(&mut self, members: Option<usize>) {
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

    /// Returns when the run has lasted for `--stable`.
    pub(super) fn stable_at(&self) -> Option<Duration> {
        let stable = self.restart()?.stable;
        self.child.as_ref()?.since.checked_add(stable).filter(|_| !stable.is_zero())
    }

    /// Handles the deadlines that have passed.
    pub(super) fn observe_deadlines(&mut self) {
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
        if let (After::Once(Linger::Fixed(time) | Linger::Idle(time)), Some(since)) =
            (&self.job.after, self.lingering)
            && since.checked_add(*time).is_some_and(|due| due <= self.now)
        {
            (self.lingering, self.finishing) = (None, true);
        }
        // If kapo itself did not run, a late ping does not count as missed.
        let late = self.watch.and_then(|due| self.now.checked_sub(due));
        if let Some((late, interval)) = late.zip(self.interval)
            && late > (interval / 4).max(Duration::from_millis(100))
        {
            self.watch = self.now.checked_add(interval);
        }
        self.observe_silence();
        if let Some((_, before)) = self.before_stop.filter(|(over, _)| *over <= self.now) {
            match before {
                Before::Drain(StopCause::Outside) => self.begin_stop(StopCause::Outside),
                Before::Dump(why) => self.begin_stop(why),
                // The dump or the stop follows.
                Before::Drain(_) => {}
            }
        }
    }

    /// Handles the deadline of the silence, which is moved only when it has passed.
    fn observe_silence(&mut self) {
        let Some((due, interval)) = self.silence.zip(self.job.silence) else { return };
        let Some(late) = self.now.checked_sub(due) else { return };
        let seen = self.output_seen.map(|at| at + interval).filter(|due| *due > self.now);
        if late > (interval / 4).max(Duration::from_millis(100)) {
            self.silence = Some(self.now + interval);
        } else if seen.is_some() {
            self.silence = seen;
        }
    }

    /// Whether the command runs and nothing has begun to stop it.
    pub(super) fn is_running(&self) -> bool {
        self.child.is_some() && self.stop.is_none() && self.before_stop.is_none()
    }

    /// Begins a stop by kapo's own decision, after the dump if there is one.
    pub(super) fn begin_own_stop(&mut self, why: StopCause) {
        self.left_running.get_or_insert((self.now, why));
        match self.job.dump_signal {
            Some(_) => self.before_stop = Some((self.now + self.job.dump_wait, Before::Dump(why))),
            None => self.begin_stop(why),
        }
    }

    /// Begins the stop itself.
    pub(super) fn begin_stop(&mut self, why: StopCause) {
        self.before_stop = None;
        self.stop = Some(Stop { at: self.now, why, killed: false });
    }

    /// Handles the drain after the TTL. When that passes is random, so the model learns it from the machine.
    pub(super) fn observe_drain_of_ttl(&mut self) {
        let from = self.random_deadline.map(|(from, _)| from);
        let is_due = from.is_some_and(|at| at <= self.now);
        self.invariant(is_due && self.is_running(), "no command is drained before its TTL");
        self.invariant(!self.job.drain.is_zero(), "a drain needs --drain");
        self.left_running = Some((self.now, StopCause::Ttl));
        self.before_stop = Some((self.now + self.job.drain, Before::Drain(StopCause::Ttl)));
    }

    /// Handles a run that has lasted for `--stable`. At the same moment the TTL comes first, and a missed ping or the
    /// silence come later.
    pub(super) fn observe_stable(&mut self) {
        let later = [StopCause::Watchdog, StopCause::Silence].map(|why| Some((self.now, why)));
        let runs = self.is_running() || later.contains(&self.left_running);
        let is_due = self.stable_at().is_some_and(|at| at <= self.now);
        if runs && is_due && self.flapping_until().is_some() {
            self.failures.clear();
        }
    }

    /// Handles the end of the pause. If the bounds leave it open, the model follows the document.
    pub(super) fn observe_start(&mut self) {
        let Some((from, to)) = self.random_deadline.filter(|_| self.is_pausing()) else { return };
        self.clearing = to <= self.now || (from <= self.now && self.life.status().next_start.is_none());
    }

    /// Restarts the watchdog interval after a time in which neither kapo nor the command ran.
    pub(super) fn restart_watchdog(&mut self) {
        self.silence = self.job.silence.map(|silence| self.now + silence);
        if self.watch.is_some() {
            self.watch = self.interval.and_then(|interval| self.now.checked_add(interval));
        }
    }

    pub(super) fn observe_notification(&mut self, notification: &Notification) {
        if let (Some(main), Some(child)) = (notification.main_pid, &mut self.child) {
            child.pid = main;
        }
        if self.child.is_none() {
            return;
        }
        if let Some(interval) = notification.interval {
            self.interval = Some(interval).filter(|interval| !interval.is_zero());
        }
        if !self.is_running() {
            return;
        }
        if notification.reloading {
            self.ready_reports_allowed += 1;
        }
        if notification.reloading || notification.stopping {
            self.command_ready = false;
        }
        self.command_ready |= notification.ready;
        if notification.stopping && !notification.ready {
            self.watch = None;
        }
        let speaks = notification.ready
            || ((notification.ping || notification.interval.is_some()) && !notification.stopping);
        if speaks && (self.command_ready || self.watch.is_some()) {
            self.watch = self.interval.and_then(|interval| self.now.checked_add(interval));
        }
        if notification.trigger {
            self.begin_own_stop(StopCause::Watchdog);
        }
    }

    /// Expects kapo to die by the signal, so that a waiting shell sees the end by ^C.
    pub(super) fn expected_death(
        &self,
        exit: Exit,
        why: Option<StopCause>,
        on_terminal: bool,
    ) -> Option<(Signal, bool)> {
        let Exit::Signal { signal: signal @ (Signal::INT | Signal::QUIT), .. } = exit else { return None };
        let typed = matches!(self.asked_by, Some((Signal::INT | Signal::QUIT, Sender::Kernel)));
        if self.context.is_init || self.is_success(exit) {
            return None;
        }
        match why {
            None => on_terminal.then_some((signal, true)),
            Some(StopCause::Outside) => typed.then_some((signal, false)),
            Some(StopCause::Ttl | StopCause::Watchdog | StopCause::Silence | StopCause::Unhealthy) => None,
        }
    }

    pub(super) fn is_success(&self, exit: Exit) -> bool {
        exit == Exit::Code(0) || lists(&self.job.success_exit, exit)
    }

    pub(super) fn restart(&self) -> Option<&Restart> {
        match &self.job.after {
            After::Once(_) => None,
            After::Again(restart) => Some(restart),
        }
    }
}

fn lists(ends: &[Success], exit: Exit) -> bool {
    ends.iter().any(|end| match (end, exit) {
        (Success::Code(code), exit) => exit.code() == *code,
        (Success::Signal(wanted), Exit::Signal { signal, .. }) => signal == *wanted,
        (Success::Signal(_), Exit::Code(_)) | (Success::Ttl, _) => false,
    })
}
