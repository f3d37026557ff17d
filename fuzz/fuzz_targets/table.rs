//! A table of connections keeps its promises, whatever clients do: see `logic/http/table/world.rs`.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use kapo::logic::Now;
use kapo::logic::http::table::world::any_table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static START: OnceLock<Instant> = OnceLock::new();
    let epoch = Now {
        mono: *START.get_or_init(Instant::now),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_793_930),
    };
    // A choice among few costs a byte and one among many two, as in `lifecycle`.
    let mut bytes = bytes.iter().copied();
    let mut byte = || u64::from(bytes.next().unwrap_or(0));
    any_table(epoch, &mut |n| match n {
        0..=256 => byte() % n,
        _ => ((byte() << 8 | byte()) * n) >> 16,
    });
});
