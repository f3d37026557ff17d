//! Checks the invariants of the states, and computes from the options and events when the next deadline is due.

use std::time::{Duration, SystemTime};

use super::World;
use super::child::{Before, StopCause};
use crate::config::{After, KILL_AFTER, Linger, Ttl};
use crate::logic::lifecycle::{Effect, Event};
use crate::logic::status::State;
use crate::signal::Signal;

impl World {
    /// Checks a stop that the machine begins by itself, and the dump before it.
    pub(super) fn check_own_stop(&mut self, signal: Signal) {
        if let Some((over, Before::Dump(why))) = self.before_stop {
            self.invariant(over <= self.now, "no command is stopped before its dump is over");
            return self.begin_stop(why);
        }
        let Some(why) = self.logged_cause else {
            self.violated("a stop that kapo begins is logged with its cause")
        };
        let first = self.job.dump_signal.unwrap_or(self.job.stop_signal);
        self.invariant(signal == first, "the dump comes before the stop signal");
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= self.now);
        let (from, to) = self.random_deadline.unzip();
        match why {
            StopCause::Ttl if self.job.drain.is_zero() => {
                self.invariant(is_due(from), "no command is stopped before its TTL")
            }
            StopCause::Ttl => {
                let drained = matches!(self.before_stop, Some((over, Before::Drain(StopCause::Ttl))) if over <= self.now);
                self.invariant(drained, "no command is stopped before its drain is over");
            }
            StopCause::Watchdog => {
                self.invariant(is_due(self.watch), "no command is stopped before its ping is due");
                self.invariant(!is_due(to), "a TTL comes first");
            }
            StopCause::Silence => {
                self.invariant(is_due(self.silence), "no command is stopped before it was silent");
                self.invariant(!is_due(to) && !is_due(self.watch), "a TTL and a ping come first");
            }
            StopCause::Unhealthy | StopCause::Outside => {
                self.violated("a stop from outside does not begin at a deadline")
            }
        }
        self.begin_own_stop(why);
    }

    pub(super) fn kill_due(&self) -> Option<Duration> {
        let stop = self.stop?;
        let patience = match stop.why {
            StopCause::Outside => self.job.kill_after?,
            StopCause::Ttl | StopCause::Watchdog | StopCause::Silence | StopCause::Unhealthy => {
                self.job.kill_after.unwrap_or(KILL_AFTER)
            }
        };
        if patience.is_zero() || stop.killed { None } else { stop.at.checked_add(patience) }
    }

    /// Returns the time at which flapping ends, computed from all failures; `None` if the job is not flapping.
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

    /// Returns the next deadline, except a random one.
    pub(super) fn expected_deadline(&self) -> Option<Duration> {
        if self.closing.is_some() || self.exited.is_some() {
            return None;
        }
        let run = match (&self.child, self.stop, self.before_stop) {
            (Some(child), None, None) => {
                let stable = self.stable_at().filter(|_| self.start_kept || self.flapping_until().is_some());
                let zero = self.restart().is_some_and(|restart| restart.stable.is_zero());
                let a_minute = (self.start_kept && zero).then(|| child.since + Duration::from_secs(60));
                [self.watch, stable.or(a_minute), self.silence]
            }
            (Some(_), None, Some((over, _))) => [Some(over), None, None],
            (Some(_), Some(_), _) => [self.kill_due(), None, None],
            (None, ..) => [None; 3],
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

    /// Returns the bounds of the random deadline that the machine waits for.
    fn awaited_random_deadline(&self) -> Option<(Duration, Duration)> {
        self.random_deadline.filter(|_| self.is_running() || self.is_pausing())
    }

    /// Checks the invariants of the state.
    pub(super) fn check(&mut self, event: &Event) {
        self.check_deadline(event);
        self.check_run();
        self.check_end();
        self.check_progress();
    }

    fn check_deadline(&mut self, event: &Event) {
        let next = self.life.deadline().map(|at| at.saturating_duration_since(self.epoch.mono));
        let overdue = next.is_some_and(|at| at <= self.now);
        self.invariant(!overdue || *event != Event::Deadline, "no deadline is overdue after it was handled");
        if self.exited.is_some() || overdue {
            return;
        }
        let expected_deadline = self.expected_deadline();
        match self.awaited_random_deadline() {
            None => {
                self.invariant(next == expected_deadline, "the deadline is the earliest one of the model")
            }
            // Another deadline comes first, so the random one cannot be earlier.
            Some((from, to)) if next.is_some() && next == expected_deadline => {
                let from = from.max(next.unwrap_or(from));
                self.invariant(from <= to, "the random deadline is still set");
                self.random_deadline = Some((from, to));
            }
            Some((from, to)) => {
                let first = next
                    .filter(|at| expected_deadline.is_none_or(|expected_deadline| *at < expected_deadline));
                let in_bounds = first.filter(|at| (from..=to).contains(at));
                self.invariant(in_bounds.is_some(), "the random deadline is within its bounds");
                self.random_deadline = in_bounds.map(|at| (at, at));
            }
        }
        let flapping = self.life.status().flapping == self.flapping_until().is_some();
        self.invariant(
            flapping || self.closing.is_some(),
            "flapping begins and ends with the failures in the window",
        );
    }

    fn check_run(&self) {
        let status = self.life.status();
        let pid = self.child.as_ref().map(|child| child.pid);
        self.invariant(self.life.pid() == pid, "a pid is set while the command runs");
        self.invariant(status.pid == pid, "the document shows the pid");
        let running = status.state == State::Running;
        self.invariant(running == pid.is_some(), "the document shows that the command runs");
        let awaits = self.job.notify || self.job.ready_line.is_some();
        let ready = self.is_running() && (self.command_ready || !awaits);
        self.invariant(
            status.ready == ready,
            "the command is ready while it runs, after READY=1 or its line and before a stop",
        );
        let stops_at = match self.before_stop {
            Some((over, Before::Drain(_))) => Some(self.epoch.wall + over),
            Some((_, Before::Dump(_))) | None => None,
        };
        self.invariant(status.stops_at == stops_at, "StopsAt is the end of a drain");
        let Some(child) = &self.child else {
            return self.invariant(status.expires_at.is_none(), "an ended run has no ExpiresAt");
        };
        let quiet = status.exit_code == 0 && status.reason.is_none() && status.signal.is_none();
        self.invariant(quiet, "a running command has no exit code, reason or signal");
        let in_range = match self.job.ttl {
            Some(Ttl { min, max }) => status.ttl.is_some_and(|ttl| (min..=max).contains(&ttl)),
            None => status.ttl.is_none(),
        };
        self.invariant(in_range, "the TTL is in its range");
        let expires = status.ttl.map(|ttl| self.epoch.wall + child.since + ttl);
        self.invariant(status.expires_at == expires, "ExpiresAt is when the TTL passes");
        self.invariant(self.matches_random_deadline(status.expires_at), "ExpiresAt is when kapo stops it");
    }

    /// Whether the time that the document shows lies within the bounds of the random deadline.
    fn matches_random_deadline(&self, shown: Option<SystemTime>) -> bool {
        let Some((from, to)) = self.awaited_random_deadline() else { return true };
        shown.is_some_and(|at| (self.epoch.wall + from..=self.epoch.wall + to).contains(&at))
    }

    fn check_end(&self) {
        let status = self.life.status();
        let runs = self.child.is_some();
        let ended = self.last_end.is_some();
        self.invariant(status.end_time.is_some() == ended, "EndTime is set after the first end");
        let lasting = !runs && (ended || self.closing.is_some() || self.exited.is_some());
        self.invariant(
            self.life.ended_with().is_some() == lasting,
            "the exit code is returned from the end until the next start",
        );
        self.invariant(status.reason.is_none() == (runs || !ended), "a reason is set exactly after an end");
        self.invariant(status.next_start.is_some() == self.is_pausing(), "NextStart is shown while pausing");
        if self.is_pausing() {
            self.invariant(
                self.matches_random_deadline(status.next_start),
                "NextStart is the end of the pause",
            );
        }
    }

    fn check_progress(&self) {
        let status = self.life.status();
        self.invariant(self.life.starts() == self.starts, "starts are counted");
        let restarts = self.starts.saturating_sub(1);
        self.invariant(status.restarts == restarts, "restarts are the starts after the first");
        let asked = status.stop_signal_from.is_some();
        self.invariant(
            asked == self.asked || self.exited.is_some(),
            "StopSignalFrom is set after a stop signal",
        );
        let waits = self.draining.is_some() || self.awaited.is_some();
        let idle = self.begun && self.child.is_none() && !waits;
        let leaves = self.closing.is_some() || self.exited.is_some();
        self.invariant(
            !((self.asked || self.interrupted) && idle) || leaves,
            "kapo ends after a stop signal if no command runs",
        );
        let held_up = (self.clearing || self.finishing) && !waits;
        self.invariant(!held_up || leaves, "kapo waits only while something is left");
    }

    #[track_caller]
    pub(super) fn invariant(&self, kept: bool, what: &str) {
        if !kept {
            self.violated(what);
        }
    }

    #[track_caller]
    pub(super) fn violated(&self, what: &str) -> ! {
        let first = self.history.len().saturating_sub(20);
        let story: String = self
            .history
            .iter()
            .skip(first)
            .map(|(at, effect)| format!("\n  {at:?} {}", shown(effect)))
            .collect();
        panic!(
            "violated invariant: {what}\nseed {} at {:?}, deadline {:?}, expected_deadline {:?}\n{:?}\n{:?}{story}",
            self.context.seed,
            self.now,
            self.life.deadline().map(|at| at.saturating_duration_since(self.epoch.mono)),
            self.expected_deadline(),
            self.job,
            self.life,
        );
    }
}

/// Formats an effect for a failure message, with datagrams as text.
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
