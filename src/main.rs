//! The program: words and environment in, exit code out. Everything else is in the library; begin reading there.
#![no_main]

#[path = "sys/entry.rs"]
mod entry;

use std::ffi::OsString;

/// Called by `entry` with all words, the program's name first; what it returns is the exit code.
fn start(words: Vec<OsString>) -> u8 {
    let _ = words;
    0
}
