//! The only reader of a clock.

use std::time::{Instant, SystemTime};

/// CLOCK_MONOTONIC.
#[expect(clippy::disallowed_methods, reason = "the one place that reads a clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// CLOCK_MONOTONIC and CLOCK_REALTIME, one after the other.
#[expect(clippy::disallowed_methods, reason = "the one place that reads a clock")]
pub fn now() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}
