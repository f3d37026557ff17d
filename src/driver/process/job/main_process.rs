//! What the command says on its NOTIFY_SOCKET, and the process that it names by MAINPID.

use super::Job;
use std::fmt;

use crate::driver::event_loop::LoopContext;
use crate::driver::notify::notify_socket::Run;
use crate::driver::process::main_pid::{MainPid, Outcome};
use crate::logic::lifecycle::Event;
use crate::logic::log::record::Record;
use crate::logic::{Now, Pid, Usage};

impl Job {
    /// Takes in what the command has said on its NOTIFY_SOCKET; whether there may be more.
    pub(super) fn listen_to_command(&mut self, now: Now, stage: &mut LoopContext) -> bool {
        let Some(socket) = &self.notify.socket else { return false };
        let mut all = Vec::new();
        // Without a command nobody's word counts, but what is unread would be told again and again.
        let nobody = Pid::MAX;
        let run = Run { command: self.life.pid().unwrap_or(nobody), since: self.run.since };
        let more = socket.read(run, |told| all.push(told));
        for mut told in all {
            if let Some(text) = &told.invalid_main_pid {
                self.ignore_main_pid(now, text, "not a process id", stage);
            }
            told.main_pid = told.main_pid.filter(|pid| self.follow(now, *pid, stage));
            self.handle(now, Event::Notified(told), stage);
        }
        more
    }

    /// Follows this process from now on, if it belongs to the run. Returns whether it is another one than before.
    pub(super) fn follow(&mut self, now: Now, pid: Pid, stage: &mut LoopContext) -> bool {
        let Some(command) = self.life.pid().filter(|command| *command != pid) else { return false };
        let run = Run { command, since: self.run.since };
        // The pidfd first: afterwards the number cannot come to mean another process unnoticed.
        let main_pid = MainPid::open(&stage.epoll, pid)
            .and_then(|main_pid| run.has(pid).then_some(main_pid).ok_or("not a process of this run".into()));
        match main_pid {
            Ok(main_pid) => {
                self.run.since = self.run.since.or_else(|| run.birth());
                self.run.main_pid = Some(main_pid);
                true
            }
            Err(why) => {
                self.ignore_main_pid(now, pid, &why, stage);
                false
            }
        }
    }

    /// Logs the first MAINPID of a run that is not followed.
    pub(super) fn ignore_main_pid(
        &mut self,
        now: Now,
        pid: impl fmt::Display,
        why: &str,
        stage: &mut LoopContext,
    ) {
        if !std::mem::replace(&mut self.run.main_pid_ignored, true) {
            stage.log(now, &Record::warn("MAINPID ignored").with("mainpid", pid).with("why", why));
        }
    }

    /// The followed process has ended. If it is kapo's child it is reaped like any other, which tells more.
    pub(super) fn look_at_main_pid(&mut self, now: Now, stage: &mut LoopContext) {
        self.reap(now, stage);
        let Some(main_pid) = &self.run.main_pid else { return };
        let pid = main_pid.pid();
        if let Outcome::Reaped(exit) = main_pid.outcome(&stage.epoll) {
            self.run.main_pid = None;
            if self.life.pid() == Some(pid) {
                self.ended(now, pid, exit, Usage::default(), stage);
            }
        }
    }
}
