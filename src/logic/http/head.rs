//! Finds the end of a request head, and what can never become one. It remembers how far it has looked, so that a
//! dripped head costs its length once, and refuses at the first byte that no head can have there: whoever speaks
//! TLS, HTTP/2, HTTP/0.9 or the PROXY protocol is told at once instead of being waited for. A verdict depends on the
//! bytes alone, never on how they were cut.

use memchr::memchr;

use super::refusal::{Refusal, UNKNOWN_METHOD, bad};
use super::request::METHOD_LIMIT;

/// The longest request line, its CRLF not counted.
pub const LINE_LIMIT: usize = 8 * 1024;
/// The longest head, from the request line to the empty line, both counted.
pub const HEAD_LIMIT: usize = 16 * 1024;
/// The most fields in a head.
pub const FIELD_LIMIT: usize = 128;
/// Empty lines that are skipped before a request (RFC 9112, section 2.2).
const BLANK_LIMIT: u8 = 8;

/// Where in a head the search stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Method,
    TargetStart,
    Target,
    Version,
    /// The CR after the version was seen.
    LineEnd,
    Fields,
}

/// The state of the search through one head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// Bytes of the head looked at.
    at: u16,
    /// Where the current line of the fields begins.
    line: u16,
    /// Where the version begins.
    version: u16,
    fields: u8,
    blanks: u8,
    part: Part,
}

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet; go on when more bytes are there.
    Partial,
    /// The head is the first so many bytes.
    Head(usize),
    /// No continuation makes this a request.
    Refused(Refusal),
}

impl Search {
    /// How many bytes of empty lines to skip in front of a request; a refusal when there are too many. A CR alone
    /// may become one: it is left.
    pub fn skip_blank(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut skipped = 0;
        while self.at == 0 && bytes.get(skipped..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
            self.blanks += 1;
            if self.blanks > BLANK_LIMIT {
                return Err(bad("too many empty lines before the request"));
            }
            skipped += 2;
        }
        Ok(skipped)
    }

    /// No byte of a head was looked at yet.
    pub fn is_new(&self) -> bool {
        self.at == 0
    }

    /// Goes on with `bytes`, which begin where they began at the last call and may have grown at the end.
    pub fn advance(&mut self, bytes: &[u8]) -> Found {
        if self.part != Part::Fields {
            match self.request_line(bytes) {
                Ok(true) => {}
                Ok(false) => return Found::Partial,
                Err(refusal) => return Found::Refused(refusal),
            }
        }
        self.fields(bytes)
    }

    /// True once the line is complete.
    fn request_line(&mut self, bytes: &[u8]) -> Result<bool, Refusal> {
        let mut at = usize::from(self.at);
        let mut part = self.part;
        for &byte in bytes.get(at..).unwrap_or_default() {
            if at >= LINE_LIMIT && byte != b'\r' && part != Part::LineEnd {
                return Err(Refusal { status: 414, why: "the request line is longer than 8192 bytes" });
            }
            part = match (part, byte) {
                // A lone CR at the very beginning was not yet an empty line when it came.
                (Part::Method, b'\r') if at == 0 => {
                    return match bytes.len() {
                        1 => Ok(false),
                        _ => Err(bad("CR without LF")),
                    };
                }
                (Part::Method, b' ') if at > 0 => Part::TargetStart,
                (Part::Method, byte) if is_token(byte) && at < METHOD_LIMIT => Part::Method,
                (Part::Method, byte) if is_token(byte) => return Err(UNKNOWN_METHOD),
                (Part::Method, 0x16) if at == 0 => return Err(bad("this port speaks plain HTTP, not TLS")),
                (Part::Method, b'\r') => return Err(bad("the request line has no target")),
                (Part::Method, _) => return Err(bad("the method is not a token")),
                (Part::TargetStart, b'/' | b'*' | b'[') => Part::Target,
                (Part::TargetStart, byte) if byte.is_ascii_alphanumeric() => Part::Target,
                (Part::TargetStart, _) => return Err(bad("the request target is malformed")),
                (Part::Target, b' ') => {
                    self.version = small(at + 1);
                    Part::Version
                }
                (Part::Target, b'#') => return Err(bad("the request target has a fragment")),
                (Part::Target, b'!'..=b'~') => Part::Target,
                (Part::Target, b'\r' | b'\n') => return Err(bad("HTTP/0.9 is not supported")),
                (Part::Target, _) => {
                    return Err(bad("the request target has a byte that is not printable ASCII"));
                }
                (Part::Version, b'\r') => Part::LineEnd,
                (Part::Version, b'!'..=b'~') => Part::Version,
                (Part::Version, _) => return Err(bad("the request line is not three words and CRLF")),
                (Part::LineEnd, b'\n') => {
                    let line = bytes.get(..at.saturating_sub(1)).unwrap_or_default();
                    version(line, usize::from(self.version))?;
                    Part::Fields
                }
                (Part::LineEnd, _) => return Err(bad("CR without LF")),
                (Part::Fields, _) => Part::Fields,
            };
            at += 1;
            if part == Part::Fields {
                break;
            }
        }
        (self.at, self.line, self.part) = (small(at), small(at), part);
        Ok(part == Part::Fields)
    }

    fn fields(&mut self, bytes: &[u8]) -> Found {
        let window = bytes.get(..HEAD_LIMIT).unwrap_or(bytes);
        let mut at = usize::from(self.at);
        let mut line = usize::from(self.line);
        while let Some(step) = memchr(b'\n', window.get(at..).unwrap_or_default()) {
            let end = at + step;
            if window.get(end.saturating_sub(1)) != Some(&b'\r') {
                return Found::Refused(bad("LF without CR"));
            }
            if end == line + 1 {
                return Found::Head(end + 1);
            }
            if usize::from(self.fields) >= FIELD_LIMIT {
                return Found::Refused(Refusal {
                    status: 431,
                    why: "the request head has more than 128 fields",
                });
            }
            self.fields += 1;
            (at, line) = (end + 1, end + 1);
        }
        if bytes.len() >= HEAD_LIMIT {
            return Found::Refused(Refusal {
                status: 431,
                why: "the request head is longer than 16384 bytes",
            });
        }
        (self.at, self.line) = (small(window.len()), small(line));
        Found::Partial
    }
}

/// Positions are below the limits, which u16 holds.
fn small(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}

/// tchar of RFC 9110, section 5.6.2.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// HTTP/1.0 and HTTP/1.1 pass.
fn version(line: &[u8], at: usize) -> Result<(), Refusal> {
    match line.get(at..).unwrap_or_default() {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        b"HTTP/2.0" if line.starts_with(b"PRI ") => Err(bad("HTTP/2 is not supported")),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal { status: 505, why: "only HTTP/1.0 and HTTP/1.1 are supported" })
        }
        _ => Err(bad("the HTTP version is malformed")),
    }
}
