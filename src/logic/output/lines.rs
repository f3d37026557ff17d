//! Cuts captured output into lines and writes each as a log line of kapo's,
//! `time=2026-11-22T06:45:30.123456Z level=info stream=stdout msg="..."` or the same as JSON; knows nothing of where they come from or go.
//!
//! The text between the quotes is reversible (see [`escape`]): undoing the escapes gives the line byte for byte. A carriage
//! return before the newline is part of the line and written `\r`. A line whose text is longer than [`LONGEST`] comes in
//! parts, all but the last marked `partial=true` (in JSON `"partial":true`) behind the text; joined they are the line. What was read at one instant
//! bears one time stamp: that of the read that completed the line.

use std::time::SystemTime;

use memchr::memchr;

use crate::config::LogFormat;
use crate::logic::Stream;
use crate::logic::log::{escape, timestamp};
use crate::logic::output::batch::Batch;

/// The longest record as it is written, with time stamp, escapes and newline: journald cuts lines at 48 KiB.
pub const RECORD: usize = 32 * 1024;

/// The longest text of a record, with its escapes: a line whose text is longer is cut into parts. A part ends before
/// an escape or a letter of UTF-8 rather than within it.
pub const LONGEST: usize = LOGFMT.longest();

/// What stands around the text. All of it has a known length, because such an array is copied without a call.
struct Frame<const PREFIX: usize, const END: usize, const PARTIAL: usize> {
    format: LogFormat,
    /// What is before the time, between it and the stream, and between that and the text.
    before: [&'static [u8]; 3],
    /// What follows the text.
    end: &'static [u8; END],
    /// What follows the text of a part.
    partial: &'static [u8; PARTIAL],
}

impl<const PREFIX: usize, const END: usize, const PARTIAL: usize> Frame<PREFIX, END, PARTIAL> {
    /// The longest text of a record.
    const fn longest(&self) -> usize {
        RECORD - PREFIX - PARTIAL
    }

    /// All before the text.
    fn prefix(&self, stream: Stream, wall: SystemTime) -> [u8; PREFIX] {
        let [time, name, text] = self.before;
        let mut prefix = Vec::with_capacity(PREFIX);
        prefix.extend_from_slice(time);
        timestamp::log_time(wall, &mut prefix);
        prefix.extend_from_slice(name);
        prefix.extend_from_slice(stream.name().as_bytes());
        prefix.extend_from_slice(text);
        prefix.try_into().expect("times and the names of streams are always of one length")
    }
}

const LOGFMT: Frame<63, 2, 15> = Frame {
    format: LogFormat::Logfmt,
    before: [b"time=", b" level=info stream=", b" msg=\""],
    end: b"\"\n",
    partial: b"\" partial=true\n",
};

/// Its records hold a little less text than those of [`LOGFMT`].
const JSON: Frame<78, 3, 18> = Frame {
    format: LogFormat::Json,
    before: [b"{\"time\":\"", b"\",\"level\":\"info\",\"stream\":\"", b"\",\"msg\":\""],
    end: b"\"}\n",
    partial: b"\",\"partial\":true}\n",
};

/// [`Lines::render`] begins no further line when this much is written. A pipe holds 64 KiB: with the last line a batch
/// should still fit, as what little is left over would cost a write of its own.
pub const BATCH: usize = 60 * 1024;

/// The framing of one stream of one run.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    format: LogFormat,
    /// This much of the unfinished line was looked through before and holds no newline: a line that drips in is not
    /// searched again and again.
    searched: usize,
}

/// What [`Lines::render`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Bytes of the input that are dealt with; the rest is to be offered again, with more behind it.
    pub consumed: usize,
    /// Lines completed.
    pub lines: u64,
}

impl Lines {
    /// Nothing read yet.
    pub fn new(stream: Stream, format: LogFormat) -> Lines {
        Lines { stream, format, searched: 0 }
    }

    /// The format of the lines.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Appends to `out` the lines that `input` holds, until `out` holds [`BATCH`] bytes or only an unfinished line is
    /// left, which is at most [`LONGEST`] bytes. With `ended` nothing will follow, and that line is complete too.
    pub fn render(&mut self, wall: SystemTime, input: &[u8], ended: bool, out: &mut Batch) -> Rendered {
        match self.format {
            LogFormat::Logfmt => self.render_in(&LOGFMT, wall, input, ended, out),
            LogFormat::Json => self.render_in(&JSON, wall, input, ended, out),
        }
    }

    fn render_in<const PREFIX: usize, const END: usize, const PARTIAL: usize>(
        &mut self,
        frame: &Frame<PREFIX, END, PARTIAL>,
        wall: SystemTime,
        input: &[u8],
        ended: bool,
        out: &mut Batch,
    ) -> Rendered {
        let prefix = frame.prefix(self.stream, wall);
        let longest = frame.longest();
        let mut rendered = Rendered::default();
        let mut rest = input;
        let mut escapes = Vec::new();
        while out.len() < BATCH {
            let window = rest.get(..=longest).unwrap_or(rest);
            let found = memchr(b'\n', window.get(self.searched..).unwrap_or_default());
            let line = if let Some(at) = found {
                rest.get(..self.searched + at).unwrap_or(rest)
            } else if rest.len() > longest || ended && !rest.is_empty() {
                rest
            } else {
                self.searched = rest.len();
                break;
            };
            self.searched = 0;
            let part = record(frame, &prefix, line, &mut escapes, out);
            if part < line.len() {
                rest = rest.get(part..).unwrap_or_default();
            } else {
                rendered.lines += 1;
                rest = rest.get(part + usize::from(found.is_some())..).unwrap_or_default();
            }
        }
        rendered.consumed = input.len() - rest.len();
        rendered
    }
}

/// Appends a record of `line`, or of as much of it as one record holds. Returns how much of `line` that was. `escapes` is
/// memory for the text of a line from its first escape on.
fn record<const PREFIX: usize, const END: usize, const PARTIAL: usize>(
    frame: &Frame<PREFIX, END, PARTIAL>,
    prefix: &[u8; PREFIX],
    line: &[u8],
    escapes: &mut Vec<u8>,
    out: &mut Batch,
) -> usize {
    let longest = frame.longest();
    let text = line.get(..longest).unwrap_or(line);
    let free = out.free(PREFIX + text.len() + PARTIAL);
    let Some((head, body)) = free.split_first_chunk_mut() else { return line.len() };
    *head = *prefix;
    let clean = escape::copy_clean(text, body);
    if clean == line.len()
        && let Some(end) = body.get_mut(clean..).and_then(<[u8]>::first_chunk_mut)
    {
        *end = *frame.end;
        out.advance(PREFIX + clean + END);
        return clean;
    }
    out.advance(PREFIX + clean);
    escapes.clear();
    let rest = line.get(clean..).unwrap_or_default();
    let part = escape::escape_within(rest, longest - clean, frame.format, escapes);
    out.push(escapes);
    if part < rest.len() {
        out.push(frame.partial);
    } else {
        out.push(frame.end);
    }
    clean + part
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::logic::log::escape::tests::{unescape, unescape_json};

    const STAMP: &str = "time=2025-11-22T06:45:30.123456Z level=info stream=stderr msg=\"";

    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(1_763_793_930_123_456)
    }

    /// As the driver does it: pieces come in, what is not consumed stays in front of the next.
    fn rendered<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
        rendered_as(LogFormat::Logfmt, pieces)
    }

    fn rendered_as<'a>(format: LogFormat, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
        let mut lines = Lines::new(Stream::Stderr, format);
        let (mut held, mut all, mut count) = (Vec::new(), Vec::new(), 0);
        let mut step = |held: &mut Vec<u8>, ended| {
            loop {
                let mut out = Batch::default();
                let done = lines.render(wall(), held, ended, &mut out);
                held.drain(..done.consumed);
                count += done.lines;
                assert!(out.len() < BATCH + 6 * LONGEST + 200, "{} bytes at once", out.len());
                all.extend_from_slice(out.as_bytes());
                if done.consumed == 0 {
                    break;
                }
            }
            assert!(held.len() <= LONGEST, "{} bytes are held", held.len());
        };
        for piece in pieces {
            held.extend_from_slice(piece);
            step(&mut held, false);
        }
        step(&mut held, true);
        assert_eq!(held, b"");
        (all, count)
    }

    fn text(input: &[u8]) -> String {
        String::from_utf8(rendered([input]).0).unwrap()
    }

    /// What the command wrote, read back from the log; and the number of partial marks.
    fn undone(log: &[u8]) -> (Vec<u8>, usize) {
        let (mut out, mut parts) = (Vec::new(), 0);
        for line in log.split_inclusive(|&b| b == b'\n') {
            let quoted = line.strip_prefix(STAMP.as_bytes()).unwrap();
            if let Some(part) = quoted.strip_suffix(b"\" partial=true\n") {
                out.extend(unescape(part));
                parts += 1;
            } else {
                out.extend(unescape(quoted.strip_suffix(b"\"\n").unwrap()));
                out.push(b'\n');
            }
        }
        (out, parts)
    }

    #[test]
    fn lines_come_out_as_the_contract_says() {
        assert_eq!(
            text(b"first\n\nsay \"hi\"\r\nno newline"),
            format!("{STAMP}first\"\n{STAMP}\"\n{STAMP}say \\\"hi\\\"\\r\"\n{STAMP}no newline\"\n")
        );
        assert_eq!(text(b""), "");
        assert_eq!(rendered([&b"a\nb\nc"[..]]).1, 3);
    }

    #[test]
    fn how_the_bytes_were_cut_makes_no_difference() {
        let input = "plain\n\n\"quoted\"\tline\r\n\0\x1b[1mbold\nünï\u{85}cödé\nlast".as_bytes();
        let whole = rendered([input]);
        assert_eq!(rendered(input.chunks(1)), whole);
        for cut in 0..input.len() {
            assert_eq!(rendered([&input[..cut], &input[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn every_byte_comes_back_from_the_log() {
        let mut input: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        input.extend((0..LONGEST).map(|n| u8::try_from(n % 251).unwrap() | 0x80));
        input.extend(vec![0; LONGEST]);
        input.push(b'\n');
        let (log, count) = rendered(input.chunks(10_007));
        let (back, parts) = undone(&log);
        assert!(back == input);
        assert_eq!(count, input.iter().filter(|&&b| b == b'\n').count() as u64);
        let longest = log.split_inclusive(|&b| b == b'\n').map(<[u8]>::len).max();
        assert!((RECORD - 6..=RECORD).contains(&longest.unwrap()), "{longest:?}");
        assert!(parts >= 11, "{parts} parts of escapes");
    }

    #[test]
    fn every_byte_comes_back_from_json() {
        const PREFIX: &str =
            "{\"time\":\"2025-11-22T06:45:30.123456Z\",\"level\":\"info\",\"stream\":\"stderr\",\"msg\":\"";
        let mut input: Vec<u8> = (0..=255).cycle().take(if cfg!(miri) { 3_000 } else { 300_000 }).collect();
        for length in [JSON.longest() - 1, JSON.longest(), JSON.longest() + 1, LONGEST, LONGEST + 1] {
            input.push(b'\n');
            input.extend(vec![b'x'; length]);
        }
        input.extend("\n\u{ef80}\u{efff} 🦀".as_bytes());
        input.extend(vec![0xff; LONGEST]);
        input.push(b'\n');
        let (log, count) = rendered_as(LogFormat::Json, input.chunks(10_007));
        let (mut back, mut parts) = (Vec::new(), 0);
        for line in log.split_inclusive(|&b| b == b'\n') {
            assert!(line.len() <= RECORD, "{}", line.len());
            let line = std::str::from_utf8(line).unwrap();
            serde_json::from_str::<serde_json::Value>(line).unwrap();
            let text = line.strip_prefix(PREFIX).unwrap();
            if let Some(part) = text.strip_suffix("\",\"partial\":true}\n") {
                back.extend(unescape_json(part));
                parts += 1;
            } else {
                back.extend(unescape_json(text.strip_suffix("\"}\n").unwrap()));
                back.push(b'\n');
            }
        }
        assert!(back == input);
        assert_eq!(count, input.iter().filter(|&&b| b == b'\n').count() as u64);
        assert!(parts >= 9, "{parts} parts");
    }

    #[test]
    fn only_what_is_longer_than_the_longest_line_comes_in_parts() {
        for (length, parts) in [
            (LONGEST - 1, 0),
            (LONGEST, 0),
            (LONGEST + 1, 1),
            (2 * LONGEST, 1),
            (2 * LONGEST + 1, 2),
            (10 * LONGEST, 9),
        ] {
            for end in [&b"\n"[..], b""] {
                let input = [&vec![b'x'; length], end].concat();
                let (log, count) = rendered(input.chunks(65_000));
                let (back, seen) = undone(&log);
                assert!(back == [&vec![b'x'; length][..], b"\n"].concat(), "{length}");
                assert_eq!((seen, count), (parts, 1), "{length}");
            }
        }
    }

    #[test]
    fn escapes_count_towards_the_longest_record() {
        for (letter, escaped) in [("\0", 6), ("\"", 2), ("\u{85}", 6), ("é", 2)] {
            let fits = LONGEST / escaped;
            for (count, wanted) in [(fits, 0), (fits + 1, 1), (2 * fits + 1, 2)] {
                for end in ["\n", ""] {
                    let input = letter.repeat(count) + end;
                    let (log, lines) = rendered(input.as_bytes().chunks(7_001));
                    assert!(log.split_inclusive(|&b| b == b'\n').all(|line| line.len() <= RECORD));
                    let (back, parts) = undone(&log);
                    assert_eq!((parts, lines), (wanted, 1), "{count} of {letter:?}");
                    assert_eq!(back, (letter.repeat(count) + "\n").as_bytes());
                }
            }
        }
    }

    #[test]
    fn a_long_line_is_not_cut_within_a_letter() {
        for shift in 0..4 {
            let input = ["x".repeat(shift), "🦀".repeat(LONGEST)].concat();
            let (log, _) = rendered([input.as_bytes()]);
            assert!(!log.contains(&b'\\'), "shifted by {shift}");
            let longest = log.split_inclusive(|&b| b == b'\n').map(<[u8]>::len).max();
            assert!((RECORD - 3..=RECORD).contains(&longest.unwrap()), "{longest:?}");
            assert!(undone(&log).0.strip_suffix(b"\n") == Some(input.as_bytes()), "shifted by {shift}");
        }
    }

    #[test]
    fn a_megabyte_of_newlines_is_bounded_at_each_step() {
        let (log, count) = rendered([&vec![b'\n'; 1 << 20][..]]);
        assert_eq!((count, log.len()), (1 << 20, (STAMP.len() + 2) << 20));
    }
}
