//! The process that the command has named by `MAINPID=`: followed by a pidfd, because it need not be kapo's child.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};

use crate::driver::poll::{Epoll, Source};
use crate::logic::proc::stat;
use crate::logic::{Exit, Pid};
use crate::sys;

/// A followed process.
#[derive(Debug)]
pub(crate) struct MainPid {
    pid: Pid,
    pidfd: OwnedFd,
}

/// What is known of the end of a followed process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has not been reaped. If its parent ends, it becomes kapo's child and is reaped like any other.
    NotReaped,
    /// Its parent has reaped it.
    Reaped(Exit),
}

impl MainPid {
    /// Waits for its end as [`Source::MainPid`]. `None`: there is no such process, or no descriptor to be had.
    pub(crate) fn open(epoll: &Epoll, pid: Pid) -> Option<MainPid> {
        let pidfd = pidfd_open(RawPid::from_raw(pid.get())?, PidfdFlags::empty()).ok()?;
        epoll.add(&pidfd, Source::MainPid, EventFlags::IN).ok()?;
        Some(MainPid { pid, pidfd })
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// To be called when the pidfd is ready. A zombie makes it ready and its reaping hangs it up, so for a zombie only the
    /// hang-up is awaited. On a kernel that does not tell exit codes the end counts as one with code 0, as for systemd.
    pub(crate) fn outcome(&self, epoll: &Epoll) -> Outcome {
        match sys::pidfd::exit_status(self.pidfd.as_fd()) {
            Ok(Some(status)) => Outcome::Reaped(stat::exit(status).unwrap_or(Exit::Code(0))),
            Ok(None) => {
                // The descriptor is registered, so this cannot fail.
                let _ = epoll.modify(&self.pidfd, Source::MainPid, EventFlags::empty());
                Outcome::NotReaped
            }
            Err(_) => Outcome::Reaped(Exit::Code(0)),
        }
    }
}
