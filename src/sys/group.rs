//! Process groups and sessions by number. The number is 0 for a group or session outside kapo's PID namespace, for
//! example if unshare(1) has started kapo in its own group; rustix treats 0 as impossible.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns kapo's own process group.
pub fn own() -> i32 {
    // SAFETY: the call has no preconditions.
    unsafe { libc::getpgrp() }
}

/// Waits until all members of kapo's process group have received a signal that kapo itself has already received. The
/// kernel holds a read lock while it signals the group. setpgid takes the same lock for writing and then fails,
/// because the requested group does not exist.
pub fn await_senders() {
    // SAFETY: the call takes only integers.
    unsafe { libc::setpgid(0, i32::MAX) };
}

/// Returns the process group of `pid` (0: of kapo); `None` if there is no such process.
pub fn of(pid: i32) -> Option<i32> {
    // SAFETY: the call takes only an integer.
    Some(unsafe { libc::getpgid(pid) }).filter(|group| *group >= 0)
}

/// Returns the session of `pid` (0: of kapo); `None` if there is no such process.
pub fn session_of(pid: i32) -> Option<i32> {
    // SAFETY: the call takes only an integer.
    Some(unsafe { libc::getsid(pid) }).filter(|session| *session >= 0)
}

/// Returns the foreground process group of the controlling terminal, or 0 if it has none. Returns `None` if `terminal`
/// is not kapo's controlling terminal.
pub fn foreground_of(terminal: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: an ioctl on a descriptor that is open.
    Some(unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) }).filter(|group| *group >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_process_has_no_group() {
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
