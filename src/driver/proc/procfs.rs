//! Reads /proc: the list of processes in slices, and the name, arguments, start time and state of a process. Buffers
//! are on the stack, and only the list keeps a descriptor, while a scan runs.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::{self, Errno};

use crate::driver::proc::small_file;
use crate::error::{Error, reason};
use crate::logic::ProcessId;
use crate::logic::proc::stat;
use crate::sys::clock;

/// PROC_SUPER_MAGIC of statfs(2).
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// The path `/proc/PID/FILE`, built without allocation.
struct Path {
    bytes: [u8; 40],
    len: usize,
}

impl Path {
    fn of(pid: ProcessId, file: &CStr) -> Path {
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

/// Returns the name that the kernel keeps (at most 64 bytes for a kernel thread), without the newline.
pub(crate) fn comm(pid: ProcessId, buffer: &mut [u8]) -> io::Result<&[u8]> {
    let text = small_file::beginning(Path::of(pid, c"comm").as_c_str(), buffer)?;
    Ok(text.strip_suffix(b"\n").unwrap_or(text))
}

/// Returns the line of /proc/PID/stat.
pub(crate) fn stat(pid: ProcessId, buffer: &mut [u8; 1024]) -> io::Result<&[u8]> {
    small_file::beginning(Path::of(pid, c"stat").as_c_str(), buffer)
}

/// The maximum number of ancestors that are followed.
const GENERATIONS: usize = 1_000;

/// Returns the pid of the parent (0 if the parent is not visible) and the start time in clock ticks. `None` if the
/// process is gone or /proc is not mounted.
pub(crate) fn parent_and_birth(pid: ProcessId) -> Option<(i32, u64)> {
    let mut buffer = [0; 1024];
    let parsed = stat::Stat::parse(stat(pid, &mut buffer).ok()?)?;
    Some((parsed.ppid, parsed.ticks))
}

/// Returns `first` and its ancestors, the nearest first, as far as /proc shows them.
pub(crate) fn lineage(first: Option<ProcessId>) -> impl Iterator<Item = ProcessId> {
    let parent = |pid: &ProcessId| parent_and_birth(*pid).and_then(|(parent, _)| ProcessId::new(parent));
    std::iter::successors(first, parent).take(GENERATIONS)
}

/// Returns the beginning of the arguments. Empty for a kernel thread, or if they cannot be read.
pub(crate) fn cmdline(pid: ProcessId, buffer: &mut [u8]) -> &[u8] {
    small_file::beginning(Path::of(pid, c"cmdline").as_c_str(), buffer).unwrap_or_default()
}

/// Returns the target of the exe link; empty if kapo may not read it.
pub(crate) fn exe(pid: ProcessId, buffer: &mut [MaybeUninit<u8>]) -> &[u8] {
    rustix::fs::readlinkat_raw(CWD, Path::of(pid, c"exe").as_c_str(), buffer).map_or(&[], |(path, _)| &*path)
}

/// Returns the pid that the kernel gave out last in kapo's PID namespace; `None` if /proc does not show it.
pub(crate) fn last_pid() -> Option<ProcessId> {
    let mut buffer = [0; 16];
    stat::pid(small_file::beginning(c"/proc/sys/kernel/ns_last_pid", &mut buffer).ok()?.trim_ascii_end())
}

/// Whether a read failed because descriptors or memory ran out, which says nothing about the process.
pub(crate) fn is_resource_exhaustion(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

/// Returns the time of boot in whole seconds, computed as ps(1) does.
pub(crate) fn boot_time() -> SystemTime {
    // A mount with subset=pid has no /proc/stat.
    read_boot_time().unwrap_or_else(by_clocks)
}

fn by_clocks() -> SystemTime {
    let [now, up] = clock::real_and_boot();
    let behind = i64::from(now.1 < up.1);
    let seconds = now.0.saturating_sub(up.0).saturating_sub(behind);
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Reads /proc/stat in overlapping parts, because its length grows with the number of CPUs and interrupts.
fn read_boot_time() -> Option<SystemTime> {
    const KEEP: usize = stat::BOOT_TIME_LINE;
    let file = small_file::open(c"/proc/stat").ok()?;
    let mut buffer = [0; KEEP + 2048];
    loop {
        let got = io::read(&file, buffer.get_mut(KEEP..)?).ok().filter(|got| *got > 0)?;
        if let Some(time) = stat::boot_time(buffer.get(..KEEP + got)?) {
            return Some(time);
        }
        buffer.copy_within(got..KEEP + got, 0);
    }
}

/// Which processes the mounted /proc shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcView {
    /// The pid of kapo in /proc; `None` if /proc does not show kapo.
    pub own: Option<ProcessId>,
    /// Whether the pids in /proc are valid for system calls. They are not if /proc was mounted for another PID
    /// namespace.
    pub ours: bool,
}

/// Checks that /proc is mounted and for which PID namespace.
pub(crate) fn view() -> Result<ProcView, Error> {
    let refused = |errno: Errno| Error::setup("read", "/proc", reason(&errno.into()));
    let dir = open_list().map_err(refused)?;
    if rustix::fs::fstatfs(&dir).map_err(refused)?.f_type != PROC_SUPER_MAGIC {
        return Err(Error::setup("read", "/proc", "not mounted"));
    }
    let mut link = [MaybeUninit::uninit(); 16];
    let own = match rustix::fs::readlinkat_raw(CWD, c"/proc/self", &mut link) {
        Ok((name, _)) => stat::pid(name),
        Err(_) => None,
    };
    let mut buffer = [0; 2048];
    let status = small_file::beginning(c"/proc/self/status", &mut buffer).unwrap_or_default();
    let real = ProcessId::from(rustix::process::getpid().as_raw_nonzero());
    let ours = own == Some(real) && !stat::is_nested(status);
    Ok(ProcView { own, ours })
}

fn open_list() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())
}

/// The position of a process in the list is its pid plus 257 or 258, depending on the release of the kernel. Other
/// entries come before the processes, and beginning a little too early does no harm.
const BEFORE_PROCESSES: u64 = 256;

/// An iteration over the list of processes, in slices. Each new [`Listing`] begins at the first process.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Opened by the first slice.
    dir: Option<OwnedFd>,
    /// The pids to list; `None` for all.
    range: Option<(ProcessId, ProcessId)>,
}

impl Listing {
    /// Creates the iteration over the processes with these pids.
    pub(crate) fn of(range: Option<(ProcessId, ProcessId)>) -> Listing {
        Listing { dir: None, range }
    }

    /// Calls `each` with pid and inode number of the next processes until it returns `false`. Returns whether the list
    /// has ended. The next call continues where `each` stopped.
    pub(crate) fn walk(&mut self, mut each: impl FnMut(ProcessId, u32) -> bool) -> io::Result<bool> {
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => {
                let dir = open_list()?;
                if let Some((first, _)) = self.range {
                    let place = BEFORE_PROCESSES + u64::from(first.get().unsigned_abs());
                    rustix::fs::seek(&dir, SeekFrom::Start(place))?;
                }
                dir
            }
        };
        let dir = self.dir.insert(dir);
        // A page holds the names of about 150 processes, which keeps both system calls and stack use low.
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(dir.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(pid) = stat::pid(entry.file_name().to_bytes()) else { continue };
            match self.range {
                Some((first, _)) if pid < first => continue,
                Some((_, last)) if pid > last => return Ok(true),
                _ => {}
            }
            let next = entry.next_entry_cookie();
            // The kernel takes these numbers from a 32-bit counter.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the upper half is 0, and a mark is only a mark"
            )]
            let mark = entry.ino() as u32;
            if !each(pid, mark) {
                // The next slice reads the rest of the buffer again.
                rustix::fs::seek(&*dir, SeekFrom::Start(next))?;
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessId {
        rustix::process::getpid().as_raw_nonzero().into()
    }

    #[test]
    fn paths_of_the_smallest_and_the_largest_pid_are_whole() {
        let path = |pid| Path::of(ProcessId::new(pid).unwrap(), c"cmdline").as_c_str().to_owned();
        assert_eq!(path(1), c"/proc/1/cmdline".to_owned());
        assert_eq!(path(4_194_304), c"/proc/4194304/cmdline".to_owned());
        assert_eq!(path(i32::MAX), c"/proc/2147483647/cmdline".to_owned());
    }

    #[test]
    fn a_process_reads_the_same_as_through_std() {
        let (mut name, mut line, mut words, mut link) =
            ([0; 80], [0; 1024], [0; 1024], [MaybeUninit::uninit(); 1024]);
        assert_eq!(
            comm(own(), &mut name).unwrap(),
            std::fs::read("/proc/self/comm").unwrap().trim_ascii_end()
        );
        assert!(stat::Stat::parse(stat(own(), &mut line).unwrap()).is_some_and(|stat| stat.lives()));
        let real = std::fs::read("/proc/self/cmdline").unwrap();
        assert!(real.starts_with(cmdline(own(), &mut words)) && !words.starts_with(&[0]));
        let real = std::env::current_exe().unwrap();
        assert_eq!(exe(own(), &mut link), real.as_os_str().as_encoded_bytes());
    }

    #[test]
    fn a_missing_process_is_an_error_or_empty() {
        // No machine assigns this pid.
        let nobody = ProcessId::new(i32::MAX).unwrap();
        assert_eq!(comm(nobody, &mut [0; 80]).unwrap_err(), Errno::NOENT);
        assert_eq!(stat(nobody, &mut [0; 1024]).unwrap_err(), Errno::NOENT);
        assert!(cmdline(nobody, &mut [0; 80]).is_empty());
        assert!(exe(nobody, &mut [MaybeUninit::uninit(); 80]).is_empty());
    }

    #[test]
    fn a_listing_in_slices_of_one_lists_each_process_once() {
        let (mut listing, mut pids) = (Listing::default(), Vec::new());
        let all = |pids: &mut Vec<ProcessId>, pid| {
            pids.push(pid);
            true
        };
        assert!(
            listing.walk(|pid, _| all(&mut pids, pid)).unwrap(),
            "one call meets all where nobody stops it"
        );
        let mut listing = Listing::default();
        let mut stopped = Vec::new();
        let step = |stopped: &mut Vec<ProcessId>, pid| {
            stopped.push(pid);
            false
        };
        while !listing.walk(|pid, _| step(&mut stopped, pid)).unwrap() {}
        assert!(pids.is_sorted() && stopped.is_sorted_by(|a, b| a < b));
        // Other processes come and go; this one and the first one stay.
        for pid in [own(), ProcessId::new(1).unwrap()] {
            assert!(pids.contains(&pid) && stopped.contains(&pid), "{pid}");
        }
    }

    #[test]
    fn a_listing_of_some_pids_lists_all_of_them_and_no_other() {
        let one = ProcessId::new(1).unwrap();
        for (first, last) in [(own(), own()), (one, own()), (own(), ProcessId::NO_PROCESS)] {
            let mut pids = Vec::new();
            let step = |pids: &mut Vec<ProcessId>, pid| {
                pids.push(pid);
                // Slices of two.
                pids.len().is_multiple_of(2)
            };
            let mut listing = Listing::of(Some((first, last)));
            while !listing.walk(|pid, _| step(&mut pids, pid)).unwrap() {}
            assert!(pids.contains(&own()) && pids.is_sorted_by(|a, b| a < b), "{pids:?}");
            assert!(pids.iter().all(|pid| first <= *pid && *pid <= last), "{pids:?}");
            assert_eq!(pids.first() == Some(&one), first == one);
        }
    }

    #[test]
    fn a_new_process_has_the_last_pid_or_an_earlier_one() {
        let before = last_pid().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // The pids may begin again in between.
        assert!(pid > before.get() || before > last_pid().unwrap());
        assert!(pid <= last_pid().unwrap().get() || before > last_pid().unwrap());
        child.wait().unwrap();
    }

    #[test]
    fn the_inode_number_of_a_process_stays_the_same() {
        let mark = || {
            let mut found = None;
            Listing::default()
                .walk(|pid, mark| {
                    found = found.or((pid == own()).then_some(mark));
                    true
                })
                .unwrap();
            found.unwrap()
        };
        assert_eq!(mark(), mark());
    }

    #[test]
    fn both_ways_to_the_boot_time_agree() {
        let read = read_boot_time().unwrap();
        let text = std::fs::read("/proc/stat").unwrap();
        assert_eq!(Some(read), stat::boot_time(&text));
        let other = by_clocks();
        let apart = read.duration_since(other).unwrap_or_else(|error| error.duration());
        assert!(apart <= Duration::from_secs(1), "{apart:?}");
    }

    #[test]
    fn proc_shows_kapo_itself() {
        let view = view().unwrap();
        assert_eq!((view.own, view.ours), (Some(own()), true));
    }
}
