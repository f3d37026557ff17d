//! Decodes a chunked body (RFC 9112, section 7.1) strictly: errors that a lenient client would ignore fail the test.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

/// The chunked body of an answer. It must end with the last chunk and the end of the connection.
pub(crate) struct Chunked<R> {
    from: BufReader<R>,
    left: usize,
    ended: bool,
}

impl<R: Read> Chunked<R> {
    /// Creates the decoder. `from` has been read up to the end of the head.
    pub(crate) fn body_of(from: R) -> Chunked<R> {
        Chunked { from: BufReader::new(from), left: 0, ended: false }
    }

    /// Returns the next whole chunk; `None` after the last one.
    pub(crate) fn chunk(&mut self) -> Result<Option<String>> {
        let length = self.begin()?;
        let mut chunk = vec![0; length];
        self.read_exact(&mut chunk)?;
        Ok(Some(String::from_utf8(chunk).unwrap()).filter(|_| length > 0))
    }

    /// Reads the head of the next chunk unless one is in progress. Returns the remaining length; 0 at the end of the
    /// body.
    fn begin(&mut self) -> Result<usize> {
        if self.left > 0 || self.ended {
            return Ok(self.left);
        }
        let head = self.line()?;
        let digits = head.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
        assert!(
            digits && !head.is_empty() && (head == "0" || !head.starts_with('0')),
            "head of a chunk: {head:?}"
        );
        self.left = usize::from_str_radix(&head, 16).unwrap();
        if self.left == 0 {
            self.ended = true;
            assert_eq!(self.line()?, "", "no trailer");
            let mut rest = Vec::new();
            self.from.read_to_end(&mut rest)?;
            assert_eq!(rest, b"", "nothing comes behind the last chunk");
        }
        Ok(self.left)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.from.read_until(b'\n', &mut line)?;
        let cut = || Error::from(ErrorKind::UnexpectedEof);
        let text = line.strip_suffix(b"\n").ok_or_else(cut)?.strip_suffix(b"\r").expect("CR before LF");
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }
}

impl<R: Read> Read for Chunked<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let most = self.begin()?.min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut into[..most])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        if self.left == 0 {
            assert_eq!(self.line()?, "", "a chunk is as long as it says");
        }
        Ok(read)
    }
}
