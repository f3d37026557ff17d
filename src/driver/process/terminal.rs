//! Manages the terminal. If kapo is in the foreground, the command's process group becomes the foreground process group
//! while it runs, so that job control, ^C and ^Z work as without kapo (credentials(7), termios(3)). A terminal in which
//! kapo is in the background stays open, because the shell may bring kapo into the foreground later.

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
    /// kapo's process group. `None`: it is outside kapo's PID namespace and has no number in it.
    own: Option<Pid>,
}

impl Terminal {
    /// Returns the controlling terminal, regardless of its foreground process group. All signals must be blocked.
    pub(crate) fn controlling() -> Option<Terminal> {
        let own = Pid::from_raw(sys::group::own());
        let standard = sys::stdio::standard().into_iter().find(|fd| is_controlling(*fd));
        let fd = match standard {
            Some(fd) => fd.try_clone_to_owned().ok()?,
            // All three standard descriptors may be redirected, but ^C still reaches kapo. Without a controlling
            // terminal, as in nearly every service, this open fails at once.
            None => open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).ok()?,
        };
        is_controlling(fd.as_fd()).then_some(Terminal { fd, own })
    }

    /// Returns the standard descriptor that is a terminal and becomes the controlling terminal of a new session. If
    /// kapo leads the session that has the terminal, kapo gives it up.
    pub(crate) fn for_new_session() -> Option<BorrowedFd<'static>> {
        let fd = sys::stdio::standard().into_iter().find(|fd| isatty(*fd))?;
        if sys::group::session_of(0) == Some(getpid().as_raw_nonzero().get()) {
            sys::stdio::give_up_terminal(fd);
        }
        Some(fd)
    }

    /// Whether a shell would resume kapo with CONT after a stop: one of kapo's ancestors is in kapo's session but in
    /// another process group. Scripts in kapo's own group may be between them. In an orphaned process group, and for
    /// PID 1, there is no such shell.
    pub(crate) fn has_job_control_shell(&self) -> bool {
        if !can_be_stopped() {
            return false;
        }
        for pid in lineage(getppid().map(|parent| parent.as_raw_nonzero().into())).map(logic::ProcessId::get)
        {
            if sys::group::session_of(pid) != sys::group::session_of(0) {
                return false;
            }
            if sys::group::of(pid) != sys::group::of(0) {
                return true;
            }
        }
        false
    }

    /// Whether the next command may get the terminal: kapo's group has it, or the group that had it is gone. If the
    /// shell has put kapo into the background, the shell keeps the terminal.
    pub(crate) fn is_available(&self) -> bool {
        self.is_ours() || (self.own.is_none() && self.foreground_owner_is_gone())
    }

    /// Whether this process group is in the foreground. Use `is_ours` for kapo's own group, which may have no number.
    pub(crate) fn has_foreground(&self, group: Pid) -> bool {
        sys::group::foreground_of(self.fd.as_fd()).and_then(Pid::from_raw) == Some(group)
    }

    /// Gives the terminal to the command's group if kapo's group, or a group that is gone, has it. Returns whether that
    /// succeeded.
    pub(crate) fn give(&self, group: Pid) -> bool {
        (self.is_ours() || self.foreground_owner_is_gone()) && tcsetpgrp(&self.fd, group).is_ok()
    }

    /// Returns the state of the terminal. `command` is the process group of the command.
    pub(crate) fn view(&self, command: Pid) -> TerminalView {
        let is_ours = self.is_ours();
        TerminalView {
            is_ours,
            is_with_command: self.has_foreground(command),
            is_free: is_ours || self.foreground_owner_is_gone(),
            has_job_control_shell: self.has_job_control_shell(),
        }
    }

    /// Returns the owner of the foreground. `command` is the process group of the running command.
    pub(crate) fn foreground_owner(&self, command: Option<Pid>) -> ForegroundOwner {
        if self.own.is_none() {
            // kapo could not take the terminal back from the command.
            ForegroundOwner::Other
        } else if self.is_ours() {
            ForegroundOwner::Own
        } else if command.is_some_and(|command| self.has_foreground(command)) {
            ForegroundOwner::Command
        } else {
            ForegroundOwner::Other
        }
    }

    /// Takes the terminal back from the command's group, or from a group that is gone. A process in the background gets
    /// TTOU for that, but kapo blocks TTOU. Any other group, such as the shell that has put kapo into the background,
    /// keeps the terminal.
    pub(crate) fn take_back(&self, group: Option<Pid>) {
        if let Some(own) = self.own
            && (group.is_some_and(|group| self.has_foreground(group)) || self.foreground_owner_is_gone())
        {
            let _ = tcsetpgrp(&self.fd, own);
        }
    }

    /// Takes the terminal back from the command and continues kapo's own group, in which a process was stopped because
    /// it wants the terminal.
    pub(crate) fn wake_siblings(&self, group: Option<Pid>) {
        self.take_back(group);
        // Siblings in the background would be stopped again at once.
        if self.is_ours() {
            let cont = Signal::CONT.as_raw();
            // Wait for the signals that are still being sent: a stop that arrives after CONT would remain.
            sys::group::await_senders();
            let _ = sys::signal::send(0, cont);
            // The CONT was sent to the siblings, so kapo's own copy must not be forwarded to the command.
            sys::signal::discard_pending(&[cont]);
        }
    }

    /// Whether kapo's own group is in the foreground.
    pub(crate) fn is_ours(&self) -> bool {
        match (sys::group::foreground_of(self.fd.as_fd()), self.own) {
            (Some(foreground_owner), Some(own)) => Pid::from_raw(foreground_owner) == Some(own),
            // Neither group has a number in this PID namespace. A read in the background fails because TTIN is blocked.
            // Reading zero bytes consumes no input.
            (Some(0), None) => rustix::io::read(&self.fd, &mut [0_u8; 0]).is_ok(),
            (Some(_), None) | (None, _) => false,
        }
    }

    /// Whether the foreground process group has no process any more. A group outside kapo's PID namespace has no number
    /// and counts as alive.
    fn foreground_owner_is_gone(&self) -> bool {
        let foreground_owner = sys::group::foreground_of(self.fd.as_fd()).and_then(Pid::from_raw);
        foreground_owner
            .is_some_and(|foreground_owner| test_kill_process_group(foreground_owner) == Err(Errno::SRCH))
    }
}

/// Whether this is kapo's controlling terminal.
fn is_controlling(fd: BorrowedFd<'_>) -> bool {
    sys::group::foreground_of(fd).is_some()
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the terminal that kapo was started on has hung up. Then every descriptor of it returns EIO from now on: the
/// standard descriptors and that of the `controlling` terminal.
pub(crate) fn is_gone(controlling: Option<BorrowedFd<'_>>) -> bool {
    let mut all = sys::stdio::standard().into_iter().chain(controlling);
    all.any(|fd| tcgetattr(fd).is_err_and(|errno| errno == Errno::IO))
}

/// Whether kapo writes into a pipe of a script. The process that started kapo is then in kapo's group, because a shell
/// with job control creates one group for each pipeline. If TTIN or TTOU is ignored, as in a command substitution of
/// bash, a sibling cannot be stopped for the terminal, so the terminal is not shared.
pub(crate) fn is_piped_in_script() -> bool {
    let parent = getppid().and_then(|parent| sys::group::of(parent.as_raw_nonzero().get()));
    let is_pipe = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    parent == Some(sys::group::own())
        && fstat(rustix::stdio::stdout()).is_ok_and(is_pipe)
        && ![Signal::TTIN, Signal::TTOU].iter().any(|signal| sys::signal::is_ignored(signal.as_raw()))
}

/// Whether kapo is in the foreground of its controlling terminal.
pub(crate) fn is_in_foreground() -> bool {
    Terminal::controlling().is_some_and(|terminal| terminal.is_ours())
}

/// Whether STOP stops kapo. The kernel does not stop PID 1.
pub(crate) fn can_be_stopped() -> bool {
    getpid() != Pid::INIT
}

/// Stops kapo until CONT. If `all` is set, the rest of its process group is stopped as well, because a shell waits for
/// all processes of a job, including the script that may have started kapo.
///
/// For a stop by ^Z, or by a read or write in the background, the group gets the same signal (TSTP, TTIN or TTOU) and
/// not STOP, for two reasons. Another kapo in the group can forward that signal to its command; it cannot catch STOP,
/// so its command would keep running. And a kapo that runs this one as its command sees a stop by TSTP, after which it
/// continues this one if there is no shell to do so.
pub(crate) fn suspend(terminal: Option<&Terminal>, signal: crate::signal::Signal, all: bool) {
    let number = i32::from(signal.number());
    let typed = number == Signal::TSTP.as_raw();
    if all && (typed || [Signal::TTIN, Signal::TTOU].iter().any(|other| other.as_raw() == number)) {
        let _ = sys::signal::send(0, number);
        // kapo's own copy is not meant for the command, which is already stopped.
        sys::signal::discard_pending(&[number]);
    } else if all {
        let _ = sys::signal::send(0, Signal::STOP.as_raw());
        return;
    }
    // The kernel ignores TSTP in an orphaned process group.
    if typed && !sys::signal::is_ignored(number) && terminal.is_some_and(Terminal::has_job_control_shell) {
        sys::signal::stop_by(number);
    } else {
        stop_self();
    }
}

/// Stops kapo itself until CONT. STOP cannot be blocked; for PID 1 see [`can_be_stopped`].
pub(crate) fn stop_self() {
    let _ = kill_process(getpid(), Signal::STOP);
}
