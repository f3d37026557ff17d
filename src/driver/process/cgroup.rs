//! The counter of out-of-memory kills of kapo's own cgroup: found, read, waited for. What it means is decided in
//! `logic::oom`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::logic::oom::{self, Place};

/// Where the counter is.
#[derive(Debug)]
pub(crate) enum Cgroup {
    /// Version 2: an open file, since only that one is woken by the kernel. It keeps the mount busy.
    Waking(OwnedFd),
    /// Version 1: opened for each look, nothing is held.
    Silent(String),
}

impl Cgroup {
    /// Looks for the counter, and tells how it stands: one small file of /proc is read and, at the usual places, one more
    /// opened. `None` where the kernel does not count for us.
    pub(crate) fn find() -> Option<(Cgroup, u64)> {
        let Some(own) = text("/proc/self/cgroup") else {
            // Without /proc, what a container usually sees as its own.
            return Cgroup::open(Place { path: "/sys/fs/cgroup/memory.events".to_owned(), wakes: true });
        };
        oom::usual_places(&own).into_iter().find_map(Cgroup::open).or_else(|| {
            let mountinfo = text("/proc/self/mountinfo")?;
            oom::mounted_places(&own, &mountinfo).into_iter().find_map(Cgroup::open)
        })
    }

    /// The counter in this file; `None` where it cannot be read or counts nothing.
    fn open(place: Place) -> Option<(Cgroup, u64)> {
        let cgroup = match place.wakes {
            true => Cgroup::Waking(open(&place.path)?),
            false => Cgroup::Silent(place.path),
        };
        let count = cgroup.oom_kills()?;
        Some((cgroup, count))
    }

    /// The counter of now. Reading it also makes [`Cgroup::source`] quiet until the next change.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        match self {
            Cgroup::Waking(file) => oom::kills(&contents(file)?),
            Cgroup::Silent(path) => oom::kills(&text(path)?),
        }
    }

    /// To be registered with epoll for EPOLLPRI alone: it becomes ready (PRI and ERR) when some counter of the file
    /// has changed, until [`Cgroup::oom_kills`] is called. `None` for version 1: look when the command has ended.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Cgroup::Waking(file) => Some(file.as_fd()),
            Cgroup::Silent(_) => None,
        }
    }
}

fn open(path: &str) -> Option<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn text(path: &str) -> Option<String> {
    contents(&open(path)?)
}

/// The whole file from its beginning, whatever was read of it before.
fn contents(file: &OwnedFd) -> Option<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 1_024];
    loop {
        match rustix::io::pread(file, &mut buffer, u64::try_from(text.len()).ok()?) {
            Ok(n) => {
                text.extend_from_slice(buffer.get(..n)?);
                // These files fill the buffer while they have more.
                if n < buffer.len() {
                    return String::from_utf8(text).ok();
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, ExitStatus};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// A cgroup of the test's own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(below: &str, name: &str) -> Option<Folder> {
            let path = Path::new(below).join(format!("kapo-{name}-{}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => Some(Folder(path)),
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

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn a_kill_for_want_of_memory_is_counted() {
        let Some(folder) = Folder::new("/sys/fs/cgroup/memory", "oom") else { return };
        fs::write(folder.file("memory.limit_in_bytes"), "16777216").unwrap();
        // Where swap is not accounted for, there is no such file; the limit alone then decides.
        let _ = fs::write(folder.file("memory.memsw.limit_in_bytes"), "16777216");
        let place = Place { path: folder.file("memory.oom_control"), wakes: false };
        let (cgroup, count) = Cgroup::open(place).unwrap();
        assert_eq!(count, 0);
        assert!(cgroup.source().is_none());
        // The pipe keeps the shell in the same cgroup as the victim; tail holds all that it reads.
        let status = folder.sh("exec tail -n 1 </dev/zero");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        assert_eq!(cgroup.oom_kills(), Some(1));
    }

    #[test]
    fn a_file_of_version_2_wakes_at_each_change_until_it_is_read() {
        // cgroup.events wakes by the same means as memory.events, and changes without a memory controller.
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|root| Path::new(root).join("cgroup.controllers").exists());
        let Some(folder) = root.and_then(|root| Folder::new(root, "wake")) else { return };
        let cgroup = Cgroup::Waking(open(&folder.file("cgroup.events")).unwrap());
        let ready = |seconds: i64| {
            let fd = cgroup.source().unwrap();
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::PRI)];
            let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
            poll(&mut fds, Some(&limit)).unwrap();
            fds[0].revents().contains(PollFlags::PRI)
        };
        let look = || assert_eq!(cgroup.oom_kills(), None, "this file counts no kills");
        look();
        assert!(!ready(0), "nothing has happened");
        assert!(folder.sh("true").success());
        assert!(ready(10) && ready(0), "a process came and went");
        look();
        // The end of the shell may be told twice: as populated and as empty again.
        while ready(0) {
            look();
        }
        assert!(folder.sh("true").success());
        assert!(ready(10));
    }

    #[test]
    fn a_file_that_counts_nothing_is_not_taken() {
        assert!(Cgroup::open(Place { path: "/proc/self/stat".to_owned(), wakes: true }).is_none());
        assert!(Cgroup::open(Place { path: "/nowhere".to_owned(), wakes: false }).is_none());
    }

    #[test]
    fn whatever_is_found_can_be_read() {
        match Cgroup::find() {
            Some((cgroup, count)) => assert!(cgroup.oom_kills() >= Some(count)),
            None => println!("not checked: no counter of kills on this machine"),
        }
    }
}
