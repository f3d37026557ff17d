//! Reads how a process that is not a child of kapo has ended (PIDFD_GET_INFO). rustix has all other functions for
//! pidfds.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

use rustix::io::{self, Errno};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `struct pidfd_info` of <linux/pidfd.h> in its first version: 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    /// pid, tgid, ppid and the eight user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_GET_INFO: Opcode = opcode::read_write::<PidfdInfo>(0xFF, 11);
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Returns the wait status of the process that a pidfd refers to. The kernel has it once the process is reaped (Linux
/// 6.15 and newer); `None` before that. An error means that this kernel does not support the request.
pub(crate) fn exit_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    match ask(pidfd) {
        // The kernel looks up the wait status first and the process second. If the process is reaped in between, the
        // call fails with ESRCH, and a second call finds the status.
        Err(Errno::SRCH) => ask(pidfd),
        result => result,
    }
}

fn ask(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the opcode is that of PIDFD_GET_INFO, and its size field is the size of the struct passed with it.
    let request = unsafe { Updater::<PIDFD_GET_INFO, PidfdInfo>::new(&mut info) };
    // SAFETY: the kernel writes at most the size encoded in the opcode, into a struct for which all bit patterns are
    // valid. A descriptor of another kind does not support the opcode.
    unsafe { ioctl(pidfd, request) }?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::exit_status;

    #[test]
    fn the_wait_status_is_available_only_after_the_reap() {
        let mut child = Command::new("/bin/sh").args(["-c", "kill -TERM $$"]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let before = exit_status(pidfd.as_fd());
        child.wait().unwrap();
        match before {
            Err(errno) => eprintln!("skipped: this kernel does not support the request ({errno})"),
            Ok(status) => assert_eq!((status, exit_status(pidfd.as_fd())), (None, Ok(Some(15)))),
        }
    }

    #[test]
    fn another_kind_of_descriptor_is_refused() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(exit_status(null.as_fd()).is_err());
    }
}
