//! Parses and composes sd_notify(3) messages: those of kapo to its service manager, and those of the command under
//! `--notify`. `driver/notify` sends and receives them.

use std::time::Duration;

use crate::logic::ProcessId;

/// The assignments of a datagram that concern kapo. Unknown assignments are forwarded unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`
    pub ready: bool,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `RELOADING=1`: the command is not ready until the next `READY=1`.
    pub reloading: bool,
    /// `STATUS=`, made printable.
    pub status: Option<String>,
    /// `WATCHDOG=1`
    pub ping: bool,
    /// `WATCHDOG=trigger`, which counts as a missed ping.
    pub trigger: bool,
    /// `WATCHDOG_USEC=`: a new interval; zero disables the watchdog.
    pub interval: Option<Duration>,
    /// `MAINPID=`: the new main process. The driver removes it if the process does not belong to the run.
    pub main_pid: Option<ProcessId>,
    /// The value of an invalid `MAINPID=`, made printable.
    pub invalid_main_pid: Option<String>,
    /// The assignments to forward to the service manager; empty if there are none.
    pub forward: Vec<u8>,
}

impl Notification {
    fn pass(&mut self, line: &[u8]) {
        if !self.forward.is_empty() {
            self.forward.push(b'\n');
        }
        self.forward.extend_from_slice(line);
    }
}

/// The maximum length of the `STATUS=` text, in bytes.
const STATUS_LENGTH: usize = 1024;

/// Parses one datagram, which has one assignment per line. Invalid assignments are ignored.
///
/// Some assignments are not forwarded: `MAINPID=` (the main process of the service is kapo), descriptors with their
/// `FDSTORE=`, and `BARRIER=1` (kapo answers it by closing the descriptor). `WATCHDOG=`, `STATUS=` and `READY=1` are
/// not forwarded either, because kapo sends its own.
pub(crate) fn read(datagram: &[u8]) -> Notification {
    let mut told = Notification::default();
    for line in datagram.split(|b| *b == b'\n') {
        match line {
            b"READY=1" => told.ready = true,
            b"STOPPING=1" => told.stopping = true,
            b"RELOADING=1" => {
                told.reloading = true;
                told.pass(line);
            }
            b"WATCHDOG=1" => told.ping = true,
            b"WATCHDOG=trigger" => told.trigger = true,
            _ => {
                let Some(at) = memchr::memchr(b'=', line) else { continue };
                let (name, value) = line.split_at(at);
                let value = value.get(1..).unwrap_or_default();
                match name {
                    b"MAINPID" => {
                        let pid = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                        told.main_pid = pid.and_then(ProcessId::new).filter(|pid| pid.get() > 0);
                        told.invalid_main_pid = told.main_pid.is_none().then(|| printable(value, 32));
                    }
                    b"STATUS" => told.status = Some(printable(value, STATUS_LENGTH)),
                    b"WATCHDOG_USEC" => {
                        let micros = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                        told.interval = micros.map(Duration::from_micros);
                    }
                    b"ERRNO"
                    | b"BUSERROR"
                    | b"VARLINKERROR"
                    | b"EXIT_STATUS"
                    | b"EXTEND_TIMEOUT_USEC"
                    | b"MONOTONIC_USEC" => {
                        told.pass(line);
                    }
                    _ => {}
                }
            }
        }
    }
    told
}

/// Returns the text as one line. Invalid UTF-8 becomes U+FFFD and control characters become spaces. A text longer than
/// `limit` bytes is cut at a character boundary.
fn printable(value: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(value);
    let end = (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    let text = text.get(..end.unwrap_or(0)).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// Returns the datagram for kapo's `STATUS=`. Line ends are replaced, because text after one would be read as another
/// assignment.
pub(crate) fn status(text: &str) -> Vec<u8> {
    let mut datagram = b"STATUS=".to_vec();
    datagram.extend(text.bytes().map(|b| if b == b'\n' { b' ' } else { b }));
    datagram
}

/// Returns the watchdog interval from WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)). `None` if the watchdog
/// is disabled or meant for another process.
pub(crate) fn watchdog(usec: Option<&str>, pid: Option<&str>, own: i32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let micros: u64 = usec?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_may_hold_several_assignments() {
        let told = read(b"READY=1\nSTATUS=serving 3 clients\nWATCHDOG=1\n");
        assert!(told.ready && told.ping && !told.trigger);
        assert_eq!(told.status.as_deref(), Some("serving 3 clients"));
        assert_eq!(told.forward, b"");
    }

    #[test]
    fn some_assignments_are_not_forwarded() {
        let told = read(b"MAINPID=1\nFDSTORE=1\nERRNO=5\nNOTIFYACCESS=all\nEXTEND_TIMEOUT_USEC=7\nREADY=1");
        assert_eq!(told.forward, b"ERRNO=5\nEXTEND_TIMEOUT_USEC=7");
    }

    #[test]
    fn a_main_pid_is_a_positive_number() {
        for (value, pid) in
            [("7", Some(7)), ("0", None), ("-7", None), ("", None), ("7x", None), ("99999999999", None)]
        {
            let told = read(format!("READY=1\nMAINPID={value}").as_bytes());
            assert_eq!((told.main_pid.map(ProcessId::get), told.ready), (pid, true), "{value}");
            let invalid = pid.is_none().then_some(value);
            assert_eq!(told.invalid_main_pid.as_deref(), invalid);
        }
    }

    #[test]
    fn binary_and_very_long_datagrams_do_no_harm() {
        let told = read(b"\0\xff=\n=\nSTATUS=a\x1b[31m\xff\rb\nREADY=11\nWATCHDOG_USEC=x\n");
        assert_eq!(told.status.as_deref(), Some("a [31m\u{fffd} b"));
        assert!(!told.ready && told.interval.is_none());
        let long = [b"STATUS=".as_slice(), &[b'x'; 100_000]].concat();
        assert_eq!(read(&long).status.map(|text| text.len()), Some(STATUS_LENGTH));
    }

    #[test]
    fn kapos_status_is_one_assignment() {
        assert_eq!(status("up\nREADY=1"), b"STATUS=up READY=1");
    }

    #[test]
    fn a_long_status_is_cut_at_a_character_boundary() {
        let long = format!("STATUS={}", "é€😀".repeat(200));
        let shown = read(long.as_bytes()).status.unwrap();
        assert_eq!(shown, format!("{}é€", "é€😀".repeat(113)));
        assert_eq!(shown.len(), 1022);
    }

    #[test]
    fn the_watchdog_applies_only_to_its_process() {
        assert_eq!(watchdog(Some("3000000"), None, 7), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(Some("3000000"), Some("7"), 7), Some(Duration::from_secs(3)));
        for (usec, pid) in [(Some("3000000"), Some("8")), (Some("0"), None), (Some("x"), None), (None, None)]
        {
            assert_eq!(watchdog(usec, pid, 7), None);
        }
    }
}
