//! Reads the clocks; no other module does.

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
