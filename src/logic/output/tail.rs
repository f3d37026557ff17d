//! Keeps the last bytes of captured output, of both streams in the order of their arrival, for /logs, its followers,
//! LastOutput and the termination log. The memory is bounded: the capacity plus the output of one turn of the loop.

use std::collections::VecDeque;

use crate::logic::Stream;

/// A position in the output since the start of kapo. A position stays valid even after its byte was overwritten.
pub(crate) type Position = u64;

/// A ring buffer of the last bytes. Allocates nothing before the first byte.
#[derive(Debug)]
pub(crate) struct Tail {
    capacity: usize,
    bytes: VecDeque<u8>,
    /// The sequences of bytes of one stream, oldest first, with their stream and length. Together they are as long as
    /// `bytes`, and neighbouring sequences belong to different streams.
    runs: VecDeque<StreamRun>,
    /// The position of the first byte in `bytes`.
    start: Position,
    /// Bytes from this position on are not dropped.
    held: Option<Position>,
}

#[derive(Clone, Copy, Debug)]
struct StreamRun {
    stream: Stream,
    length: usize,
}

/// Returns the largest number of runs. Streams that alternate byte by byte need one [`StreamRun`] per byte; beyond this
/// number, the oldest run is dropped.
const fn most_runs(capacity: usize) -> usize {
    capacity / 32 + 2
}

/// The maximum length of a line of [`Tail::last_lines`] in bytes, including the mark at the end of a shortened line.
pub(crate) const LONGEST_LAST_LINE: usize = 512;

/// Marks a line that was cut.
const CUT: &str = "…";

/// Appends `bytes` to a line. Keeps only slightly more than [`LONGEST_LAST_LINE`] bytes, which is enough to detect
/// that the line is too long.
fn extend_within(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = (LONGEST_LAST_LINE + 4).saturating_sub(line.len());
    line.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
}

/// Returns the line as text, cut between two characters if it is too long.
fn shortened(line: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(line).into_owned();
    if text.len() > LONGEST_LAST_LINE {
        text.truncate(text.floor_char_boundary(LONGEST_LAST_LINE - CUT.len()));
        text.push_str(CUT);
    }
    text
}

impl Tail {
    /// Returns a buffer for the last `capacity` bytes; 0 keeps nothing.
    pub(crate) fn new(capacity: usize) -> Tail {
        Tail { capacity, bytes: VecDeque::new(), runs: VecDeque::new(), start: 0, held: None }
    }

    /// Whether output is kept at all.
    pub(crate) fn is_on(&self) -> bool {
        self.capacity > 0
    }

    /// Adds output of `stream`.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        if self.capacity == 0 || bytes.is_empty() {
            return;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.capacity);
        }
        let skipped = if self.held.is_some() { 0 } else { bytes.len().saturating_sub(self.capacity) };
        let kept = bytes.get(skipped..).unwrap_or_default();
        self.forget((self.bytes.len() + kept.len()).saturating_sub(self.capacity));
        // If bytes are skipped, all older bytes were already dropped.
        self.start += skipped as u64;
        self.bytes.extend(kept);
        match self.runs.back_mut() {
            Some(run) if run.stream == stream => run.length += kept.len(),
            _ => self.runs.push_back(StreamRun { stream, length: kept.len() }),
        }
        self.limit_runs();
    }

    /// Keeps all bytes from now on until [`Tail::release`], so that followers can read them first. The caller must
    /// bound what is added meanwhile.
    pub(crate) fn hold(&mut self) {
        self.held = Some(self.end());
    }

    /// Ends the hold and drops what exceeds the capacity.
    pub(crate) fn release(&mut self) {
        self.held = None;
        self.forget(self.bytes.len().saturating_sub(self.capacity));
        self.limit_runs();
        if self.bytes.capacity() > 2 * self.capacity {
            self.bytes.shrink_to(self.capacity);
        }
    }

    fn limit_runs(&mut self) {
        while self.held.is_none() && self.runs.len() > most_runs(self.capacity) {
            let oldest = self.runs.front().map_or(0, |run| run.length);
            self.forget(oldest);
        }
    }

    /// Returns the kept bytes, of one stream or of both.
    pub(crate) fn contents(&self, stream: Option<Stream>) -> Vec<u8> {
        self.since(0, stream).0
    }

    /// Returns the length of [`Tail::contents`] in bytes.
    pub(crate) fn length(&self, stream: Option<Stream>) -> usize {
        let wanted = |run: &&StreamRun| stream.is_none_or(|wanted| wanted == run.stream);
        self.runs.iter().filter(wanted).map(|run| run.length).sum()
    }

    /// Returns the kept bytes after `position`, and the position behind them. Begin with 0 for all kept bytes, or with
    /// [`Tail::end`] for new ones only.
    pub(crate) fn since(&self, position: Position, stream: Option<Stream>) -> (Vec<u8>, Position) {
        let mut out = Vec::new();
        let mut from = self.start;
        for run in &self.runs {
            let to = from + run.length as u64;
            if to > position && stream.is_none_or(|wanted| wanted == run.stream) {
                self.copy(from.max(position), to, &mut out);
            }
            from = to;
        }
        (out, self.end())
    }

    /// Returns the position behind the last byte.
    pub(crate) fn end(&self) -> Position {
        self.start + self.bytes.len() as u64
    }

    /// Returns the last `count` lines of both streams that begin at `position` or later, without newlines. Bytes that
    /// are not UTF-8 become U+FFFD. A line that the other stream has interrupted is joined and takes the position of
    /// its end. A line over [`LONGEST_LAST_LINE`] bytes is cut and marked with `…`.
    pub(crate) fn last_lines(&self, position: Position, count: usize) -> Vec<String> {
        let mut lines: VecDeque<Vec<u8>> = VecDeque::new();
        let mut unfinished = [const { Vec::new() }; 2];
        let mut from = self.start;
        for run in &self.runs {
            let to = from + run.length as u64;
            let mut bytes = Vec::new();
            self.copy(from.max(position).min(to), to, &mut bytes);
            from = to;
            let [stdout, stderr] = &mut unfinished;
            let line = if run.stream == Stream::Stdout { stdout } else { stderr };
            for piece in bytes.split_inclusive(|&b| b == b'\n') {
                match piece.split_last() {
                    Some((b'\n', end)) => {
                        extend_within(line, end);
                        lines.push_back(std::mem::take(line));
                        if lines.len() > count {
                            lines.pop_front();
                        }
                    }
                    _ => extend_within(line, piece),
                }
            }
        }
        lines.extend(unfinished.into_iter().filter(|line| !line.is_empty()));
        let surplus = lines.len().saturating_sub(count);
        lines.iter().skip(surplus).map(|line| shortened(line)).collect()
    }

    /// Appends the bytes between two positions, both of which must be kept.
    fn copy(&self, from: Position, to: Position, out: &mut Vec<u8>) {
        let index = |position: Position| usize::try_from(position - self.start).unwrap_or(usize::MAX);
        let (from, to) = (index(from), index(to).min(self.bytes.len()));
        let (front, back) = self.bytes.as_slices();
        let split = front.len();
        out.extend_from_slice(front.get(from.min(split)..to.min(split)).unwrap_or_default());
        out.extend_from_slice(back.get(from.max(split) - split..to.max(split) - split).unwrap_or_default());
    }

    /// Drops the oldest `count` bytes, except those that are held.
    fn forget(&mut self, count: usize) {
        let free = self.held.map_or(u64::MAX, |held| held.saturating_sub(self.start));
        let count = count.min(usize::try_from(free).unwrap_or(usize::MAX));
        self.bytes.drain(..count);
        self.start += count as u64;
        let mut left = count;
        while let Some(run) = self.runs.front_mut() {
            if run.length > left {
                run.length -= left;
                break;
            }
            left -= run.length;
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::output::tail::Stream::{Stderr, Stdout};

    fn tail(capacity: usize, pushes: &[(Stream, &str)]) -> Tail {
        let mut tail = Tail::new(capacity);
        for (stream, text) in pushes {
            tail.push(*stream, text.as_bytes());
        }
        tail
    }

    #[test]
    fn both_streams_are_kept_in_order_and_apart() {
        let tail = tail(100, &[(Stdout, "a\n"), (Stderr, "b\n"), (Stdout, "c\n"), (Stdout, "d\n")]);
        assert_eq!(tail.contents(None), b"a\nb\nc\nd\n");
        assert_eq!(tail.contents(Some(Stdout)), b"a\nc\nd\n");
        assert_eq!(tail.contents(Some(Stderr)), b"b\n");
    }

    #[test]
    fn held_bytes_are_kept_for_followers_and_dropped_afterwards() {
        let mut tail = tail(10, &[(Stdout, "before")]);
        let position = tail.end();
        tail.hold();
        let mut all = Vec::new();
        for n in 0..200 {
            let (stream, line) = (if n % 2 == 0 { Stdout } else { Stderr }, format!("line {n}\n"));
            tail.push(stream, line.as_bytes());
            all.extend_from_slice(line.as_bytes());
        }
        tail.push(Stdout, &[b'x'; 1_000]);
        all.extend_from_slice(&[b'x'; 1_000]);
        assert_eq!(tail.since(position, None), (all, tail.end()));
        let end = tail.end();
        tail.release();
        assert_eq!((tail.contents(None), tail.end()), (vec![b'x'; 10], end));
        assert!(tail.bytes.capacity() <= 20 && tail.runs.len() == 1);
        tail.push(Stderr, b"after");
        assert_eq!(tail.contents(None), b"xxxxxafter");
    }

    #[test]
    fn the_tail_is_always_the_end_of_the_output() {
        for capacity in [1, 2, 7, 64, 1000] {
            let mut tail = Tail::new(capacity);
            let (mut all, mut places) = (Vec::new(), Vec::new());
            let mut seed = 7_u32;
            for _ in 0..500 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let stream = if seed >> 31 == 0 { Stdout } else { Stderr };
                // Each run needs memory of its own, so pieces here are as long as lines; another test covers short
                // ones.
                let piece =
                    vec![u8::try_from(seed >> 24).unwrap(); 40 + usize::try_from(seed >> 20).unwrap() % 50];
                tail.push(stream, &piece);
                all.extend_from_slice(&piece);
                places.extend(vec![stream; piece.len()]);
                let from = all.len().saturating_sub(capacity);
                assert_eq!(tail.contents(None), all[from..]);
                assert_eq!(tail.end(), all.len() as u64);
                let stderr: Vec<u8> =
                    (from..all.len()).filter(|&n| places[n] == Stderr).map(|n| all[n]).collect();
                assert_eq!(tail.contents(Some(Stderr)), stderr);
            }
        }
    }

    #[test]
    fn streams_that_alternate_by_byte_use_bounded_memory() {
        let mut tail = Tail::new(1 << 16);
        for _ in 0..1 << 16 {
            tail.push(Stdout, b"o");
            tail.push(Stderr, b"e");
        }
        assert!(tail.runs.len() <= most_runs(1 << 16));
        let text = tail.contents(None);
        assert!(text.len() > 2000 && text.ends_with(b"oeoe"));
        assert_eq!(tail.end(), 2 << 16);
    }

    #[test]
    fn a_follower_gets_every_byte_once() {
        let mut tail = Tail::new(10);
        let (mut seen, mut position) = (Vec::new(), 0);
        for text in ["one ", "two ", "three "] {
            tail.push(Stdout, text.as_bytes());
            tail.push(Stderr, b"!");
            let (bytes, next) = tail.since(position, Some(Stdout));
            seen.extend(bytes);
            position = next;
        }
        assert_eq!(seen, b"one two three ");
        assert_eq!(tail.since(position, None), (Vec::new(), 17));
        // A late follower gets what is still kept.
        tail.push(Stdout, &[b'x'; 25]);
        assert_eq!(tail.since(position, None), (vec![b'x'; 10], 42));
    }

    #[test]
    fn last_lines_stay_whole_although_streams_interleave() {
        let tail =
            tail(100, &[(Stdout, "one\ntw"), (Stderr, "oops\n"), (Stdout, "o\nend"), (Stderr, "\u{e9}\n")]);
        assert_eq!(tail.last_lines(0, 10), ["one", "oops", "two", "é", "end"]);
        assert_eq!(tail.last_lines(0, 2), ["é", "end"]);
        assert_eq!(tail.last_lines(0, 0), [""; 0]);
        // The position is in the middle of a kept line.
        assert_eq!(tail.last_lines(11, 10), ["o", "é", "end"]);
        assert_eq!(tail.last_lines(tail.end(), 10), [""; 0]);
        let mut odd = Tail::new(10);
        odd.push(Stdout, b"a\xffb\n");
        assert_eq!(odd.last_lines(0, 10), ["a\u{fffd}b"]);
    }

    #[test]
    fn last_lines_are_cut_between_characters_and_marked() {
        for (line, wanted) in [
            ("x".repeat(512), "x".repeat(512)),
            ("x".repeat(513), "x".repeat(509) + "…"),
            ("x".repeat(1_000_000), "x".repeat(509) + "…"),
            ("\0".repeat(1_000_000), "\0".repeat(509) + "…"),
            ("é".repeat(256), "é".repeat(256)),
            ("é".repeat(257), "é".repeat(254) + "…"),
            ("🦀".repeat(300_000), "🦀".repeat(127) + "…"),
        ] {
            for newline in ["", "\n"] {
                let mut tail = Tail::new(1 << 20);
                for piece in (line.clone() + newline).as_bytes().chunks(10_007) {
                    tail.push(Stdout, piece);
                }
                let from = tail.end() - (line.len() + newline.len()).min(1 << 20) as u64;
                assert!(wanted.len() <= LONGEST_LAST_LINE && from <= tail.end());
                if line.len() <= 1 << 20 {
                    assert_eq!(tail.last_lines(from, 10), [wanted.as_str()]);
                }
            }
        }
        // Each byte becomes U+FFFD, which is three bytes long.
        let mut tail = Tail::new(1 << 20);
        tail.push(Stdout, &[0xff; 300]);
        assert_eq!(tail.last_lines(0, 10), ["\u{fffd}".repeat(169) + "…"]);
    }

    #[test]
    fn nothing_is_kept_or_allocated_when_it_is_off() {
        let mut tail = Tail::new(0);
        tail.push(Stdout, b"text");
        assert!(!tail.is_on() && tail.contents(None).is_empty() && tail.bytes.capacity() == 0);
        assert_eq!(Tail::new(1 << 20).bytes.capacity(), 0);
    }
}
