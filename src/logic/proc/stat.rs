//! Reads what the kernel tells in /proc/PID/stat and /proc/stat (proc(5)): name, state, start time, wait status.
//! The bytes may be anything: a process chooses its own name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::logic::{Exit, Pid};
use crate::signal::Signal;

/// USER_HZ, the unit of the times in /proc: 100 on every architecture that kapo is built for, whatever HZ the
/// kernel itself runs at.
const TICKS_A_SECOND: u64 = 100;

/// What kapo wants of one line of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// The name, 15 bytes at most for a process of user space; may hold anything but NUL.
    pub comm: &'a [u8],
    /// `R`, `S`, `D`, `Z`, ...
    pub state: u8,
    /// 0 for the first process and for one whose parent is outside the PID namespace.
    pub ppid: i32,
    /// 1 for a zombie that nothing is left of.
    pub threads: u32,
    /// When it started, in ticks since boot: together with the pid its identity.
    pub ticks: u64,
    /// Where its stack begins, chosen anew by each exec and by nothing else. 0 for a process without memory (a kernel
    /// thread, a zombie) and for those who may not look.
    pub start_stack: u64,
    /// The wait status of a zombie. The kernel shows 0 to those who may not look, so 0 tells nothing.
    pub wait_status: i32,
    /// What it uses.
    pub usage: Usage,
}

/// What a process uses, out of the same line. A field that is negative or missing counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its CPU time.
    pub cpu: Duration,
    /// CPU time of those children, and theirs, that ended and were waited for.
    pub reaped: Duration,
    /// Its address space.
    pub virtual_bytes: u64,
    /// Its memory.
    pub resident_pages: u64,
}

impl<'a> Stat<'a> {
    /// Reads one line; `None` where it is none (cut, or not of Linux).
    pub fn parse(line: &'a [u8]) -> Option<Stat<'a>> {
        let line = line.strip_suffix(b"\n")?;
        // The name may hold spaces, brackets and newlines; what follows it are numbers and one letter.
        let open = memchr::memchr(b'(', line)?;
        let close = memchr::memrchr(b')', line)?;
        let comm = line.get(open + 1..close)?;
        let mut fields = line.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty());
        let state = match fields.next()? {
            [letter] => *letter,
            _ => return None,
        };
        // Numbered as in proc(5), where the state is field 3.
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
        let usage = Usage { cpu, reaped, virtual_bytes: next(), resident_pages: next() }; // 23, 24
        let start_stack = fields.nth(3).and_then(number).unwrap_or(0); // 28
        let wait_status = fields.nth(23).and_then(number).unwrap_or(0); // 52
        Some(Stat { comm, state, ppid, threads, ticks, start_stack, wait_status, usage })
    }

    /// Whether anything of it still runs. A zombie with threads is a process whose first thread has ended.
    pub fn lives(&self) -> bool {
        !self.is_zombie() || self.threads > 1
    }

    /// Whether its first thread has ended.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// How it ended, where a zombie shows that; exit code 0 cannot be told from "may not look".
    pub fn exit(&self) -> Option<Exit> {
        if self.lives() || self.wait_status == 0 { None } else { exit(self.wait_status) }
    }
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What wait(2) would have given, as words.
pub fn exit(wait_status: i32) -> Option<Exit> {
    match wait_status & 0x7f {
        0 => u8::try_from((wait_status >> 8) & 0xff).ok().map(Exit::Code),
        n => Signal::new(n).map(|signal| Exit::Signal { signal, core_dumped: wait_status & 0x80 != 0 }),
    }
}

/// No line that [`boot_time`] looks for is longer.
pub const BOOT_TIME_LINE: usize = 32;

/// The line `btime SECONDS` of /proc/stat, in the whole text or any part of it that holds the whole line.
pub fn boot_time(text: &[u8]) -> Option<SystemTime> {
    text.split_inclusive(|b| *b == b'\n').find_map(|line| {
        let seconds: u64 = number(line.strip_prefix(b"btime ")?.strip_suffix(b"\n")?)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    })
}

/// When a process started that shows these ticks.
pub fn start_time(boot: SystemTime, ticks: u64) -> SystemTime {
    let since = Duration::from_secs(ticks / TICKS_A_SECOND)
        + Duration::from_millis(ticks % TICKS_A_SECOND * (1_000 / TICKS_A_SECOND));
    boot.checked_add(since).unwrap_or(boot)
}

/// A word of digits as a pid; names in /proc that are none are not processes.
pub fn pid(word: &[u8]) -> Option<Pid> {
    // `parse` would take a sign.
    if !word.first()?.is_ascii_digit() {
        return None;
    }
    number::<i32>(word).and_then(Pid::new)
}

/// Whether this /proc/self/status shows more than one pid for us, which it does where /proc was mounted for a PID
/// namespace above ours: then its pids mean nothing to system calls.
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
                usage: Usage { virtual_bytes: 5_652_480, resident_pages: 228, ..Usage::default() },
            };
            assert_eq!(stat, expected);
        }
    }

    #[test]
    fn our_own_line_is_understood() {
        let line = std::fs::read("/proc/self/stat").unwrap();
        let stat = Stat::parse(&line).unwrap();
        assert_eq!(stat.comm, std::fs::read("/proc/self/comm").unwrap().trim_ascii_end());
        assert_eq!(stat.ppid, i32::try_from(std::os::unix::process::parent_id()).unwrap());
        assert!(stat.lives() && stat.ticks > 0 && stat.exit().is_none());
    }

    #[test]
    fn times_are_summed_and_negative_ones_are_nothing() {
        let usage = |times: &str| {
            let line =
                format!("42 (x) {}", TAIL.replace(" 92 0 0 0 0 0 0 0 ", &format!(" 92 0 0 0 {times} ")));
            Stat::parse(line.as_bytes()).unwrap().usage
        };
        let milliseconds = |times| (usage(times).cpu.as_millis(), usage(times).reaped.as_millis());
        assert_eq!(milliseconds("150 50 7 3"), (2_000, 100));
        assert_eq!(milliseconds("1 0 -7 3"), (10, 30));
        // A hundred cores busy for a month.
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
            usage: Usage::default(),
        };
        assert!(!stat(b'Z', 1, 0).lives() && !stat(b'X', 1, 0).lives() && stat(b'Z', 2, 0).lives());
        assert_eq!(stat(b'Z', 1, 7 << 8).exit(), Some(Exit::Code(7)));
        // 0 is also what the kernel shows to those who may not look.
        assert_eq!((stat(b'Z', 1, 0).exit(), stat(b'S', 1, 9).exit()), (None, None));
    }

    #[test]
    fn a_wait_status_becomes_what_wait_would_have_said() {
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
        // A number that the end of the text has cut is none.
        for text in [&b"btime 17000"[..], b"xbtime 17\n", b"btime \n", b"btime -1\n", b""] {
            assert_eq!(boot_time(text), None);
        }
    }

    #[test]
    fn start_times_are_right_to_the_tick() {
        let boot = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(start_time(boot, 16_043), boot + Duration::from_millis(160_430));
        assert_eq!(start_time(boot, 99), boot + Duration::from_millis(990));
        // Nonsense is not worth a panic.
        let _ = start_time(boot, u64::MAX);
    }

    #[test]
    fn only_plain_positive_numbers_are_pids() {
        assert_eq!(pid(b"4194304"), Pid::new(4_194_304));
        for word in [&b""[..], b"0", b"-1", b"+1", b"1a", b"self", b"99999999999", b"\xff"] {
            assert_eq!(pid(word), None);
        }
    }

    #[test]
    fn more_than_one_pid_of_ours_means_a_namespace_below_that_of_proc() {
        assert!(!is_nested(b"Name:\tx\nNSpid:\t7\nNSsid:\t1\t2\n") && !is_nested(b"Name:\tx\n"));
        assert!(is_nested(b"Name:\tx\nNSpid:\t700\t7\nNSsid:\t1\n"));
    }

    #[test]
    fn what_the_fuzzer_starts_from_does_no_harm() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/procstat");
        let seeds: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect();
        assert!(!seeds.is_empty());
        for bytes in seeds {
            let line = [b"42 (", &bytes[..], b") ", TAIL.as_bytes()].concat();
            assert_eq!(Stat::parse(&line).unwrap().comm, bytes);
            let _ = (Stat::parse(&bytes), boot_time(&bytes), is_nested(&bytes), pid(&bytes));
        }
    }
}
