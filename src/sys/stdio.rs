//! The descriptors and the terminal that kapo was started with.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Descriptors 0, 1 and 2, which the program's entry keeps open.
pub fn standard() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Opens a placeholder for each of the descriptors 0, 1 and 2 that is closed, so that no socket of kapo's gets the number
/// and is written to as if it were stdout. The placeholder is the read end of a pipe without a writer: reading meets the
/// end of file, writing fails. It is close-on-exec, so the command finds the number closed, as without kapo.
pub fn fill_closed_standard_descriptors() {
    for number in 0..3 {
        // SAFETY: asks for the flags of a number, open or not.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0 {
            continue;
        }
        let mut ends = [-1; 2];
        // The read end gets `number`, which is the lowest free one because those below are open by now.
        // SAFETY: the array has room for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } == 0 {
            // SAFETY: the write end was opened just now and nothing else knows of it.
            unsafe { libc::close(ends[1]) };
        }
    }
}

/// Whether this is the master's side of a pseudo-terminal, which has a number (ioctl_tty(2)).
pub fn is_pty_master(fd: BorrowedFd<'_>) -> bool {
    let mut number: libc::c_uint = 0;
    // SAFETY: the ioctl writes an int, which lives across the call.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTN, &raw mut number) == 0 }
}

/// Gives up the controlling terminal of the session that we lead. The kernel sends the foreground group, which may be
/// ours, HUP and CONT for it; they are about our own doing and are taken away again. Signals must be blocked.
pub fn give_up_terminal(terminal: BorrowedFd<'_>) {
    // SAFETY: an ioctl without argument.
    if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) } < 0 {
        return;
    }
    super::signal::discard_pending(&[libc::SIGHUP, libc::SIGCONT]);
}

/// A descriptor that was handed over by number, if it is open. To be called once for each. What closes at exec cannot
/// have come through one: it is ours, opened since, by a number that was free.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: asks for the flags of a number, open or not.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and whoever started us gave it to us by convention (sd_listen_fds(3)).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes one of the standard descriptors and keeps its number taken by a copy of `placeholder` that closes at exec, so
/// that no socket of kapo's gets the number and is taken for stdin or stdout.
pub fn close_but_keep_number(standard: BorrowedFd<'_>, placeholder: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open and different; the number stays open, so nobody's borrow of it ends.
    if unsafe { libc::dup3(placeholder.as_raw_fd(), standard.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Puts a copy of `other` in the place of one of the standard descriptors; without one, a placeholder that the
/// command finds closed.
pub fn replace(standard: BorrowedFd<'_>, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let number = standard.as_raw_fd();
    let placeholder;
    let (from, flags) = match other {
        Some(other) => (other, 0),
        None => {
            // The read end of a pipe without a writer: reading meets the end, writing fails.
            placeholder = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?.0;
            (placeholder.as_fd(), libc::O_CLOEXEC)
        }
    };
    // SAFETY: both are open and different; the number stays open, so nobody's borrow of it ends.
    if unsafe { libc::dup3(from.as_raw_fd(), number, flags) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
