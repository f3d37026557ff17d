//! Searches captured output for the text of `--ready-line`. Knows nothing about where the output comes from.
//!
//! The text contains no newline, so a match never spans two lines and the search needs no lines. The state is one
//! number, whatever the length of a line, because the table of Knuth, Morris and Pratt says how much of the text has
//! been matched after each byte.

use memchr::memchr;

/// A search in the output of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyLine {
    /// For each byte of the text: the byte, and the length of the longest beginning of the text that the text up to
    /// this byte ends with (and that is not all of it).
    text: &'static [(u8, u16)],
    /// How many bytes of the text the output ends with; all of them once the text was found.
    matched: usize,
}

impl ReadyLine {
    /// Returns a search for a text that is not empty and has at most 65535 bytes. Copies of it begin anew. The text is
    /// never freed: there is one for the whole life of kapo.
    pub(crate) fn new(text: &[u8]) -> ReadyLine {
        let mut table: Vec<(u8, u16)> = Vec::with_capacity(text.len());
        let mut border = 0;
        for &byte in text {
            if !table.is_empty() {
                border = extend(&table, border, byte);
            }
            table.push((byte, u16::try_from(border).unwrap_or(0)));
        }
        ReadyLine { text: table.leak(), matched: 0 }
    }

    /// Whether the text was found.
    pub(crate) fn is_found(&self) -> bool {
        self.matched == self.text.len()
    }

    /// Searches the next bytes of the output.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        let Some(&(first, _)) = self.text.first() else { return };
        while !self.is_found() {
            if self.matched == 0 {
                let Some(at) = memchr(first, bytes) else { return };
                bytes = bytes.get(at..).unwrap_or_default();
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            self.matched = extend(self.text, self.matched, byte);
            bytes = rest;
        }
    }
}

/// Returns how many bytes of the text are matched after another byte, if `matched` of them were matched before.
fn extend(text: &[(u8, u16)], mut matched: usize, byte: u8) -> usize {
    loop {
        match text.get(matched) {
            Some((expected, _)) if *expected == byte => return matched + 1,
            _ if matched == 0 => return 0,
            _ => matched = text.get(matched - 1).map_or(0, |(_, border)| usize::from(*border)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::random::Random;
    use std::time::Duration;

    fn found(text: &[u8], chunks: &[&[u8]]) -> bool {
        let mut search = ReadyLine::new(text);
        for chunk in chunks {
            search.push(chunk);
        }
        search.is_found()
    }

    #[test]
    fn a_text_is_found_over_the_borders_of_reads() {
        let long = [b'x'; 200_000];
        for (text, chunks, expected) in [
            ("ready", &[&b"server ready\n"[..]][..], true),
            ("ready", &[b"server rea", b"dy\n"], true),
            ("ready", &[b"r", b"e", b"a", b"d", b"", b"y"], true),
            ("ready", &[b"rea\ndy"], false),
            ("ready", &[b"READY rread", b"\ny"], false),
            ("aab", &[b"aaaa", b"aab"], true),
            ("aabaaac", &[b"aabaabaa", b"ac"], true),
            ("x", &[b""], false),
            ("xready", &[&long, &long, b"ready"], true),
            ("\u{e9}\u{ff}", &[b"\xc3", b"\xa9\xc3\xbf"], true),
        ] {
            assert_eq!(found(text.as_bytes(), chunks), expected, "{text} {}", chunks.len());
        }
        let longest = vec![b'a'; 1024];
        assert!(!found(&longest, &[&longest[1..], b"b", &longest[1..]]));
        assert!(found(&longest, &[&longest[1..], b"b", &longest[1..], b"a"]));
    }

    #[test]
    fn copies_search_independently() {
        let fresh = ReadyLine::new(b"ab");
        let (mut one, mut other) = (fresh, fresh);
        one.push(b"a");
        other.push(b"b");
        one.push(b"b");
        assert!(one.is_found() && !other.is_found() && !fresh.is_found());
    }

    #[test]
    fn any_chunks_give_the_same_answer_as_a_naive_search() {
        let mut random = Random::new(7);
        let mut pick = |sides: u32| -> usize {
            let drawn = random.between(Duration::ZERO, Duration::from_nanos(u64::from(sides) - 1));
            usize::try_from(drawn.as_nanos()).unwrap()
        };
        let mut matches = 0;
        for _ in 0..20_000 {
            let letters = 1 + pick(3);
            let mut word = |length: usize, other: &[u8]| -> Vec<u8> {
                (0..length).map(|_| *other.get(pick(8)).unwrap_or(&b"abc"[pick(3) % letters])).collect()
            };
            let (text, output) = (word(1, b""), word(40, b"\n"));
            let text = [text, word(output.len() % 7, b"")].concat();
            let text = &text[..1 + pick(6).min(text.len() - 1)];
            let naive = output.split(|b| *b == b'\n').any(|line| line.windows(text.len()).any(|w| w == text));
            matches += usize::from(naive);
            let mut search = ReadyLine::new(text);
            let mut rest = &output[..];
            while !rest.is_empty() {
                let (chunk, more) = rest.split_at(pick(9).min(rest.len()));
                search.push(chunk);
                rest = more;
            }
            assert_eq!(search.is_found(), naive, "{text:?} in {output:?}");
        }
        assert!((2_000..18_000).contains(&matches), "{matches}");
    }
}
