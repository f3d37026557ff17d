//! The process that the command has named by `MAINPID=`: followed by a pidfd, because it need not be kapo's child.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};

use crate::driver::poll::{Epoll, Source};
use crate::error::reason;
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
    /// Waits for its end as [`Source::MainPid`]. The error is the reason for the log.
    pub(crate) fn open(epoll: &Epoll, pid: Pid) -> Result<MainPid, Cow<'static, str>> {
        let raw = RawPid::from_raw(pid.get()).ok_or("not a process id")?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => "no such process".into(),
            // The errno for a thread that does not lead its process depends on the kernel.
            Errno::INVAL | Errno::NOENT => "a thread, not a process".into(),
            errno => Cow::from(reason(&errno.into())),
        })?;
        epoll.add(&pidfd, Source::MainPid, EventFlags::IN).map_err(|errno| reason(&errno.into()))?;
        Ok(MainPid { pid, pidfd })
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
