//! The C function `main`, which replaces std's runtime.
//!
//! std's runtime ignores SIGPIPE, installs handlers for SIGSEGV and SIGBUS on an alternate stack, and opens /dev/null
//! for closed standard descriptors (or aborts if there is no /dev). The command must inherit the signals and
//! descriptors that kapo was started with, so kapo does not use this runtime. This also saves start-up time and a page
//! of memory.
//!
//! This file is part of the binary, because it defines the symbol `main`, which would clash with the test harness of
//! the library.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use kapo::sys::{arguments, stdio};

/// Entry point of the program; libc calls it.
///
/// # Safety
/// `argv` points to `argc` strings that end with NUL, as the C standard promises to main.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    stdio::fill_closed_standard_descriptors();
    // SAFETY: the caller makes the same promise about argc and argv.
    let arguments = unsafe { arguments::from_raw(argc, argv) };
    c_int::from(crate::start(arguments))
}
