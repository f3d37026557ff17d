//! Runs arbitrary lives of a command, with any options and failures; see `logic/lifecycle/world.rs` for the promises.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use kapo::logic::Now;
use kapo::logic::lifecycle::world::any_life;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static START: OnceLock<Instant> = OnceLock::new();
    let epoch = Now {
        mono: *START.get_or_init(Instant::now),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_793_930),
    };
    // A choice among few values uses one byte and a choice among many two, so that small inputs give long lives.
    let mut bytes = bytes.iter().copied();
    let mut byte = || u64::from(bytes.next().unwrap_or(0));
    any_life(epoch, 1, &mut |n| match n {
        0..=256 => byte() % n,
        // Up to 100 s in steps of 1.5 ms.
        _ => (byte() << 8 | byte()) * n >> 16,
    });
});
