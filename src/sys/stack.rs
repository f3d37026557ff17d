//! Frees unused pages of the main thread's stack. Pages that a deep call has touched otherwise stay resident.
#![allow(unsafe_code)]

/// How many bytes below the current frame are freed: more than a start of the command uses.
const REACH: usize = 60 * 1024;
/// Distance below `here` that is kept. The frames of [`release_unused`] and of the system call need about ten words; the
/// rest is for the next wake-up, most of which need no more. To touch a page again would delay it by 4 us.
const DISTANCE: usize = 5 * 1024;

/// Returns the pages below the caller's frame to the kernel (madvise(2), MADV_DONTNEED). They read as zeros when they
/// are touched again.
#[inline(never)] // `here` must be in a frame of its own: inlined, it may lie far above live variables of the caller.
pub(crate) fn release_unused() {
    let here = std::hint::black_box(0_u8);
    let page = page_size();
    let end = (&raw const here).map_addr(|address| address.wrapping_sub(DISTANCE) / page * page);
    // SAFETY: `here` is a local variable of this frame, which is the last one on the stack, and the stack grows
    // downwards. Everything more than DISTANCE bytes below it lies outside all frames.
    unsafe { release_below(end, REACH.next_multiple_of(page)) };
}

/// Returns the size of a page. The kernel returns whole pages only, and rounds a length up.
pub(super) fn page_size() -> usize {
    // SAFETY: it only reads the auxiliary vector. A page has at least 4 KiB.
    let size = unsafe { libc::getauxval(libc::AT_PAGESZ) };
    usize::try_from(size).unwrap_or(0).max(4_096)
}

/// Returns the pages of the `length` bytes below `end` to the kernel.
///
/// # Safety
/// Both are multiples of the page size. `end` is the start of a page of this thread's stack, and no live value, of Rust
/// or of a C caller, lies in the range below it, because the kernel replaces its content with zeros.
unsafe fn release_below(end: *const u8, length: usize) {
    let start = end.map_addr(|address| address - length);
    // SAFETY: the caller guarantees that the range holds no value. An unmapped range is an error without effect.
    unsafe { libc::madvise(start.cast_mut().cast(), length, libc::MADV_DONTNEED) };
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
