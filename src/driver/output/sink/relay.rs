//! A pipe between kapo and a target pipe that supports no non-blocking write. Bytes are written to kapo's pipe, which
//! has enough room, and moved from there to the target with splice(2).
//!
//! The bytes in the relay are always the beginning of the bytes that are offered next, so nothing is lost or repeated,
//! and a byte counts as written only when it has reached the target. splice moves whole pipe buffers while the target
//! has room, and each buffer holds whole pieces of [`pieces`]. A target that becomes full therefore tears no line.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::logic::output::pieces;
use crate::logic::output::pieces::PIPE_BUF;

/// A pipe in front of a target pipe.
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

    /// Whether the relay holds bytes that have not reached the target.
    pub(super) fn is_loaded(&self) -> bool {
        self.inside > 0
    }

    /// Writes to `target`, a pipe, as many bytes as it takes without blocking.
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
