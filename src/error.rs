//! Errors before the event loop starts: one line that says what failed, on which object, and why, with an exit code.
//! Inside the loop, no error is returned upwards (see `driver`).

use std::fmt;

/// `kapo check`: not healthy, no answer, or wrong usage. `kapo status`: not healthy. `kapo logs`: no output is kept,
/// or part of it is missing. `kapo ls`: one instance is not well.
pub const EXIT_UNHEALTHY: u8 = 1;
/// The options, arguments or variables are wrong.
pub const EXIT_USAGE: u8 = 2;
/// `kapo status` and `kapo logs`: no kapo answers. `kapo ls`: there is no socket.
pub const EXIT_NO_ANSWER: u8 = 3;
/// The command was stopped at its TTL (as timeout(1) reports it), or `kapo wait` reached its `--timeout`.
pub const EXIT_TIMEOUT: u8 = 124;
/// kapo itself has failed.
pub const EXIT_SETUP: u8 = 125;
/// The command was found but could not be executed.
pub const EXIT_CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: u8 = 127;

/// An error whose text is one line, without the prefix `kapo: ` and without a full stop, such as `cannot bind
/// 0.0.0.0:6666: Address already in use`.
#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    /// The arguments or the environment are wrong; exit code 2.
    Usage(String),
    /// `kapo check` could not determine that the command is healthy. It has no exit codes except 0 and 1.
    Unhealthy(String),
    /// kapo itself has failed, for example because a port is in use or a system call was refused; exit code 125.
    Setup(String),
}

impl Error {
    /// Returns a setup error with the text `cannot {doing} {object}: {why}`.
    pub fn setup(doing: &str, object: impl fmt::Display, why: impl fmt::Display) -> Error {
        Error::Setup(format!("cannot {doing} {object}: {why}"))
    }

    /// Returns the exit code of kapo.
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

/// Escapes control characters, so that the text is one line and safe for a terminal. Names of files and commands may
/// contain any byte, and a newline in them would look like a second message.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Returns the text of an errno without Rust's suffix `(os error 98)`: `Address already in use`. If musl's text
/// differs from glibc's, uses the text of glibc, which is better known.
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
    fn a_message_stays_on_one_line() {
        assert_eq!(
            one_line("cannot bind /a\nb\r\x1b[31m\u{85}/s"),
            "cannot bind /a\\nb\\r\\u{1b}[31m\\u{85}/s"
        );
        assert_eq!(one_line("a\\n \u{e9}"), "a\\n \u{e9}");
    }
}
