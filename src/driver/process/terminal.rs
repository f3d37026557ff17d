//! The terminal: given to the command's process group for as long as it runs, where kapo holds the foreground itself,
//! so that job control, ^C and ^Z work as without kapo (credentials(7), termios(3)). One that kapo does not hold is kept
//! in view, as the shell may bring kapo into the foreground.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, test_kill_process_group};
use rustix::termios::{isatty, tcgetattr, tcsetpgrp};

use crate::driver::proc::procfs::lineage;
use crate::logic;
use crate::logic::lifecycle::{ForegroundOwner, TerminalView};
use crate::sys;

/// kapo's controlling terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    fd: OwnedFd,
    /// kapo's group; `None`: it is outside our PID namespace, and so cannot be named.
    own: Option<Pid>,
}

impl Terminal {
    /// The controlling terminal, whoever is in its foreground. Signals must be blocked.
    pub(crate) fn controlling() -> Option<Terminal> {
        let own = Pid::from_raw(sys::group::own());
        let standard = sys::stdio::standard().into_iter().find(|fd| is_controlling(*fd));
        let fd = match standard {
            Some(fd) => fd.try_clone_to_owned().ok()?,
            // All three may be redirected, and still ^C is meant for us. Without a controlling terminal, as in
            // nearly every service, this open fails at once.
            None => open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).ok()?,
        };
        is_controlling(fd.as_fd()).then_some(Terminal { fd, own })
    }

    /// The terminal to make the controlling one of a new session: one that is among our standard descriptors.
    /// Where kapo leads the session that has it, kapo gives it up.
    pub(crate) fn for_new_session() -> Option<BorrowedFd<'static>> {
        let fd = sys::stdio::standard().into_iter().find(|fd| isatty(*fd))?;
        if sys::group::session_of(0) == Some(getpid().as_raw_nonzero().get()) {
            sys::stdio::give_up_terminal(fd);
        }
        Some(fd)
    }

    /// Whether somebody would wake kapo with CONT if it stopped: a shell that does job control is among our ancestors,
    /// in our session and in another group; between us there may be scripts in our own group. In an orphaned group,
    /// and for PID 1, nobody would.
    pub(crate) fn somebody_minds_us(&self) -> bool {
        if !can_be_stopped() {
            return false;
        }
        for pid in lineage(getppid().map(Pid::as_raw_nonzero)).map(logic::Pid::get) {
            if sys::group::session_of(pid) != sys::group::session_of(0) {
                return false;
            }
            if sys::group::of(pid) != sys::group::of(0) {
                return true;
            }
        }
        false
    }

    /// Whether the next command may have it: it is kapo's, or was that of a command that is gone. The shell that has
    /// put kapo into the background keeps it.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.is_ours() || (self.own.is_none() && self.foreground_owner_is_gone())
    }

    /// Whether the group of that number is in the foreground; kapo's own may have none, see `is_ours`.
    pub(crate) fn is_with(&self, group: Pid) -> bool {
        sys::group::foreground_of(self.fd.as_fd()).and_then(Pid::from_raw) == Some(group)
    }

    /// To the command's group, if kapo's own has it, or a group that is gone; whether it got it.
    pub(crate) fn give(&self, group: Pid) -> bool {
        (self.is_ours() || self.foreground_owner_is_gone()) && tcsetpgrp(&self.fd, group).is_ok()
    }

    /// How the terminal stands, `command` being the group of the command.
    pub(crate) fn view(&self, command: Pid) -> TerminalView {
        let is_ours = self.is_ours();
        TerminalView {
            is_ours,
            is_with_command: self.is_with(command),
            is_free: is_ours || self.foreground_owner_is_gone(),
            is_minded: self.somebody_minds_us(),
        }
    }

    /// Who has it, `command` being the group of the one that runs.
    pub(crate) fn foreground_owner(&self, command: Option<Pid>) -> ForegroundOwner {
        if self.own.is_none() {
            // It could not be taken back.
            ForegroundOwner::Other
        } else if self.is_ours() {
            ForegroundOwner::Own
        } else if command.is_some_and(|command| self.is_with(command)) {
            ForegroundOwner::Command
        } else {
            ForegroundOwner::Other
        }
    }

    /// Back from the command's group, or from one that is gone. From the background this would raise TTOU, which is
    /// blocked. Others, such as the shell that has put us into the background, keep it.
    pub(crate) fn take_back(&self, group: Option<Pid>) {
        if let Some(own) = self.own
            && (group.is_some_and(|group| self.is_with(group)) || self.foreground_owner_is_gone())
        {
            let _ = tcsetpgrp(&self.fd, own);
        }
    }

    /// Takes it back from the command and wakes our own group, of which a process was stopped as it wants it.
    pub(crate) fn wake_siblings(&self, group: Option<Pid>) {
        self.take_back(group);
        // Else they would be stopped again at once.
        if self.is_ours() {
            let cont = Signal::CONT.as_raw();
            // A stop that comes after the CONT would stay.
            sys::group::await_senders();
            let _ = sys::signal::send(0, cont);
            // The command was not meant, so it is not to be passed on.
            sys::signal::discard_pending(&[cont]);
        }
    }

    /// Whether kapo's own group is in the foreground.
    pub(crate) fn is_ours(&self) -> bool {
        match (sys::group::foreground_of(self.fd.as_fd()), self.own) {
            (Some(foreground_owner), Some(own)) => Pid::from_raw(foreground_owner) == Some(own),
            // Neither has a number that we could compare. But in the background a read would raise TTIN, and as that
            // is blocked it fails; reading nothing takes nothing from anybody.
            (Some(0), None) => rustix::io::read(&self.fd, &mut [0_u8; 0]).is_ok(),
            (Some(_), None) | (None, _) => false,
        }
    }

    /// Whether its foreground group has no process any more. A group outside our PID namespace has no number here
    /// and counts as alive.
    fn foreground_owner_is_gone(&self) -> bool {
        let foreground_owner = sys::group::foreground_of(self.fd.as_fd()).and_then(Pid::from_raw);
        foreground_owner
            .is_some_and(|foreground_owner| test_kill_process_group(foreground_owner) == Err(Errno::SRCH))
    }
}

/// Whether this is our controlling terminal.
fn is_controlling(fd: BorrowedFd<'_>) -> bool {
    sys::group::foreground_of(fd).is_some()
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the terminal that we were started on has hung up: then its descriptors answer with EIO for ever, those that
/// we were given and that of a `controlling` one.
pub(crate) fn is_gone(controlling: Option<BorrowedFd<'_>>) -> bool {
    let mut all = sys::stdio::standard().into_iter().chain(controlling);
    all.any(|fd| tcgetattr(fd).is_err_and(|errno| errno == Errno::IO))
}

/// Whether kapo writes into a pipe in a script: who called it is in its group, which a shell with job control has one
/// of for each pipeline. Where TTIN or TTOU is ignored, as in the command substitutions of bash, nobody can ask for the
/// terminal, so nobody shares it.
pub(crate) fn are_piped_in_a_script() -> bool {
    let parent = getppid().and_then(|parent| sys::group::of(parent.as_raw_nonzero().get()));
    let is_pipe = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    parent == Some(sys::group::own())
        && fstat(rustix::stdio::stdout()).is_ok_and(is_pipe)
        && ![Signal::TTIN, Signal::TTOU].iter().any(|signal| sys::signal::is_ignored(signal.as_raw()))
}

/// Whether we are in the foreground of the terminal that we have.
pub(crate) fn is_before_us() -> bool {
    Terminal::controlling().is_some_and(|terminal| terminal.is_ours())
}

/// Whether STOP does anything to us: PID 1 alone goes on as if nothing were.
pub(crate) fn can_be_stopped() -> bool {
    getpid() != Pid::INIT
}

/// Stops kapo until CONT, `all`: and the rest of its process group, because a shell waits for all of a job, the script
/// included that kapo may be called by.
///
/// ^Z, and a read or write in the background, go on as the terminal would have sent them to the whole job without kapo:
/// another kapo of the group passes the signal on to its command, which STOP, being uncatchable, would leave running. And
/// a kapo that has this one as its command sees it stopped by TSTP, and continues it where no shell would.
pub(crate) fn suspend(terminal: Option<&Terminal>, signal: crate::signal::Signal, all: bool) {
    let number = i32::from(signal.number());
    let typed = number == Signal::TSTP.as_raw();
    if all && (typed || [Signal::TTIN, Signal::TTOU].iter().any(|other| other.as_raw() == number)) {
        let _ = sys::signal::send(0, number);
        // Our own is not meant for the command, which is stopped already.
        sys::signal::discard_pending(&[number]);
    } else if all {
        let _ = sys::signal::send(0, Signal::STOP.as_raw());
        return;
    }
    // In an orphaned group the kernel ignores TSTP.
    if typed && !sys::signal::is_ignored(number) && terminal.is_some_and(Terminal::somebody_minds_us) {
        sys::signal::stop_by(number);
    } else {
        stop_ourselves();
    }
}

/// Stops kapo itself until CONT. STOP cannot be blocked, but see [`can_be_stopped`].
pub(crate) fn stop_ourselves() {
    let _ = kill_process(getpid(), Signal::STOP);
}
