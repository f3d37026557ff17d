//! Reads the environment: one variable, or all whose names begin with a prefix.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsString, c_char};
use std::os::unix::ffi::OsStringExt;

unsafe extern "C" {
    /// The array of `NAME=value` strings of the C library, ended by a null pointer; environ(7).
    static environ: *const *const c_char;
}

/// Returns the value of a variable. Unlike std's function it takes no lock, because kapo never changes its environment.
/// Each start would touch one more page for that lock.
pub fn value(name: &str) -> Option<OsString> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with NUL, and nothing writes to environ meanwhile.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: a value is a string that ends with NUL, and nothing changes it while it is borrowed.
    (!value.is_null()).then(|| OsString::from_vec(unsafe { CStr::from_ptr(value) }.to_bytes().to_vec()))
}

/// Returns copies of names and values, in the order of the environment. Calling getenv for each of kapo's variables
/// would scan the whole environment 40 times.
pub fn with_prefix(prefix: &[u8]) -> Vec<(OsString, OsString)> {
    let mut found = Vec::new();
    // SAFETY: kapo never changes its environment (clippy.toml disallows set_var), so nothing writes to environ.
    let mut place = unsafe { environ };
    while !place.is_null() {
        // SAFETY: place points into the array, at the latest to its null pointer.
        let text = unsafe { *place };
        if text.is_null() {
            break;
        }
        // SAFETY: the C library ends each string with NUL, and nothing changes it while it is borrowed.
        let text = unsafe { CStr::from_ptr(text) }.to_bytes();
        if text.starts_with(prefix)
            && let Some(at) = text.iter().position(|byte| *byte == b'=')
            && let (name, [_, value @ ..]) = text.split_at(at)
        {
            found.push((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())));
        }
        // SAFETY: *place was not the null pointer that ends the array, so the next place is still within it.
        place = unsafe { place.add(1) };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_the_same_as_with_std() {
        for prefix in ["CARGO", "PATH", "no such variable"] {
            let mut found = with_prefix(prefix.as_bytes());
            let mut expected: Vec<_> =
                std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(prefix)).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{prefix}");
            assert_eq!(found.is_empty(), prefix.starts_with("no"), "{prefix}");
            assert_eq!(value(prefix), std::env::var_os(prefix), "{prefix}");
        }
    }
}
