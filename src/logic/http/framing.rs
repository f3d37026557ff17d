//! How the peer finds the end of a stream: by chunks (RFC 9112, section 7.1) or by the end of the connection.

/// The framing of a body whose length is not known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// HTTP/1.1: chunks, ended by an empty one. Clients deliver each chunk at once.
    Chunked,
    /// HTTP/1.0: everything until the connection ends.
    UntilClose,
}

impl Framing {
    /// Appends one part of the body. Nothing for an empty part, because an empty chunk is the end.
    pub fn append(self, part: &[u8], out: &mut Vec<u8>) {
        if part.is_empty() {
            return;
        }
        if self == Framing::UntilClose {
            return out.extend_from_slice(part);
        }
        let digits = hexadecimal(part.len());
        let digits =
            digits.get(digits.iter().take_while(|digit| **digit == b'0').count()..).unwrap_or_default();
        out.reserve(digits.len() + part.len() + 4);
        out.extend_from_slice(digits);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends what says that the body is complete.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// All sixteen digits of a length.
fn hexadecimal(length: usize) -> [u8; 16] {
    let mut digits = [b'0'; 16];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef".get(length >> (4 * place) & 0xf).copied().unwrap_or(b'0');
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_chunks_of_their_length() {
        for (length, head) in [(1, "1"), (9, "9"), (10, "a"), (16, "10"), (255, "ff"), (524_288, "80000")] {
            let part = vec![b'x'; length];
            let mut out = Vec::new();
            Framing::Chunked.append(&part, &mut out);
            assert_eq!(out, [head.as_bytes(), b"\r\n", &part, b"\r\n"].concat());
        }
    }

    #[test]
    fn an_empty_part_does_not_end_the_body() {
        let mut out = Vec::new();
        Framing::Chunked.append(b"", &mut out);
        assert_eq!(out, b"");
        Framing::Chunked.finish(&mut out);
        assert_eq!(out, b"0\r\n\r\n");
    }

    #[test]
    fn until_close_nothing_is_added() {
        let mut out = Vec::new();
        Framing::UntilClose.append(b"part", &mut out);
        Framing::UntilClose.finish(&mut out);
        assert_eq!(out, b"part");
    }
}
