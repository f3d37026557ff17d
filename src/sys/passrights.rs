//! Descriptors that come with messages to Unix sockets: refused by SO_PASSRIGHTS, or made safe to close.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_PASSRIGHTS` of <asm-generic/socket.h>, since Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Has the kernel refuse messages with descriptors to this Unix socket, and to sockets accepted from it: their sender
/// gets EPERM. Closing a descriptor can sleep for as long as its sender wants (SO_LINGER with unsent data). Returns
/// whether the kernel knows the option; false also for a socket of another family.
pub(crate) fn refuse(socket: BorrowedFd<'_>) -> bool {
    set(socket, SO_PASSRIGHTS, &0)
}

/// Switches SO_LINGER off, so that closing a socket does not wait until its data is sent. Does nothing to a descriptor
/// that is not a socket.
pub(crate) fn switch_linger_off(descriptor: BorrowedFd<'_>) {
    set(descriptor, libc::SO_LINGER, &libc::linger { l_onoff: 0, l_linger: 0 });
}

fn set<T: Copy>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> bool {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let value = (&raw const *value).cast();
    // SAFETY: the kernel reads `length` bytes, which are those of a live reference.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length) == 0 }
}
