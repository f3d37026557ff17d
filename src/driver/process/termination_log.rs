//! `--termination-log`: a file in which Kubernetes and others look for why the command has ended.
//!
//! It is opened once, before the command starts: later the command could put a symbolic link in its place and have
//! kapo overwrite any file. A message that the command has written itself stays.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs, readlinkat};
use rustix::io::Errno;

use crate::driver::event_loop::LoopContext;
use crate::error::reason;
use crate::logic::Now;
use crate::logic::log::record::Record;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct TerminationLog {
    path: PathBuf,
    file: File,
    /// What the file was like after kapo's last look at it.
    seen: Option<Stamp>,
}

/// Changes with each write of another process.
type Stamp = (u64, i64, i64);

impl TerminationLog {
    /// Opens and empties it. If that fails, kapo's own log says so, and nothing will be written.
    pub(crate) fn open(now: Now, path: &Path, stage: &mut LoopContext) -> Option<TerminationLog> {
        match open(path) {
            Ok(file) => Some(TerminationLog { path: path.to_owned(), file, seen: None }),
            Err(error) => {
                complain(now, path, &error, stage);
                None
            }
        }
    }

    /// Makes `text` its contents, unless the command has written its own since the last call.
    pub(crate) fn write(&mut self, now: Now, text: &[u8], stage: &mut LoopContext) {
        if let Err(error) = self.try_write(text) {
            complain(now, &self.path, &error, stage);
        }
    }

    fn try_write(&mut self, text: &[u8]) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() {
            return (&self.file).write_all(text);
        }
        let now = stamp(&metadata);
        if metadata.len() > 0 && self.seen != Some(now) {
            // It is replaced after the next run, unless that one writes, too.
            self.seen = Some(now);
            return Ok(());
        }
        self.file.set_len(0)?;
        self.file.write_all_at(text, 0)?;
        self.seen = Some(stamp(&self.file.metadata()?));
        Ok(())
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// What might keep us, such as a FIFO without a reader, is an error; so is a symbolic link of another user, who may have
/// left it there in an earlier run.
fn open(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    let file = rustix::fs::open(path, flags | OFlags::NOFOLLOW, mode);
    Ok(File::from(file.or_else(|errno| match errno {
        Errno::LOOP => open_linked(path, flags, mode),
        errno => Err(errno),
    })?))
}

/// Opens what a symbolic link points to. The link is opened itself, so that another one cannot take its place between
/// the look at its owner and the reading of its target.
fn open_linked(path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let link = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let owner = fstat(&link)?.st_uid;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Errno::LOOP);
    }
    // The links below /proc/PID/fd are no texts, and no stranger can replace them.
    if fstatfs(&link)?.f_type == PROC_SUPER_MAGIC {
        return rustix::fs::open(path, flags, mode);
    }
    let target = readlinkat(&link, "", Vec::new())?;
    let target = Path::new(OsStr::from_bytes(target.to_bytes()));
    // An absolute target replaces the folder.
    rustix::fs::open(path.parent().unwrap_or(Path::new("")).join(target), flags, mode)
}

fn complain(now: Now, path: &Path, error: &io::Error, stage: &mut LoopContext) {
    let record = Record::warn("cannot write termination log");
    stage.log(now, &record.with("path", path.display()).with("error", reason(error)));
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{lchown, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_link_is_followed_from_its_folder_if_it_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        std::fs::write(inside("log"), "old").unwrap();
        for (name, target) in [("relative", Path::new("log")), ("absolute", &inside("log"))] {
            symlink(target, inside(name)).unwrap();
            open(&inside(name)).unwrap().write_all(name.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(inside("log")).unwrap(), name);
        }
        symlink("not yet", inside("dangling")).unwrap();
        open(&inside("dangling")).unwrap();
        assert!(inside("not yet").exists());
    }

    #[test]
    fn a_descriptor_of_ours_may_be_named_by_its_link() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let number = writer.as_raw_fd();
        let descriptor = PathBuf::from(format!("/proc/self/fd/{number}"));
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink(&descriptor, &link).unwrap();
        for path in [descriptor, PathBuf::from(format!("/dev/fd/{number}")), link] {
            open(&path).unwrap().write_all(b"text").unwrap();
            let mut came = [0; 4];
            reader.read_exact(&mut came).unwrap();
            assert_eq!(&came, b"text", "{}", path.display());
        }
    }

    #[test]
    fn a_strangers_link_that_takes_the_place_of_ours_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can make a link of another user");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        std::fs::write(inside("victim"), "").unwrap();
        symlink("log", inside("ours")).unwrap();
        symlink("victim", inside("strangers")).unwrap();
        lchown(inside("strangers"), Some(65534), None).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for name in ["ours", "strangers"] {
                        std::fs::hard_link(inside(name), inside("new")).unwrap();
                        std::fs::rename(inside("new"), inside("link")).unwrap();
                        // Two names of one file: rename leaves both.
                        let _ = std::fs::remove_file(inside("new"));
                    }
                }
            });
            for _ in 0..20_000 {
                if let Ok(mut file) = open(&inside("link")) {
                    let _ = file.write_all(b"x");
                }
                let _ = std::fs::remove_file(inside("link"));
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(std::fs::read_to_string(inside("victim")).unwrap(), "");
    }
}
