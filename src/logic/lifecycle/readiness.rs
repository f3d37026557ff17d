//! Handles the command's notifications (READY, reload, watchdog pings), and what kapo reports to its own service
//! manager.

use std::time::Duration;

use super::{Deadline, Effect, Lifecycle, Notification, Now, Process, Record, StopCause};

/// The state that the service manager shows until the command has sent READY=1.
pub(super) const STARTING: &str = "starting";

/// A deadline this late means that kapo itself was stopped or frozen.
const LATE: Duration = Duration::from_millis(100);

/// Whether kapo itself did not run for a while, as in a frozen cgroup (docker pause). `late` is how long a deadline of
/// this interval has been due.
pub(super) fn is_starved(late: Duration, interval: Duration) -> bool {
    late > LATE.max(interval / 4)
}

/// The readiness of the command, and what was reported of it to the service manager.
#[derive(Debug)]
pub(super) struct Readiness {
    /// The command has sent READY=1 in this run, and neither RELOADING=1 nor STOPPING=1 since; or it has written the
    /// text of `--ready-line` in this run.
    pub(super) command_ready: bool,
    /// `Ready` was true in this run.
    pub(super) has_been_ready: bool,
    /// The state that the service manager shows while the command is not ready.
    pub(super) unready: &'static str,
    /// The interval in which the command must ping, under `--notify`.
    pub(super) watchdog: Option<Duration>,
    ready_reported: bool,
    stopping_reported: bool,
}

impl Readiness {
    /// Returns the readiness before the first notification.
    pub(super) fn new(watchdog: Option<Duration>) -> Readiness {
        Readiness {
            command_ready: false,
            has_been_ready: false,
            unready: STARTING,
            watchdog,
            ready_reported: false,
            stopping_reported: false,
        }
    }

    /// Resets the readiness for another run. What was reported to the service manager is kept.
    pub(super) fn run_started(&mut self, watchdog: Option<Duration>) {
        let Readiness { ready_reported, stopping_reported, .. } = *self;
        *self = Readiness { ready_reported, stopping_reported, ..Readiness::new(watchdog) };
    }
}

impl Lifecycle {
    /// Handles a notification of the running command.
    pub(super) fn notified(&mut self, now: Now, notification: Notification, out: &mut Vec<Effect>) {
        let notification = self.apply_facts(notification, out);
        let Some(process) = self.state.process() else { return };
        if notification.reloading || notification.stopping {
            self.readiness.unready = if notification.stopping { "stopping by itself" } else { "reloading" };
            self.readiness.command_ready = false;
            self.readiness.ready_reported &= !notification.reloading;
        }
        if notification.stopping {
            self.deadlines.stop(Deadline::Watchdog);
        }
        if notification.ready {
            if !std::mem::replace(&mut self.readiness.command_ready, true) && self.job.reports_ready() {
                out.push(Effect::Log(Record::info("ready").number("pid", process.pid)));
            }
            self.report_ready(out);
        }
        if notification.trigger {
            let record = Record::warn("watchdog triggered").number("pid", process.pid);
            self.begin_stop(now, process, StopCause::Watchdog, record, out);
        } else if notification.ready || notification.ping || notification.interval.is_some() {
            self.restart_watchdog(now);
        }
    }

    /// Handles the parts of a notification that are valid even while the command is being stopped. The rest is
    /// returned.
    pub(super) fn apply_facts(
        &mut self,
        mut notification: Notification,
        out: &mut Vec<Effect>,
    ) -> Notification {
        if let Some(main) = notification.main_pid {
            self.follow(main, out);
        }
        if let Some(interval) = notification.interval {
            self.readiness.watchdog = Some(interval).filter(|interval| !interval.is_zero());
        }
        if let Some(text) = notification.status.take() {
            self.document.changed |= text != self.document.status.status_text;
            self.document.status.status_text = text;
        }
        if self.context.manager && !notification.forward.is_empty() {
            out.push(Effect::Notify(std::mem::take(&mut notification.forward)));
        }
        notification
    }

    /// Handles a ping that did not arrive in time. If kapo itself did not run, the command could not run either, so it
    /// gets another interval.
    pub(super) fn ping_timed_out(
        &mut self,
        now: Now,
        process: Process,
        late: Duration,
        out: &mut Vec<Effect>,
    ) {
        if let Some(interval) = self.readiness.watchdog.filter(|interval| is_starved(late, *interval)) {
            return self.deadlines.set(Deadline::Watchdog, now.mono, interval);
        }
        let record = Record::warn("watchdog timed out").number("pid", process.pid);
        self.begin_stop(now, process, StopCause::Watchdog, record, out);
    }

    /// Begins the intervals of the watchdog and of the silence again after a suspension, in which the command could
    /// neither ping nor print.
    pub(super) fn resumed(&mut self, now: Now) {
        self.restart_silence(now);
        if self.deadlines.is_set(Deadline::Watchdog) {
            self.restart_watchdog(now);
        }
    }

    /// Restarts the watchdog interval. It begins with READY=1, as in systemd, so a slow start is not a missed ping; a
    /// reload does not suspend it.
    pub(super) fn restart_watchdog(&mut self, now: Now) {
        match self.readiness.watchdog {
            Some(interval) if self.readiness.command_ready || self.deadlines.is_set(Deadline::Watchdog) => {
                self.deadlines.set(Deadline::Watchdog, now.mono, interval);
            }
            _ => self.deadlines.stop(Deadline::Watchdog),
        }
    }

    /// Reports READY=1 to the service manager, once and again after each reload of the command.
    pub(super) fn report_ready(&mut self, out: &mut Vec<Effect>) {
        if self.context.manager && !self.readiness.ready_reported && !self.readiness.stopping_reported {
            out.push(Effect::Notify(b"READY=1".to_vec()));
        }
        self.readiness.ready_reported = true;
    }

    pub(super) fn report_stopping(&mut self, out: &mut Vec<Effect>) {
        if self.context.manager && !self.readiness.stopping_reported {
            out.push(Effect::Notify(b"STOPPING=1".to_vec()));
        }
        self.readiness.stopping_reported = true;
    }
}
