//! The process that counts as the command: the one that kapo started, until the command names another by `MAINPID=`.

use super::{Effect, Lifecycle, Pid, Record, SignalTarget, State};

impl Lifecycle {
    /// The process group of the run: the pid of the process that kapo started, also if another one is followed.
    pub fn group(&self) -> Option<Pid> {
        self.pid().and(self.group)
    }

    /// From now on this process is the command: its end is that of the run, and it gets the signals.
    pub(super) fn follow(&mut self, main: Pid, out: &mut Vec<Effect>) {
        let (State::Running { pid, .. } | State::Stopping { pid, .. }) = &mut self.state else { return };
        if *pid == main {
            return;
        }
        let record = Record::info("following MAINPID").with("pid", main).with("before", *pid);
        *pid = main;
        self.runs.followed(main, &mut self.status);
        self.changed = true;
        out.push(Effect::Log(record));
    }

    /// Whom a signal for the command is for.
    pub(super) fn target(&self, pid: Pid) -> SignalTarget {
        match self.group.filter(|group| *group != pid) {
            _ if self.job.single_child => SignalTarget::Process(pid),
            Some(group) => SignalTarget::Followed { pid, group },
            None => SignalTarget::Group(pid),
        }
    }
}
