//! Splits captured output into lines and renders each as a log line, `time=2026-11-22T06:45:30.123456Z level=info
//! stream=stdout msg="..."`. Knows nothing about where the lines come from or go.
//!
//! The text between the quotes is reversible (see `logic::log::escape`): undoing the escapes gives the line byte for byte. A
//! carriage return before the newline is part of the line and is written as `\r`. A line whose text is longer than
//! [`LONGEST`] is written in parts, and all except the last are marked `partial=true` behind the text; joined, they
//! are the line. Lines that were completed by the same read have the same time stamp.

use std::time::SystemTime;

use memchr::memchr;

use crate::config::LogFormat;
use crate::logic::Stream;
use crate::logic::log::{escape, timestamp};
use crate::logic::output::batch::Batch;

/// Longest record in bytes, with time stamp, escapes and newline; journald splits lines at 48 KiB.
pub const RECORD: usize = 32 * 1024;

/// Longest text of a record in bytes, with its escapes. A longer line is split into parts, never within an escape or a
/// UTF-8 character.
pub const LONGEST: usize = LOGFMT.longest();

/// Size of the memory for the part of a record before the text. Arrays of one length are copied without a call.
const HEAD: usize = 80;

/// The parts of a record around its text.
struct Frame {
    format: LogFormat,
    /// The parts before the time, between the time and the stream, and between the stream and the text.
    before: [&'static [u8]; 3],
    /// Length of the part before the text: times and stream names have a fixed length.
    prefix: usize,
    /// The bytes after the text; the first `end_length` count.
    end: [u8; 4],
    end_length: usize,
    /// The bytes after the text of a part.
    partial: &'static [u8],
}

impl Frame {
    /// Returns the length of the longest text in a record.
    const fn longest(&self) -> usize {
        RECORD - self.prefix - self.partial.len()
    }

    /// Returns the part of a record before the text, followed by unspecified bytes.
    fn head(&self, stream: Stream, wall: SystemTime) -> [u8; HEAD] {
        let [time, name, text] = self.before;
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(time);
        timestamp::log_time(wall, &mut head);
        head.extend_from_slice(name);
        head.extend_from_slice(stream.name().as_bytes());
        head.extend_from_slice(text);
        head.resize(HEAD, 0);
        head.try_into().unwrap_or([0; HEAD])
    }
}

static LOGFMT: Frame = Frame {
    format: LogFormat::Logfmt,
    before: [b"time=", b" level=info stream=", b" msg=\""],
    prefix: 63,
    end: *b"\"\n\0\0",
    end_length: 2,
    partial: b"\" partial=true\n",
};

/// A record in JSON holds slightly less text than one in [`LOGFMT`].
static JSON: Frame = Frame {
    format: LogFormat::Json,
    before: [b"{\"time\":\"", b"\",\"level\":\"info\",\"stream\":\"", b"\",\"msg\":\""],
    prefix: 78,
    end: *b"\"}\n\0",
    end_length: 3,
    partial: b"\",\"partial\":true}\n",
};

/// [`Lines::render`] begins no further line once this many bytes are rendered. With its last line, a batch should
/// still fit into a pipe of 64 KiB, because a small remainder would cost a second write.
pub const BATCH: usize = 60 * 1024;

/// How many bytes of a line with escapes are written before more memory is requested.
const STEP: usize = 512;

/// The line splitter for one stream of one run.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
    format: LogFormat,
    /// How many bytes of the unfinished line are known to contain no newline, so that a line that arrives in small
    /// pieces is searched only once.
    searched: usize,
}

/// The result of [`Lines::render`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Number of input bytes that are processed. The rest must be offered again, followed by new input.
    pub consumed: usize,
    /// Number of completed lines.
    pub lines: u64,
}

impl Lines {
    /// Returns a splitter at the beginning of a line.
    pub fn new(stream: Stream, format: LogFormat) -> Lines {
        Lines { stream, format, searched: 0 }
    }

    /// Returns the format of the lines.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Appends the lines in `input` to `out`, until `out` holds [`BATCH`] bytes or only an unfinished line of at most
    /// [`LONGEST`] bytes is left. `ended` means that no input will follow, so that this last line is complete, too.
    pub fn render(&mut self, wall: SystemTime, input: &[u8], ended: bool, out: &mut Batch) -> Rendered {
        let frame = match self.format {
            LogFormat::Logfmt => &LOGFMT,
            LogFormat::Json => &JSON,
        };
        let head = frame.head(self.stream, wall);
        let longest = frame.longest();
        let mut rendered = Rendered::default();
        let mut rest = input;
        loop {
            let mut stored = None;
            if self.searched == 0 {
                let clean = clean_lines(frame, &head, rest, out);
                rest = rest.get(clean.consumed..).unwrap_or_default();
                rendered.lines += clean.lines;
                stored = clean.stored;
            }
            if out.len() >= BATCH {
                break;
            }
            let window = rest.get(..=longest).unwrap_or(rest);
            let from = self.searched.max(stored.unwrap_or(0));
            let found = memchr(b'\n', window.get(from..).unwrap_or_default());
            let line = if let Some(at) = found {
                rest.get(..from + at).unwrap_or(rest)
            } else if rest.len() > longest || ended && !rest.is_empty() {
                rest
            } else {
                self.searched = rest.len();
                break;
            };
            self.searched = 0;
            let part = record(frame, &head, line, stored, out);
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

/// The result of [`clean_lines`].
struct CleanLines {
    consumed: usize,
    lines: u64,
    /// How many bytes of the next line are stored behind its head in the free memory. `None` if not even the head fits.
    stored: Option<usize>,
}

/// Appends records of the complete lines at the start of `input` that need no escapes, as far as the memory of `out`
/// suffices. Most output consists of such lines, and each of their bytes is looked at only once here.
fn clean_lines(frame: &Frame, head: &[u8; HEAD], input: &[u8], out: &mut Batch) -> CleanLines {
    let limit = BATCH.saturating_sub(out.len());
    let free = out.free(0);
    let mut clean = CleanLines { consumed: 0, lines: 0, stored: None };
    let mut filled = 0;
    while filled < limit {
        let Some(record) = free.get_mut(filled..) else { break };
        let Some(start) = record.first_chunk_mut() else { break };
        *start = *head;
        let Some(body) = record.get_mut(frame.prefix..) else { break };
        let rest = input.get(clean.consumed..).unwrap_or_default();
        let text = rest.get(..=frame.longest()).unwrap_or(rest);
        let length = escape::copy_clean(text, body);
        clean.stored = Some(length);
        if text.get(length) != Some(&b'\n') {
            break;
        }
        let Some(end) = body.get_mut(length..).and_then(<[u8]>::first_chunk_mut) else { break };
        *end = frame.end;
        filled += frame.prefix + length + frame.end_length;
        clean.consumed += length + 1;
        clean.lines += 1;
        clean.stored = None;
    }
    out.advance(filled);
    clean
}

/// Appends a record of `line`, or of as much of it as fits into one record, and returns how many bytes of `line` that
/// was. The head and the first `stored` bytes may already be in the free memory.
fn record(frame: &Frame, head: &[u8; HEAD], line: &[u8], stored: Option<usize>, out: &mut Batch) -> usize {
    let mut read = stored.unwrap_or(0).min(frame.longest());
    match stored {
        Some(_) => out.advance(frame.prefix + read),
        None => out.push(head.get(..frame.prefix).unwrap_or_default()),
    }
    let mut room = frame.longest() - read;
    while read < line.len() {
        let rest = line.get(read..).unwrap_or_default();
        let limit = room.min(STEP);
        let escaped = escape::escape_within(rest, limit, frame.format, out.free(limit + escape::SLACK));
        out.advance(escaped.written);
        read += escaped.read;
        room -= escaped.written;
        // The next character does not fit.
        if escaped.read == 0 {
            out.push(frame.partial);
            return read;
        }
    }
    out.push(frame.end.get(..frame.end_length).unwrap_or_default());
    read
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

    /// Renders like the driver: unprocessed bytes stay in front of the next piece.
    fn rendered<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
        rendered_as(LogFormat::Logfmt, pieces)
    }

    fn rendered_as<'a>(format: LogFormat, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
        let mut lines = Lines::new(Stream::Stderr, format);
        let (mut held, mut all, mut count) = (Vec::new(), Vec::new(), 0);
        let mut out = Batch::default();
        let mut step = |held: &mut Vec<u8>, ended| {
            loop {
                out.clear();
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

    /// Returns what the command wrote, decoded from the log, and the number of `partial` marks.
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
    fn lines_are_rendered_as_documented() {
        assert_eq!(
            text(b"first\n\nsay \"hi\"\r\nno newline"),
            format!("{STAMP}first\"\n{STAMP}\"\n{STAMP}say \\\"hi\\\"\\r\"\n{STAMP}no newline\"\n")
        );
        assert_eq!(text(b""), "");
        assert_eq!(rendered([&b"a\nb\nc"[..]]).1, 3);
    }

    #[test]
    fn the_result_does_not_depend_on_how_the_input_was_cut() {
        let input = "plain\n\n\"quoted\"\tline\r\n\0\x1b[1mbold\nünï\u{85}cödé\nlast".as_bytes();
        let whole = rendered([input]);
        assert_eq!(rendered(input.chunks(1)), whole);
        for cut in 0..input.len() {
            assert_eq!(rendered([&input[..cut], &input[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_memory_that_is_there() {
        let input = ["clean", "", &"x".repeat(70), "a \"quote\"", &"y".repeat(90), "no end"].join("\n");
        for format in [LogFormat::Logfmt, LogFormat::Json] {
            let mut wanted = Vec::new();
            for before in 0..1_100 {
                let mut out = Batch::default();
                out.push(&vec![b'-'; before]);
                let mut lines = Lines::new(Stream::Stderr, format);
                let done = lines.render(wall(), input.as_bytes(), true, &mut out);
                assert_eq!(done, Rendered { consumed: input.len(), lines: 6 });
                let rendered = out.as_bytes().get(before..).unwrap_or_default();
                if before == 0 {
                    wanted = rendered.to_vec();
                }
                assert!(rendered == wanted, "after {before} bytes");
            }
        }
    }

    #[test]
    fn every_byte_can_be_decoded_from_the_log() {
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
    fn every_byte_can_be_decoded_from_json() {
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
    fn only_a_line_over_the_limit_is_split_into_parts() {
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
    fn a_long_line_is_not_cut_within_a_character() {
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
