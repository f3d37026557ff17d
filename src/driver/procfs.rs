//! Reads /proc: the list of processes in slices, and a process's name, words, start time and state. Buffers are on
//! the stack and no descriptor is kept but that of the list while a scan runs.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::{self, Errno};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, reason};
use crate::logic::{Pid, procstat};

/// PROC_SUPER_MAGIC of statfs(2).
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// The name of `/proc/PID/FILE`, without allocation.
struct Path {
    bytes: [u8; 40],
    len: usize,
}

impl Path {
    fn of(pid: Pid, file: &CStr) -> Path {
        let mut path = Path { bytes: [0; 40], len: 0 };
        path.push(b"/proc/");
        let mut digits = [0; 10];
        let mut at = digits.len();
        let mut rest = pid.get().unsigned_abs();
        while rest > 0 && at > 0 {
            at -= 1;
            if let (Some(slot), Ok(digit)) = (digits.get_mut(at), u8::try_from(rest % 10)) {
                *slot = b'0' + digit;
            }
            rest /= 10;
        }
        path.push(digits.get(at..).unwrap_or_default());
        path.push(b"/");
        path.push(file.to_bytes_with_nul());
        path
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(slot) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            slot.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// Reads from the beginning of a file as much as fits.
fn read<'b>(path: &CStr, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // One read gives all of a small file; what is longer than the buffer is not wanted.
    let len = io::retry_on_intr(|| io::read(&file, &mut *buffer))?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// The name that the kernel keeps, without the newline behind it.
pub fn comm(pid: Pid, buffer: &mut [u8; 80]) -> io::Result<&[u8]> {
    let text = read(Path::of(pid, c"comm").as_c_str(), buffer)?;
    Ok(text.strip_suffix(b"\n").unwrap_or(text))
}

/// The line of /proc/PID/stat.
pub fn stat(pid: Pid, buffer: &mut [u8; 1024]) -> io::Result<&[u8]> {
    read(Path::of(pid, c"stat").as_c_str(), buffer)
}

/// The beginning of its arguments; empty for a kernel thread, and where it cannot be read.
pub fn cmdline(pid: Pid, buffer: &mut [u8]) -> &[u8] {
    read(Path::of(pid, c"cmdline").as_c_str(), buffer).unwrap_or_default()
}

/// What its exe link names; empty where it may not be read.
pub fn exe(pid: Pid, buffer: &mut [MaybeUninit<u8>]) -> &[u8] {
    rustix::fs::readlinkat_raw(CWD, Path::of(pid, c"exe").as_c_str(), buffer).map_or(&[], |(path, _)| &*path)
}

/// A read failed for want of descriptors or memory, which says nothing about the process.
pub fn is_want(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// When the machine was booted, to the second, as ps(1) reckons.
pub fn boot_time() -> SystemTime {
    read_boot_time().unwrap_or_else(|| {
        // A mount with subset=pid has no /proc/stat.
        let now = clock_gettime(ClockId::Realtime);
        let up = clock_gettime(ClockId::Boottime);
        let behind = i64::from(now.tv_nsec < up.tv_nsec);
        let seconds = now.tv_sec.saturating_sub(up.tv_sec).saturating_sub(behind);
        UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    })
}

/// The text grows with the number of CPUs and interrupts, so it is searched in overlapping parts.
fn read_boot_time() -> Option<SystemTime> {
    const KEEP: usize = procstat::BOOT_TIME_LINE;
    let file =
        rustix::fs::openat(CWD, c"/proc/stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0; KEEP + 2048];
    loop {
        let got = io::read(&file, buffer.get_mut(KEEP..)?).ok().filter(|got| *got > 0)?;
        if let Some(time) = procstat::boot_time(buffer.get(..KEEP + got)?) {
            return Some(time);
        }
        buffer.copy_within(got..KEEP + got, 0);
    }
}

/// What /proc is to us.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// kapo as /proc names it; `None` where it does not show kapo.
    pub own: Option<Pid>,
    /// The pids that /proc shows are those that system calls understand: it was not mounted for another PID namespace.
    pub ours: bool,
}

/// Looks whether there is a /proc, and whose.
pub fn view() -> Result<View, Error> {
    let refused = |errno: Errno| Error::setup("read", "/proc", reason(&errno.into()));
    let dir = open_list().map_err(refused)?;
    if rustix::fs::fstatfs(&dir).map_err(refused)?.f_type != PROC_SUPER_MAGIC {
        return Err(Error::setup("read", "/proc", "not mounted"));
    }
    let mut link = [MaybeUninit::uninit(); 16];
    let own = match rustix::fs::readlinkat_raw(CWD, c"/proc/self", &mut link) {
        Ok((name, _)) => procstat::pid(name),
        Err(_) => None,
    };
    let mut buffer = [0; 2048];
    let status = read(c"/proc/self/status", &mut buffer).unwrap_or_default();
    let real = rustix::process::getpid().as_raw_nonzero();
    let ours = own == Some(real) && !procstat::is_nested(status);
    Ok(View { own, ours })
}

fn open_list() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())
}

/// A walk through the list of processes, a slice at a time; a new one begins at the first process.
#[derive(Debug, Default)]
pub struct Listing {
    /// Opened by the first slice.
    dir: Option<OwnedFd>,
}

impl Listing {
    /// Calls `each` with pid and inode number of the next processes until it answers `false`; whether the walk has come
    /// to its end. It may be continued where `each` stopped it.
    pub fn walk(&mut self, mut each: impl FnMut(Pid, u32) -> bool) -> io::Result<bool> {
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => open_list()?,
        };
        let dir = self.dir.insert(dir);
        // A page holds the names of about 150 processes: few system calls, and no stack that is not used anyway.
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(dir.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(pid) = procstat::pid(entry.file_name().to_bytes()) else { continue };
            let next = entry.next_entry_cookie();
            // The kernel takes these numbers from a counter of 32 bits.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the upper half is 0, and a mark is only a mark"
            )]
            let mark = entry.ino() as u32;
            if !each(pid, mark) {
                // The rest of the buffer is asked for again.
                rustix::fs::seek(&*dir, SeekFrom::Start(next))?;
                return Ok(false);
            }
        }
        Ok(true)
    }
}
