//! Keeps the last line of a program's output, however much there is.

use crate::error::one_line;

/// How many bytes of a line are kept.
const MOST: usize = 200;

/// The last line with visible text.
#[derive(Debug, Default)]
pub(crate) struct LastLine {
    /// The line that has no end yet.
    current: Vec<u8>,
    complete: Vec<u8>,
}

impl LastLine {
    /// Adds output.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                if !self.current.trim_ascii().is_empty() {
                    std::mem::swap(&mut self.current, &mut self.complete);
                }
                self.current.clear();
            } else if self.current.len() < MOST {
                self.current.push(*byte);
            }
        }
    }

    /// Returns the line without blanks at its ends; control characters are escaped.
    pub(crate) fn text(&self) -> String {
        let line = match self.current.trim_ascii() {
            [] => self.complete.trim_ascii(),
            current => current,
        };
        one_line(&String::from_utf8_lossy(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(pieces: &[&str]) -> String {
        let mut line = LastLine::default();
        pieces.iter().for_each(|piece| line.push(piece.as_bytes()));
        line.text()
    }

    #[test]
    fn blank_lines_and_cuts_do_not_matter() {
        assert_eq!(last(&[]), "");
        assert_eq!(last(&["one\ntwo\n"]), "two");
        assert_eq!(last(&["one\nt", "wo\r\n", " \n\n"]), "two");
        assert_eq!(last(&["one\n", "  two\x1b"]), "two\\u{1b}");
    }

    #[test]
    fn a_line_without_an_end_stays_small() {
        let mut line = LastLine::default();
        for _ in 0..1_000 {
            line.push(&[b'x'; 1_000]);
        }
        assert_eq!(line.text().len(), MOST);
        assert!(line.current.capacity() <= 2 * MOST);
    }
}
