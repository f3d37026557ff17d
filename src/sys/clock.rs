//! Reads the clocks; no other module does.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::{Instant, SystemTime};

/// Returns CLOCK_MONOTONIC.
#[expect(clippy::disallowed_methods, reason = "this module is the only one that reads a clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Returns CLOCK_MONOTONIC and CLOCK_REALTIME, read one after the other.
#[expect(clippy::disallowed_methods, reason = "this module is the only one that reads a clock")]
pub fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

/// Returns the seconds and nanoseconds of CLOCK_REALTIME and of CLOCK_BOOTTIME, read one after the other. Not rustix's
/// function, which brings its own search of the vDSO and, because of that, dlsym and printf of the C library.
pub(crate) fn real_and_boot() -> [(i64, i64); 2] {
    [libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME].map(|clock| {
        let mut time = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: `time` may be written. If the clock is unknown, it stays zero.
        unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
        // SAFETY: all zeros is a valid timespec.
        let time = unsafe { time.assume_init() };
        (time.tv_sec, time.tv_nsec)
    })
}
