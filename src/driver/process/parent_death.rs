//! The process that started kapo, for `--parent-death-signal`: when it ends, kapo gets that signal.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};

use crate::driver::poll::{Epoll, Source};
use crate::signal::Signal;
use crate::sys;

/// The watch over kapo's parent.
#[derive(Debug)]
pub(crate) struct ParentWatch {
    signal: Signal,
    /// Readable when the parent has ended. `None`: the kernel sends the signal itself.
    pidfd: Option<OwnedFd>,
}

impl ParentWatch {
    /// Watches `parent`, which getppid(2) named when kapo started.
    ///
    /// A pidfd speaks for the process. PR_SET_PDEATHSIG fires when the thread ends that started kapo, though its process
    /// lives on; it serves where there is no pidfd: for a parent outside the PID namespace, under a seccomp profile, and
    /// before Linux 5.3.
    pub(crate) fn begin(signal: Signal, parent: Option<Pid>, epoll: &Epoll) -> ParentWatch {
        let pidfd = parent
            .and_then(|parent| pidfd_open(parent, PidfdFlags::empty()).ok())
            .filter(|pidfd| epoll.add(pidfd, Source::Parent, EventFlags::IN).is_ok());
        if pidfd.is_none() {
            sys::signal::on_parent_death(i32::from(signal.number()));
        }
        ParentWatch { signal, pidfd }
    }

    /// Whether the parent has ended before it was watched: kapo has another one by then.
    pub(crate) fn came_too_late(parent: Option<Pid>) -> bool {
        getppid() != parent
    }

    /// The parent has ended: the signal that stands for it, `None` if kapo has taken it itself.
    pub(crate) fn ended(self) -> Option<Signal> {
        // What cannot be caught acts on kapo, as if the kernel had sent it.
        if matches!(self.signal, Signal::KILL | Signal::STOP) {
            let own = getpid().as_raw_nonzero().get();
            let _ = sys::signal::send(own, i32::from(self.signal.number()));
            return None;
        }
        // The end of the parent is told by one source.
        self.pidfd.map(|_| self.signal)
    }
}
