//! One line of kapo's own log, in logfmt or JSON: `time=... level=info msg="listening" address=0.0.0.0:6666`. The
//! owner of a record decides whether and when it is written.

use std::fmt::{self, Write};
use std::time::SystemTime;

use crate::config::LogFormat;
use crate::logic::ProcessId;
use crate::logic::log::{escape, timestamp};

/// The severity of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Normal operation; suppressed by `--quiet`.
    Info,
    /// Something is wrong, but kapo continues to work.
    Warn,
    /// Something that the user asked for could not be done.
    Error,
}

impl Level {
    /// Returns `info`, `warn` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    /// Returns the digit of the syslog priority (syslog(3)).
    fn priority(self) -> u8 {
        match self {
            Level::Info => b'6',
            Level::Warn => b'4',
            Level::Error => b'3',
        }
    }
}

/// The format of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// `--log-format`.
    pub format: LogFormat,
    /// Whether the reader is systemd's journal, which adds its own time stamps and takes the priority from the prefix
    /// `<N>` (sd-daemon(3)).
    pub journal: bool,
    /// The name of this kapo, which is the last key of each record.
    pub name: Option<&'static str>,
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
    /// Whether JSON shows the value as a number.
    number: bool,
}

impl Record {
    /// Returns a record about normal operation.
    pub fn info(msg: &'static str) -> Record {
        Record { level: Level::Info, msg, fields: Vec::new() }
    }

    /// Returns a record about a problem that does not prevent kapo from working.
    pub fn warn(msg: &'static str) -> Record {
        Record { level: Level::Warn, msg, fields: Vec::new() }
    }

    /// Returns a record about an action that failed.
    pub fn error(msg: &'static str) -> Record {
        Record { level: Level::Error, msg, fields: Vec::new() }
    }

    /// Adds a key with a text value.
    #[must_use]
    pub fn with(self, key: &'static str, value: impl fmt::Display) -> Record {
        self.with_display(key, &value, false)
    }

    /// Adds a key with an integer, which JSON shows as a number.
    #[must_use]
    pub fn number(self, key: &'static str, value: impl Number) -> Record {
        self.with_display(key, &value, true)
    }

    /// Not generic, so that the program holds one copy for all types of values.
    fn with_display(self, key: &'static str, value: &dyn fmt::Display, number: bool) -> Record {
        let mut text = String::new();
        // If Display fails, keep what it has written so far; a log line is not worth a panic.
        let _ = write!(text, "{value}");
        self.field(Field { key, value: text.into_bytes(), number })
    }

    /// Adds a key with a value that need not be UTF-8, such as a file name.
    #[must_use]
    pub fn with_bytes(self, key: &'static str, value: &[u8]) -> Record {
        self.field(Field { key, value: value.to_vec(), number: false })
    }

    fn field(mut self, field: Field) -> Record {
        self.fields.push(field);
        self
    }

    /// Returns the severity.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Appends the line, including its newline.
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
                // A name has no characters that need an escape.
                if let Some(name) = style.name {
                    out.extend_from_slice(b" name=");
                    out.extend_from_slice(name.as_bytes());
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
                if let Some(name) = style.name {
                    out.extend_from_slice(b",\"name\":\"");
                    out.extend_from_slice(name.as_bytes());
                    out.push(b'"');
                }
                out.push(b'}');
            }
        }
        out.push(b'\n');
    }
}

/// Types that JSON shows as numbers.
pub trait Number: fmt::Display {}

impl Number for u8 {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}
impl Number for ProcessId {}

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
            Style { format, journal, name: None },
            UNIX_EPOCH + Duration::from_micros(1_763_793_930_123_456),
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_documented_example_is_rendered() {
        assert_eq!(
            rendered(&Record::info("listening").with("address", "0.0.0.0:6666")),
            "time=2025-11-22T06:45:30.123456Z level=info msg=\"listening\" address=0.0.0.0:6666\n"
        );
    }

    #[test]
    fn any_value_stays_on_one_line() {
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
    fn the_name_of_kapo_is_the_last_key() {
        let record = Record::info("ready").number("pid", 5);
        for (format, line) in [
            (LogFormat::Logfmt, "<6>level=info msg=\"ready\" pid=5 name=web-1\n"),
            (LogFormat::Json, "<6>{\"level\":\"info\",\"msg\":\"ready\",\"pid\":5,\"name\":\"web-1\"}\n"),
        ] {
            let mut out = Vec::new();
            record.render(Style { format, journal: true, name: Some("web-1") }, UNIX_EPOCH, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }

    #[test]
    fn levels_are_ordered_by_severity() {
        assert!(Level::Info < Level::Warn && Level::Warn < Level::Error);
        assert_eq!(rendered(&Record::error("x").with("n", 7)).split(' ').nth(1), Some("level=error"));
    }
}
