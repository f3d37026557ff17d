//! Decodes the body of an answer as it arrives: by its length, in chunks (RFC 9112, section 7.1), or up to the end of
//! the connection.

/// The maximum length of the head of a chunk, in bytes.
const LONGEST_CHUNK_HEAD: usize = 4096;

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The body has this many more bytes.
    Length(u64),
    /// The body ends with the connection.
    Connection,
    /// The body comes in chunks.
    Chunked(Chunk),
}

/// The position of the next byte within a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// In the head: the size so far, the number of digits, and the length of the text after them.
    Head { size: u64, digits: u32, extension: usize },
    /// In the content, which has this many more bytes.
    Content(u64),
    /// In the line end after the content, which has this many more bytes.
    End(u8),
    /// After the last chunk.
    Last,
}

/// A decoded part of the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyPart<'a> {
    /// Content, and whether a chunk ends after it.
    Content(&'a [u8], bool),
    /// More input is needed.
    More,
    /// The body is complete. The remaining input does not belong to it.
    Complete,
    /// The input is not a valid chunk.
    Malformed,
}

impl Body {
    /// A body in chunks, of which nothing was read yet.
    pub(crate) const CHUNKED: Body = Body::Chunked(Chunk::NEW);

    /// Decodes the next part and removes it from the front of `input`. After [`BodyPart::More`], `input` is empty.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> BodyPart<'a> {
        match self {
            Body::Length(0) => BodyPart::Complete,
            Body::Length(left) => match take(input, left) {
                [] => BodyPart::More,
                content => BodyPart::Content(content, *left == 0),
            },
            Body::Connection => match std::mem::take(input) {
                [] => BodyPart::More,
                content => BodyPart::Content(content, false),
            },
            Body::Chunked(chunk) => chunk.next(input),
        }
    }

    /// Whether the body is complete if the connection ends now.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Connection | Body::Chunked(Chunk::Last))
    }
}

impl Chunk {
    const NEW: Chunk = Chunk::Head { size: 0, digits: 0, extension: 0 };

    fn next<'a>(&mut self, input: &mut &'a [u8]) -> BodyPart<'a> {
        loop {
            if let Chunk::Last = self {
                return BodyPart::Complete;
            }
            if let Chunk::Content(left) = self {
                let content = take(input, left);
                let ends = *left == 0;
                if ends {
                    *self = Chunk::End(2);
                }
                return if content.is_empty() { BodyPart::More } else { BodyPart::Content(content, ends) };
            }
            let Some((&byte, rest)) = input.split_first() else { return BodyPart::More };
            *input = rest;
            *self = match (*self, byte) {
                (Chunk::End(2), b'\r') => Chunk::End(1),
                (Chunk::End(1), b'\n') => Chunk::NEW,
                (Chunk::Head { size: 0, digits: 1.., .. }, b'\n') => Chunk::Last,
                (Chunk::Head { size, digits: 1.., .. }, b'\n') => Chunk::Content(size),
                (Chunk::Head { size, digits, extension: 0 }, digit) if digit.is_ascii_hexdigit() => {
                    let value = char::from(digit).to_digit(16).unwrap_or_default();
                    if digits == 16 {
                        return BodyPart::Malformed;
                    }
                    Chunk::Head { size: size << 4 | u64::from(value), digits: digits + 1, extension: 0 }
                }
                (Chunk::Head { size, digits: digits @ 1.., extension }, byte)
                    if extension < LONGEST_CHUNK_HEAD
                        && (extension > 0 || matches!(byte, b'\r' | b';' | b' ' | b'\t')) =>
                {
                    Chunk::Head { size, digits, extension: extension + 1 }
                }
                _ => return BodyPart::Malformed,
            };
        }
    }
}

/// Removes at most `left` bytes from the input and subtracts them from `left`.
fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let at = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at_checked(at).unwrap_or((input, &[]));
    *input = rest;
    *left -= u64::try_from(taken.len()).unwrap_or(*left);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a body in pieces of `step` bytes. Returns the content, how the body ended, and the number of complete
    /// chunks.
    fn read(mut body: Body, text: &[u8], step: usize) -> (String, &'static str, usize) {
        let (mut content, mut chunks) = (Vec::new(), 0);
        for mut piece in text.chunks(step) {
            loop {
                match body.next(&mut piece) {
                    BodyPart::Content(part, ends) => {
                        assert!(!part.is_empty());
                        content.extend_from_slice(part);
                        chunks += usize::from(ends);
                    }
                    BodyPart::More => break,
                    BodyPart::Complete => return (String::from_utf8(content).unwrap(), "complete", chunks),
                    BodyPart::Malformed => return (String::from_utf8(content).unwrap(), "malformed", chunks),
                }
            }
            assert!(piece.is_empty());
        }
        let end = if body.may_end() { "complete" } else { "cut" };
        (String::from_utf8(content).unwrap(), end, chunks)
    }

    #[test]
    fn a_body_is_the_same_in_pieces_of_any_size() {
        for (body, text, content, end, chunks) in [
            (Body::Length(0), "x", "", "complete", 0),
            (Body::Length(3), "whyx", "why", "complete", 1),
            (Body::Length(4), "why", "why", "cut", 0),
            (Body::Connection, "why", "why", "complete", 0),
            (Body::CHUNKED, "2;x=y\r\nwh\r\n1\r\ny\r\n0\r\n\r\n", "why", "complete", 2),
            (Body::CHUNKED, "0A \r\n0123456789\r\n000\r\nTrailer: x\r\n\r\n", "0123456789", "complete", 1),
            (Body::CHUNKED, "5\r\nwhy", "why", "cut", 0),
            (Body::CHUNKED, "3\r\nwhy\r\n", "why", "cut", 1),
            (Body::CHUNKED, "3\r\nwhyx", "why", "malformed", 1),
            (Body::CHUNKED, "why", "", "malformed", 0),
            (Body::CHUNKED, "\r\n", "", "malformed", 0),
            (Body::CHUNKED, ";x\r\n", "", "malformed", 0),
            (Body::CHUNKED, "3x\r\nwhy", "", "malformed", 0),
            (Body::CHUNKED, "00000000000000001\r\nx", "", "malformed", 0),
            (Body::CHUNKED, "ffffffffffffffff\r\nx", "x", "cut", 0),
        ] {
            for step in 1..=text.len() {
                assert_eq!(
                    read(body, text.as_bytes(), step),
                    (content.to_owned(), end, chunks),
                    "{text} by {step}"
                );
            }
        }
    }

    #[test]
    fn the_head_of_a_chunk_has_a_limit() {
        let text = format!("3;{}", "x".repeat(5_000));
        assert_eq!(read(Body::CHUNKED, text.as_bytes(), 64), (String::new(), "malformed", 0));
    }
}
