//! How a peer recognizes the end of a stream: by chunks (RFC 9112, section 7.1) or by the end of the connection.

/// The framing of a body of unknown length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// HTTP/1.1: chunks, the last of them empty. Clients deliver each chunk at once.
    Chunked,
    /// HTTP/1.0: the body ends with the connection.
    UntilClose,
}

impl Framing {
    /// Appends one part of the body. An empty part is left out, because an empty chunk would end the body.
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

    /// Appends the end of the body.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// Returns the length as sixteen hexadecimal digits.
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
    fn each_part_becomes_a_chunk_with_its_length() {
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
    fn until_close_adds_no_framing() {
        let mut out = Vec::new();
        Framing::UntilClose.append(b"part", &mut out);
        Framing::UntilClose.finish(&mut out);
        assert_eq!(out, b"part");
    }
}
