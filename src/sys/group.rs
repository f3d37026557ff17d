//! Process groups and sessions by number. All of these are 0 for what is outside our PID namespace, as when
//! unshare(1) has started us in its own group: rustix takes that for impossible.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Our own process group.
pub fn own() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpgrp() }
}

/// Waits until a signal to our group, of which we have got ours, has reached all of it: the kernel holds a lock for
/// reading while it goes round, and takes it for writing here, before it finds that there is no such group to move to.
pub fn await_senders() {
    // SAFETY: plain integers.
    unsafe { libc::setpgid(0, i32::MAX) };
}

/// The process group of `pid`, 0 meaning ourselves; `None`: there is no such process.
pub fn of(pid: i32) -> Option<i32> {
    // SAFETY: a plain integer.
    Some(unsafe { libc::getpgid(pid) }).filter(|group| *group >= 0)
}

/// The session of `pid`, 0 meaning ourselves; `None`: there is no such process.
pub fn session_of(pid: i32) -> Option<i32> {
    // SAFETY: a plain integer.
    Some(unsafe { libc::getsid(pid) }).filter(|session| *session >= 0)
}

/// The foreground group of our controlling terminal; also 0 where it has none. `None`: `terminal` is not that.
pub fn foreground_of(terminal: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: an ioctl on a descriptor that is open.
    Some(unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) }).filter(|group| *group >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_has_no_group() {
        assert_eq!(of(0), Some(own()));
        assert_eq!(of(i32::MAX), None);
        assert_eq!(session_of(i32::MAX), None);
        let before = own();
        await_senders();
        assert_eq!(own(), before);
        let no_terminal = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(foreground_of(std::os::fd::AsFd::as_fd(&no_terminal)), None);
    }
}
