//! Where the program begins: the C `main`, without std's runtime in front of it.
//!
//! std would ignore SIGPIPE, set handlers for SEGV and BUS with a stack of their own, and open /dev/null for closed
//! standard descriptors, or abort where there is no /dev. The command must see the signals and descriptors that kapo
//! was started with, so none of that happens here; it also saves start-up time and a page of memory.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// Called by libc.
///
/// # Safety
/// `argv` has `argc` strings, as the C standard promises to main.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    hold_standard_descriptors();
    let count = usize::try_from(argc).unwrap_or(0);
    let mut words = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: index is below argc.
        let place = unsafe { argv.add(index) };
        // SAFETY: within the array, as above.
        let word = unsafe { *place };
        // SAFETY: argv's strings end with NUL.
        words.push(OsString::from_vec(unsafe { CStr::from_ptr(word) }.to_bytes().to_vec()));
    }
    c_int::from(crate::start(words))
}

/// Where descriptor 0, 1 or 2 is closed, a placeholder takes the number, so that no socket of ours gets it and is
/// written to as if it were stdout. It is close-on-exec: the command finds the number closed, as without kapo. The
/// placeholder is the read end of a pipe without a writer: reading meets the end, writing fails.
fn hold_standard_descriptors() {
    for number in 0..3 {
        // SAFETY: asks for the flags of a number, open or not.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0 {
            continue;
        }
        let mut ends = [-1; 2];
        // SAFETY: the array has room for two descriptors. The lowest free number is ours, as all below are taken.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } == 0 {
            // SAFETY: closes the write end, which nothing else knows of.
            unsafe { libc::close(ends[1]) };
        }
    }
}
