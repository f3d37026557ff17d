//! The process that counts as the command: the one that kapo started, until the command names another one by
//! `MAINPID=`.

use super::{Effect, Lifecycle, Process, ProcessId, Record, SignalTarget};

impl Lifecycle {
    /// Returns the process group of the run: the pid of the process that kapo started, even if another one is followed.
    pub fn group(&self) -> Option<ProcessId> {
        self.state.process().map(|process| process.group)
    }

    /// Follows this process from now on: its end is the end of the run, and signals are sent to it.
    pub(super) fn follow(&mut self, main: ProcessId, out: &mut Vec<Effect>) {
        let Some(process) = self.state.process_mut().filter(|process| process.pid != main) else { return };
        let record = Record::info("main process changed").number("pid", main).number("before", process.pid);
        process.pid = main;
        self.document.followed(main);
        out.push(Effect::Log(record));
    }

    /// Returns the target of a signal for the command.
    pub(super) fn target(&self, Process { pid, group, .. }: Process) -> SignalTarget {
        match self.job.single_child {
            true => SignalTarget::Process(pid),
            false if group == pid => SignalTarget::Group(pid),
            false => SignalTarget::Followed { pid, group },
        }
    }
}
