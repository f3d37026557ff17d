//! One line of kapo's own log, in logfmt: `time=... level=info msg="listening" address=0.0.0.0:6666`. What happened
//! and to what; when it is written, and whether, is decided by whoever has the record.

use std::fmt::{self, Write};
use std::time::SystemTime;

use crate::logic::log::{escape, timestamp};

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The course of things; left out under `--quiet`.
    Info,
    /// Something is not as it should be, and work goes on.
    Warn,
    /// Something that was asked for is not done.
    Error,
}

impl Level {
    /// `info`, `warn` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// A record without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    level: Level,
    /// All that follows the time, without the newline.
    text: Vec<u8>,
}

impl Record {
    /// A record of the course of things.
    pub fn info(msg: &str) -> Record {
        Record::new(Level::Info, msg)
    }

    /// A record of something that is not as it should be.
    pub fn warn(msg: &str) -> Record {
        Record::new(Level::Warn, msg)
    }

    /// A record of something that was asked for and is not done.
    pub fn error(msg: &str) -> Record {
        Record::new(Level::Error, msg)
    }

    fn new(level: Level, msg: &str) -> Record {
        let mut text = Vec::with_capacity(96);
        text.extend_from_slice(b" level=");
        text.extend_from_slice(level.name().as_bytes());
        text.extend_from_slice(b" msg=");
        escape::quoted(msg.as_bytes(), &mut text);
        Record { level, text }
    }

    /// Adds ` key=value`, the value quoted where it has to be. The key is a word of ours.
    #[must_use]
    pub fn with(self, key: &str, value: impl fmt::Display) -> Record {
        self.with_display(key, &value)
    }

    /// One copy of this in the program, whatever the types of the values.
    fn with_display(self, key: &str, value: &dyn fmt::Display) -> Record {
        let mut text = String::new();
        // A Display that fails leaves what it has written so far; a log line is not worth a panic.
        let _ = write!(text, "{value}");
        self.with_bytes(key, text.as_bytes())
    }

    /// The same for words of the system, which need not be UTF-8.
    #[must_use]
    pub fn with_bytes(mut self, key: &str, value: &[u8]) -> Record {
        self.text.push(b' ');
        self.text.extend_from_slice(key.as_bytes());
        self.text.push(b'=');
        escape::value(value, &mut self.text);
        self
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Appends the line, its newline included.
    pub fn render(&self, wall: SystemTime, out: &mut Vec<u8>) {
        out.extend_from_slice(b"time=");
        timestamp::log_time(wall, out);
        out.extend_from_slice(&self.text);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn rendered(record: &Record) -> String {
        let mut out = Vec::new();
        record.render(UNIX_EPOCH + Duration::from_micros(1_763_793_930_123_456), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_example_of_the_contract_comes_out() {
        assert_eq!(
            rendered(&Record::info("listening").with("address", "0.0.0.0:6666")),
            "time=2025-11-22T06:45:30.123456Z level=info msg=\"listening\" address=0.0.0.0:6666\n"
        );
    }

    #[test]
    fn whatever_is_in_a_value_it_stays_one_line() {
        let record = Record::warn("cannot \"signal\"").with("why", "no\nway").with_bytes("path", b"/a b\xff");
        assert_eq!(
            rendered(&record),
            "time=2025-11-22T06:45:30.123456Z level=warn msg=\"cannot \\\"signal\\\"\" why=\"no\\nway\" \
             path=\"/a b\\udcff\"\n"
        );
        assert_eq!(record.level(), Level::Warn);
    }

    #[test]
    fn levels_are_ordered_by_how_much_they_matter() {
        assert!(Level::Info < Level::Warn && Level::Warn < Level::Error);
        assert_eq!(rendered(&Record::error("x").with("n", 7)).split(' ').nth(1), Some("level=error"));
    }
}
