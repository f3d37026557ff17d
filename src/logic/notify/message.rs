//! The words of sd_notify(3): what kapo tells its service manager, and what the command tells kapo under `--notify`.
//! The sending is in `driver/notify/service_manager.rs`, the receiving in `driver/notify/notify_socket.rs`.

use std::time::Duration;

use crate::logic::Pid;

/// What a datagram of the command says, as far as kapo cares. Unknown assignments are passed on untouched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`
    pub ready: bool,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `RELOADING=1`: not ready until the next `READY=1`.
    pub reloading: bool,
    /// `STATUS=`; made printable.
    pub status: Option<String>,
    /// `WATCHDOG=1`
    pub ping: bool,
    /// `WATCHDOG=trigger`: as if a ping had been missed.
    pub trigger: bool,
    /// `WATCHDOG_USEC=`: a new interval; zero switches the watchdog off.
    pub interval: Option<Duration>,
    /// `MAINPID=`: this process is the command from now on. The driver leaves it out if the process is not one of the run.
    pub main_pid: Option<Pid>,
    /// A `MAINPID=` that is no pid; made printable.
    pub invalid_main_pid: Option<String>,
    /// What the service manager shall hear of it; empty: nothing.
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

/// The longest `STATUS=` text that is shown, in bytes.
const STATUS_LENGTH: usize = 1024;

/// Reads one datagram: assignments, one a line. Bytes that make no sense are left out, never an error.
///
/// Not passed on: `MAINPID=` (kapo follows that process, systemd watches kapo), descriptors and their `FDSTORE=`, `BARRIER=1` (which
/// is answered by closing what came along, see `driver::notify::notify_socket`), and kapo's own business: `WATCHDOG=`, `STATUS=` and
/// `READY=1` of the command reach systemd in kapo's words.
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
                        told.main_pid = pid.and_then(Pid::new).filter(|pid| pid.get() > 0);
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

/// Returns the text as one line: invalid UTF-8 becomes U+FFFD and control characters become spaces. Text over
/// `limit` bytes is cut at a character boundary.
fn printable(value: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(value);
    let end = (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    let text = text.get(..end.unwrap_or(0)).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

/// The datagram of a `STATUS=` of ours; a line end in `text` would begin an assignment of a stranger's.
pub(crate) fn status(text: &str) -> Vec<u8> {
    let mut datagram = b"STATUS=".to_vec();
    datagram.extend(text.bytes().map(|b| if b == b'\n' { b' ' } else { b }));
    datagram
}

/// How often systemd wants to hear from us, out of WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)).
/// `None`: not at all, or it is not meant for us.
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
    fn what_is_not_ours_to_say_is_not_passed_on() {
        let told = read(b"MAINPID=1\nFDSTORE=1\nERRNO=5\nNOTIFYACCESS=all\nEXTEND_TIMEOUT_USEC=7\nREADY=1");
        assert_eq!(told.forward, b"ERRNO=5\nEXTEND_TIMEOUT_USEC=7");
    }

    #[test]
    fn a_main_pid_is_a_positive_number() {
        for (value, pid) in
            [("7", Some(7)), ("0", None), ("-7", None), ("", None), ("7x", None), ("99999999999", None)]
        {
            let told = read(format!("READY=1\nMAINPID={value}").as_bytes());
            assert_eq!((told.main_pid.map(Pid::get), told.ready), (pid, true), "{value}");
            let invalid = pid.is_none().then_some(value);
            assert_eq!(told.invalid_main_pid.as_deref(), invalid);
        }
    }

    #[test]
    fn binary_and_endless_datagrams_do_no_harm() {
        let told = read(b"\0\xff=\n=\nSTATUS=a\x1b[31m\xff\rb\nREADY=11\nWATCHDOG_USEC=x\n");
        assert_eq!(told.status.as_deref(), Some("a [31m\u{fffd} b"));
        assert!(!told.ready && told.interval.is_none());
        let long = [b"STATUS=".as_slice(), &[b'x'; 100_000]].concat();
        assert_eq!(read(&long).status.map(|text| text.len()), Some(STATUS_LENGTH));
    }

    #[test]
    fn a_status_of_ours_is_one_assignment() {
        assert_eq!(status("up\nREADY=1"), b"STATUS=up READY=1");
    }

    #[test]
    fn a_long_status_is_cut_between_two_characters() {
        let long = format!("STATUS={}", "é€😀".repeat(200));
        let shown = read(long.as_bytes()).status.unwrap();
        assert_eq!(shown, format!("{}é€", "é€😀".repeat(113)));
        assert_eq!(shown.len(), 1022);
    }

    #[test]
    fn the_watchdog_is_ours_only_when_it_says_so() {
        assert_eq!(watchdog(Some("3000000"), None, 7), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(Some("3000000"), Some("7"), 7), Some(Duration::from_secs(3)));
        for (usec, pid) in [(Some("3000000"), Some("8")), (Some("0"), None), (Some("x"), None), (None, None)]
        {
            assert_eq!(watchdog(usec, pid, 7), None);
        }
    }
}
