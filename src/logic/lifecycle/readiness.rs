//! Handles the command's notifications (READY, reload, watchdog pings), and what kapo reports to its own service
//! manager.

use std::time::Duration;

use super::{Deadline, Effect, Lifecycle, Notification, Now, Process, Record, StopCause};

/// The word for a command that has not sent READY=1 yet, for the service manager.
pub(super) const STARTING: &str = "starting";

/// A deadline this late means that kapo itself was stopped or frozen.
const LATE: Duration = Duration::from_millis(100);

/// The readiness of the command, and what was reported of it to the service manager.
#[derive(Debug)]
pub(super) struct Readiness {
    /// The command has sent READY=1 in this run, and neither RELOADING=1 nor STOPPING=1 since.
    pub(super) said_ready: bool,
    /// The word for what the command does while it is not ready.
    pub(super) unready: &'static str,
    /// The interval in which the command must ping, under `--notify`.
    pub(super) watchdog: Option<Duration>,
    told_ready: bool,
    told_stopping: bool,
}

impl Readiness {
    /// Returns the readiness before the first notification.
    pub(super) fn new(watchdog: Option<Duration>) -> Readiness {
        Readiness { said_ready: false, unready: STARTING, watchdog, told_ready: false, told_stopping: false }
    }

    /// Resets the readiness for another run. What was reported to the service manager is kept.
    pub(super) fn run_started(&mut self, watchdog: Option<Duration>) {
        let Readiness { told_ready, told_stopping, .. } = *self;
        *self = Readiness { told_ready, told_stopping, ..Readiness::new(watchdog) };
    }
}

impl Lifecycle {
    /// Handles a notification of the running command.
    pub(super) fn notified(&mut self, now: Now, notification: Notification, out: &mut Vec<Effect>) {
        let told = self.take_facts(notification, out);
        let Some(process) = self.state.process() else { return };
        if told.reloading || told.stopping {
            self.readiness.unready = if told.stopping { "stopping by itself" } else { "reloading" };
            self.readiness.said_ready = false;
            self.readiness.told_ready &= !told.reloading;
        }
        if told.stopping {
            self.deadlines.stop(Deadline::Watchdog);
        }
        if told.ready {
            if !std::mem::replace(&mut self.readiness.said_ready, true) && self.job.notify {
                out.push(Effect::Log(Record::info("ready").number("pid", process.pid)));
            }
            self.tell_ready(out);
        }
        if told.trigger {
            let record = Record::warn("watchdog triggered").number("pid", process.pid);
            self.stop_ourselves(now, process, StopCause::Watchdog, record, out);
        } else if told.ready || told.ping || told.interval.is_some() {
            self.wait_for_ping(now);
        }
    }

    /// Handles the parts of a notification that are valid even while the command is being stopped. Its readiness no
    /// longer matters then, so the rest is returned.
    pub(super) fn take_facts(&mut self, mut told: Notification, out: &mut Vec<Effect>) -> Notification {
        if let Some(main) = told.main_pid {
            self.follow(main, out);
        }
        if let Some(interval) = told.interval {
            self.readiness.watchdog = Some(interval).filter(|interval| !interval.is_zero());
        }
        if let Some(text) = told.status.take() {
            self.document.changed |= text != self.document.status.status_text;
            self.document.status.status_text = text;
        }
        if self.context.manager && !told.forward.is_empty() {
            out.push(Effect::Notify(std::mem::take(&mut told.forward)));
        }
        told
    }

    /// Handles a ping that did not arrive in time. If kapo itself did not run, as in a frozen cgroup (docker pause),
    /// the command could not run either, so it gets another interval.
    pub(super) fn miss_ping(&mut self, now: Now, process: Process, late: Duration, out: &mut Vec<Effect>) {
        if let Some(interval) = self.readiness.watchdog.filter(|interval| late > LATE.max(*interval / 4)) {
            return self.deadlines.set(Deadline::Watchdog, now.mono, interval);
        }
        let record = Record::warn("watchdog timed out").number("pid", process.pid);
        self.stop_ourselves(now, process, StopCause::Watchdog, record, out);
    }

    /// Restarts the watchdog after a suspension, in which the command could not ping.
    pub(super) fn has_been_suspended(&mut self, now: Now) {
        if self.deadlines.is_set(Deadline::Watchdog) {
            self.wait_for_ping(now);
        }
    }

    /// Restarts the watchdog interval. It begins with READY=1, as in systemd, so a slow start is not a missed ping; a
    /// reload does not suspend it.
    pub(super) fn wait_for_ping(&mut self, now: Now) {
        match self.readiness.watchdog {
            Some(interval) if self.readiness.said_ready || self.deadlines.is_set(Deadline::Watchdog) => {
                self.deadlines.set(Deadline::Watchdog, now.mono, interval);
            }
            _ => self.deadlines.stop(Deadline::Watchdog),
        }
    }

    /// Reports READY=1 to the service manager, once and again after each reload of the command.
    pub(super) fn tell_ready(&mut self, out: &mut Vec<Effect>) {
        if self.context.manager && !self.readiness.told_ready && !self.readiness.told_stopping {
            out.push(Effect::Notify(b"READY=1".to_vec()));
        }
        self.readiness.told_ready = true;
    }

    pub(super) fn tell_stopping(&mut self, out: &mut Vec<Effect>) {
        if self.context.manager && !self.readiness.told_stopping {
            out.push(Effect::Notify(b"STOPPING=1".to_vec()));
        }
        self.readiness.told_stopping = true;
    }
}
