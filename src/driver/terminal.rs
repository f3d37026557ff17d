//! The terminal: given to the command's process group for as long as it runs, where kapo holds the foreground itself,
//! so that job control, ^C and ^Z work as without kapo (credentials(7), termios(3)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, getpgid, getpgrp, getpid, getppid, getsid, kill_process};
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};

use crate::sys;

/// A terminal whose foreground process group is kapo's own.
#[derive(Debug)]
pub struct Terminal {
    fd: OwnedFd,
    own: Pid,
}

impl Terminal {
    /// The controlling terminal, if kapo's group is in its foreground.
    pub fn in_foreground() -> Option<Terminal> {
        let own = getpgrp();
        let holds = |fd: BorrowedFd<'_>| tcgetpgrp(fd).is_ok_and(|group| group == own);
        let standard = sys::stdio::standard().into_iter().find(|fd| holds(*fd));
        let fd = match standard {
            Some(fd) => fd.try_clone_to_owned().ok()?,
            // All three may be redirected, and still ^C is meant for us. Without a controlling terminal, as in
            // nearly every service, this open fails at once.
            None => open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).ok()?,
        };
        holds(fd.as_fd()).then_some(Terminal { fd, own })
    }

    /// The terminal to make the controlling one of a new session: one that is among our standard descriptors.
    /// Where kapo leads the session that has it, kapo gives it up.
    pub fn for_new_session() -> Option<BorrowedFd<'static>> {
        let fd = sys::stdio::standard().into_iter().find(|fd| isatty(*fd))?;
        if getsid(None).is_ok_and(|session| session == getpid()) {
            sys::stdio::give_up_terminal(fd);
        }
        Some(fd)
    }

    /// Whether somebody would wake kapo with CONT if it stopped: a shell that does job control is our parent, in our
    /// session and in another group. In an orphaned group, and for PID 1, nobody would.
    pub fn somebody_minds_us(&self) -> bool {
        let Some(parent) = getppid() else { return false };
        getpid() != Pid::INIT
            && getsid(Some(parent)).is_ok_and(|session| getsid(None).is_ok_and(|own| own == session))
            && getpgid(Some(parent)).is_ok_and(|group| group != self.own)
    }

    /// To the command's group, if kapo's holds the foreground.
    pub fn give(&self, group: Pid) {
        if tcgetpgrp(&self.fd).is_ok_and(|holder| holder == self.own) {
            let _ = tcsetpgrp(&self.fd, group);
        }
    }

    /// Back from the command's group, or from one that is gone. From the background this would raise TTOU, which is
    /// blocked. Others, such as the shell that has put us into the background, keep it.
    pub fn take_back(&self, group: Pid) {
        let lost = match tcgetpgrp(&self.fd) {
            Ok(holder) => holder == group || rustix::process::test_kill_process_group(holder).is_err(),
            // The holder's last process is gone.
            Err(_) => true,
        };
        if lost {
            let _ = tcsetpgrp(&self.fd, self.own);
        }
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Stops kapo itself until CONT. STOP cannot be blocked; PID 1 alone goes on as if nothing were.
pub fn stop_ourselves() {
    let _ = kill_process(getpid(), Signal::STOP);
}
