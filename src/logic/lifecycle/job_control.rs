//! Job control: when the command is stopped or continued, and which process group may be in the foreground of the
//! terminal.

use super::{Effect, ForegroundOwner, Lifecycle, Process, Record, Signal};

/// How many times a sibling may reclaim the terminal before the command must wait. Until then the command can ask for a
/// password, for example. Two processes that want the terminal at once may each need several reclaims.
const MAX_RECLAIMS: u32 = 10;

/// The competition for the terminal between the command and its siblings.
#[derive(Debug)]
pub(super) struct JobControl {
    /// There may be siblings that want the terminal, such as a pager in kapo's pipeline or the script that started kapo
    /// with `&`. The terminal belongs to them, and the command gets it only when it asks for it.
    shared: bool,
    /// How often siblings have reclaimed the terminal from the command since it was started or resumed.
    reclaims: u32,
}

impl JobControl {
    /// `shared`: siblings may want the terminal. The kernel stops a sibling that wants it, and the shell may notice
    /// that stop before kapo can act. Therefore the command does not get the terminal until it asks for it.
    pub(super) fn new(shared: bool) -> JobControl {
        JobControl { shared, reclaims: 0 }
    }

    /// Whether the command gets the terminal without asking.
    pub(super) fn gives_terminal(&self) -> bool {
        !self.shared
    }

    /// Whether the command gets the terminal when it asks for it.
    pub(super) fn lends_terminal(&self) -> bool {
        self.reclaims <= MAX_RECLAIMS
    }

    /// Resets the count of reclaims when the command is started or resumed.
    pub(super) fn reset_reclaims(&mut self) {
        self.reclaims = 0;
    }

    fn record_sibling_stop(&mut self, foreground_owner: ForegroundOwner) {
        self.shared = true;
        self.reclaims = self.reclaims.saturating_add(u32::from(foreground_owner == ForegroundOwner::Command));
    }
}

/// The state of the terminal when the command was stopped.
#[derive(Clone, Copy, Debug, Default)]
pub struct TerminalView {
    /// kapo's own group is in the foreground.
    pub is_ours: bool,
    /// The command's group is in the foreground.
    pub is_with_command: bool,
    /// kapo's own group, or a group that is gone, is in the foreground.
    pub is_free: bool,
    /// A shell with job control would continue kapo after a stop.
    pub has_job_control_shell: bool,
}

/// What kapo does after the command was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStop {
    /// The command is continued.
    Continue,
    /// The command's group gets the terminal and is continued.
    GiveTerminal,
    /// kapo stops as well, because its shell waits for kapo.
    StopWithIt,
    /// The command stays stopped.
    StayStopped,
}

impl JobControl {
    /// Decides what follows a stop of the command by `signal`. If no shell would continue kapo, ^Z has no effect, as in
    /// an orphaned process group without kapo. A command that was stopped with STOP, or that wants a terminal of
    /// another group, stays stopped in that case: after CONT it would be stopped again.
    fn after_stop(&self, signal: Signal, terminal: TerminalView) -> AfterStop {
        match signal {
            Signal::TTIN | Signal::TTOU if !self.lends_terminal() && terminal.is_ours => {
                AfterStop::StayStopped
            }
            // The terminal was lost and given back since the stop, so the command already has it.
            Signal::TTIN | Signal::TTOU if !self.gives_terminal() && terminal.is_with_command => {
                AfterStop::Continue
            }
            Signal::TTIN | Signal::TTOU if terminal.is_free => AfterStop::GiveTerminal,
            // A STOP from another process is not reported to the shell while the shell has the terminal.
            Signal::STOP if !terminal.is_with_command => AfterStop::StayStopped,
            _ if terminal.has_job_control_shell => AfterStop::StopWithIt,
            Signal::TSTP => AfterStop::Continue,
            _ => AfterStop::StayStopped,
        }
    }
}

impl Lifecycle {
    /// Decides what follows a stop of the command by `signal`.
    pub fn after_stop(&self, signal: Signal, terminal: TerminalView) -> AfterStop {
        self.control.after_stop(signal, terminal)
    }

    /// Whether the command gets the terminal at its start, without asking.
    pub fn gives_terminal(&self) -> bool {
        self.control.gives_terminal()
    }

    /// Whether the command gets the terminal when it asks for it. If it competes with its siblings for too long, it
    /// waits like a job in the background.
    pub fn lends_terminal(&self) -> bool {
        self.control.lends_terminal()
    }

    /// Wakes a sibling that was stopped because it wants the terminal. kapo or the command has the terminal.
    pub(super) fn give_terminal_to_sibling(&mut self, owner: ForegroundOwner, out: &mut Vec<Effect>) {
        self.control.record_sibling_stop(owner);
        out.push(Effect::WakeSiblings);
    }

    /// Stops kapo together with its job. The shell gives the terminal back when it resumes the job.
    pub(super) fn stop_with_job(&self, signal: Signal, out: &mut Vec<Effect>) {
        out.push(Effect::Log(Record::info("suspended").with("signal", signal)));
        out.push(Effect::Suspend { signal, all: false });
    }

    /// Forwards CONT to the command and gives it the terminal.
    pub(super) fn resume(&mut self, process: Process, out: &mut Vec<Effect>) {
        self.control.reset_reclaims();
        self.forward_signal(Signal::CONT, process, None, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_command_is_continued_or_stops_with_kapo() {
        let none = TerminalView::default();
        let ours = TerminalView { is_ours: true, is_free: true, ..none };
        let with_command = TerminalView { is_with_command: true, ..none };
        let with_shell = |view| TerminalView { has_job_control_shell: true, ..view };
        let alone = JobControl::new(false);
        let shared = JobControl::new(true);
        let over_limit = JobControl { shared: true, reclaims: MAX_RECLAIMS + 1 };
        for (control, signal, view, expected) in [
            (&alone, Signal::TTIN, ours, AfterStop::GiveTerminal),
            (&alone, Signal::TTOU, with_shell(none), AfterStop::StopWithIt),
            (&alone, Signal::TTIN, none, AfterStop::StayStopped),
            (&shared, Signal::TTIN, with_command, AfterStop::Continue),
            (&shared, Signal::TTIN, ours, AfterStop::GiveTerminal),
            (&over_limit, Signal::TTIN, with_shell(ours), AfterStop::StayStopped),
            (&alone, Signal::STOP, with_shell(none), AfterStop::StayStopped),
            (&alone, Signal::STOP, with_shell(with_command), AfterStop::StopWithIt),
            (&alone, Signal::TSTP, with_shell(with_command), AfterStop::StopWithIt),
            (&alone, Signal::TSTP, with_command, AfterStop::Continue),
        ] {
            assert_eq!(control.after_stop(signal, view), expected, "{control:?} {signal} {view:?}");
        }
    }
}
