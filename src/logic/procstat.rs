//! Reads what the kernel tells in /proc/PID/stat and /proc/stat (proc(5)): name, state, start time, wait status.
//! The bytes may be anything: a process chooses its own name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Exit, Pid};
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
    /// The wait status of a zombie. The kernel shows 0 to those who may not look, so 0 tells nothing.
    pub wait_status: i32,
}

impl<'a> Stat<'a> {
    /// Reads one line; `None` where it is none (cut, or not of Linux).
    pub fn parse(line: &'a [u8]) -> Option<Stat<'a>> {
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
        let threads = number(fields.nth(15)?)?; // 20
        let ticks = number(fields.nth(1)?)?; // 22
        let wait_status = fields.nth(29).and_then(number).unwrap_or(0); // 52
        Some(Stat { comm, state, ppid, threads, ticks, wait_status })
    }

    /// Whether anything of it still runs. A zombie with threads is a process whose first thread has ended.
    pub fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
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
