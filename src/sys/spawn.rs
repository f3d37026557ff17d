//! Starts a program with clone(2) and execve(2).
//!
//! The child shares kapo's memory (CLONE_VM), and kapo is suspended until the child has executed the program or failed
//! (CLONE_VFORK). Nothing is copied, however large kapo is, and a failed exec reports its errno through the shared
//! memory: a pid from here always means that the program is running. std's Command would not restore the signal mask,
//! and with `pre_exec` it would fork.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use super::signal::{AllBlocked, Mask};

/// The program to execute, and its environment.
#[derive(Debug)]
pub(crate) struct ExecRequest<'a> {
    /// The files to try, in this order, like execvp(3) after its search through PATH.
    pub paths: &'a [CString],
    /// Whether PATH was searched; otherwise `paths` is the one path that was given.
    pub searched: bool,
    /// argv, beginning with the name.
    pub arguments: &'a [CString],
    /// Names of variables that the program does not inherit.
    pub unset: &'a [&'a str],
    /// Additional variables, as `NAME=value`.
    pub set: &'a [CString],
    /// The name of an additional variable, whose value is the program's pid.
    pub pid_variable: Option<&'a str>,
    /// Becomes descriptor 0; `None`: inherited.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Becomes descriptor 1; `None`: inherited.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Becomes descriptor 2; `None`: inherited.
    pub stderr: Option<BorrowedFd<'a>>,
    /// The working directory; `None`: inherited.
    pub directory: Option<&'a CStr>,
    /// Whether the program gets its own session; otherwise it gets its own process group.
    pub new_session: bool,
    /// The terminal to acquire: as the controlling terminal of a new session, otherwise by becoming its foreground
    /// process group.
    pub terminal: Option<BorrowedFd<'a>>,
    /// The signal that the kernel sends to the program when kapo dies; 0: none.
    pub death_signal: i32,
    /// Proof that all signals are blocked, so that no handler runs in the shared memory. The program gets the mask
    /// that was in force before.
    pub blocked: AllBlocked,
    /// Whether CHLD was ignored at the start of kapo, and must be ignored in the program, too.
    pub ignore_chld: bool,
    /// RLIMIT_NOFILE, soft and hard; `None`: inherited.
    pub open_files: Option<(u64, u64)>,
}

/// Everything that the child needs, prepared in advance because the child must not allocate.
struct Plan<'a> {
    program: &'a ExecRequest<'a>,
    paths: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    parent: libc::pid_t,
    /// Where the child writes its pid: [`PID_DIGITS`] zero bytes, or null if it writes no pid.
    pid_digits: *mut u8,
    /// The errno, written by the child; 0 if the program was executed.
    errno: c_int,
    /// The step that failed, written by the child.
    step: Step,
}

/// A step of a start that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Everything before the other steps: the new process and its descriptors.
    Prepare,
    /// Changing to the working directory.
    Enter,
    /// Executing the file.
    Execute,
}

/// The reason why a program could not be started.
#[derive(Debug)]
pub(crate) struct SpawnError {
    /// The step that failed.
    pub step: Step,
    /// The error of the system call.
    pub error: io::Error,
}

impl SpawnError {
    /// Whether the kernel cannot execute the file because it is neither a program nor begins with `#!` (ENOEXEC of
    /// execve(2)).
    pub(crate) fn is_exec_format_error(&self) -> bool {
        self.step == Step::Execute && self.error.raw_os_error() == Some(libc::ENOEXEC)
    }
}

/// Number of digits of the largest pid.
const PID_DIGITS: usize = 10;

/// How far below a variable of [`spawn`] the child's stack begins. The rest of the frame of `spawn` and those of clone(2)
/// in the C library lie between: 430 bytes on x86-64, at most 600 on aarch64.
const DISTANCE: usize = 2048;

/// Starts `program`. Returns its pid after it was executed, or the reason why it could not be.
#[inline(never)] // `here` must be in a frame of its own: inlined, it may lie far above live variables of the caller.
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
        // SAFETY: room for the digits follows the name and its `=`.
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
    // Like after vfork(2), the child uses the free stack below: the start then touches no page for a stack of its own,
    // and the frames of signals have room, however large they are. The ABI requires an aligned address.
    let here = std::hint::black_box(0_u8);
    let top = (&raw const here)
        .map_addr(|address| address.wrapping_sub(DISTANCE) & !15)
        .cast_mut()
        .cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let plan_pointer = (&raw mut plan).cast::<c_void>();
    // SAFETY: the plan outlives the child's use of it, because CLONE_VFORK suspends kapo until the child has executed
    // the program or exited. Meanwhile nothing of kapo lies below `top`: all frames of its callers and, because of
    // DISTANCE, those of this function and of clone lie above, and `program.blocked` proves that no signal handler of
    // kapo runs.
    let pid = unsafe { libc::clone(child, top, flags, plan_pointer) };
    drop(pid_assignment);
    if pid < 0 {
        return Err(SpawnError { step: Step::Prepare, error: io::Error::last_os_error() });
    }
    // SAFETY: plan is a local variable. The read is volatile because the compiler does not see that the child has
    // written to it.
    let errno = unsafe { ptr::read_volatile(&raw const plan.errno) };
    if errno == 0 {
        return Ok(pid);
    }
    // The child has already exited. Reap it here, so that it is not reported as an unknown child.
    // SAFETY: a null status pointer is allowed.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    // SAFETY: as for errno; the child writes only values of this type.
    let step = unsafe { ptr::read_volatile(&raw const plan.step) };
    Err(SpawnError { step, error: io::Error::from_raw_os_error(errno) })
}

/// Returns pointers to kapo's own environment, except for the variables in `unset`. Nothing is copied.
fn inherited_environment(unset: &[&str]) -> Vec<*const c_char> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut list = Vec::new();
    // SAFETY: reads the pointer of libc; kapo never changes its environment.
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
        // SAFETY: this entry was not the null pointer at the end, so the next one is within the array.
        entry = unsafe { entry.add(1) };
    }
    list
}

/// Runs in the child until the program is executed. Makes only system calls, because the memory is shared with the
/// parent.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: the parent passes a pointer to its plan and is suspended.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    let (step, errno) = prepare_and_execute(plan);
    // SAFETY: plan is shared with the parent, which reads it after the child has exited.
    unsafe { ptr::write_volatile(&raw mut plan.step, step) };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(&raw mut plan.errno, errno) };
    // SAFETY: exits without running any code of the parent.
    unsafe { libc::_exit(127) }
}

/// Writes the pid of the child into its environment, as the value of the variable that must contain it (WATCHDOG_PID).
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
    // SAFETY: the suspended parent has made room for PID_DIGITS bytes there, and `text` is not longer.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), digits, text.len()) };
}

/// Sets up the child and executes the program. Returns only on failure, with the failed step and the errno.
fn prepare_and_execute(plan: &Plan<'_>) -> (Step, c_int) {
    let program = plan.program;
    if !plan.pid_digits.is_null() {
        write_pid(plan.pid_digits);
    }
    if program.death_signal != 0 && !arm_death_signal(program.death_signal, plan.parent) {
        return (Step::Prepare, libc::ESRCH);
    }
    enter_own_group(program);
    for (from, to) in [program.stdin, program.stdout, program.stderr].into_iter().zip(0..) {
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
        // SAFETY: no handler function is installed. Only memory is shared with the parent, dispositions are not.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }
    discard_stop_signals();
    restore_mask(program);
    execute(plan)
}

/// Asks for `signal` at the death of the parent. Returns false if the parent has died already.
fn arm_death_signal(signal: c_int, expected: libc::pid_t) -> bool {
    // SAFETY: the call takes only integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    // If the parent has died before this call, no signal will be sent. getppid returns 0 if the parent is outside
    // the PID namespace of the child, which is the case if kapo was started with unshare without --fork. Then the
    // child cannot detect a dead parent, and a kapo that is killed at this moment leaves its command behind.
    // SAFETY: getppid has no preconditions.
    let parent = unsafe { libc::getppid() };
    parent == expected || parent == 0
}

/// Puts the child into a process group of its own, or into a session of its own, and gives it the terminal.
fn enter_own_group(program: &ExecRequest<'_>) {
    if program.new_session {
        // SAFETY: the call takes no arguments. It cannot fail, because a new process is not a group leader.
        unsafe { libc::setsid() };
        if let Some(terminal) = program.terminal {
            // This fails if the terminal belongs to another session; the program then has no terminal.
            // SAFETY: the ioctl takes only an integer.
            unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
        }
    } else {
        // SAFETY: the call takes only integers.
        unsafe { libc::setpgid(0, 0) };
        if let Some(terminal) = program.terminal {
            // SAFETY: getpid has no preconditions.
            let group = unsafe { libc::getpid() };
            // In the background this call raises TTOU, which is blocked, so the call succeeds.
            // SAFETY: the call takes only integers.
            unsafe { libc::tcsetpgrp(terminal.as_raw_fd(), group) };
        }
    }
}

/// Restores the signal mask that kapo was started with.
fn restore_mask(program: &ExecRequest<'_>) {
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
}

/// Executes the first of the paths that is a program. Returns only on failure.
fn execute(plan: &Plan<'_>) -> (Step, c_int) {
    // Like execvp(3), continue the search after a file without permission and report EACCES at the end. For a path
    // that was given, report its own error.
    let mut errno = libc::ENOENT;
    for path in &plan.paths {
        // SAFETY: strings that end with NUL, and arrays that end with a null pointer.
        unsafe { libc::execve(*path, plan.argv.as_ptr(), plan.envp.as_ptr()) };
        match last_errno() {
            libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP if plan.program.searched => {}
            libc::EACCES => errno = libc::EACCES,
            other => return (Step::Execute, other),
        }
    }
    (Step::Execute, errno)
}

/// Installs an empty handler for TSTP, TTIN and TTOU, so that a pending one does not stop the child when its mask is
/// restored. A child that is stopped before its exec would keep the parent suspended in clone(2), where only KILL
/// reaches it. Such a signal was sent to kapo's process group before the child left it. execve(2) resets handlers to
/// the default action, so the program is not affected, and a signal that was ignored stays ignored.
fn discard_stop_signals() {
    extern "C" fn nothing(_: c_int) {}
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: the handler does nothing. Only memory is shared with the parent, dispositions are not.
        let before = unsafe { libc::signal(signal, nothing as extern "C" fn(c_int) as libc::sighandler_t) };
        if before == libc::SIG_IGN {
            // SAFETY: the call installs no handler function.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

/// Like dup2(2), but if both descriptors are the same, only clears close-on-exec.
fn duplicate(from: RawFd, to: RawFd) -> c_int {
    if from == to {
        // SAFETY: the call takes only integers.
        unsafe { libc::fcntl(to, libc::F_SETFD, 0) }
    } else {
        // SAFETY: the call takes only integers.
        unsafe { libc::dup2(from, to) }
    }
}

fn last_errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
