//! The descriptors and the terminal that kapo was started with.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Returns descriptors 0, 1 and 2, which the program's entry keeps open.
pub fn standard() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Writes all bytes. Writes to a descriptor that is not open for writing, such as a placeholder, are discarded, as std
/// does for stdout. std's handle would add a lock and a buffer.
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, bytes)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::BADF) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Opens a placeholder for each of the descriptors 0, 1 and 2 that is closed, so that no socket of kapo gets such a
/// number and is used as stdout. The placeholder is the read end of a pipe without a writer: reads return the end of
/// file, and writes fail. It is close-on-exec, so the command finds the number closed, as it would without kapo.
pub fn fill_closed_standard_descriptors() {
    for number in 0..3 {
        // SAFETY: reads the flags of a descriptor number, open or not.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0 {
            continue;
        }
        let mut ends = [-1; 2];
        // The read end gets `number`, which is the lowest free one because all lower ones are open.
        // SAFETY: the array has room for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } == 0 {
            // SAFETY: the write end has just been opened, and nothing else uses it.
            unsafe { libc::close(ends[1]) };
        }
    }
}

/// Whether this is the master side of a pseudo-terminal, which has a number (ioctl_tty(2)).
pub fn is_pty_master(fd: BorrowedFd<'_>) -> bool {
    let mut number: libc::c_uint = 0;
    // SAFETY: the ioctl writes an int, which outlives the call.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTN, &raw mut number) == 0 }
}

/// Gives up the controlling terminal of the session that kapo leads. The kernel then sends HUP and CONT to the
/// foreground process group, which may be kapo's own. These two signals are discarded, because kapo itself has caused
/// them. All signals must be blocked.
pub fn give_up_terminal(terminal: BorrowedFd<'_>) {
    // SAFETY: an ioctl without argument.
    if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) } < 0 {
        return;
    }
    super::signal::discard_pending(&[libc::SIGHUP, libc::SIGCONT]);
}

/// Whether [`InheritedFds::take`] was called.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The inherited descriptors, in the order of their numbers. A process takes them only once, so that none has two
/// owners.
#[derive(Debug)]
pub(crate) struct InheritedFds(Vec<io::Result<OwnedFd>>);

impl InheritedFds {
    /// Takes the descriptors `numbers`, except 0, 1 and 2. At the first one that is closed or close-on-exec, the
    /// function stops and adds the error EBADF. A close-on-exec descriptor cannot be inherited, so kapo itself has
    /// opened it. A second call in the same process takes nothing and returns only EBADF.
    pub(crate) fn take(numbers: Range<i32>) -> InheritedFds {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return InheritedFds(vec![Err(io::Error::from_raw_os_error(libc::EBADF))]);
        }
        let mut taken = Vec::new();
        for number in numbers.start.max(3)..numbers.end {
            taken.push(take(number));
            if taken.last().is_some_and(Result::is_err) {
                break;
            }
        }
        InheritedFds(taken)
    }
}

impl IntoIterator for InheritedFds {
    type Item = io::Result<OwnedFd>;
    type IntoIter = std::vec::IntoIter<io::Result<OwnedFd>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

fn take(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: reads the flags of a descriptor number, open or not.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open and has no other owner, because everything that kapo opens is close-on-exec, and `TAKEN` lets
    // each number be taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes one of the standard descriptors and occupies its number with a close-on-exec copy of `placeholder`, so that
/// no socket of kapo gets the number and is used as stdin or stdout.
pub fn close_but_keep_number(standard: BorrowedFd<'_>, placeholder: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open and different; the number stays open, so existing borrows of it remain valid.
    if unsafe { libc::dup3(placeholder.as_raw_fd(), standard.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Replaces one of the standard descriptors by a copy of `other`. Without `other`, replaces it by a placeholder, which
/// has close-on-exec, so that the descriptor is closed in the command.
pub fn replace(standard: BorrowedFd<'_>, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let number = standard.as_raw_fd();
    let placeholder;
    let (from, flags) = match other {
        Some(other) => (other, 0),
        None => {
            // The read end of a pipe without a writer: reads return the end of file, and writes fail.
            placeholder = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?.0;
            (placeholder.as_fd(), libc::O_CLOEXEC)
        }
    };
    // SAFETY: both are open and different; the number stays open, so existing borrows of it remain valid.
    if unsafe { libc::dup3(from.as_raw_fd(), number, flags) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn inherited_descriptors_are_taken_once_up_to_a_closed_one() {
        let (reader, _writer) = std::io::pipe().unwrap();
        // SAFETY: duplicates an open descriptor without close-on-exec, as a service manager does.
        let number = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_DUPFD, 800) };
        let errno = |result: io::Result<OwnedFd>| result.map_err(|error| error.raw_os_error());
        let seen: Vec<_> = InheritedFds::take(number..number + 5)
            .into_iter()
            .map(|fd| errno(fd).map(IntoRawFd::into_raw_fd))
            .collect();
        assert_eq!(seen, [Ok(number), Err(Some(libc::EBADF))]);
        let again: Vec<_> = InheritedFds::take(number..number + 1).into_iter().collect();
        assert!(matches!(again.as_slice(), [Err(_)]), "{again:?}");
    }

    #[test]
    fn writes_to_a_descriptor_without_a_writer_are_discarded() {
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!(write_all(reader.as_fd(), b"lost").ok(), Some(()));
        write_all(writer.as_fd(), b"kept").unwrap();
        drop(writer);
        assert_eq!(io::read_to_string(reader).unwrap(), "kept");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(write_all(full.as_fd(), b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
