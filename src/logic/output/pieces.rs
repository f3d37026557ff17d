//! Cuts output into pieces that the kernel gets in one write each, so that several writers of one pipe do not tear
//! each other's lines. Knows nothing about descriptors.

use memchr::{memchr, memrchr};

/// Maximum number of bytes that a pipe takes atomically: `PIPE_BUF`, see pipe(7).
pub(crate) const PIPE_BUF: usize = 4096;

/// Returns the beginning of `bytes` that goes into one write: as many whole lines as fit into `atomic` bytes. A longer
/// line cannot be atomic and is a piece of its own, up to its newline.
pub(crate) fn first(bytes: &[u8], atomic: usize) -> &[u8] {
    let Some(window) = bytes.get(..atomic) else { return bytes };
    let end = memrchr(b'\n', window).or_else(|| memchr(b'\n', bytes)).map_or(bytes.len(), |at| at + 1);
    bytes.get(..end).unwrap_or(bytes)
}

/// Returns how many of `bytes` should be written now if more of the same stream is known to follow. The rest is the
/// beginning of a line and waits for its end, unless it is too long for an atomic write.
pub(crate) fn complete(bytes: &[u8]) -> usize {
    let whole = memrchr(b'\n', bytes).map_or(0, |at| at + 1);
    if bytes.len() - whole < PIPE_BUF { whole } else { bytes.len() }
}

/// Calls `write` for each piece of `bytes` until one is not written whole. Returns how many bytes were written, or the
/// error of the first piece if none was.
pub(crate) fn write<E>(
    bytes: &[u8],
    atomic: usize,
    mut write: impl FnMut(&[u8]) -> Result<usize, E>,
) -> Result<usize, E> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        let piece = first(rest, atomic);
        match write(piece) {
            Ok(length) => {
                taken += length;
                if length < piece.len() {
                    break;
                }
            }
            // A lasting error will be returned by the next write.
            Err(_) if taken > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_whole_lines_or_one_long_line() {
        for (text, wanted) in [
            ("", ""),
            ("abc", "abc"),
            ("a\nb\nc", "a\nb\nc"),
            ("a\nb\nc\nd\n", "a\nb\nc\nd\n"),
            ("a\nb\nc\nde\n", "a\nb\nc\n"),
            ("1234567\n9\n", "1234567\n"),
            ("12345678\n1\n", "12345678\n"),
            ("1234567890\n1\n", "1234567890\n"),
            ("1234567890", "1234567890"),
        ] {
            assert_eq!(first(text.as_bytes(), 8), wanted.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn the_beginning_of_a_line_waits_unless_it_is_too_long() {
        assert_eq!(complete(b""), 0);
        assert_eq!(complete(b"abc"), 0);
        assert_eq!(complete(b"a\nbc"), 2);
        assert_eq!(complete(b"a\n"), 2);
        let long = [&b"a\n"[..], &[b'x'; PIPE_BUF - 1]].concat();
        assert_eq!(complete(&long), 2);
        let long = [&b"a\n"[..], &[b'x'; PIPE_BUF]].concat();
        assert_eq!(complete(&long), long.len());
    }

    #[test]
    fn writing_stops_at_the_first_short_write() {
        let run = |room: usize| {
            let mut out = Vec::new();
            let result = write(b"aa\nbb\ncc\ndd\nee\n", 6, |piece| {
                let length = piece.len().min(room - out.len());
                out.extend_from_slice(&piece[..length]);
                if length > 0 { Ok(length) } else { Err("full") }
            });
            (result, out.len())
        };
        assert_eq!(run(100), (Ok(15), 15));
        assert_eq!(run(12), (Ok(12), 12));
        assert_eq!(run(8), (Ok(8), 8));
        assert_eq!(run(0), (Err("full"), 0));
    }
}
