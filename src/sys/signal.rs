//! Signal mask, dispositions and signalfd(2).
//!
//! Masks are the kernel's own 64 bits, set by raw system calls: musl's sigfillset(3) leaves out 32 to 34, which
//! belong to its threads, but a process may well send them to us, and there are no threads here.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Bit n-1 is signal n.
pub type Mask = u64;

/// What sigprocmask and signalfd4 want to know of a [`Mask`].
const MASK_BYTES: usize = size_of::<Mask>();

/// Proof that every signal is blocked in this thread, which nothing in kapo ever undoes; with it the mask that was in force
/// before, which is the command's.
#[derive(Clone, Copy, Debug)]
pub struct AllBlocked {
    before: Mask,
}

impl AllBlocked {
    /// The signal mask that kapo was started with.
    pub fn before(self) -> Mask {
        self.before
    }
}

/// Blocks every signal that can be blocked.
///
/// From here on nothing interrupts us and nothing is lost: what arrives waits for the signalfd. A true fault still
/// ends the process, as the kernel then overrides the mask.
pub fn block_all() -> io::Result<AllBlocked> {
    let (all, mut before): (Mask, Mask) = (!0, 0);
    // SAFETY: both pointers are to masks of the length given, which live across the call.
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

/// A signalfd for every signal; non-blocking, close-on-exec.
pub fn signalfd() -> io::Result<OwnedFd> {
    let all: Mask = !0;
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: the pointer is to a mask of the length given, which lives across the call.
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
    /// Its number.
    pub signal: i32,
    /// Positive when the kernel raised it, else a process did (sigaction(2), `si_code`).
    pub code: i32,
    /// Who sent it; 0 when the sender is outside our PID namespace.
    pub pid: i32,
    /// The sender's real user id.
    pub uid: u32,
}

/// How many signals one [`read`] takes at most.
const BATCH: usize = 8;

/// Reads what is pending, at most a batch; calls `take` for each. `true`: the batch was full, there may be more.
pub fn read(fd: BorrowedFd<'_>, mut take: impl FnMut(Info)) -> bool {
    let mut infos = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; BATCH];
    // SAFETY: the buffer is ours and as long as said.
    let bytes = unsafe { libc::read(fd.as_raw_fd(), infos.as_mut_ptr().cast(), size_of_val(&infos)) };
    let count = usize::try_from(bytes).unwrap_or(0) / size_of::<libc::signalfd_siginfo>();
    for info in infos.iter().take(count) {
        // SAFETY: the kernel filled `count` of them; the type is plain integers.
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

/// Whether `signal` was ignored when we were started (exec keeps that).
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; the old one goes to memory of ours.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros is a valid sigaction, and the call has written over it or failed.
    let action = unsafe { action.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Gives `signal` its default action. Needed for CHLD alone: while it is ignored the kernel reaps children itself
/// and their status is lost.
pub fn set_default(signal: i32) {
    // SAFETY: SIG_DFL is no function of ours that could be unsound to call.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// kill(2): to a process, or, where `whom` is negative, to the group of that number. Any number may be sent, also
/// real-time ones.
pub fn send(whom: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    if unsafe { libc::kill(whom, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends us by `signal`, which must be blocked; `all`: sends it to the rest of our process group, too. Returns where it
/// was ignored when we were started. There is no core dump: it is not we who have crashed.
pub fn die_by(signal: i32, all: bool) {
    // SAFETY: plain integers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // SAFETY: getpid has no preconditions.
    let own = unsafe { libc::getpid() };
    // Ours waits until the others have theirs.
    let _ = send(if all { 0 } else { own }, signal);
    let set: Mask = 1 << (signal - 1);
    let nowhere = std::ptr::null_mut::<Mask>();
    // SAFETY: the pointer is to a mask of the length given, which lives across the call.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw const set, nowhere, MASK_BYTES)
    };
}

/// Stops us by `signal`, which must be blocked and not ignored, until CONT: by TSTP, so that the parent sees this signal. A
/// CONT that comes first takes it back.
pub fn stop_by(signal: i32) {
    // SAFETY: getpid has no preconditions.
    let own = unsafe { libc::getpid() };
    let _ = send(own, signal);
    let set: Mask = 1 << (signal - 1);
    let nowhere = std::ptr::null_mut::<Mask>();
    for how in [libc::SIG_UNBLOCK, libc::SIG_BLOCK] {
        // SAFETY: the pointer is to a mask of the length given, which lives across the call. Its default action runs no
        // code of ours.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, nowhere, MASK_BYTES) };
    }
}

/// Takes away those of `signals` that are pending. They must be blocked.
pub fn discard_pending(signals: &[i32]) {
    let set = signals.iter().fold(0, |set: Mask, signal| set | 1 << (signal - 1));
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_info = std::ptr::null_mut::<libc::siginfo_t>();
    loop {
        // SAFETY: set and time live across the call and the size is that of the set.
        let taken = unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set, no_info, &raw const now, MASK_BYTES)
        };
        if taken <= 0 {
            return;
        }
    }
}

/// Has the kernel send us `signal` when our parent dies (PR_SET_PDEATHSIG). A parent that is dead already tells
/// nothing any more: compare getppid(2) before and after.
pub fn on_parent_death(signal: i32) {
    // SAFETY: plain integers; fails for numbers that are no signals only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Signals are a matter of the whole process, so what needs them is seen in one test, in a process of its own.
    #[test]
    fn blocked_signals_of_every_number_wait_for_the_signalfd() {
        let before = block_all().unwrap().before();
        let fd = signalfd().unwrap();
        // SAFETY: gettid has no preconditions.
        let thread = unsafe { libc::gettid() };
        // SAFETY: sends a signal, blocked above, to this thread.
        assert_eq!(unsafe { libc::syscall(libc::SYS_tkill, thread, 33) }, 0);
        let mut seen = Vec::new();
        assert!(!read(fd.as_fd(), |info| seen.push(info)), "one is no full batch");
        assert_eq!(seen.iter().map(|info| info.signal).collect::<Vec<_>>(), [33]);
        assert!(seen[0].code <= 0, "{seen:?}");
        assert!(!read(fd.as_fd(), |_| panic!("nothing is left")));
        assert_ne!(before, !0);
    }

    #[test]
    fn dispositions_are_read_and_reset() {
        // SAFETY: changes what URG does in this test process, where nothing uses it.
        unsafe { libc::signal(libc::SIGURG, libc::SIG_IGN) };
        assert!(is_ignored(libc::SIGURG));
        set_default(libc::SIGURG);
        assert!(!is_ignored(libc::SIGURG));
    }
}
