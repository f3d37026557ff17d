//! Watches the process that started kapo, for `--parent-death-signal`: kapo gets that signal when the process ends.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};

use crate::driver::poll::{Epoll, Source};
use crate::signal::Signal;
use crate::sys;

/// The watch on kapo's parent.
#[derive(Debug)]
pub(crate) struct ParentWatch {
    signal: Signal,
    /// Becomes readable when the parent has ended. `None`: the kernel sends the signal itself (PR_SET_PDEATHSIG).
    pidfd: Option<OwnedFd>,
}

impl ParentWatch {
    /// Watches `parent`, the result of getppid(2) when kapo started.
    ///
    /// A pidfd reports the end of the process. PR_SET_PDEATHSIG already fires when the thread that started kapo ends,
    /// even if its process lives on. It is used only if there is no pidfd: for a parent outside the PID namespace,
    /// under a seccomp profile that forbids pidfd_open(2), and before Linux 5.3.
    pub(crate) fn begin(signal: Signal, parent: Option<Pid>, epoll: &Epoll) -> ParentWatch {
        let pidfd = parent
            .and_then(|parent| pidfd_open(parent, PidfdFlags::empty()).ok())
            .filter(|pidfd| epoll.add(pidfd, Source::Parent, EventFlags::IN).is_ok());
        if pidfd.is_none() {
            sys::signal::on_parent_death(i32::from(signal.number()));
        }
        ParentWatch { signal, pidfd }
    }

    /// Whether the parent ended before it was watched. In that case kapo already has another parent.
    pub(crate) fn has_already_ended(parent: Option<Pid>) -> bool {
        getppid() != parent
    }

    /// Returns the signal to handle now that the parent has ended, or `None` if it was sent to kapo itself.
    pub(crate) fn ended(self) -> Option<Signal> {
        // A signal that cannot be caught acts on kapo, as if the kernel had sent it.
        if matches!(self.signal, Signal::KILL | Signal::STOP) {
            let own = getpid().as_raw_nonzero().get();
            let _ = sys::signal::send(own, i32::from(self.signal.number()));
            return None;
        }
        // Without a pidfd the kernel sends the signal, and it must not be handled twice.
        self.pidfd.map(|_| self.signal)
    }
}
