//! The promises that are about a state, and what is due, worked out from the options and from what happened.

use std::time::Duration;

use super::World;
use super::child::{Stop, StopCause};
use crate::config::{After, KILL_AFTER, Linger, Ttl};
use crate::logic::lifecycle::{Effect, Event};
use crate::logic::reason::Reason;
use crate::logic::status::State as Shown;

impl World {
    /// The machine begins a stop: its TTL has passed or a ping is missing.
    pub(super) fn judge_our_own_stop(&mut self) {
        let why = if self.ttl_due().is_some_and(|due| self.now >= due) {
            StopCause::Ttl
        } else if self.watch.is_some_and(|due| self.now >= due) {
            StopCause::Watchdog
        } else {
            self.broken("nobody is stopped before the time")
        };
        self.stop = Some(Stop { at: self.now, why, killed: false });
    }

    pub(super) fn ttl_due(&self) -> Option<Duration> {
        let child = self.child.as_ref()?;
        self.life.status().ttl.and_then(|ttl| child.since.checked_add(ttl))
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

    /// The next moment at which something is to be done.
    pub(super) fn owed(&self) -> Option<Duration> {
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
    pub(super) fn check(&self, event: &Event) {
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
