//! `--termination-log`: the file in which Kubernetes and other tools look for the reason why the command ended.
//!
//! The file is opened once, before the command starts. Otherwise the command could put a symbolic link in its place and
//! make kapo overwrite any file. A message that the command has written itself is kept.

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

/// The termination log.
#[derive(Debug)]
pub(crate) struct TerminationLog {
    path: PathBuf,
    file: File,
    /// The state of the file after kapo's last access.
    seen: Option<Stamp>,
}

/// Size and modification time, which change when another process writes.
type Stamp = (u64, i64, i64);

impl TerminationLog {
    /// Opens and truncates the file. If that fails, the failure is logged and nothing is written later.
    pub(crate) fn open(now: Now, path: &Path, context: &mut LoopContext) -> Option<TerminationLog> {
        match open(path) {
            Ok(file) => Some(TerminationLog { path: path.to_owned(), file, seen: None }),
            Err(error) => {
                log_failure(now, path, &error, context);
                None
            }
        }
    }

    /// Replaces the contents with `text`, unless the command has written to the file since the last call.
    pub(crate) fn write(&mut self, now: Now, text: &[u8], context: &mut LoopContext) {
        if let Err(error) = self.try_write(text) {
            log_failure(now, &self.path, &error, context);
        }
    }

    fn try_write(&mut self, text: &[u8]) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() {
            return (&self.file).write_all(text);
        }
        let now = stamp(&metadata);
        if metadata.len() > 0 && self.seen != Some(now) {
            // The command has written a text of its own. kapo keeps this text until the end of the next run, and then
            // replaces it unless that run has written a new one.
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

/// Opens the file. A file that could block kapo, such as a FIFO without a reader, is an error. So is a symbolic link of
/// another user, because an earlier run could have created it.
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

/// Opens the target of a symbolic link. The link itself is opened first, so that it cannot be replaced between the
/// check of its owner and the reading of its target.
fn open_linked(path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let link = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let owner = fstat(&link)?.st_uid;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Errno::LOOP);
    }
    // The links below /proc/PID/fd have no target text, and another user cannot replace them.
    if fstatfs(&link)?.f_type == PROC_SUPER_MAGIC {
        return rustix::fs::open(path, flags, mode);
    }
    let target = readlinkat(&link, "", Vec::new())?;
    let target = Path::new(OsStr::from_bytes(target.to_bytes()));
    // `join` ignores the folder if the target is absolute.
    rustix::fs::open(path.parent().unwrap_or(Path::new("")).join(target), flags, mode)
}

fn log_failure(now: Now, path: &Path, error: &io::Error, context: &mut LoopContext) {
    let record = Record::warn("cannot write termination log");
    context.log(now, &record.with("path", path.display()).with("error", reason(error)));
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{lchown, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_link_of_the_same_user_is_followed_from_its_folder() {
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
    fn a_link_to_an_open_descriptor_is_followed() {
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
    fn a_link_of_another_user_in_our_place_is_not_followed() {
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
                        // Both names are links to the same file, so rename(2) removes neither.
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
