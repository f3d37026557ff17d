//! Where the program begins: the C `main`, without std's runtime in front of it.
//!
//! std's runtime ignores SIGPIPE, installs handlers for SIGSEGV and SIGBUS on a stack of their own, and opens /dev/null
//! for closed standard descriptors (or aborts if there is no /dev). The command must see the signals and descriptors
//! that kapo was started with, so kapo starts without it. This also saves start-up time and a page of memory.
//!
//! This file stands beside main.rs because the symbol `main` belongs to the binary: in the library it would clash with
//! the test harness.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use kapo::sys::{arguments, stdio};

/// Called by libc.
///
/// # Safety
/// `argv` points to `argc` strings that end with NUL, as the C standard promises to main.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    stdio::fill_closed_standard_descriptors();
    // SAFETY: the caller makes the same promise about argc and argv.
    let words = unsafe { arguments::from_raw(argc, argv) };
    c_int::from(crate::start(words))
}
