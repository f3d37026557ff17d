//! Makes system calls fail with a seccomp filter (seccomp(2)), because emulators, old kernels and container profiles
//! lack some.

use std::io;

/// Makes system call `number` fail with `errno` in the program that this process becomes. With `first`, only if that
/// is its first argument.
#[expect(unsafe_code, reason = "a seccomp filter is given to the kernel by address")]
pub(crate) fn refuse(number: libc::c_long, first: Option<libc::c_int>, errno: libc::c_int) -> io::Result<()> {
    let instruction = |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: yes,
        jf: no,
        k,
    };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let compare = |value, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, no, value);
    let answer = |value| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let number = u32::try_from(number).unwrap_or(0);
    let errno = u32::try_from(errno).unwrap_or(0);
    let first = first.and_then(|first| u32::try_from(first).ok());
    let mut filter = [
        load(0),
        compare(number, 3),
        // The lower half of the first argument, in the byte order of x86-64 and AArch64.
        load(if first.is_some() { 16 } else { 0 }),
        compare(first.unwrap_or(number), 1),
        answer(libc::SECCOMP_RET_ERRNO | errno),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
    // SAFETY: plain integers.
    let mut failed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0;
    // SAFETY: the program and its filter live until the call returns, which copies them.
    failed |=
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
