//! Reads the files of kapo's own cgroup: the counter of out-of-memory kills, which can wake kapo, and the values that a
//! scrape and the status document show. `logic::cgroup` and `logic::oom` interpret them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{pread, retry_on_intr};

use crate::driver::proc::small_file;
use crate::logic::cgroup::{self, CgroupFiles, CgroupUsage, Folder, Version};
use crate::logic::history::CgroupMemory;

/// The counter of out-of-memory kills.
#[derive(Debug)]
pub(crate) struct OomKillFile {
    folder: Folder,
    /// The open file, which keeps the mount busy. In cgroup v2 the kernel reports changes only through an open
    /// descriptor, and in both versions opening it again takes ten times as long as reading it.
    file: OwnedFd,
}

impl OomKillFile {
    /// Finds the counter and returns it with its present value. Reads one small file of /proc and, if the cgroup is
    /// mounted at the usual place, opens one more. Returns `None` if the cgroup has no such counter.
    pub(crate) fn find() -> Option<(OomKillFile, u64)> {
        find("memory", OomKillFile::open)
    }

    /// Opens the counter in this folder. Returns `None` if it cannot be read or counts no kills.
    fn open(folder: &Folder) -> Option<(OomKillFile, u64)> {
        let file = OomKillFile { folder: folder.clone(), file: open(&oom_kill_file(folder))? };
        let count = file.count()?;
        Some((file, count))
    }

    /// Returns the present value. Reading it also clears the readiness of [`OomKillFile::source`] until the next
    /// change.
    pub(crate) fn count(&self) -> Option<u64> {
        // Enough for all keys of both versions.
        let mut text = [0; 512];
        let length = retry_on_intr(|| pread(&self.file, &mut text, 0)).ok()?;
        cgroup::keyed(str::from_utf8(text.get(..length)?).ok()?, "oom_kill")
    }

    /// Returns the descriptor to register with epoll for EPOLLPRI alone. It becomes ready (PRI and ERR) when a counter
    /// of the file has changed, and stays ready until [`OomKillFile::count`] is called. Returns `None` for cgroup v1,
    /// which reports no changes: read the counter after the command has ended.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        (self.folder.version == Version::V2).then(|| self.file.as_fd())
    }

    /// Reads the memory values of the cgroup for the end of a run. `oom_kills` is the last value of this counter.
    pub(crate) fn memory(&self, oom_kills: u64) -> CgroupMemory {
        let number = |v1, v2| text(&self.folder.file(v1, v2)).as_deref().and_then(cgroup::number);
        CgroupMemory {
            peak_bytes: number("memory.max_usage_in_bytes", "memory.peak"),
            limit_bytes: number("memory.limit_in_bytes", "memory.max"),
            oom_kills: Some(oom_kills),
        }
    }
}

fn oom_kill_file(folder: &Folder) -> String {
    folder.file("memory.oom_control", "memory.events")
}

/// The folders of kapo's cgroup. They are found only once, because a process is rarely moved to another cgroup and
/// reading mountinfo for each scrape would be slow.
#[derive(Debug)]
pub(crate) struct Cgroup {
    memory: Option<Folder>,
    cpu: Option<Folder>,
    pids: Option<Folder>,
    /// Only cgroup v2 has pressure files. The files of all resources are in one folder.
    pressure: Option<Folder>,
}

impl Cgroup {
    /// Finds the folders. Allocates a few hundred bytes.
    pub(crate) fn find() -> Cgroup {
        let with = |controller, v1: &str, v2: &str| {
            find(controller, |folder| open(&folder.file(v1, v2)).map(|_| folder.clone()))
        };
        Cgroup {
            memory: with("memory", "memory.usage_in_bytes", "memory.current"),
            cpu: with("cpu", "cpu.stat", "cpu.stat"),
            pids: with("pids", "pids.current", "pids.current"),
            // A folder of version 1 ends the search: the kernel needs long for the files of a version 2 mount beside it.
            pressure: with("", "", "memory.pressure").filter(|folder| folder.version == Version::V2),
        }
    }

    /// Reads `files`; the values of all other files are missing.
    pub(crate) fn usage(&self, files: CgroupFiles) -> CgroupUsage {
        let number = |file, folder: &Option<Folder>, v1, v2| {
            let folder = folder.as_ref().filter(|_| files.include(file))?;
            text(&folder.file(v1, v2)).as_deref().and_then(cgroup::number)
        };
        CgroupUsage {
            memory_bytes: number(
                CgroupFiles::MEMORY,
                &self.memory,
                "memory.usage_in_bytes",
                "memory.current",
            ),
            memory_limit: number(
                CgroupFiles::MEMORY_LIMIT,
                &self.memory,
                "memory.limit_in_bytes",
                "memory.max",
            ),
            memory_peak: number(
                CgroupFiles::MEMORY_PEAK,
                &self.memory,
                "memory.max_usage_in_bytes",
                "memory.peak",
            ),
            cpu_throttled: self.cpu.as_ref().filter(|_| files.include(CgroupFiles::CPU)).and_then(throttled),
            cpu_limit: self
                .cpu
                .as_ref()
                .filter(|_| files.include(CgroupFiles::CPU_LIMIT))
                .and_then(cpu_limit),
            pids: number(CgroupFiles::PIDS, &self.pids, "pids.current", "pids.current"),
            pids_limit: number(CgroupFiles::PIDS_LIMIT, &self.pids, "pids.max", "pids.max"),
            pressure: if files.include(CgroupFiles::PRESSURE) { self.pressure() } else { Vec::new() },
        }
    }

    /// Returns the resource, `some` or `full`, and how long tasks had to wait for it.
    fn pressure(&self) -> Vec<(&'static str, &'static str, Duration)> {
        let mut pressure = Vec::new();
        for (resource, file) in
            [("cpu", "cpu.pressure"), ("io", "io.pressure"), ("memory", "memory.pressure")]
        {
            let text = self.pressure.as_ref().and_then(|folder| text(&folder.file("", file)));
            let totals = text.as_deref().into_iter().flat_map(cgroup::pressure);
            pressure.extend(totals.map(|(kind, total)| (resource, kind, total)));
        }
        pressure
    }
}

/// Returns how long tasks were throttled by the CPU quota. The file counts nanoseconds in cgroup v1 and microseconds in
/// cgroup v2.
fn throttled(folder: &Folder) -> Option<Duration> {
    let text = text(&folder.file("cpu.stat", "cpu.stat"))?;
    match folder.version {
        Version::V1 => cgroup::keyed(&text, "throttled_time").map(Duration::from_nanos),
        Version::V2 => cgroup::keyed(&text, "throttled_usec").map(Duration::from_micros),
    }
}

/// Returns the CPU quota.
fn cpu_limit(folder: &Folder) -> Option<Duration> {
    let mut quota = text(&folder.file("cpu.cfs_quota_us", "cpu.max"))?;
    if folder.version == Version::V1 && !quota.starts_with('-') {
        quota.push_str(&text(&folder.file("cpu.cfs_period_us", ""))?);
    }
    cgroup::cpu_limit(&quota)
}

/// Calls `look` with the possible folders of a controller, the usual mount points first, until it returns a value.
fn find<T>(controller: &str, look: impl Fn(&Folder) -> Option<T>) -> Option<T> {
    let Some(own) = text("/proc/self/cgroup") else {
        // Without /proc, assume the path at which a container usually sees its own cgroup.
        return look(&Folder { path: "/sys/fs/cgroup".to_owned(), version: Version::V2 });
    };
    cgroup::usual_folders(&own, controller).iter().find_map(&look).or_else(|| {
        let mut mountinfo = Vec::new();
        small_file::whole(open("/proc/self/mountinfo")?, usize::MAX, &mut mountinfo).ok()?;
        let mountinfo = String::from_utf8(mountinfo).ok()?;
        cgroup::mounted_folders(&own, &mountinfo, controller).iter().find_map(&look)
    })
}

fn open(path: &str) -> Option<OwnedFd> {
    small_file::open(path).ok()
}

fn text(path: &str) -> Option<String> {
    contents(&open(path)?)
}

/// Reads the whole file from its beginning, regardless of the file position.
fn contents(file: &OwnedFd) -> Option<String> {
    let mut text = Vec::new();
    small_file::whole_of_short_lines(file, usize::MAX, &mut text).ok()?;
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, ExitStatus};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// A cgroup for one test, removed when it is dropped.
    struct OwnCgroup(PathBuf);

    impl OwnCgroup {
        fn new(below: &str, name: &str) -> Option<OwnCgroup> {
            let path = Path::new(below).join(format!("kapo-{name}-{}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => Some(OwnCgroup(path)),
                Err(error) => {
                    println!("not checked: no cgroup of our own at {}: {error}", path.display());
                    None
                }
            }
        }

        fn file(&self, name: &str) -> String {
            self.0.join(name).to_str().unwrap().to_owned()
        }

        /// Runs a shell in this cgroup.
        fn sh(&self, script: &str) -> ExitStatus {
            let script = format!("echo $$ > {}; {script}", self.file("cgroup.procs"));
            Command::new("sh").args(["-c", &script]).status().unwrap()
        }
    }

    impl Drop for OwnCgroup {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn an_out_of_memory_kill_is_counted() {
        let Some(folder) = OwnCgroup::new("/sys/fs/cgroup/memory", "oom") else { return };
        fs::write(folder.file("memory.limit_in_bytes"), "16777216").unwrap();
        // This file is missing if swap accounting is off; then the memory limit alone decides.
        let _ = fs::write(folder.file("memory.memsw.limit_in_bytes"), "16777216");
        let own = Folder { path: folder.0.to_str().unwrap().to_owned(), version: Version::V1 };
        let (cgroup, count) = OomKillFile::open(&own).unwrap();
        assert_eq!(count, 0);
        assert!(cgroup.source().is_none());
        // `tail` keeps all of its input in memory. The pipe keeps the shell in the same cgroup as the process that is
        // killed.
        let status = folder.sh("exec tail -n 1 </dev/zero");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        assert_eq!(cgroup.count(), Some(1));
        let memory = cgroup.memory(1);
        assert_eq!((memory.limit_bytes, memory.oom_kills), (Some(16 << 20), Some(1)));
        assert!(memory.peak_bytes > Some(8 << 20), "{memory:?}");
    }

    #[test]
    fn a_cgroup_v2_counter_is_ready_after_each_change() {
        // The kernel reports changes of cgroup.events in the same way as those of memory.events, and the file changes
        // without a memory controller.
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|root| Path::new(root).join("cgroup.controllers").exists());
        let Some(folder) = root.and_then(|root| OwnCgroup::new(root, "wake")) else { return };
        let cgroup = OomKillFile {
            folder: Folder { path: folder.0.to_str().unwrap().to_owned(), version: Version::V2 },
            file: open(&folder.file("cgroup.events")).unwrap(),
        };
        let ready = |seconds: i64| {
            let fd = cgroup.source().unwrap();
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::PRI)];
            let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
            poll(&mut fds, Some(&limit)).unwrap();
            fds[0].revents().contains(PollFlags::PRI)
        };
        let look = || assert_eq!(cgroup.count(), None, "this file counts no kills");
        look();
        assert!(!ready(0), "nothing has happened");
        assert!(folder.sh("true").success());
        assert!(ready(10) && ready(0), "a process came and went");
        look();
        // The end of the shell may cause two changes: the cgroup becomes populated, then empty again.
        while ready(0) {
            look();
        }
        assert!(folder.sh("true").success());
        assert!(ready(10));
    }

    #[test]
    fn a_folder_without_a_counter_is_rejected() {
        for version in [Version::V1, Version::V2] {
            assert!(OomKillFile::open(&Folder { path: "/proc/self".to_owned(), version }).is_none());
        }
    }

    #[test]
    fn a_counter_that_is_found_can_be_read() {
        match OomKillFile::find() {
            Some((cgroup, count)) => assert!(cgroup.count() >= Some(count)),
            None => println!("not checked: no counter of kills on this machine"),
        }
    }
}
