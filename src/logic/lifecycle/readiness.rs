//! What the command says about itself on its NOTIFY_SOCKET: READY, reload, watchdog pings; and what the service manager is
//! told of it.

use std::time::Duration;

use super::{Deadline, Effect, Lifecycle, Notification, Now, Process, Record, StopCause};

/// What the service manager is told of a command that has not said READY=1 yet.
pub(super) const STARTING: &str = "starting";

/// A deadline this late means that kapo itself was stopped or frozen.
const LATE: Duration = Duration::from_millis(100);

/// How ready the command is, and what the service manager knows of that.
#[derive(Debug)]
pub(super) struct Readiness {
    /// The command has said READY=1 in this run, and has not begun to reload or to stop since.
    pub(super) said_ready: bool,
    /// What it is doing while it is not ready.
    pub(super) unready: &'static str,
    /// Under `--notify`, how often the command must ping.
    pub(super) watchdog: Option<Duration>,
    told_ready: bool,
    told_stopping: bool,
}

impl Readiness {
    /// Nothing has been said yet.
    pub(super) fn new(watchdog: Option<Duration>) -> Readiness {
        Readiness { said_ready: false, unready: STARTING, watchdog, told_ready: false, told_stopping: false }
    }

    /// Another run begins. What the service manager knows stays.
    pub(super) fn run_started(&mut self, watchdog: Option<Duration>) {
        let Readiness { told_ready, told_stopping, .. } = *self;
        *self = Readiness { told_ready, told_stopping, ..Readiness::new(watchdog) };
    }
}

impl Lifecycle {
    /// A running command has spoken.
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

    /// What counts in any words of the command, also while it is being stopped; how ready it is does not any more then.
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

    /// The ping is due. Where we did not run ourselves, as in a frozen cgroup (docker pause), the command did not either.
    pub(super) fn miss_ping(&mut self, now: Now, process: Process, late: Duration, out: &mut Vec<Effect>) {
        if let Some(interval) = self.readiness.watchdog.filter(|interval| late > LATE.max(*interval / 4)) {
            return self.deadlines.set(Deadline::Watchdog, now.mono, interval);
        }
        let record = Record::warn("watchdog timed out").number("pid", process.pid);
        self.stop_ourselves(now, process, StopCause::Watchdog, record, out);
    }

    /// The command could not ping while it was suspended, as we were.
    pub(super) fn has_been_suspended(&mut self, now: Now) {
        if self.deadlines.is_set(Deadline::Watchdog) {
            self.wait_for_ping(now);
        }
    }

    /// The command has given a sign of life, or could not. Counted from READY=1 on, as systemd does: a slow start is
    /// no missed ping; a reload is no excuse.
    pub(super) fn wait_for_ping(&mut self, now: Now) {
        match self.readiness.watchdog {
            Some(interval) if self.readiness.said_ready || self.deadlines.is_set(Deadline::Watchdog) => {
                self.deadlines.set(Deadline::Watchdog, now.mono, interval);
            }
            _ => self.deadlines.stop(Deadline::Watchdog),
        }
    }

    /// Once, and once more after each reload of the command's.
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
