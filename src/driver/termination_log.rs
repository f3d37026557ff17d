//! `--termination-log`: a file in which Kubernetes and others look for why the command has ended.

use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::event_loop::Stage;
use crate::error::reason;
use crate::logic::Now;
use crate::logic::record::Record;

/// Makes `text` its contents. Where that is not possible, kapo's own log tells.
pub fn write(now: Now, path: &Path, text: &[u8], stage: &mut Stage) {
    if let Err(error) = write_without_waiting(path, text) {
        let record = Record::warn("cannot write the termination log")
            .with("path", path.display())
            .with("reason", reason(&error));
        stage.log(now, &record);
    }
}

/// Makes `text` the contents of a file. What might keep us, such as a FIFO without a reader, is an error.
fn write_without_waiting(path: &Path, text: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o666))?;
    std::fs::File::from(file).write_all(text)
}
