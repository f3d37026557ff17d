//! What can go wrong before the loop turns: what we were doing, to what, and why; one line for people, and the
//! exit code that goes with it. Inside the loop nothing returns an error upwards (see `driver`).

use std::fmt;

/// `kapo check`: not healthy, or nobody to ask, or asked wrongly; `kapo status`: not healthy;
/// `kapo logs`: no output is kept, or not all of it came.
pub const EXIT_UNHEALTHY: u8 = 1;
/// Wrong usage.
pub const EXIT_USAGE: u8 = 2;
/// `kapo status` and `kapo logs`: no kapo answers.
pub const EXIT_NO_ANSWER: u8 = 3;
/// The command's TTL ended it (as timeout(1) says); `kapo wait`: its own `--timeout` passed.
pub const EXIT_TIMEOUT: u8 = 124;
/// kapo itself could not work.
pub const EXIT_SETUP: u8 = 125;
/// The command was found but could not be executed.
pub const EXIT_CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: u8 = 127;

/// One line without `kapo: ` in front and without a full stop, such as
/// `cannot bind 0.0.0.0:6666: Address already in use`.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The words or the environment are wrong; exit code 2.
    Usage(String),
    /// `kapo check` cannot say "healthy", for whatever reason: it knows no exit code but 0 and 1.
    Unhealthy(String),
    /// kapo itself cannot work: a port is taken, a kernel call is refused; exit code 125.
    Setup(String),
}

impl Error {
    /// `cannot {doing} {object}: {why}`, for the calls that set kapo up.
    pub fn setup(doing: &str, object: impl fmt::Display, why: impl fmt::Display) -> Error {
        Error::Setup(format!("cannot {doing} {object}: {why}"))
    }

    /// What kapo exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => EXIT_USAGE,
            Error::Unhealthy(_) => EXIT_UNHEALTHY,
            Error::Setup(_) => EXIT_SETUP,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Error::Usage(text) | Error::Unhealthy(text) | Error::Setup(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Error {}

/// A text on one line, as a terminal can be shown it: control characters are escaped. Names of files and commands may
/// hold any byte, and whoever reads line by line would take one message for two.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The text of an errno without Rust's `(os error 98)` behind it: `Address already in use`. Where musl words it in its
/// own way, the words are those that people know, and search for.
pub fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => return "Address already in use".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => return "Cannot assign requested address".to_owned(),
        _ => {}
    }
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_one_line_whatever_it_names() {
        assert_eq!(
            one_line("cannot bind /a\nb\r\x1b[31m\u{85}/s"),
            "cannot bind /a\\nb\\r\\u{1b}[31m\\u{85}/s"
        );
        assert_eq!(one_line("a\\n \u{e9}"), "a\\n \u{e9}");
    }
}
