//! Finds the end of a request head. The search remembers its position, so that a head that arrives byte by byte is
//! scanned only once. It refuses at the first byte that cannot occur there, so that a client that sends TLS, HTTP/2,
//! HTTP/0.9 or the PROXY protocol gets an answer at once instead of a timeout. The result depends only on the bytes,
//! never on how they were split into reads.

use memchr::memchr;

use super::refusal::{Refusal, UNKNOWN_METHOD, bad};
use super::request::METHOD_LIMIT;

/// The longest request line in bytes, without its CRLF.
pub const LINE_LIMIT: usize = 8 * 1024;
/// The longest head in bytes, including the request line and the final empty line.
pub const HEAD_LIMIT: usize = 16 * 1024;
/// The largest number of fields in a head.
pub const FIELD_LIMIT: usize = 128;
/// How many empty lines before a request are skipped (RFC 9112, section 2.2).
const BLANK_LIMIT: u8 = 8;

/// The part of the head that the search has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HeadPart {
    #[default]
    Method,
    TargetStart,
    Target,
    Version,
    /// The CR after the version was read.
    LineEnd,
    Fields,
}

/// The state of the search through one head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// How many bytes of the head were scanned.
    at: u16,
    /// Where the current field line begins.
    line: u16,
    /// Where the version begins.
    version: u16,
    fields: u8,
    blanks: u8,
    part: HeadPart,
}

/// The result of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The head is not complete; continue with more bytes.
    Partial,
    /// The head is complete and has this many bytes.
    Head(usize),
    /// The bytes cannot become a valid request.
    Refused(Refusal),
}

impl Search {
    /// Returns how many bytes of empty lines precede the request, or a refusal if there are too many. A lone CR is not
    /// skipped, because it may become an empty line.
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

    /// Whether no byte of a head was scanned yet.
    pub fn is_new(&self) -> bool {
        self.at == 0
    }

    /// Continues the search. `bytes` must begin at the same byte as in the last call and may have grown at the end.
    pub fn advance(&mut self, bytes: &[u8]) -> Found {
        if self.part != HeadPart::Fields {
            match self.request_line(bytes) {
                Ok(true) => {}
                Ok(false) => return Found::Partial,
                Err(refusal) => return Found::Refused(refusal),
            }
        }
        self.fields(bytes)
    }

    /// Scans the request line and returns whether it is complete.
    fn request_line(&mut self, bytes: &[u8]) -> Result<bool, Refusal> {
        let mut at = usize::from(self.at);
        let mut part = self.part;
        for &byte in bytes.get(at..).unwrap_or_default() {
            if at >= LINE_LIMIT && byte != b'\r' && part != HeadPart::LineEnd {
                return Err(Refusal { status: 414, why: "the request line is longer than 8192 bytes" });
            }
            part = match (part, byte) {
                // [`Search::skip_blank`] leaves a lone CR at the start, because its LF may follow.
                (HeadPart::Method, b'\r') if at == 0 => {
                    return match bytes.len() {
                        1 => Ok(false),
                        _ => Err(bad("CR without LF")),
                    };
                }
                (HeadPart::Method, b' ') if at > 0 => HeadPart::TargetStart,
                (HeadPart::Method, byte) if is_token(byte) && at < METHOD_LIMIT => HeadPart::Method,
                (HeadPart::Method, byte) if is_token(byte) => return Err(UNKNOWN_METHOD),
                (HeadPart::Method, 0x16) if at == 0 => {
                    return Err(bad("this port speaks plain HTTP, not TLS"));
                }
                (HeadPart::Method, b'\r') => return Err(bad("the request line has no target")),
                (HeadPart::Method, _) => return Err(bad("the method is not a token")),
                (HeadPart::TargetStart, b'/' | b'*' | b'[') => HeadPart::Target,
                (HeadPart::TargetStart, byte) if byte.is_ascii_alphanumeric() => HeadPart::Target,
                (HeadPart::TargetStart, _) => return Err(bad("the request target is malformed")),
                (HeadPart::Target, b' ') => {
                    self.version = small(at + 1);
                    HeadPart::Version
                }
                (HeadPart::Target, b'#') => return Err(bad("the request target has a fragment")),
                (HeadPart::Target, b'!'..=b'~') => HeadPart::Target,
                (HeadPart::Target, b'\r' | b'\n') => return Err(bad("HTTP/0.9 is not supported")),
                (HeadPart::Target, _) => {
                    return Err(bad("the request target has a byte that is not printable ASCII"));
                }
                (HeadPart::Version, b'\r') => HeadPart::LineEnd,
                (HeadPart::Version, b'!'..=b'~') => HeadPart::Version,
                (HeadPart::Version, _) => return Err(bad("the request line is not three words and CRLF")),
                (HeadPart::LineEnd, b'\n') => {
                    let line = bytes.get(..at.saturating_sub(1)).unwrap_or_default();
                    version(line, usize::from(self.version))?;
                    HeadPart::Fields
                }
                (HeadPart::LineEnd, _) => return Err(bad("CR without LF")),
                (HeadPart::Fields, _) => HeadPart::Fields,
            };
            at += 1;
            if part == HeadPart::Fields {
                break;
            }
        }
        (self.at, self.line, self.part) = (small(at), small(at), part);
        Ok(part == HeadPart::Fields)
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

/// Converts a position. All positions are below the limits, which fit in u16.
fn small(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}

/// Whether a byte is a tchar (RFC 9110, section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Accepts HTTP/1.0 and HTTP/1.1.
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
