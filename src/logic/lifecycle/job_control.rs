//! Who stops, who continues, and which process group may have the foreground of the terminal.

use super::{Effect, ForegroundOwner, Lifecycle, Process, Record, Signal};

/// How many times a sibling may reclaim the terminal before the command must wait. Until then the command can ask for a
/// password and the like. Two that want the terminal at once may need a few claims before one of them is content.
const CLAIMS: u32 = 10;

/// What is known of the processes that share the terminal with the command.
#[derive(Debug)]
pub(super) struct JobControl {
    /// Siblings, such as a pager in kapo's pipeline or the script that has started kapo with `&`, want the terminal or may
    /// want it: it is theirs, and the command's only while it asks for it.
    shared: bool,
    /// How often they have wanted it back from the command since it was started or resumed.
    claims: u32,
}

impl JobControl {
    /// `shared`: there may be siblings that want the terminal. The kernel reports them by stopping them, which the shell
    /// may see first, so the command is not given the terminal unasked if there may be any.
    pub(super) fn new(shared: bool) -> JobControl {
        JobControl { shared, claims: 0 }
    }

    /// Whether a command gets the terminal without asking.
    pub(super) fn gives_terminal(&self) -> bool {
        !self.shared
    }

    /// Whether a command that asks for the terminal gets it.
    pub(super) fn lends_terminal(&self) -> bool {
        self.claims <= CLAIMS
    }

    /// The command was started or resumed.
    pub(super) fn reset_claims(&mut self) {
        self.claims = 0;
    }

    fn sibling_wants_terminal(&mut self, foreground_owner: ForegroundOwner) {
        self.shared = true;
        self.claims = self.claims.saturating_add(u32::from(foreground_owner == ForegroundOwner::Command));
    }
}

/// The terminal at the moment when the command was stopped.
#[derive(Clone, Copy, Debug, Default)]
pub struct TerminalView {
    /// kapo's own group is in the foreground.
    pub is_ours: bool,
    /// The command's group is in the foreground.
    pub is_with_command: bool,
    /// kapo's own group is in the foreground, or a group that is gone.
    pub is_free: bool,
    /// A shell would wake kapo with CONT if kapo stopped.
    pub is_minded: bool,
}

/// What follows when the command was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStop {
    /// The command is continued.
    Continue,
    /// The command's group gets the foreground, and is continued.
    GiveTerminal,
    /// kapo stops, too, because its shell waits for kapo.
    StopWithIt,
    /// Nothing.
    StayStopped,
}

impl JobControl {
    /// The answer to a stop of the command by `signal`. If nobody would wake kapo, ^Z does nothing, as in an orphaned
    /// group without kapo. A command that was stopped with STOP, or that wants a terminal that others have, stays
    /// stopped then: it would only be stopped again.
    fn after_stop(&self, signal: Signal, terminal: TerminalView) -> AfterStop {
        match signal {
            Signal::TTIN | Signal::TTOU if !self.lends_terminal() && terminal.is_ours => {
                AfterStop::StayStopped
            }
            // The terminal has changed hands twice since the stop.
            Signal::TTIN | Signal::TTOU if !self.gives_terminal() && terminal.is_with_command => {
                AfterStop::Continue
            }
            Signal::TTIN | Signal::TTOU if terminal.is_free => AfterStop::GiveTerminal,
            // A STOP by another process does not concern the shell while the shell has the terminal.
            Signal::STOP if !terminal.is_with_command => AfterStop::StayStopped,
            _ if terminal.is_minded => AfterStop::StopWithIt,
            Signal::TSTP => AfterStop::Continue,
            _ => AfterStop::StayStopped,
        }
    }
}

impl Lifecycle {
    /// The answer to a stop of the command by `signal`.
    pub fn after_stop(&self, signal: Signal, terminal: TerminalView) -> AfterStop {
        self.control.after_stop(signal, terminal)
    }

    /// Whether a command gets the terminal with its start, without asking.
    pub fn gives_terminal(&self) -> bool {
        self.control.gives_terminal()
    }

    /// Whether a command that asks for the terminal gets it. One that quarrels over it with its siblings does not for
    /// ever: it waits, as a job in the background would.
    pub fn lends_terminal(&self) -> bool {
        self.control.lends_terminal()
    }

    /// A sibling was stopped because it wants the terminal, which is kapo's or the command's.
    pub(super) fn give_terminal_to_sibling(&mut self, owner: ForegroundOwner, out: &mut Vec<Effect>) {
        self.control.sibling_wants_terminal(owner);
        out.push(Effect::WakeSiblings);
    }

    /// All of the job is stopped, and the shell resumes it with the terminal.
    pub(super) fn stop_with_job(&self, signal: Signal, out: &mut Vec<Effect>) {
        out.push(Effect::Log(Record::info("suspended").with("signal", signal)));
        out.push(Effect::Suspend { signal, all: false });
    }

    /// CONT has come: the command gets it, and the terminal with it.
    pub(super) fn resume(&mut self, process: Process, out: &mut Vec<Effect>) {
        self.control.reset_claims();
        self.pass_on(Signal::CONT, process, None, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_command_goes_on_or_stops_with_kapo() {
        let none = TerminalView::default();
        let ours = TerminalView { is_ours: true, is_free: true, ..none };
        let with_command = TerminalView { is_with_command: true, ..none };
        let minded = |view| TerminalView { is_minded: true, ..view };
        let alone = JobControl::new(false);
        let shared = JobControl::new(true);
        let quarrelled = JobControl { shared: true, claims: CLAIMS + 1 };
        for (control, signal, view, expected) in [
            (&alone, Signal::TTIN, ours, AfterStop::GiveTerminal),
            (&alone, Signal::TTOU, minded(none), AfterStop::StopWithIt),
            (&alone, Signal::TTIN, none, AfterStop::StayStopped),
            (&shared, Signal::TTIN, with_command, AfterStop::Continue),
            (&shared, Signal::TTIN, ours, AfterStop::GiveTerminal),
            (&quarrelled, Signal::TTIN, minded(ours), AfterStop::StayStopped),
            (&alone, Signal::STOP, minded(none), AfterStop::StayStopped),
            (&alone, Signal::STOP, minded(with_command), AfterStop::StopWithIt),
            (&alone, Signal::TSTP, minded(with_command), AfterStop::StopWithIt),
            (&alone, Signal::TSTP, with_command, AfterStop::Continue),
        ] {
            assert_eq!(control.after_stop(signal, view), expected, "{control:?} {signal} {view:?}");
        }
    }
}
