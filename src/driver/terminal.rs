//! The terminal: given to the command's process group for as long as it runs, where kapo holds the foreground itself,
//! so that job control, ^C and ^Z work as without kapo (credentials(7), termios(3)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, test_kill_process_group};
use rustix::termios::{isatty, tcgetattr, tcsetpgrp};

use crate::sys;

/// A terminal whose foreground process group is kapo's own.
#[derive(Debug)]
pub struct Terminal {
    fd: OwnedFd,
    /// kapo's group; `None`: it is outside our PID namespace, and so cannot be named.
    own: Option<Pid>,
}

impl Terminal {
    /// The controlling terminal, if kapo's group is in its foreground. Signals must be blocked.
    pub fn in_foreground() -> Option<Terminal> {
        let own = Pid::from_raw(sys::group::own());
        let standard = sys::stdio::standard().into_iter().find(|fd| is_held_by(*fd, own));
        let fd = match standard {
            Some(fd) => fd.try_clone_to_owned().ok()?,
            // All three may be redirected, and still ^C is meant for us. Without a controlling terminal, as in
            // nearly every service, this open fails at once.
            None => open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).ok()?,
        };
        is_held_by(fd.as_fd(), own).then_some(Terminal { fd, own })
    }

    /// The terminal to make the controlling one of a new session: one that is among our standard descriptors.
    /// Where kapo leads the session that has it, kapo gives it up.
    pub fn for_new_session() -> Option<BorrowedFd<'static>> {
        let fd = sys::stdio::standard().into_iter().find(|fd| isatty(*fd))?;
        if sys::group::session_of(0) == Some(getpid().as_raw_nonzero().get()) {
            sys::stdio::give_up_terminal(fd);
        }
        Some(fd)
    }

    /// Whether somebody would wake kapo with CONT if it stopped: a shell that does job control is our parent, in our
    /// session and in another group. In an orphaned group, and for PID 1, nobody would.
    pub fn somebody_minds_us(&self) -> bool {
        let Some(parent) = getppid().map(|parent| parent.as_raw_nonzero().get()) else { return false };
        getpid() != Pid::INIT
            && sys::group::session_of(parent) == sys::group::session_of(0)
            && sys::group::of(parent) != sys::group::of(0)
    }

    /// Whether the next command may have it: it is kapo's, or was that of a command that is gone. The shell that has
    /// put kapo into the background keeps it.
    pub fn is_at_hand(&self) -> bool {
        is_held_by(self.fd.as_fd(), self.own) || (self.own.is_none() && !self.is_held_by_somebody())
    }

    /// To the command's group, if kapo's holds the foreground.
    pub fn give(&self, group: Pid) {
        if is_held_by(self.fd.as_fd(), self.own) {
            let _ = tcsetpgrp(&self.fd, group);
        }
    }

    /// Back from the command's group, or from one that is gone. From the background this would raise TTOU, which is
    /// blocked. Others, such as the shell that has put us into the background, keep it.
    pub fn take_back(&self, group: Option<Pid>) {
        let of_the_command = sys::group::foreground_of(self.fd.as_fd()).and_then(Pid::from_raw) == group;
        if let Some(own) = self.own
            && ((of_the_command && group.is_some()) || !self.is_held_by_somebody())
        {
            let _ = tcsetpgrp(&self.fd, own);
        }
    }

    /// Whether its foreground group has a process that we can see.
    fn is_held_by_somebody(&self) -> bool {
        let holder = sys::group::foreground_of(self.fd.as_fd()).and_then(Pid::from_raw);
        holder.is_some_and(|holder| test_kill_process_group(holder) != Err(Errno::SRCH))
    }
}

/// Whether `own`, our group, is in the foreground of this descriptor, which may be none of our controlling terminal.
fn is_held_by(fd: BorrowedFd<'_>, own: Option<Pid>) -> bool {
    match (sys::group::foreground_of(fd), own) {
        (Some(holder), Some(own)) => Pid::from_raw(holder) == Some(own),
        // Neither has a number that we could compare. But in the background a read would raise TTIN, and as that is
        // blocked it fails; reading nothing takes nothing from anybody.
        (Some(0), None) => rustix::io::read(fd, &mut [0_u8; 0]).is_ok(),
        (Some(_), None) | (None, _) => false,
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the terminal that we were started on has hung up: then its descriptors answer with EIO for ever.
pub fn is_gone() -> bool {
    sys::stdio::standard().into_iter().any(|fd| tcgetattr(fd).is_err_and(|errno| errno == Errno::IO))
}

/// Stops kapo itself until CONT. STOP cannot be blocked; PID 1 alone goes on as if nothing were.
pub fn stop_ourselves() {
    let _ = kill_process(getpid(), Signal::STOP);
}
