//! Frees unused pages of the main thread's stack. Pages that a deep call has touched otherwise stay resident.
#![allow(unsafe_code)]

/// The smallest page size; every larger page size is a multiple of it.
const PAGE: usize = 4096;
/// How many bytes below the current frame are freed: more than a start of the command uses.
const REACH: usize = 15 * PAGE;
/// Distance below `here` that is kept: more than the frames of [`release_unused`] and of the system call need, which
/// is about ten words.
const DISTANCE: usize = 1024;

/// Returns the pages below the caller's frame to the kernel (madvise(2), MADV_DONTNEED). They read as zeros when they
/// are touched again.
#[inline(never)] // `here` must be in a frame of its own: inlined, it may lie far above live variables of the caller.
pub(crate) fn release_unused() {
    let here = std::hint::black_box(0_u8);
    let end = (&raw const here).map_addr(|address| (address - DISTANCE) & !(PAGE - 1));
    // SAFETY: `here` is a local variable of this frame, which is the last one on the stack, and the stack grows
    // downwards. Everything more than DISTANCE bytes below it lies outside all frames.
    unsafe { release_below(end) };
}

/// Returns the pages of the `REACH` bytes below `end` to the kernel.
///
/// # Safety
/// `end` is the start of a page of this thread's stack, and no live value, of Rust or of a C caller, lies in the range
/// below it, because the kernel replaces its content with zeros.
unsafe fn release_below(end: *const u8) {
    let start = end.map_addr(|address| address - REACH);
    // SAFETY: the caller guarantees that the range holds no value. An unmapped range is an error without effect.
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
