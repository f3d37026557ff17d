//! One line of kapo's own log, in logfmt or JSON: `time=... level=info msg="listening" address=0.0.0.0:6666`. What happened
//! and to what; when it is written, and whether, is decided by whoever has the record.

use std::fmt::{self, Write};
use std::time::SystemTime;

use crate::config::LogFormat;
use crate::logic::Pid;
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

    /// Returns the digit of the priority (syslog(3)).
    fn priority(self) -> u8 {
        match self {
            Level::Info => b'6',
            Level::Warn => b'4',
            Level::Error => b'3',
        }
    }
}

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// `--log-format`.
    pub format: LogFormat,
    /// The reader is systemd's journal, which has its own time stamps and reads the priority from the prefix `<N>`
    /// (sd-daemon(3)).
    pub journal: bool,
}

/// A record without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    level: Level,
    msg: &'static str,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    key: &'static str,
    value: Vec<u8>,
    /// JSON has it as a number.
    number: bool,
}

impl Record {
    /// A record of the course of things.
    pub fn info(msg: &'static str) -> Record {
        Record { level: Level::Info, msg, fields: Vec::new() }
    }

    /// A record of something that is not as it should be.
    pub fn warn(msg: &'static str) -> Record {
        Record { level: Level::Warn, msg, fields: Vec::new() }
    }

    /// A record of something that was asked for and is not done.
    pub fn error(msg: &'static str) -> Record {
        Record { level: Level::Error, msg, fields: Vec::new() }
    }

    /// Adds a key with a text.
    #[must_use]
    pub fn with(self, key: &'static str, value: impl fmt::Display) -> Record {
        self.with_display(key, &value, false)
    }

    /// Adds a key with an integer, which JSON has as a number.
    #[must_use]
    pub fn number(self, key: &'static str, value: impl Number) -> Record {
        self.with_display(key, &value, true)
    }

    /// One copy of this in the program, whatever the types of the values.
    fn with_display(self, key: &'static str, value: &dyn fmt::Display, number: bool) -> Record {
        let mut text = String::new();
        // A Display that fails leaves what it has written so far; a log line is not worth a panic.
        let _ = write!(text, "{value}");
        self.field(Field { key, value: text.into_bytes(), number })
    }

    /// Adds a key with words of the system, which need not be UTF-8.
    #[must_use]
    pub fn with_bytes(self, key: &'static str, value: &[u8]) -> Record {
        self.field(Field { key, value: value.to_vec(), number: false })
    }

    fn field(mut self, field: Field) -> Record {
        self.fields.push(field);
        self
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Appends the line, its newline included.
    pub fn render(&self, style: Style, wall: SystemTime, out: &mut Vec<u8>) {
        if style.journal {
            out.extend_from_slice(&[b'<', self.level.priority(), b'>']);
        }
        match style.format {
            LogFormat::Logfmt => {
                if !style.journal {
                    out.extend_from_slice(b"time=");
                    timestamp::log_time(wall, out);
                    out.push(b' ');
                }
                out.extend_from_slice(b"level=");
                out.extend_from_slice(self.level.name().as_bytes());
                out.extend_from_slice(b" msg=");
                escape::quoted(self.msg.as_bytes(), style.format, out);
                for field in &self.fields {
                    out.push(b' ');
                    out.extend_from_slice(field.key.as_bytes());
                    out.push(b'=');
                    escape::value(&field.value, out);
                }
            }
            LogFormat::Json => {
                out.push(b'{');
                if !style.journal {
                    out.extend_from_slice(b"\"time\":\"");
                    timestamp::log_time(wall, out);
                    out.extend_from_slice(b"\",");
                }
                out.extend_from_slice(b"\"level\":\"");
                out.extend_from_slice(self.level.name().as_bytes());
                out.extend_from_slice(b"\",\"msg\":");
                escape::quoted(self.msg.as_bytes(), style.format, out);
                for field in &self.fields {
                    out.extend_from_slice(b",\"");
                    out.extend_from_slice(field.key.as_bytes());
                    out.extend_from_slice(b"\":");
                    if field.number {
                        out.extend_from_slice(&field.value);
                    } else {
                        escape::quoted(&field.value, style.format, out);
                    }
                }
                out.push(b'}');
            }
        }
        out.push(b'\n');
    }
}

/// Types whose text is a number of JSON.
pub trait Number: fmt::Display {}

impl Number for u8 {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}
impl Number for Pid {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn rendered(record: &Record) -> String {
        styled(record, LogFormat::Logfmt, false)
    }

    fn styled(record: &Record, format: LogFormat, journal: bool) -> String {
        let mut out = Vec::new();
        record.render(
            Style { format, journal },
            UNIX_EPOCH + Duration::from_micros(1_763_793_930_123_456),
            &mut out,
        );
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
    fn in_json_only_integers_are_numbers() {
        let record = Record::warn("cannot \"signal\"")
            .number("pid", 81)
            .with("command", "7")
            .with("why", "no\nway")
            .with_bytes("path", b"/a b\xff");
        let json = styled(&record, LogFormat::Json, false);
        assert_eq!(
            json,
            "{\"time\":\"2025-11-22T06:45:30.123456Z\",\"level\":\"warn\",\"msg\":\"cannot \\\"signal\\\"\",\"pid\":81,\
             \"command\":\"7\",\"why\":\"no\\nway\",\"path\":\"/a b\\uefff\"}\n"
        );
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }

    #[test]
    fn the_journal_gets_priorities_and_no_times() {
        for (record, logfmt, json) in [
            (
                Record::info("ready").number("pid", 5),
                "<6>level=info msg=\"ready\" pid=5\n",
                "<6>{\"level\":\"info\",\"msg\":\"ready\",\"pid\":5}\n",
            ),
            (Record::warn("x"), "<4>level=warn msg=\"x\"\n", "<4>{\"level\":\"warn\",\"msg\":\"x\"}\n"),
            (Record::error("x"), "<3>level=error msg=\"x\"\n", "<3>{\"level\":\"error\",\"msg\":\"x\"}\n"),
        ] {
            assert_eq!(styled(&record, LogFormat::Logfmt, true), logfmt);
            assert_eq!(styled(&record, LogFormat::Json, true), json);
        }
    }

    #[test]
    fn levels_are_ordered_by_how_much_they_matter() {
        assert!(Level::Info < Level::Warn && Level::Warn < Level::Error);
        assert_eq!(rendered(&Record::error("x").with("n", 7)).split(' ').nth(1), Some("level=error"));
    }
}
