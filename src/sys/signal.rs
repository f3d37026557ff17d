//! Signal mask, dispositions and signalfd(2).
//!
//! Masks have the 64 bits of the kernel and are set by raw system calls. musl's sigfillset(3) leaves out 32 to 34,
//! which its threads use, but kapo has no threads and other processes may send these signals.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A set of signals: bit n-1 is signal n.
pub type Mask = u64;

/// The size of a [`Mask`], for sigprocmask and signalfd4.
const MASK_BYTES: usize = size_of::<Mask>();

/// Proof that every signal is blocked in this thread, which kapo never undoes. Holds the mask that was in force
/// before, which the command gets.
#[derive(Clone, Copy, Debug)]
pub struct AllBlocked {
    before: Mask,
}

impl AllBlocked {
    /// Returns the signal mask that kapo was started with.
    pub fn before(self) -> Mask {
        self.before
    }
}

/// Blocks every signal that can be blocked.
///
/// From then on, no signal interrupts kapo and none is lost: each waits for the signalfd. A real fault still kills the
/// process, because the kernel then overrides the mask.
pub fn block_all() -> io::Result<AllBlocked> {
    let (all, mut before): (Mask, Mask) = (!0, 0);
    // SAFETY: both pointers are to masks of the given length, which outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            &raw mut before,
            MASK_BYTES,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(AllBlocked { before }) }
}

/// Returns a signalfd for every signal; non-blocking and close-on-exec.
pub fn signalfd() -> io::Result<OwnedFd> {
    let all: Mask = !0;
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: the pointer is to a mask of the given length, which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const all, MASK_BYTES, flags) };
    match RawFd::try_from(fd) {
        Ok(fd) if fd >= 0 => {
            // SAFETY: signalfd4 returned a new descriptor, which nothing else owns.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// One signal as signalfd(2) reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The signal number.
    pub signal: i32,
    /// Positive if the kernel raised the signal, otherwise a process sent it (sigaction(2), `si_code`).
    pub code: i32,
    /// The sender's pid; 0 if the sender is outside kapo's PID namespace.
    pub pid: i32,
    /// The sender's real user id.
    pub uid: u32,
}

/// Maximum number of signals that one [`read`] takes.
const BATCH: usize = 8;

/// Reads at most one batch of pending signals and calls `take` for each. Returns whether the batch was full, so that
/// more may be pending.
pub fn read(fd: BorrowedFd<'_>, mut take: impl FnMut(Info)) -> bool {
    let mut infos = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; BATCH];
    // SAFETY: the buffer is a local variable and has the given length.
    let bytes = unsafe { libc::read(fd.as_raw_fd(), infos.as_mut_ptr().cast(), size_of_val(&infos)) };
    let count = usize::try_from(bytes).unwrap_or(0) / size_of::<libc::signalfd_siginfo>();
    for info in infos.iter().take(count) {
        // SAFETY: the kernel has filled `count` entries, and the type holds plain integers.
        let info = unsafe { info.assume_init_ref() };
        take(Info {
            signal: i32::try_from(info.ssi_signo).unwrap_or(0),
            code: info.ssi_code,
            pid: i32::try_from(info.ssi_pid).unwrap_or(0),
            uid: info.ssi_uid,
        });
    }
    count == BATCH
}

/// Whether `signal` was ignored when kapo was started; exec preserves this.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action changes nothing; the old one is written to a local variable.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros is a valid sigaction, and the call has either filled it or failed.
    let action = unsafe { action.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Restores the default action of `signal`. This is needed only for CHLD: while it is ignored, the kernel reaps
/// children itself and their status is lost.
pub fn set_default(signal: i32) {
    // SAFETY: SIG_DFL is not a function that could be unsound to call.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Sends a signal to a process, or to the process group `-whom` if `whom` is negative (kill(2)). The signal may be a
/// real-time one.
pub fn send(whom: i32, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes only integers.
    if unsafe { libc::kill(whom, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Kills kapo with `signal`, which must be blocked; with `all`, also sends it to the rest of kapo's process group.
/// Returns if the signal was ignored at the start of kapo. Core dumps are disabled, because kapo itself has not
/// crashed.
pub fn die_by(signal: i32, all: bool) {
    // SAFETY: the call takes only integers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // SAFETY: getpid has no preconditions.
    let own = unsafe { libc::getpid() };
    // kapo's own signal stays pending until the other processes have received theirs.
    let _ = send(if all { 0 } else { own }, signal);
    let set: Mask = 1 << (signal - 1);
    let nowhere = std::ptr::null_mut::<Mask>();
    // SAFETY: the pointer is to a mask of the given length, which outlives the call.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw const set, nowhere, MASK_BYTES)
    };
}

/// Stops kapo with `signal`, which must be blocked and not ignored, until CONT arrives. The parent sees this signal as
/// the reason of the stop. A CONT that arrives first cancels the stop.
pub fn stop_by(signal: i32) {
    // SAFETY: getpid has no preconditions.
    let own = unsafe { libc::getpid() };
    let _ = send(own, signal);
    let set: Mask = 1 << (signal - 1);
    let nowhere = std::ptr::null_mut::<Mask>();
    for how in [libc::SIG_UNBLOCK, libc::SIG_BLOCK] {
        // SAFETY: the pointer is to a mask of the given length, which outlives the call.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, nowhere, MASK_BYTES) };
    }
}

/// Discards those of `signals` that are pending. They must be blocked.
pub fn discard_pending(signals: &[i32]) {
    let set = signals.iter().fold(0, |set: Mask, signal| set | 1 << (signal - 1));
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_info = std::ptr::null_mut::<libc::siginfo_t>();
    loop {
        // SAFETY: set and time outlive the call, and the size is that of the set.
        let taken = unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set, no_info, &raw const now, MASK_BYTES)
        };
        if taken <= 0 {
            return;
        }
    }
}

/// Makes the kernel send `signal` to kapo when its parent dies (PR_SET_PDEATHSIG). If the parent is already dead, no
/// signal is sent, so the caller must compare getppid(2) before and after.
pub fn on_parent_death(signal: i32) {
    // SAFETY: plain integers; fails only for numbers that are no signals.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Signals affect the whole process, so one test, which has its own process, covers them.
    #[test]
    fn blocked_signals_of_every_number_wait_for_the_signalfd() {
        let before = block_all().unwrap().before();
        let fd = signalfd().unwrap();
        // SAFETY: gettid has no preconditions.
        let thread = unsafe { libc::gettid() };
        // SAFETY: sends a signal, blocked above, to this thread.
        assert_eq!(unsafe { libc::syscall(libc::SYS_tkill, thread, 33) }, 0);
        let mut seen = Vec::new();
        assert!(!read(fd.as_fd(), |info| seen.push(info)), "one signal is not a full batch");
        assert_eq!(seen.iter().map(|info| info.signal).collect::<Vec<_>>(), [33]);
        assert!(seen[0].code <= 0, "{seen:?}");
        assert!(!read(fd.as_fd(), |_| panic!("nothing is left")));
        assert_ne!(before, !0);
    }

    #[test]
    fn dispositions_are_read_and_reset() {
        // SAFETY: changes the disposition of URG in this test process, which does not use it.
        unsafe { libc::signal(libc::SIGURG, libc::SIG_IGN) };
        assert!(is_ignored(libc::SIGURG));
        set_default(libc::SIGURG);
        assert!(!is_ignored(libc::SIGURG));
    }
}
