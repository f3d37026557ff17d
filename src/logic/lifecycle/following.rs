//! The process that counts as the command: the one that kapo started, until the command names another by `MAINPID=`.

use super::{Effect, Lifecycle, Pid, Process, Record, SignalTarget};

impl Lifecycle {
    /// The process group of the run: the pid of the process that kapo started, also if another one is followed.
    pub fn group(&self) -> Option<Pid> {
        self.state.process().map(|process| process.group)
    }

    /// From now on this process is the command: its end is that of the run, and it gets the signals.
    pub(super) fn follow(&mut self, main: Pid, out: &mut Vec<Effect>) {
        let Some(process) = self.state.process_mut().filter(|process| process.pid != main) else { return };
        let record = Record::info("main process changed").number("pid", main).number("before", process.pid);
        process.pid = main;
        self.document.followed(main);
        out.push(Effect::Log(record));
    }

    /// Whom a signal for the command is for.
    pub(super) fn target(&self, Process { pid, group, .. }: Process) -> SignalTarget {
        match self.job.single_child {
            true => SignalTarget::Process(pid),
            false if group == pid => SignalTarget::Group(pid),
            false => SignalTarget::Followed { pid, group },
        }
    }
}
