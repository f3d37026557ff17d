//! A pipe of our own in front of one that supports no write without waiting: bytes are written into ours, which has
//! room enough, and moved from there with splice(2).
//!
//! What lies in it is always the beginning of what is offered next, so nothing is lost or repeated, and no byte counts
//! as taken before it has gone. splice moves whole buffers of the pipe while the target has room, and each buffer holds
//! whole pieces of [`pieces`]: a target that runs full cuts no line in two either.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::logic::output::pieces;
use crate::logic::output::pieces::PIPE_BUF;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
    inside: usize,
}

impl Relay {
    pub(super) fn new() -> Result<Relay, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Relay { read, write, inside: 0 })
    }

    /// Bytes were written into it that have not gone.
    pub(super) fn is_loaded(&self) -> bool {
        self.inside > 0
    }

    /// Writes to `target`, a pipe, as much as it takes without waiting.
    pub(super) fn write(&mut self, target: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let fresh = rest.get(self.inside..).unwrap_or_default();
            match pieces::write(fresh, PIPE_BUF, |piece| write(&self.write, piece)) {
                Ok(n) => self.inside += n,
                Err(Errno::AGAIN) if self.inside > 0 => {}
                Err(errno) => return Err(errno),
            }
            match splice(&self.read, None, target, None, self.inside, SpliceFlags::NONBLOCK) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(moved) => {
                    self.inside -= moved;
                    taken += moved;
                }
                Err(_) if taken > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(taken)
    }
}
