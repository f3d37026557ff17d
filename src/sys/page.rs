//! The size of a page of memory.
#![allow(unsafe_code)]

/// In bytes; /proc counts memory in pages.
pub fn size() -> u64 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4_096)
}
