//! Starts a program with clone(2) and execve(2).
//!
//! The child shares our memory (CLONE_VM) and we stand still until it has executed or failed (CLONE_VFORK). So
//! nothing is copied however large we are, and an exec that fails tells its errno through shared memory: whoever
//! gets a pid from here knows that the program runs. std's Command would leave our signal mask in place, and with
//! `pre_exec` it would fork.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use super::signal::{AllBlocked, Mask};

/// What to start, and as what.
#[derive(Debug)]
pub(crate) struct ExecRequest<'a> {
    /// The files to try, in this order, as execvp(3) does after its search through PATH.
    pub paths: &'a [CString],
    /// There was such a search; else the one path was named.
    pub searched: bool,
    /// argv, the name first.
    pub arguments: &'a [CString],
    /// Names of variables that it does not inherit.
    pub unset: &'a [&'a str],
    /// `NAME=value` that it gets in addition.
    pub set: &'a [CString],
    /// A variable that it gets in addition; its value is the program's pid.
    pub pid_variable: Option<&'a str>,
    /// Becomes descriptor 1; `None`: inherited.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Becomes descriptor 2; `None`: inherited.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Its working directory; `None`: ours.
    pub directory: Option<&'a CStr>,
    /// A session of its own; else a process group of its own.
    pub new_session: bool,
    /// The terminal to make its own: as controlling terminal of a new session, else as foreground group.
    pub terminal: Option<BorrowedFd<'a>>,
    /// What the kernel sends it when we die; 0: nothing.
    pub death_signal: i32,
    /// All signals are blocked, so nothing else runs on our memory while the child uses it. The program gets the mask of
    /// before.
    pub blocked: AllBlocked,
    /// CHLD was ignored when we were started, so it is for the program, too.
    pub ignore_chld: bool,
    /// RLIMIT_NOFILE, soft and hard; `None`: ours.
    pub open_files: Option<(u64, u64)>,
}

/// Everything that the child looks at, prepared before it exists: it must not allocate.
struct Plan<'a> {
    program: &'a ExecRequest<'a>,
    paths: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    parent: libc::pid_t,
    /// Where the child writes its pid, with [`PID_DIGITS`] zero bytes of room; null: nowhere.
    pid_digits: *mut u8,
    /// Written by the child; 0: it executed.
    errno: c_int,
    /// What it was about when that happened.
    step: Step,
}

/// A part of a start that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Whatever comes before the others: a new process, its descriptors.
    Prepare,
    /// To enter the directory.
    Enter,
    /// To execute the file.
    Execute,
}

/// Why nothing was started.
#[derive(Debug)]
pub(crate) struct SpawnError {
    /// Where it went wrong.
    pub step: Step,
    /// What the kernel said.
    pub error: io::Error,
}

impl SpawnError {
    /// The kernel knows no way to execute the file: it is no program, and has no `#!` line (ENOEXEC of execve(2)).
    pub(crate) fn is_exec_format_error(&self) -> bool {
        self.step == Step::Execute && self.error.raw_os_error() == Some(libc::ENOEXEC)
    }
}

/// The digits of the greatest pid.
const PID_DIGITS: usize = 10;

/// Where the child runs until it executes; its calls need a few hundred bytes.
const STACK: usize = 12 * 1024;

/// Starts `program`; its pid once it has been executed, else why it could not be.
pub(crate) fn spawn(program: &ExecRequest<'_>) -> Result<i32, SpawnError> {
    let pointers =
        |strings: &[CString]| -> Vec<*const c_char> { strings.iter().map(|s| s.as_ptr()).collect() };
    let ended = |mut list: Vec<*const c_char>| {
        list.push(ptr::null());
        list
    };
    let mut envp = inherited_environment(program.unset);
    envp.extend(program.set.iter().map(|s| s.as_ptr()));
    let mut pid_assignment = Vec::new();
    let mut pid_digits = ptr::null_mut();
    if let Some(name) = program.pid_variable {
        let length = name.len() + 1;
        pid_assignment = [name.as_bytes(), b"=", &[0; PID_DIGITS + 1]].concat();
        let start = pid_assignment.as_mut_ptr();
        envp.push(start.cast::<c_char>().cast_const());
        // SAFETY: the name and its `=` are followed by the room for the digits.
        pid_digits = unsafe { start.add(length) };
    }
    let mut plan = Plan {
        program,
        paths: pointers(program.paths),
        argv: ended(pointers(program.arguments)),
        envp: ended(envp),
        // SAFETY: getpid has no preconditions.
        parent: unsafe { libc::getpid() },
        pid_digits,
        errno: 0,
        step: Step::Prepare,
    };
    let mut stack = MaybeUninit::<[u8; STACK]>::uninit();
    // SAFETY: one past the end of the array is a valid pointer to form.
    let end = unsafe { stack.as_mut_ptr().cast::<u8>().add(STACK) };
    // The stack grows downwards, from an address aligned as the ABI wants it.
    let top = end.map_addr(|address| address & !15).cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let plan_pointer = (&raw mut plan).cast::<c_void>();
    // SAFETY: stack and plan outlive the child's use of them, because CLONE_VFORK keeps us here until it has executed or
    // ended. `program.blocked` says that no signal handler runs on our memory meanwhile, and kapo has one thread.
    let pid = unsafe { libc::clone(child, top, flags, plan_pointer) };
    drop(pid_assignment);
    if pid < 0 {
        return Err(SpawnError { step: Step::Prepare, error: io::Error::last_os_error() });
    }
    // SAFETY: plan is ours; volatile, as the compiler does not see that the child has written to it.
    let errno = unsafe { ptr::read_volatile(&raw const plan.errno) };
    if errno == 0 {
        return Ok(pid);
    }
    // It has ended already; taken here, so that nobody else meets a child that never was.
    // SAFETY: a null status pointer is allowed.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    // SAFETY: as for errno; the child writes nothing but values of this type.
    let step = unsafe { ptr::read_volatile(&raw const plan.step) };
    Err(SpawnError { step, error: io::Error::from_raw_os_error(errno) })
}

/// Our own environment but for `unset`, by pointer: nothing is copied.
fn inherited_environment(unset: &[&str]) -> Vec<*const c_char> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut list = Vec::new();
    // SAFETY: reads the pointer that libc keeps; nobody changes the environment of this program.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: entry is within the array, which ends with a null pointer.
        let text = unsafe { *entry };
        if text.is_null() {
            break;
        }
        // SAFETY: every entry is a string that ends with NUL.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
        let name = bytes.split(|b| *b == b'=').next().unwrap_or(bytes);
        if !unset.iter().any(|unset| unset.as_bytes() == name) {
            list.push(text);
        }
        // SAFETY: the null pointer at the end was not reached, so one further is within the array.
        entry = unsafe { entry.add(1) };
    }
    list
}

/// The child's life until it executes. Only system calls here: memory is shared with the parent.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: the parent gave a pointer to its plan and waits.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    let (step, errno) = prepare_and_execute(plan);
    // SAFETY: plan is shared with the parent, which reads it once we have ended.
    unsafe { ptr::write_volatile(&raw mut plan.step, step) };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(&raw mut plan.errno, errno) };
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Writes the child's own pid to where its variable has room for it.
fn write_pid(digits: *mut u8) {
    // SAFETY: getpid has no preconditions.
    let mut rest = unsafe { libc::getpid() }.unsigned_abs();
    let mut text = [0; PID_DIGITS];
    let mut at = text.len();
    while rest > 0 && at > 0 {
        at -= 1;
        if let (Some(place), Ok(digit)) = (text.get_mut(at), u8::try_from(rest % 10)) {
            *place = b'0' + digit;
        }
        rest /= 10;
    }
    let text = text.get(at..).unwrap_or_default();
    // SAFETY: the parent, which waits, has made room for PID_DIGITS bytes there, and `text` is no longer than that.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), digits, text.len()) };
}

/// Returns only on failure, with what failed and the errno.
fn prepare_and_execute(plan: &Plan<'_>) -> (Step, c_int) {
    let program = plan.program;
    if !plan.pid_digits.is_null() {
        write_pid(plan.pid_digits);
    }
    if program.death_signal != 0 {
        // SAFETY: plain integers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, program.death_signal) };
        // The parent may have died before we asked, and then nobody would tell. 0 is a parent outside our PID namespace,
        // which is kapo where it was started in one that it is not in itself (unshare without --fork). Whether that one
        // has died cannot be seen from inside; a kapo that is killed in this very moment leaves its command behind.
        // SAFETY: getppid has no preconditions.
        let parent = unsafe { libc::getppid() };
        if parent != plan.parent && parent != 0 {
            return (Step::Prepare, libc::ESRCH);
        }
    }
    if program.new_session {
        // SAFETY: no arguments; a new process is no group leader, so it cannot fail.
        unsafe { libc::setsid() };
        if let Some(terminal) = program.terminal {
            // Refused where the terminal belongs to another session; then there is none for us.
            // SAFETY: an ioctl with an integer argument.
            unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
        }
    } else {
        // SAFETY: plain integers.
        unsafe { libc::setpgid(0, 0) };
        if let Some(terminal) = program.terminal {
            // SAFETY: getpid has no preconditions.
            let group = unsafe { libc::getpid() };
            // From the background this raises TTOU, which is blocked, so it works.
            // SAFETY: plain integers.
            unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), group) };
        }
    }
    for (from, to) in [(program.stdout, libc::STDOUT_FILENO), (program.stderr, libc::STDERR_FILENO)] {
        if let Some(from) = from
            && duplicate(from.as_raw_fd(), to) < 0
        {
            return (Step::Prepare, last_errno());
        }
    }
    if let Some((soft, hard)) = program.open_files {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: the limit lives across the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
    if let Some(directory) = program.directory {
        // SAFETY: a string that ends with NUL.
        if unsafe { libc::chdir(directory.as_ptr()) } < 0 {
            return (Step::Enter, last_errno());
        }
    }
    if program.ignore_chld {
        // SAFETY: no handler function. Dispositions are not shared, only memory is.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }
    lose_stop_signals();
    let mask = program.blocked.before();
    // SAFETY: the mask lives across the call and has the length given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            ptr::null_mut::<Mask>(),
            size_of::<Mask>(),
        )
    };
    // As execvp(3): a file that may not be executed is remembered, and the search goes on. A path that was named fails
    // with what is wrong with it.
    let mut errno = libc::ENOENT;
    for path in &plan.paths {
        // SAFETY: strings that end with NUL, and arrays that end with a null pointer.
        unsafe { libc::execve(*path, plan.argv.as_ptr(), plan.envp.as_ptr()) };
        match last_errno() {
            libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP if program.searched => {}
            libc::EACCES => errno = libc::EACCES,
            other => return (Step::Execute, other),
        }
    }
    (Step::Execute, errno)
}

/// Has a pending TSTP, TTIN or TTOU run a handler that does nothing, instead of stopping the child when its mask is
/// restored: a child that is stopped before its exec would keep the parent asleep in clone(2), where no signal but KILL
/// reaches it. Such a signal was sent to kapo's process group before the child left it. execve(2) resets handlers to the
/// default action, so the program notices nothing; a signal that kapo was started to ignore stays ignored.
fn lose_stop_signals() {
    extern "C" fn nothing(_: c_int) {}
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: the handler touches nothing. Dispositions are not shared with the parent, only memory is.
        let before = unsafe { libc::signal(signal, nothing as extern "C" fn(c_int) as libc::sighandler_t) };
        if before == libc::SIG_IGN {
            // SAFETY: no handler function.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// dup2(2), also right where both are the same: then only close-on-exec must go.
fn duplicate(from: RawFd, to: RawFd) -> c_int {
    if from == to {
        // SAFETY: plain integers.
        unsafe { libc::fcntl(to, libc::F_SETFD, 0) }
    } else {
        // SAFETY: plain integers.
        unsafe { libc::dup2(from, to) }
    }
}

fn last_errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
