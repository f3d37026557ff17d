//! Reads the signals that arrive from the signalfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::driver::proc::procfs;
use crate::driver::process::terminal;
use crate::logic::lifecycle::IgnoredAtStart;
use crate::logic::lifecycle::origin::{self, DeliveredSignal, SignalSender};
use crate::logic::proc::stat::Stat;
use crate::logic::{self, Sender};
use crate::signal::Signal;
use crate::sys;

/// Enough batches for one of each standard signal.
const BATCHES_AT_ONCE: usize = 4;

/// Blocks every signal for the life of the process and reads them.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
    /// kapo's own pid.
    own: i32,
    /// Proof that all signals are blocked. It also holds the signal mask that kapo was started with, for the command.
    pub blocked: sys::signal::AllBlocked,
    /// CHLD was ignored when kapo was started. The command ignores it as well.
    pub chld_was_ignored: bool,
    /// Which signals of the terminal were ignored when kapo started.
    pub ignored_at_start: IgnoredAtStart,
}

impl Signals {
    /// Blocks all signals and opens the signalfd. Must be called before anything becomes visible to other processes,
    /// such as a bound port, so that no signal is lost from then on.
    pub(crate) fn take_over() -> io::Result<Signals> {
        let blocked = sys::signal::block_all()?;
        let chld_was_ignored = sys::signal::is_ignored(i32::from(Signal::CHLD.number()));
        if chld_was_ignored {
            sys::signal::set_default(i32::from(Signal::CHLD.number()));
        }
        let was_ignored = |signal: Signal| sys::signal::is_ignored(i32::from(signal.number()));
        Ok(Signals {
            fd: sys::signal::signalfd()?,
            own: rustix::process::getpid().as_raw_nonzero().get(),
            blocked,
            chld_was_ignored,
            ignored_at_start: IgnoredAtStart {
                hang_up: was_ignored(Signal::HUP),
                interrupt: was_ignored(Signal::INT) && was_ignored(Signal::QUIT),
            },
        })
    }

    /// Calls `each` for every pending signal except CHLD. Returns whether CHLD was pending. At most [`BATCHES_AT_ONCE`]
    /// batches are read; the signalfd stays ready for the rest. The kernel returns the lowest signal numbers first, so
    /// a flood of real-time signals never delays TERM.
    pub(crate) fn read(&self, mut each: impl FnMut(Signal, Sender)) -> bool {
        let mut child = false;
        for _ in 0..BATCHES_AT_ONCE {
            let more = sys::signal::read(self.fd.as_fd(), |info| match Signal::new(info.signal) {
                Some(Signal::CHLD) => child = true,
                Some(signal) => {
                    let delivery = DeliveredSignal { signal, code: info.code, pid: info.pid, uid: info.uid };
                    each(signal, origin::sender(delivery, self.own, || self.peer(info.pid)));
                }
                None => {}
            });
            if !more {
                break;
            }
        }
        child
    }

    /// Whether kapo is PID 1.
    pub(crate) fn is_init(&self) -> bool {
        self.own == 1
    }

    /// Returns what is known about the sender of an INT or QUIT.
    fn peer(&self, pid: i32) -> SignalSender {
        let (mut buffer, mut own) = ([0; 1024], [0; 1024]);
        match (sys::group::of(pid), name_of(pid, &mut buffer)) {
            (Some(group), Some(name)) => SignalSender::Alive {
                is_sibling_kapo: group == sys::group::own() && name_of(self.own, &mut own) == Some(name),
            },
            (None, _) | (_, None) => SignalSender::Gone {
                may_be_typed: self.ignored_at_start.interrupt && terminal::is_in_foreground(),
            },
        }
    }
}

/// Returns the name of the process, or `None` if it no longer exists or /proc is missing.
fn name_of(pid: i32, buffer: &mut [u8; 1024]) -> Option<&[u8]> {
    Some(Stat::parse(procfs::stat(logic::ProcessId::new(pid)?, buffer).ok()?)?.comm)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
