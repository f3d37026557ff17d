//! Signal numbers and their names, as in signal(7) and kill(1). Plain data: the command line parses it, the document
//! shows it.

use std::fmt;
use std::str::FromStr;

/// A Linux signal, 1 to 64. Real-time signals are numbered from 34 (`RTMIN`) to 64 (`RTMAX`), as in glibc, kill(1) and
/// systemd, independently of the libc that kapo is linked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// SIGRTMIN of glibc, which users expect. The kernel's own 32 and 33 belong to the threads library.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// The names of the signals 1 to 31 on x86, ARM and RISC-V (signal(7)), in the order of their numbers.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names for the same numbers.
const ALIASES: [(&str, u8); 5] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31), ("LOST", 29)];

#[expect(missing_docs, reason = "the names are those of signal(7)")]
impl Signal {
    pub const HUP: Signal = Signal(1);
    pub const INT: Signal = Signal(2);
    pub const QUIT: Signal = Signal(3);
    pub const ILL: Signal = Signal(4);
    pub const TRAP: Signal = Signal(5);
    pub const ABRT: Signal = Signal(6);
    pub const BUS: Signal = Signal(7);
    pub const FPE: Signal = Signal(8);
    pub const KILL: Signal = Signal(9);
    pub const USR1: Signal = Signal(10);
    pub const SEGV: Signal = Signal(11);
    pub const USR2: Signal = Signal(12);
    pub const PIPE: Signal = Signal(13);
    pub const ALRM: Signal = Signal(14);
    pub const TERM: Signal = Signal(15);
    pub const CHLD: Signal = Signal(17);
    pub const CONT: Signal = Signal(18);
    pub const STOP: Signal = Signal(19);
    pub const TSTP: Signal = Signal(20);
    pub const TTIN: Signal = Signal(21);
    pub const TTOU: Signal = Signal(22);
    pub const WINCH: Signal = Signal(28);
    pub const SYS: Signal = Signal(31);

    /// Returns the signal with this number; `None` outside 1 to 64.
    pub fn new(number: i32) -> Option<Signal> {
        u8::try_from(number).ok().filter(|n| (1..=RTMAX).contains(n)).map(Signal)
    }

    /// Returns the number, 1 to 64.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns all signals, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Signal> {
        (1..=RTMAX).map(Signal)
    }
}

/// Formats `SIGTERM`, `SIGRTMIN`, `SIGRTMIN+3` or `SIGRTMAX`; the two numbers without a name are `SIG32` and `SIG33`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RTMIN => f.write_str("SIGRTMIN"),
            RTMAX => f.write_str("SIGRTMAX"),
            n if n > RTMIN => write!(f, "SIGRTMIN+{}", n - RTMIN),
            n => match NAMES.get(usize::from(n).wrapping_sub(1)) {
                Some(name) => write!(f, "SIG{name}"),
                None => write!(f, "SIG{n}"),
            },
        }
    }
}

/// The error for a text that names no signal.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSignal;

/// Parses `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3` or `RTMAX-1`.
impl FromStr for Signal {
    type Err = NoSignal;

    fn from_str(text: &str) -> Result<Signal, NoSignal> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().and_then(Signal::new).ok_or(NoSignal);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            return i32::try_from(at + 1).ok().and_then(Signal::new).ok_or(NoSignal);
        }
        if let Some((_, number)) = ALIASES.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*number));
        }
        let offset = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<u8>().ok(),
            false => None,
        };
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(""), _) => Some(RTMIN),
            (_, Some("")) => Some(RTMAX),
            (Some(rest), _) => rest.strip_prefix('+').and_then(offset).and_then(|n| RTMIN.checked_add(n)),
            (_, Some(rest)) => rest.strip_prefix('-').and_then(offset).and_then(|n| RTMAX.checked_sub(n)),
            (None, None) => None,
        };
        number.filter(|n| (RTMIN..=RTMAX).contains(n)).map(Signal).ok_or(NoSignal)
    }
}

/// A set of signals, one bit for each number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// Returns the set of these signals.
    pub const fn of(signals: &[Signal]) -> SignalSet {
        let mut bits = 0;
        let mut rest = signals;
        while let [signal, others @ ..] = rest {
            bits |= 1 << (signal.0 - 1);
            rest = others;
        }
        SignalSet(bits)
    }

    /// Whether the signal is in the set.
    pub fn contains(self, signal: Signal) -> bool {
        self.0 >> (signal.0 - 1) & 1 == 1
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SignalSet {
        signals.into_iter().fold(SignalSet::default(), |set, signal| SignalSet(set.0 | 1 << (signal.0 - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_its_signals_alone() {
        let listed = [Signal::HUP, Signal::TERM, Signal(RTMAX)];
        let set = SignalSet::of(&listed);
        assert_eq!(set, listed.into_iter().collect());
        for number in 1..=RTMAX {
            assert_eq!(set.contains(Signal(number)), listed.contains(&Signal(number)), "{number}");
        }
        assert_eq!(SignalSet::of(&[]), SignalSet::default());
    }

    #[test]
    fn every_signal_is_parsed_from_its_name_and_number() {
        for signal in Signal::all().filter(|s| ![32, 33].contains(&s.number())) {
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(signal.to_string().strip_prefix("SIG").unwrap().to_lowercase().parse(), Ok(signal));
            assert_eq!(signal.number().to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn names_and_numbers_are_those_of_kill() {
        for (text, number) in
            [("TERM", 15), ("RTMIN+3", 37), ("SIGRTMAX-14", 50), ("CLD", 17), ("SIGSYS", 31)]
        {
            assert_eq!(text.parse(), Signal::new(number).ok_or(NoSignal), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_signal_is_rejected() {
        for text in [
            "",
            "0",
            "65",
            "-1",
            "+9",
            "SIG",
            "TERMS",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX-31",
            "RTMIN++1",
            "99999999999",
        ] {
            assert_eq!(text.parse::<Signal>(), Err(NoSignal), "{text}");
        }
    }
}
