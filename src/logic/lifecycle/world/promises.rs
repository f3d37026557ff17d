//! The promises that are about a state, and what is due, worked out from the options and from what happened.

use std::time::{Duration, SystemTime};

use super::World;
use super::child::{Stop, StopCause};
use crate::config::{After, KILL_AFTER, Linger, Ttl};
use crate::logic::lifecycle::{Effect, Event};
use crate::logic::status::State as Shown;

impl World {
    /// The machine begins a stop: its TTL has passed or a ping is missing.
    pub(super) fn judge_our_own_stop(&mut self) {
        let Some(why) = self.logged_cause else { self.broken("a stop of our own has its cause in the log") };
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= self.now);
        let (from, to) = self.drawn.unzip();
        match why {
            StopCause::Ttl => self.promise(is_due(from), "no command is stopped before its TTL"),
            StopCause::Watchdog => {
                self.promise(is_due(self.watch), "no command is stopped before its ping is due");
                self.promise(!is_due(to), "a TTL comes first");
            }
            StopCause::Outside => self.broken("kapo does not ask itself"),
        }
        self.stop = Some(Stop { at: self.now, why, killed: false });
    }

    pub(super) fn kill_due(&self) -> Option<Duration> {
        let stop = self.stop?;
        let patience = match stop.why {
            StopCause::Outside => self.job.kill_after?,
            StopCause::Ttl | StopCause::Watchdog => self.job.kill_after.unwrap_or(KILL_AFTER),
        };
        if patience.is_zero() || stop.killed { None } else { stop.at.checked_add(patience) }
    }

    /// Until when it is flapping, worked out from all that failed.
    pub(super) fn flapping_until(&self) -> Option<Duration> {
        let restart = self.restart()?;
        let tolerated = usize::try_from(restart.max_restarts.unwrap_or(3).min(3)).ok()?;
        let first = self.failures.len().checked_sub(tolerated + 1)?;
        self.failures.get(first)?.checked_add(restart.within).filter(|until| self.now < *until)
    }

    pub(super) fn is_pausing(&self) -> bool {
        let busy = self.child.is_some() || self.closing.is_some();
        let over = self.finishing || self.clearing || self.exited.is_some();
        self.restart().is_some() && self.starts > 0 && !busy && !over
    }

    /// The next moment at which something is to be done, apart from the one that was drawn.
    pub(super) fn owed(&self) -> Option<Duration> {
        if self.closing.is_some() || self.exited.is_some() {
            return None;
        }
        let run = match (&self.child, self.stop) {
            (Some(_), None) => [self.watch, self.stable_at().filter(|_| self.flapping_until().is_some())],
            (Some(_), Some(_)) => [self.kill_due(), None],
            (None, _) => [None; 2],
        };
        let linger = match self.job.after {
            After::Once(Linger::Fixed(time) | Linger::Idle(time)) => {
                self.lingering.and_then(|since| since.checked_add(time))
            }
            After::Again(_) => None,
        };
        let group = self.awaited.map_or([None; 2], |watch| [watch.due, watch.look.map(|(at, _)| at)]);
        run.into_iter().chain(group).chain([linger, self.flapping_until()]).flatten().min()
    }

    /// The drawn moment, while the machine waits for it.
    fn awaited_draw(&self) -> Option<(Duration, Duration)> {
        let runs = self.child.is_some() && self.stop.is_none();
        self.drawn.filter(|_| runs || self.is_pausing())
    }

    /// The promises that are about a state and not about an effect.
    pub(super) fn check(&mut self, event: &Event) {
        self.check_deadline(event);
        self.check_run();
        self.check_end();
        self.check_progress();
    }

    fn check_deadline(&mut self, event: &Event) {
        let next = self.life.deadline().map(|at| at.saturating_duration_since(self.epoch.mono));
        let overdue = next.is_some_and(|at| at <= self.now);
        self.promise(!overdue || *event != Event::Deadline, "nothing is overdue after a deadline");
        if self.exited.is_some() || overdue {
            return;
        }
        let owed = self.owed();
        match self.awaited_draw() {
            None => self.promise(next == owed, "kapo wakes when something is due, only then"),
            // It is something else that is due first: the drawn moment is not before that.
            Some((from, to)) if next.is_some() && next == owed => {
                let from = from.max(next.unwrap_or(from));
                self.promise(from <= to, "what was drawn is not forgotten");
                self.drawn = Some((from, to));
            }
            Some((from, to)) => {
                let first = next.filter(|at| owed.is_none_or(|owed| *at < owed));
                let drawn = first.filter(|at| (from..=to).contains(at));
                self.promise(drawn.is_some(), "kapo wakes at a moment that it may draw");
                self.drawn = drawn.map(|at| (at, at));
            }
        }
        let flapping = self.life.status().flapping == self.flapping_until().is_some();
        self.promise(
            flapping || self.closing.is_some(),
            "flapping begins and ends with the failures in the window",
        );
    }

    fn check_run(&self) {
        let status = self.life.status();
        let pid = self.child.as_ref().map(|child| child.pid);
        self.promise(self.life.pid() == pid, "there is a pid to wait for as long as there is a process");
        self.promise(status.pid == pid, "the document shows the pid");
        let running = status.state == Shown::Running;
        self.promise(running == pid.is_some(), "it is shown as running while it runs");
        let ready = pid.is_some() && self.stop.is_none() && (self.said_ready || !self.job.notify);
        self.promise(
            status.ready == ready,
            "it is ready while it runs, has said so and is not being stopped",
        );
        let Some(child) = &self.child else {
            return self.promise(status.expires_at.is_none(), "what has ended does not expire");
        };
        let quiet = status.exit_code == 0 && status.reason.is_none() && status.signal.is_none();
        self.promise(quiet, "a running command has not ended in any way");
        let drawn = match self.job.ttl {
            Some(Ttl { min, max }) => status.ttl.is_some_and(|ttl| (min..=max).contains(&ttl)),
            None => status.ttl.is_none(),
        };
        self.promise(drawn, "the TTL is in its range");
        let expires = status.ttl.map(|ttl| self.epoch.wall + child.since + ttl);
        self.promise(status.expires_at == expires, "ExpiresAt is when the TTL passes");
        self.promise(self.is_as_drawn(status.expires_at), "ExpiresAt is when kapo stops it");
    }

    /// Whether this moment of the document may be the one that was drawn.
    fn is_as_drawn(&self, shown: Option<SystemTime>) -> bool {
        let Some((from, to)) = self.awaited_draw() else { return true };
        shown.is_some_and(|at| (self.epoch.wall + from..=self.epoch.wall + to).contains(&at))
    }

    fn check_end(&self) {
        let status = self.life.status();
        let runs = self.child.is_some();
        let ended = self.last_end.is_some();
        self.promise(status.end_time.is_some() == ended, "EndTime is set after the first end");
        let lasting = !runs && (ended || self.closing.is_some() || self.exited.is_some());
        self.promise(self.life.ended_with().is_some() == lasting, "an end is told while it lasts");
        self.promise(status.reason.is_none() == (runs || !ended), "an end has its reason");
        self.promise(status.next_start.is_some() == self.is_pausing(), "NextStart is shown while pausing");
        if self.is_pausing() {
            self.promise(self.is_as_drawn(status.next_start), "NextStart is the end of the pause");
        }
    }

    fn check_progress(&self) {
        let status = self.life.status();
        self.promise(self.life.starts() == self.starts, "starts are counted");
        let restarts = self.starts.saturating_sub(1);
        self.promise(status.restarts == restarts, "restarts are the starts after the first");
        let asked = status.stop_signal_from.is_some();
        self.promise(asked == self.asked || self.exited.is_some(), "who asked us to stop is known");
        let waits = self.draining.is_some() || self.awaited.is_some();
        let idle = self.begun && self.child.is_none() && !waits;
        let leaves = self.closing.is_some() || self.exited.is_some();
        self.promise(!((self.asked || self.meant) && idle) || leaves, "asked to leave, it leaves");
        let held_up = (self.clearing || self.finishing) && !waits;
        self.promise(!held_up || leaves, "nothing is waited for without need");
    }

    #[track_caller]
    pub(super) fn promise(&self, kept: bool, what: &str) {
        if !kept {
            self.broken(what);
        }
    }

    #[track_caller]
    pub(super) fn broken(&self, what: &str) -> ! {
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
pub(super) fn shown(effect: &Effect) -> String {
    let mut line = Vec::new();
    match effect {
        Effect::Log(record) => record.render(
            crate::logic::log::record::Style::default(),
            std::time::SystemTime::UNIX_EPOCH,
            &mut line,
        ),
        Effect::Notify(bytes) | Effect::TerminationLog(bytes) => line.clone_from(bytes),
        other => return format!("{other:?}"),
    }
    String::from_utf8_lossy(&line).into_owned()
}
