//! The descriptors and the terminal that kapo was started with.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Descriptor 1.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: the program's entry sees to it that 1 is open, and nothing in kapo ever closes it.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Descriptor 2.
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: the program's entry sees to it that 2 is open, and nothing in kapo ever closes it.
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// Descriptors 0, 1 and 2.
pub fn standard() -> [BorrowedFd<'static>; 3] {
    // SAFETY: the program's entry sees to it that 0 is open, and nothing in kapo ever closes it.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    [stdin, stdout(), stderr()]
}

/// Gives up the controlling terminal of the session that we lead. The kernel sends the foreground group, which may be
/// ours, HUP and CONT for it; they are about our own doing and are taken away again. Signals must be blocked.
pub fn give_up_terminal(terminal: BorrowedFd<'_>) {
    // SAFETY: an ioctl without argument.
    if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) } < 0 {
        return;
    }
    let bit = |signal: i32| 1_u64 << (signal - 1);
    let set: u64 = bit(libc::SIGHUP) | bit(libc::SIGCONT);
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_info = std::ptr::null_mut::<libc::siginfo_t>();
    loop {
        // SAFETY: set and time live across the call and the size is that of the set.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const set,
                no_info,
                &raw const now,
                size_of::<u64>(),
            )
        };
        if taken <= 0 {
            return;
        }
    }
}

/// The descriptor of what lends it by number only.
pub fn borrowed(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the owner keeps it open for as long as the borrow lasts.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}
