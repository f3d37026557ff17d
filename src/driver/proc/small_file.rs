//! Reads small files of the kernel: those under /proc and those of cgroups.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io;
use rustix::path::Arg;

/// Opens a file for reading.
pub(crate) fn open(path: impl Arg) -> io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Reads the beginning of a file with one read(2), as much as fits into `buffer`.
pub(crate) fn beginning(path: impl Arg, buffer: &mut [u8]) -> io::Result<&[u8]> {
    let file = open(path)?;
    let len = io::retry_on_intr(|| io::read(&file, &mut *buffer))?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Reads a file from its beginning into `text`, up to its end or until `text` has at least `limit` bytes. The position
/// of earlier reads does not matter. A short read is not the end, because the kernel does not split a line that is longer
/// than its buffer.
pub(crate) fn whole(file: impl AsFd, limit: usize, text: &mut Vec<u8>) -> io::Result<()> {
    fill(file.as_fd(), limit, 1, text)
}

/// Reads in the same way a file whose lines have less than 1,000 bytes. A read that leaves room for such a line is the
/// last one, which saves half of the reads.
pub(crate) fn whole_of_short_lines(file: impl AsFd, limit: usize, text: &mut Vec<u8>) -> io::Result<()> {
    fill(file.as_fd(), limit, BUFFER - 1_000, text)
}

const BUFFER: usize = 4_096;

/// Reads until a read returns less than `least` bytes.
fn fill(file: BorrowedFd<'_>, limit: usize, least: usize, text: &mut Vec<u8>) -> io::Result<()> {
    text.clear();
    loop {
        let offset = u64::try_from(text.len()).unwrap_or(u64::MAX);
        text.reserve(BUFFER);
        let len = io::retry_on_intr(|| io::pread(file, spare_capacity(text), offset))?;
        if len < least || text.len() >= limit {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn files_are_read_from_the_beginning_and_equal_those_of_std() {
        let expected = std::fs::read("/proc/filesystems").unwrap();
        let file = open("/proc/filesystems").unwrap();
        let mut text = b"before".to_vec();
        for _ in 0..2 {
            whole(&file, usize::MAX, &mut text).unwrap();
            assert_eq!(text, expected);
            whole_of_short_lines(&file, usize::MAX, &mut text).unwrap();
            assert_eq!(text, expected);
        }
        let mut buffer = [0; 7];
        assert_eq!(beginning(c"/proc/filesystems", &mut buffer).unwrap(), expected.get(..7).unwrap());
        assert_eq!(beginning("/proc/self/no", &mut buffer).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn a_limit_ends_a_long_file() {
        let mut text = Vec::new();
        whole(open("/dev/zero").unwrap(), 5_000, &mut text).unwrap();
        assert_eq!(text.len(), 8_192);
    }
}
