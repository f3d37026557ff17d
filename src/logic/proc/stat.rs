//! Parses /proc/PID/stat and /proc/stat (proc(5)): name, state, start time, wait status. The name may hold any bytes,
//! because each process chooses its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::logic::{Exit, ProcessId};
use crate::signal::Signal;

/// USER_HZ, the unit of the times in /proc. It is 100 on every architecture that kapo is built for, independent of the
/// kernel's own HZ.
const TICKS_A_SECOND: u64 = 100;

/// The fields of a /proc/PID/stat line that kapo needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// The name. For a user process it has at most 15 bytes, which can be any except NUL.
    pub comm: &'a [u8],
    /// The state: `R`, `S`, `D`, `Z`, and so on.
    pub state: u8,
    /// The pid of the parent. 0 for the first process, and if the parent is outside the PID namespace.
    pub ppid: i32,
    /// The number of threads; 1 for a zombie without living threads.
    pub threads: u32,
    /// The start time in ticks since boot. Together with the pid it identifies the process.
    pub ticks: u64,
    /// The start address of the stack, which only an exec changes. 0 for a process without memory (a kernel thread, a
    /// zombie), and without permission to read it.
    pub start_stack: u64,
    /// The wait status of a zombie. 0 means nothing, because the kernel also shows 0 to a reader without permission.
    pub wait_status: i32,
    /// The resources that the process uses.
    pub usage: ProcessUsage,
}

/// The resources that a process uses. A field that is negative or missing counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// CPU time of the process.
    pub cpu: Duration,
    /// CPU time of its reaped children, including that of their reaped children.
    pub reaped: Duration,
    /// Size of its address space.
    pub virtual_bytes: u64,
    /// Size of its resident memory.
    pub resident_pages: u64,
}

impl<'a> Stat<'a> {
    /// Parses one line; `None` if the line is cut or malformed.
    pub fn parse(line: &'a [u8]) -> Option<Stat<'a>> {
        let line = line.strip_suffix(b"\n")?;
        // The name may hold spaces, brackets and newlines. Only numbers and one letter follow it.
        let open = memchr::memchr(b'(', line)?;
        let close = memchr::memrchr(b')', line)?;
        let comm = line.get(open + 1..close)?;
        let mut fields = line.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty());
        let state = match fields.next()? {
            [letter] => *letter,
            _ => return None,
        };
        // The numbers are those of proc(5), where the state is field 3.
        let ppid = number(fields.next()?)?; // 4
        let mut time = |skipped| {
            let first: u64 = fields.nth(skipped).and_then(number).unwrap_or(0);
            let second: u64 = fields.next().and_then(number).unwrap_or(0);
            Duration::from_millis(first.saturating_add(second).saturating_mul(1_000 / TICKS_A_SECOND))
        };
        let (cpu, reaped) = (time(9), time(0)); // 14 to 17
        let threads = number(fields.nth(2)?)?; // 20
        let ticks = number(fields.nth(1)?)?; // 22
        let mut next = || fields.next().and_then(number).unwrap_or(0);
        let usage = ProcessUsage { cpu, reaped, virtual_bytes: next(), resident_pages: next() }; // 23, 24
        let start_stack = fields.nth(3).and_then(number).unwrap_or(0); // 28
        let wait_status = fields.nth(23).and_then(number).unwrap_or(0); // 52
        Some(Stat { comm, state, ppid, threads, ticks, start_stack, wait_status, usage })
    }

    /// Whether the process still runs. A zombie with threads is a process whose first thread has ended.
    pub fn lives(&self) -> bool {
        !self.is_zombie() || self.threads > 1
    }

    /// Whether the first thread has ended.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Returns the exit if a zombie shows it. Exit code 0 is unknown, because it may mean that the reader lacks
    /// permission.
    pub fn exit(&self) -> Option<Exit> {
        if self.lives() || self.wait_status == 0 { None } else { exit(self.wait_status) }
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Decodes a status of wait(2).
pub fn exit(wait_status: i32) -> Option<Exit> {
    match wait_status & 0x7f {
        0 => u8::try_from((wait_status >> 8) & 0xff).ok().map(Exit::Code),
        n => Signal::new(n).map(|signal| Exit::Signal { signal, core_dumped: wait_status & 0x80 != 0 }),
    }
}

/// The maximum length of the line that [`boot_time`] looks for.
pub const BOOT_TIME_LINE: usize = 32;

/// Returns the time in the line `btime SECONDS` of /proc/stat. `text` is the file or a part of it that holds the whole
/// line.
pub fn boot_time(text: &[u8]) -> Option<SystemTime> {
    text.split_inclusive(|b| *b == b'\n').find_map(|line| {
        let seconds: u64 = number(line.strip_prefix(b"btime ")?.strip_suffix(b"\n")?)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    })
}

/// Returns the start time of a process with these ticks.
pub fn start_time(boot: SystemTime, ticks: u64) -> SystemTime {
    let since = Duration::from_secs(ticks / TICKS_A_SECOND)
        + Duration::from_millis(ticks % TICKS_A_SECOND * (1_000 / TICKS_A_SECOND));
    boot.checked_add(since).unwrap_or(boot)
}

/// Returns the age of a process with these ticks, in seconds, if the machine has been up for `up` seconds. It is at most
/// one second too small, and never too large.
pub fn age(ticks: u64, up: i64) -> u32 {
    let start = ticks.div_ceil(TICKS_A_SECOND);
    let age = u64::try_from(up).unwrap_or(0).saturating_sub(start);
    u32::try_from(age).unwrap_or(u32::MAX)
}

/// Parses a pid; `None` if the word is not one, because /proc has other entries too.
pub fn pid(word: &[u8]) -> Option<ProcessId> {
    // `parse` would accept a sign.
    if !word.first()?.is_ascii_digit() {
        return None;
    }
    number::<i32>(word).and_then(ProcessId::new)
}

/// Whether this /proc/self/status shows more than one pid for kapo. It does if /proc was mounted for a PID namespace
/// above kapo's, and then its pids are not valid for system calls.
pub fn is_nested(status: &[u8]) -> bool {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
    line.is_some_and(|l| l.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "S 41 42 42 0 -1 4194560 92 0 0 0 0 0 0 0 20 0 3 0 16043 5652480 228 \
        18446744073709551615 1 1 140728 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 9\n";

    #[test]
    fn a_name_may_hold_anything() {
        for name in
            ["sleep", "", " ", "a b", ")", "(", ") S 1 2 (", "x) R 1 1", "new\nline", "((()))", "\u{e9}"]
        {
            let line = format!("42 ({name}) {TAIL}");
            let stat = Stat::parse(line.as_bytes()).unwrap();
            let expected = Stat {
                comm: name.as_bytes(),
                state: b'S',
                ppid: 41,
                threads: 3,
                ticks: 16043,
                start_stack: 140728,
                wait_status: 9,
                usage: ProcessUsage {
                    virtual_bytes: 5_652_480,
                    resident_pages: 228,
                    ..ProcessUsage::default()
                },
            };
            assert_eq!(stat, expected);
        }
    }

    #[test]
    fn the_own_line_is_parsed() {
        let line = std::fs::read("/proc/self/stat").unwrap();
        let stat = Stat::parse(&line).unwrap();
        assert_eq!(stat.comm, std::fs::read("/proc/self/comm").unwrap().trim_ascii_end());
        assert_eq!(stat.ppid, i32::try_from(std::os::unix::process::parent_id()).unwrap());
        assert!(stat.lives() && stat.ticks > 0 && stat.exit().is_none());
    }

    #[test]
    fn times_are_summed_and_negative_ones_count_as_zero() {
        let usage = |times: &str| {
            let line =
                format!("42 (x) {}", TAIL.replace(" 92 0 0 0 0 0 0 0 ", &format!(" 92 0 0 0 {times} ")));
            Stat::parse(line.as_bytes()).unwrap().usage
        };
        let milliseconds = |times| (usage(times).cpu.as_millis(), usage(times).reaped.as_millis());
        assert_eq!(milliseconds("150 50 7 3"), (2_000, 100));
        assert_eq!(milliseconds("1 0 -7 3"), (10, 30));
        // A hundred cores that were busy for a month.
        assert_eq!(usage("25920000000 0 0 0").cpu, Duration::from_secs(100 * 30 * 86_400));
        assert!(usage("18446744073709551615 18446744073709551615 0 0").cpu > Duration::from_secs(1));
    }

    #[test]
    fn a_line_cut_anywhere_is_refused_and_never_panics() {
        let line = format!("42 (a\n) b) {TAIL}");
        for cut in 0..line.len() {
            assert_eq!(Stat::parse(&line.as_bytes()[..cut]), None, "{cut}");
        }
        for line in [&b""[..], b")(", b"1 (a", b"1 a)", b"1 (a) S", b"1 (a) SS 1", b"\xff(\xff)\xff", b"()"] {
            assert_eq!(Stat::parse(line), None);
        }
    }

    #[test]
    fn a_zombie_is_dead_unless_threads_of_it_are_left() {
        let stat = |state, threads, wait_status| Stat {
            comm: b"",
            state,
            ppid: 1,
            threads,
            ticks: 1,
            start_stack: 0,
            wait_status,
            usage: ProcessUsage::default(),
        };
        assert!(!stat(b'Z', 1, 0).lives() && !stat(b'X', 1, 0).lives() && stat(b'Z', 2, 0).lives());
        assert_eq!(stat(b'Z', 1, 7 << 8).exit(), Some(Exit::Code(7)));
        // The kernel also shows 0 to a reader without permission.
        assert_eq!((stat(b'Z', 1, 0).exit(), stat(b'S', 1, 9).exit()), (None, None));
    }

    #[test]
    fn a_wait_status_is_decoded_as_by_wait() {
        let killed = |n, core_dumped| Some(Exit::Signal { signal: Signal::new(n).unwrap(), core_dumped });
        assert_eq!(exit(0), Some(Exit::Code(0)));
        assert_eq!(exit(0xff00), Some(Exit::Code(255)));
        assert_eq!(exit(9), killed(9, false));
        assert_eq!(exit(0x80 | 11), killed(11, true));
        assert_eq!(exit(0x7f), None);
    }

    #[test]
    fn boot_time_is_found_at_the_start_of_a_line_only() {
        let at = |s| UNIX_EPOCH.checked_add(Duration::from_secs(s));
        assert_eq!(boot_time(b"cpu  1\nctxt 5\nbtime 1700000000\nprocesses 9\n"), at(1_700_000_000));
        // A number that the end of the text cuts off is ignored.
        for text in [&b"btime 17000"[..], b"xbtime 17\n", b"btime \n", b"btime -1\n", b""] {
            assert_eq!(boot_time(text), None);
        }
    }

    #[test]
    fn start_times_are_exact_to_the_tick() {
        let boot = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(start_time(boot, 16_043), boot + Duration::from_millis(160_430));
        assert_eq!(start_time(boot, 99), boot + Duration::from_millis(990));
        // A nonsensical value must not panic.
        let _ = start_time(boot, u64::MAX);
    }

    #[test]
    fn an_age_is_never_too_large() {
        for (ticks, up, expected) in [
            (0, 50, 50),
            (3_900, 50, 11),
            (3_901, 50, 10),
            (4_000, 50, 10),
            (5_100, 50, 0),
            (u64::MAX, 50, 0),
            (0, -1, 0),
            (0, i64::MAX, u32::MAX),
        ] {
            assert_eq!(age(ticks, up), expected, "{ticks} {up}");
        }
    }

    #[test]
    fn only_plain_positive_numbers_are_pids() {
        assert_eq!(pid(b"4194304"), ProcessId::new(4_194_304));
        for word in [&b""[..], b"0", b"-1", b"+1", b"1a", b"self", b"99999999999", b"\xff"] {
            assert_eq!(pid(word), None);
        }
    }

    #[test]
    fn several_own_pids_mean_that_proc_has_another_namespace() {
        assert!(!is_nested(b"Name:\tx\nNSpid:\t7\nNSsid:\t1\t2\n") && !is_nested(b"Name:\tx\n"));
        assert!(is_nested(b"Name:\tx\nNSpid:\t700\t7\nNSsid:\t1\n"));
    }

    #[test]
    fn the_fuzzing_seeds_do_not_panic() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/procstat");
        // The published crate does not include the seeds.
        let Ok(seeds) = std::fs::read_dir(folder) else { return };
        let seeds: Vec<_> = seeds.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty());
        for bytes in seeds {
            let line = [b"42 (", &bytes[..], b") ", TAIL.as_bytes()].concat();
            assert_eq!(Stat::parse(&line).unwrap().comm, bytes);
            let _ = (Stat::parse(&bytes), boot_time(&bytes), is_nested(&bytes), pid(&bytes));
        }
    }
}
