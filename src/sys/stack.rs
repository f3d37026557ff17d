//! The stack of the main thread: pages that a deep call has touched stay resident until they are given back.
#![allow(unsafe_code)]

/// Pages are at least this long; a larger page size is a multiple of it.
const PAGE: usize = 4096;
/// How far down pages are given back: a start of the command uses less.
const REACH: usize = 15 * PAGE;
/// More than the frames of [`release_unused`] and of the system call need, which is some ten words.
const DISTANCE: usize = 1024;

/// Gives the pages below the caller's frame back to the kernel (madvise(2), MADV_DONTNEED). They read as zeros when they
/// are touched again.
#[inline(never)] // `here` must be in a frame of its own: inlined, it may lie far above live variables of the caller.
pub(crate) fn release_unused() {
    let here = std::hint::black_box(0_u8);
    let end = (&raw const here).map_addr(|address| (address - DISTANCE) & !(PAGE - 1));
    // SAFETY: `here` is a local of this frame, the last one on the stack, which grows downwards. Everything from DISTANCE
    // below it on lies outside of every frame.
    unsafe { release_below(end) };
}

/// Gives back the pages of the `REACH` bytes below `end`.
///
/// # Safety
/// `end` is the start of a page of this thread's stack, and no live value, of Rust or of a caller in C, lies in the range
/// below it: the kernel replaces what is there by zeros.
unsafe fn release_below(end: *const u8) {
    let start = end.map_addr(|address| address - REACH);
    // SAFETY: the caller promises that the range holds no value. A range that is not mapped is an error without effect.
    unsafe { libc::madvise(start.cast_mut().cast(), REACH, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_callers_survive() {
        let mut values = [0_u8; 8192];
        for (value, expected) in values.iter_mut().zip((1..=250).cycle()) {
            *value = expected;
        }
        release_unused();
        let values = std::hint::black_box(values);
        assert!(values.iter().zip((1..=250).cycle()).all(|(value, expected)| *value == expected));
    }
}
