//! `--textfile`: the metrics of the command in a file, for the textfile collector of node_exporter and for jobs that are
//! too short to be scraped.
//!
//! The file is replaced by rename(2), so that a reader never sees a part of it. The command may write to the folder, so
//! nothing that exists there is opened: the temporary file is always a new one.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::driver::event_loop::LoopContext;
use crate::driver::proc::small_file;
use crate::error::reason;
use crate::logic::Now;
use crate::logic::log::record::Record;
use crate::logic::metrics::{self, Snapshot};

/// How long a change waits before it is written. The start and the end of a short job become one write, and a crash
/// loop does not write all the time. At its own end kapo writes at once.
const DELAY: Duration = Duration::from_millis(100);

/// How much of an earlier file is read. A file of kapo has 3 KiB.
const LARGEST: usize = 16 * 1024;

/// The facts whose changes are written: the number of starts and of ends, Ready and Flapping.
pub(crate) type TextfileFacts = (u64, u64, bool, bool);

/// The file of `--textfile`.
#[derive(Debug)]
pub(crate) struct Textfile {
    /// Absolute, because kapo changes its working directory.
    path: PathBuf,
    /// In the same folder. Its name does not end with `.prom`, so the collector ignores it.
    temporary: PathBuf,
    /// The value of the label `name`.
    name: String,
    /// The last success in the file of an earlier kapo. The inner value is `None` if there is none.
    earlier_success: Option<Option<SystemTime>>,
    facts: Option<TextfileFacts>,
    /// When the file must be written.
    due: Option<Instant>,
    /// The last attempt has failed, and this was logged.
    failed: bool,
}

impl Textfile {
    /// Returns the file at `path`, which may be relative to the present working directory.
    pub(crate) fn new(path: &Path, name: &str) -> Textfile {
        let path = std::env::current_dir().unwrap_or_default().join(path);
        // The pid distinguishes several instances of kapo with the same path.
        let mut temporary = OsString::from(&path);
        temporary.push(format!(".{}", std::process::id()));
        Textfile {
            path,
            temporary: temporary.into(),
            name: name.to_owned(),
            earlier_success: None,
            facts: None,
            due: None,
            failed: false,
        }
    }

    /// Sets the deadline if the facts that the file shows have changed.
    pub(crate) fn update(&mut self, now: Now, facts: TextfileFacts) {
        if self.facts.replace(facts) != Some(facts) && self.due.is_none() {
            self.due = now.mono.checked_add(DELAY);
        }
    }

    /// Returns when the file must be written.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Replaces the contents of the file. Only the first of several failures in a row is logged.
    pub(crate) fn write(&mut self, now: Now, mut snapshot: Snapshot, context: &mut LoopContext) {
        self.due = None;
        if snapshot.last_success.is_none() {
            snapshot.last_success = match self.earlier_success {
                Some(known) => known,
                None => *self.earlier_success.insert(self.read_earlier_success(now)),
            };
        }
        let written = self.try_write(&metrics::render_textfile(&snapshot, &self.name));
        if let (Err(error), false) = (&written, self.failed) {
            let record = Record::warn("cannot write textfile").with("path", self.path.display());
            context.log(now, &record.with("error", reason(error)));
        }
        self.failed = written.is_err();
    }

    /// Reads the last success from the file. Each run of a cron job is a new kapo, which would forget it otherwise.
    fn read_earlier_success(&self, now: Now) -> Option<SystemTime> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::empty()).ok()?;
        let mut text = Vec::new();
        small_file::whole(file, LARGEST, &mut text).ok()?;
        metrics::earlier_success(&text, &self.name, now.wall)
    }

    fn try_write(&self, text: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let create = || rustix::fs::open(&self.temporary, flags, Mode::from_raw_mode(0o644));
        let file = create().or_else(|errno| match errno {
            // A kapo with the same pid was killed while it wrote.
            Errno::EXIST => rustix::fs::unlink(&self.temporary).and_then(|()| create()),
            errno => Err(errno),
        })?;
        let mut file = File::from(file);
        let written = file
            .write_all(text)
            // node_exporter runs as another user, whatever the umask is.
            .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
            .and_then(|()| Ok(self.replace()?));
        if written.is_err() {
            let _ = rustix::fs::unlink(&self.temporary);
        }
        written
    }

    /// Puts the temporary file in the place of the old one. ext4 writes a file to disk if it replaces another one by a
    /// plain rename, and kapo would wait for the disk. It does not do this if two files are exchanged.
    fn replace(&self) -> Result<(), Errno> {
        let exchange = || renameat_with(CWD, &self.temporary, CWD, &self.path, RenameFlags::EXCHANGE);
        if exchange().is_err() {
            // There is no old file, or the file system cannot exchange two files.
            return rustix::fs::rename(&self.temporary, &self.path);
        }
        rustix::fs::unlink(&self.temporary).inspect_err(|_| {
            // The old file is a directory.
            let _ = exchange();
        })
    }
}
