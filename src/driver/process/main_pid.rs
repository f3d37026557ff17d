//! Follows the process that the command has named by `MAINPID=`. A pidfd is used because that process need not be a
//! child of kapo.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};

use crate::driver::poll::{Epoll, Source};
use crate::error::reason;
use crate::logic::proc::stat;
use crate::logic::{Exit, ProcessId};
use crate::sys;

/// A followed process.
#[derive(Debug)]
pub(crate) struct MainPid {
    pid: ProcessId,
    pidfd: OwnedFd,
}

/// How a followed process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MainPidEnd {
    /// It has not been reaped. If its parent ends, it becomes kapo's child and is reaped like any other.
    NotReaped,
    /// Its parent has reaped it.
    Reaped(Exit),
}

impl MainPid {
    /// Opens a pidfd and registers it as [`Source::MainPid`]. The error is the reason for the log record.
    pub(crate) fn open(epoll: &Epoll, pid: ProcessId) -> Result<MainPid, Cow<'static, str>> {
        let raw = RawPid::from_raw(pid.get()).ok_or("not a process id")?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => "no such process".into(),
            // The errno for the id of a thread that is not the main thread depends on the kernel version.
            Errno::INVAL | Errno::NOENT => "a thread, not a process".into(),
            errno => Cow::from(reason(&errno.into())),
        })?;
        epoll.add(&pidfd, Source::MainPid, EventFlags::IN).map_err(|errno| reason(&errno.into()))?;
        Ok(MainPid { pid, pidfd })
    }

    /// The process.
    pub(crate) fn pid(&self) -> ProcessId {
        self.pid
    }

    /// Returns how the process has ended. Must be called when the pidfd is ready. The pidfd becomes readable when the
    /// process is a zombie and hangs up when it is reaped, so after the first the registration is reduced to the
    /// hang-up. If the kernel does not report the exit code, the result is code 0, as in systemd, and a zombie counts as
    /// reaped.
    pub(crate) fn outcome(&self, epoll: &Epoll) -> MainPidEnd {
        match sys::pidfd::exit_status(self.pidfd.as_fd()) {
            Ok(Some(status)) => MainPidEnd::Reaped(stat::exit(status).unwrap_or(Exit::Code(0))),
            Ok(None) => {
                // This cannot fail because the descriptor is registered.
                let _ = epoll.modify(&self.pidfd, Source::MainPid, EventFlags::empty());
                MainPidEnd::NotReaped
            }
            Err(_) => MainPidEnd::Reaped(Exit::Code(0)),
        }
    }
}
