//! Cuts captured output into lines and writes each as a log line of kapo's,
//! `time=2026-11-22T06:45:30.123456Z level=info stream=stdout msg="..."`; knows nothing of where they come from or go.
//!
//! The text between the quotes is reversible (see `quote`): undoing the escapes gives the line byte for byte. A carriage
//! return before the newline is part of the line and written `\r`. A line longer than [`LONGEST`] comes in parts, all
//! but the last marked `partial=true` behind the text; joined they are the line. What was read at one instant bears
//! one time stamp: that of the read that completed the line.

use std::time::SystemTime;

use memchr::memchr;

use super::{Stream, calendar, quote};

/// The longest line, in bytes of the command's, that is not cut into parts. A part ends before a letter of UTF-8
/// rather than within it.
pub const LONGEST: usize = 64 * 1024;

/// [`Lines::render`] begins no further line when this much is written. A pipe holds 64 KiB: with the last line a batch
/// should still fit, as what little is left over would cost a write of its own.
pub const BATCH: usize = 60 * 1024;

/// The length of all before the text: an array of a known length is copied without a call.
const PREFIX: usize = 63;

/// The framing of one stream of one run.
#[derive(Debug)]
pub struct Lines {
    stream: Stream,
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
    pub fn new(stream: Stream) -> Lines {
        Lines { stream, searched: 0 }
    }

    /// Appends to `out` the lines that `input` holds, until `out` holds [`BATCH`] bytes or only an unfinished line is
    /// left, which is at most [`LONGEST`] bytes. With `ended` nothing will follow, and that line is complete too.
    pub fn render(&mut self, wall: SystemTime, input: &[u8], ended: bool, out: &mut Vec<u8>) -> Rendered {
        let prefix = self.prefix(wall, out);
        let mut rendered = Rendered::default();
        let mut rest = input;
        while out.len() < BATCH {
            let window = rest.get(..=LONGEST).unwrap_or(rest);
            let found = memchr(b'\n', window.get(self.searched..).unwrap_or_default());
            let (line, partial, after) = if let Some(at) = found {
                let (line, newline) = rest.split_at(self.searched + at);
                (line, false, newline.get(1..).unwrap_or_default())
            } else if rest.len() > LONGEST {
                let (part, after) = rest.split_at(before_letter(rest));
                (part, true, after)
            } else if ended && !rest.is_empty() {
                (rest, false, &[][..])
            } else {
                self.searched = rest.len();
                break;
            };
            self.searched = 0;
            out.extend_from_slice(&prefix);
            quote::escape(line, out);
            out.push(b'"');
            if partial {
                out.extend_from_slice(b" partial=true");
            }
            out.push(b'\n');
            rendered.lines += u64::from(!partial);
            rest = after;
        }
        rendered.consumed = input.len() - rest.len();
        rendered
    }

    /// All before the text. `out` is only borrowed to format it in, which saves an allocation.
    fn prefix(&self, wall: SystemTime, out: &mut Vec<u8>) -> [u8; PREFIX] {
        let before = out.len();
        out.extend_from_slice(b"time=");
        calendar::log_time(wall, out);
        out.extend_from_slice(b" level=info stream=");
        out.extend_from_slice(self.stream.name().as_bytes());
        out.extend_from_slice(b" msg=\"");
        let prefix = out.get(before..).and_then(|text| text.try_into().ok());
        out.truncate(before);
        prefix.expect("times and the names of streams are always of one length")
    }
}

/// Where to cut a line that is longer than [`LONGEST`].
fn before_letter(line: &[u8]) -> usize {
    let goes_on = |at: usize| matches!(line.get(at), Some(0x80..=0xbf));
    (LONGEST - 3..=LONGEST).rev().find(|&at| !goes_on(at)).unwrap_or(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::logic::quote::tests::unescape;

    const STAMP: &str = "time=2025-11-22T06:45:30.123456Z level=info stream=stderr msg=\"";

    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(1_763_793_930_123_456)
    }

    /// As the driver does it: pieces come in, what is not consumed stays in front of the next.
    fn rendered<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
        let mut lines = Lines::new(Stream::Stderr);
        let (mut held, mut all, mut count) = (Vec::new(), Vec::new(), 0);
        let mut step = |held: &mut Vec<u8>, ended| {
            loop {
                let mut out = Vec::new();
                let done = lines.render(wall(), held, ended, &mut out);
                held.drain(..done.consumed);
                count += done.lines;
                assert!(out.len() < BATCH + 6 * LONGEST + 200, "{} bytes at once", out.len());
                all.extend(out);
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
        assert_eq!((count, parts), (input.iter().filter(|&&b| b == b'\n').count() as u64, 2));
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
    fn a_long_line_is_not_cut_within_a_letter() {
        for shift in 0..4 {
            let input = ["x".repeat(shift), "🦀".repeat(LONGEST)].concat();
            let (log, _) = rendered([input.as_bytes()]);
            assert!(!log.contains(&b'\\'), "shifted by {shift}");
            assert!(undone(&log).0.strip_suffix(b"\n") == Some(input.as_bytes()), "shifted by {shift}");
        }
    }

    #[test]
    fn a_megabyte_of_newlines_is_bounded_at_each_step() {
        let (log, count) = rendered([&vec![b'\n'; 1 << 20][..]]);
        assert_eq!((count, log.len()), (1 << 20, (STAMP.len() + 2) << 20));
    }
}
