//! `--termination-log`: a file in which Kubernetes and others look for why the command has ended.
//!
//! It is opened once, before the command starts: later the command could put a symbolic link in its place and have
//! kapo overwrite any file. A message that the command has written itself stays.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
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
    let file = rustix::fs::open(path, flags | OFlags::NOFOLLOW, mode).or_else(|errno| {
        let owner = rustix::fs::lstat(path).map(|link| link.st_uid);
        let trusted = owner.is_ok_and(|owner| owner == 0 || owner == rustix::process::geteuid().as_raw());
        if errno == Errno::LOOP && trusted { rustix::fs::open(path, flags, mode) } else { Err(errno) }
    });
    Ok(File::from(file?))
}

fn complain(now: Now, path: &Path, error: &io::Error, stage: &mut LoopContext) {
    let record = Record::warn("cannot write the termination log");
    stage.log(now, &record.with("path", path.display()).with("reason", reason(error)));
}
