//! The process at the other end of a Unix socket. rustix would read it into a type that cannot hold the pid 0.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns pid and user of the process that has called listen(2) on the other end of this connected Unix socket
/// (SO_PEERCRED, unix(7)). The pid is 0 if that process is outside the PID namespace.
pub(crate) fn listener(socket: BorrowedFd<'_>) -> Option<(i32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    let value = (&raw mut peer).cast();
    // SAFETY: the kernel writes at most `length` bytes, those of `peer`, and any bytes are valid there.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, value, &raw mut length)
    };
    (result == 0).then_some((peer.pid, peer.uid))
}
