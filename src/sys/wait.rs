//! Calls wait4(2) with its rusage, which rustix lacks, and waitid(2).
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// A state change of one child.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    pub pid: i32,
    /// The new state.
    pub status: WaitStatus,
    /// User CPU time, including reaped descendants; meaningful only after the end of the child.
    pub user: Duration,
    /// System CPU time.
    pub system: Duration,
    /// Largest resident set in bytes.
    pub max_rss_bytes: u64,
}

/// A decoded wait status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitStatus {
    /// The child exited with this code.
    Exited(i32),
    /// This signal killed the child.
    Signaled {
        /// The signal number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// This signal stopped the child.
    Stopped(i32),
}

/// Takes the next state change of any child without blocking: an exit, which reaps the child, or, with `stops`, a
/// stop. Returns `None` if there is no change.
pub(crate) fn next_change(stops: bool) -> Option<Change> {
    take_change(-1, stops)
}

/// Takes the next state change of this child only, see [`peek_change`].
pub(crate) fn next_change_of(child: i32, stops: bool) -> Option<Change> {
    take_change(child, stops)
}

fn take_change(whose: i32, stops: bool) -> Option<Change> {
    let flags = libc::WNOHANG | if stops { libc::WUNTRACED } else { 0 };
    loop {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are to local variables that outlive the call.
        let pid = unsafe { libc::wait4(whose, &raw mut status, flags, usage.as_mut_ptr()) };
        if pid < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
            continue;
        }
        if pid <= 0 {
            return None;
        }
        // SAFETY: all zeros is a valid rusage, and the kernel has filled it.
        let usage = unsafe { usage.assume_init() };
        let status = if libc::WIFEXITED(status) {
            WaitStatus::Exited(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            WaitStatus::Signaled { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        } else {
            WaitStatus::Stopped(libc::WSTOPSIG(status))
        };
        return Some(Change {
            pid,
            status,
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            // ru_maxrss counts KiB on Linux.
            max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
        });
    }
}

/// Returns the CPU time of all children that were reaped.
pub(crate) fn reaped_cpu() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a local variable that outlives the call.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: all zeros is a valid rusage, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// Returns the child that [`next_change`] would report, but leaves the change in place, so that /proc still has all
/// data about the child.
pub(crate) fn peek_change(stops: bool) -> Option<i32> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | if stops { libc::WSTOPPED } else { 0 };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the pointer is to a local variable that outlives the call; WNOWAIT leaves every child unchanged.
    if unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) } < 0 {
        return None;
    }
    // SAFETY: all zeros is a valid siginfo, and the kernel has either filled it or left it unchanged.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills this member of the union; it is zero if waitid has not.
    Some(unsafe { info.si_pid() }).filter(|pid| *pid > 0)
}

/// Whether this child is stopped and the change was not taken yet.
pub(crate) fn is_stopped(child: i32) -> bool {
    has_change(child, libc::WSTOPPED)
}

/// Whether this child has been continued since it was stopped last.
pub(crate) fn is_continued(child: i32) -> bool {
    has_change(child, libc::WCONTINUED)
}

fn has_change(child: i32, of: i32) -> bool {
    let Ok(child) = libc::id_t::try_from(child) else { return false };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = of | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a local variable that outlives the call; WNOWAIT leaves every child unchanged.
    if unsafe { libc::waitid(libc::P_PID, child, info.as_mut_ptr(), flags) } < 0 {
        return false;
    }
    // SAFETY: all zeros is a valid siginfo, and the kernel has either filled it or left it unchanged.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills this member of the union; it is zero if waitid has not.
    unsafe { info.si_pid() != 0 }
}

/// Whether a child of kapo, running or not yet reaped, is in process group `group`. While there is one, the kernel
/// does not reuse the number.
pub(crate) fn group_has_child(group: i32) -> bool {
    let Ok(group) = libc::id_t::try_from(group) else { return false };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the pointer is to a local variable that outlives the call; WNOWAIT leaves every child unchanged.
    unsafe { libc::waitid(libc::P_PGID, group, info.as_mut_ptr(), flags) == 0 }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}
