//! Prepares the output of `kapo logs`: the last lines of a text, and output of a command in a form that is safe for a
//! terminal.

/// The maximum length of a colour sequence, from ESC to `m`.
const LONGEST_COLOUR: usize = 32;

/// Returns the last `most` lines. Text after the last newline counts as a line.
pub(crate) fn last_lines(text: &[u8], most: usize) -> &[u8] {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut start = text.len();
    for _ in 0..most {
        let Some(line) = lines.next_back() else { break };
        start -= line.len();
    }
    text.get(start..).unwrap_or_default()
}

/// Escapes control characters for a terminal, except newlines, tabs and colours (SGR). The input may be divided
/// anywhere.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    /// The incomplete beginning of a character or colour sequence.
    pending: Vec<u8>,
    /// Whether a colour was shown, which may still be active.
    coloured: bool,
}

/// The kind of sequence that an ESC begins.
enum Sequence {
    /// A colour sequence of this length.
    Colour(usize),
    /// Possibly the beginning of a colour sequence.
    Incomplete,
    /// Any other sequence.
    Other,
}

impl Screen {
    /// Appends `bytes` to `out` in their safe form.
    pub(crate) fn show(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut text = std::mem::take(&mut self.pending);
        text.extend_from_slice(bytes);
        let kept = self.take(&text, false, out);
        self.pending = text.split_off(kept);
    }

    /// Appends the incomplete rest at the end of the input, and resets the colours.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.pending);
        self.take(&text, true, out);
        if self.coloured {
            out.extend_from_slice(b"\x1b[0m");
        }
    }

    /// Returns how many bytes of `text` were consumed. If it is the `last` text, all of them are.
    fn take(&mut self, text: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            // A character has at most 4 bytes.
            let head = rest.get(..4).unwrap_or(rest);
            let valid = match std::str::from_utf8(head) {
                Ok(valid) => valid,
                Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() && !last => break,
                Err(error) => std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default())
                    .unwrap_or_default(),
            };
            let Some(c) = valid.chars().next() else {
                out.extend_from_slice(format!("\\x{:02x}", rest.first().unwrap_or(&0)).as_bytes());
                at += 1;
                continue;
            };
            at += match c {
                '\x1b' => match sequence(rest) {
                    Sequence::Colour(length) => {
                        out.extend_from_slice(rest.get(..length).unwrap_or_default());
                        self.coloured = true;
                        length
                    }
                    Sequence::Incomplete if !last => break,
                    _ => escape(c, out),
                },
                '\n' | '\t' => {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    1
                }
                c if c.is_control() => escape(c, out),
                c => {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    c.len_utf8()
                }
            };
        }
        at
    }
}

/// Appends the escaped character. Returns its length in bytes.
fn escape(c: char, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(c.escape_default().to_string().as_bytes());
    c.len_utf8()
}

/// Classifies a sequence. A colour is ESC `[`, digits, `;` and `:`, and an `m` (ECMA-48, section 8.3.117).
fn sequence(text: &[u8]) -> Sequence {
    match text.get(1) {
        None => return Sequence::Incomplete,
        Some(b'[') => {}
        Some(_) => return Sequence::Other,
    }
    let parameters = text.iter().skip(2).take_while(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')).count();
    let end = 2 + parameters;
    match text.get(end) {
        _ if end >= LONGEST_COLOUR => Sequence::Other,
        Some(b'm') => Sequence::Colour(end + 1),
        Some(_) => Sequence::Other,
        None => Sequence::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (text, most, last) in [
            ("", 3, ""),
            ("one\ntwo\nthree\n", 0, ""),
            ("one\ntwo\nthree\n", 2, "two\nthree\n"),
            ("one\ntwo\nthree", 1, "three"),
            ("one\n\n\n", 2, "\n\n"),
            ("one\ntwo\n", 9, "one\ntwo\n"),
            ("one\ntwo\n", usize::MAX, "one\ntwo\n"),
        ] {
            assert_eq!(last_lines(text.as_bytes(), most), last.as_bytes(), "{text:?} {most}");
        }
    }

    #[test]
    fn a_terminal_gets_only_text_and_colours() {
        let long = format!("\x1b[{}m", "1".repeat(40));
        for (text, shown) in [
            (
                &b"plain\ttext\n\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"[..],
                "plain\ttext\n\u{e4}\u{20ac}\u{1f600}".to_owned(),
            ),
            (b"\x1b[1;31mred\x1b[m \x1b[38:5:1mx", "\x1b[1;31mred\x1b[m \x1b[38:5:1mx\x1b[0m".to_owned()),
            (b"a\rb\x07\x00\x7f\xc2\x9b2J", "a\\rb\\u{7}\\u{0}\\u{7f}\\u{9b}2J".to_owned()),
            (b"\x1b[2J\x1b]0;title\x07\x1bc", "\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{1b}c".to_owned()),
            (b"\xff\xc3(\xe2\x82", "\\xff\\xc3(\\xe2\\x82".to_owned()),
            (b"end\x1b[3", "end\\u{1b}[3".to_owned()),
            (b"end\x1b", "end\\u{1b}".to_owned()),
            (long.as_bytes(), long.replace('\x1b', "\\u{1b}")),
        ] {
            for step in 1..=text.len() {
                let (mut screen, mut out) = (Screen::default(), Vec::new());
                for piece in text.chunks(step) {
                    screen.show(piece, &mut out);
                    assert!(screen.pending.len() <= LONGEST_COLOUR, "{:?}", screen.pending);
                }
                screen.finish(&mut out);
                assert_eq!(String::from_utf8(out).unwrap(), shown, "by {step}");
            }
        }
    }
}
