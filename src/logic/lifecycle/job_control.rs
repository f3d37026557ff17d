//! Who stops, who continues, and which process group may have the foreground of the terminal.

use super::{Effect, ForegroundOwner, Lifecycle, Record, Signal};

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

impl Lifecycle {
    /// Whether a command gets the terminal with its start, without asking.
    pub fn gives_terminal(&self) -> bool {
        self.control.gives_terminal()
    }

    /// Whether a command that asks for the terminal gets it. One that quarrels over it with its siblings does not for
    /// ever: it waits, as a job in the background would.
    pub fn lends_terminal(&self) -> bool {
        self.control.lends_terminal()
    }

    pub(super) fn sibling_stopped(
        &mut self,
        signal: Signal,
        foreground_owner: ForegroundOwner,
        out: &mut Vec<Effect>,
    ) {
        match foreground_owner {
            ForegroundOwner::Own | ForegroundOwner::Command => {
                self.control.sibling_wants_terminal(foreground_owner);
                out.push(Effect::WakeSiblings);
            }
            // All of the job is stopped then, and the shell resumes it with the terminal.
            ForegroundOwner::Other => {
                if let Some(pid) = self.pid() {
                    self.pass_on(signal, pid, None, out);
                }
                out.push(Effect::Log(Record::info("stopped with its job").with("signal", signal)));
                out.push(Effect::Suspend { signal, all: false });
            }
        }
    }
}
