//! Converts the arguments of C's `main` to [`OsString`]s. std::env::args_os is empty in a program without std's
//! `main`.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// Returns copies of the arguments, the program's name first.
///
/// # Safety
/// `argv` points to `argc` pointers, each to a string that ends with NUL.
pub unsafe fn from_raw(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let count = usize::try_from(argc).unwrap_or(0);
    let mut arguments = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: index is below argc, so the place is within the array.
        let place = unsafe { argv.add(index) };
        // SAFETY: the place is within the array and initialized.
        let argument = unsafe { *place };
        // SAFETY: the caller promises a string that ends with NUL.
        arguments.push(OsString::from_vec(unsafe { CStr::from_ptr(argument) }.to_bytes().to_vec()));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_copied_byte_for_byte() {
        let arguments = [c"kapo", c"run", c"\xff"];
        let argv = arguments.map(CStr::as_ptr);
        // SAFETY: three strings that end with NUL.
        let copied = unsafe { from_raw(3, argv.as_ptr()) };
        assert_eq!(
            copied,
            [&b"kapo"[..], b"run", b"\xff"].map(|argument| OsString::from_vec(argument.to_vec()))
        );
    }
}
