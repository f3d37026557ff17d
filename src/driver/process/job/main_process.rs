//! Reads the command's NOTIFY_SOCKET and follows the process that the command names by MAINPID.

use super::Job;
use std::fmt;

use crate::driver::event_loop::LoopContext;
use crate::driver::notify::notify_socket::NotifyingRun;
use crate::driver::process::main_pid::{MainPid, MainPidEnd};
use crate::logic::lifecycle::Event;
use crate::logic::log::record::Record;
use crate::logic::{Now, ProcessId, Usage};

impl Job {
    /// Handles the datagrams on the NOTIFY_SOCKET. Returns whether there may be more.
    pub(super) fn read_notifications(&mut self, now: Now, context: &mut LoopContext) -> bool {
        let Some(socket) = &self.notify.socket else { return false };
        let mut all = Vec::new();
        // Without a command no sender is accepted, but unread datagrams would keep the socket ready.
        let run =
            NotifyingRun { command: self.life.pid().unwrap_or(ProcessId::NO_PROCESS), since: self.run.since };
        let more = socket.read(run, |notification| all.push(notification));
        for mut notification in all {
            if let Some(text) = &notification.invalid_main_pid {
                self.ignore_main_pid(now, text, "not a process id", context);
            }
            notification.main_pid = notification.main_pid.filter(|pid| self.follow(now, *pid, context));
            self.handle(now, Event::Notified(notification), context);
        }
        more
    }

    /// Follows this process from now on if it belongs to the run. Returns whether the followed process has changed.
    pub(super) fn follow(&mut self, now: Now, pid: ProcessId, context: &mut LoopContext) -> bool {
        let Some(command) = self.life.pid().filter(|command| *command != pid) else { return false };
        let run = NotifyingRun { command, since: self.run.since };
        // Open the pidfd first: after that, the pid cannot be reused by another process without notice.
        let main_pid = MainPid::open(&context.epoll, pid)
            .and_then(|main_pid| run.has(pid).then_some(main_pid).ok_or("not a process of this run".into()));
        match main_pid {
            Ok(main_pid) => {
                self.run.since = self.run.since.or_else(|| run.birth());
                self.run.main_pid = Some(main_pid);
                true
            }
            Err(why) => {
                self.ignore_main_pid(now, pid, &why, context);
                false
            }
        }
    }

    /// Logs a MAINPID that is not followed, once in each run.
    pub(super) fn ignore_main_pid(
        &mut self,
        now: Now,
        pid: impl fmt::Display,
        why: &str,
        context: &mut LoopContext,
    ) {
        if !std::mem::replace(&mut self.run.main_pid_ignored, true) {
            context.log(now, &Record::warn("MAINPID ignored").with("mainpid", pid).with("why", why));
        }
    }

    /// Handles the end of the followed process. If it is a child of kapo, it is reaped like any other child, which also
    /// gives its resource usage.
    pub(super) fn check_main_pid(&mut self, now: Now, context: &mut LoopContext) {
        self.reap(now, context);
        let Some(main_pid) = &self.run.main_pid else { return };
        let pid = main_pid.pid();
        if let MainPidEnd::Reaped(exit) = main_pid.outcome(&context.epoll) {
            self.run.main_pid = None;
            if self.life.pid() == Some(pid) {
                self.ended(now, pid, exit, Usage::default(), context);
            }
        }
    }
}
