//! Parses arbitrary bytes as files of /proc: no panic, and a name never changes the fields after it.
#![no_main]

use kapo::logic::proc::stat::{Stat, boot_time, exit, is_nested, pid, start_time};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(stat) = Stat::parse(bytes) {
        let _ = (stat.lives(), stat.exit(), exit(stat.wait_status));
        let _ = start_time(std::time::UNIX_EPOCH, stat.ticks);
    }
    let _ = (boot_time(bytes), is_nested(bytes), pid(bytes));

    const TAIL: &[u8] = b") S 41 42 42 0 -1 4194560 92 0 0 0 0 0 0 0 20 0 3 0 16043 5652480 228\n";
    let line = [b"42 (", bytes, TAIL].concat();
    let stat = Stat::parse(&line).expect("a line of the kernel is parsed with any name");
    assert_eq!((stat.comm, stat.state, stat.ppid, stat.threads, stat.ticks), (bytes, b'S', 41, 3, 16043));
});
