//! Handles descriptors that are sent to Unix sockets: SO_PASSRIGHTS refuses them, or they are made safe to close.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// `SO_PASSRIGHTS` of <asm-generic/socket.h>, since Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Makes the kernel refuse messages with descriptors to this Unix socket and to sockets accepted from it; the sender
/// gets EPERM. Otherwise closing a received descriptor could block for as long as its sender wants (SO_LINGER with
/// unsent data). Returns whether the kernel supports the option; false also for a socket of another family.
pub(crate) fn refuse(socket: BorrowedFd<'_>) -> bool {
    set(socket, SO_PASSRIGHTS, &0)
}

/// Switches SO_LINGER off, so that closing the socket does not wait for unsent data. Has no effect on a descriptor
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
