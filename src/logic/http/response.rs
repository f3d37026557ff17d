//! Answers as bytes. All answers of a turn are written into one buffer of the loop ([`Out`]), so that answers to
//! pipelined requests leave with one send(2) and an idle connection owns no buffer.

use std::time::UNIX_EPOCH;

use super::framing::Framing;
use super::{Method, Now, Persist};
use crate::logic::log::timestamp::imf_fixdate;

/// A buffer that has grown beyond this is freed after its bytes were sent.
const KEEP_CAPACITY: usize = 64 * 1024;

/// The loop's buffer for answers and the caches that answers share: the Date, which is formatted once a second, and the
/// head of the last answer.
#[derive(Default)]
pub struct Out {
    /// The bytes to send.
    pub bytes: Vec<u8>,
    second: u64,
    date: String,
    last: LastHead,
}

/// The head of the last answer, which is reused for the next answer if it is of the same kind and in the same second.
#[derive(Default)]
struct LastHead {
    /// The bytes of the head; empty if there is none.
    head: Vec<u8>,
    second: u64,
    status: u16,
    content_type: &'static str,
    length: Length,
    persist: Option<Persist>,
}

/// How the head describes the length of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    /// It has no length, because there is no body.
    #[default]
    Unsaid,
    /// Content-Length.
    Known(usize),
    /// The body is a stream with this framing.
    Framed(Framing),
}

impl Out {
    /// Returns an empty buffer, which owns no memory before the first answer.
    pub fn new() -> Out {
        Out::default()
    }

    /// Removes all bytes, and frees the memory if the buffer is unusually large.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes = Vec::new();
        }
    }

    fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn push_number(&mut self, mut number: usize) {
        // 20 digits hold any usize.
        let mut digits = [b'0'; 20];
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789".get(number % 10).copied().unwrap_or(b'0');
            number /= 10;
            used += 1;
            if number == 0 {
                break;
            }
        }
        self.bytes.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
    }

    fn push_length(&mut self, length: Length) {
        match length {
            Length::Unsaid => {}
            Length::Known(length) => {
                self.push("\r\nContent-Length: ");
                self.push_number(length);
            }
            Length::Framed(framing) => {
                if framing == Framing::Chunked {
                    self.push("\r\nTransfer-Encoding: chunked");
                }
                // This makes nginx and compatible proxies pass the stream on at once instead of filling a buffer first.
                self.push("\r\nX-Accel-Buffering: no");
            }
        }
    }

    /// Keeps the head that begins at `begin` for the next answer. `last` has no head yet.
    fn keep_head(&mut self, begin: usize, last: LastHead) {
        let mut head = std::mem::take(&mut self.last.head);
        head.clear();
        head.extend_from_slice(self.bytes.get(begin..).unwrap_or_default());
        self.last = LastHead { head, ..last };
    }

    fn push_date(&mut self, now: Now) {
        let second = second(now);
        if second != self.second || self.date.is_empty() {
            self.second = second;
            self.date = imf_fixdate(now.wall);
        }
        self.bytes.extend_from_slice(self.date.as_bytes());
    }
}

fn second(now: Now) -> u64 {
    now.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Writes one answer to one request. The connection supplies the method and whether it stays open; the handler supplies
/// the rest.
pub struct Reply<'a> {
    out: &'a mut Out,
    now: Now,
    head_only: bool,
    persist: Persist,
    framing: Framing,
}

impl<'a> Reply<'a> {
    /// Returns a reply to a request of this method, which is appended to `out`.
    pub fn new(out: &'a mut Out, now: Now, method: Method, persist: Persist) -> Reply<'a> {
        Reply { out, now, head_only: method == Method::Head, persist, framing: Framing::UntilClose }
    }

    /// Sets the framing for [`Reply::stream`].
    pub fn framed(mut self, framing: Framing) -> Reply<'a> {
        self.framing = framing;
        self
    }

    /// Writes a whole answer: status line, Date, Server, Content-Type, Content-Length, Cache-Control, Connection if it
    /// is needed, the `extra` fields, and `body` unless the method is HEAD. An empty `content_type` omits that field. Fields
    /// that are the same in each answer of a kind may follow the type after a CRLF, because the head of the last answer
    /// is reused only if there are no `extra` fields.
    /// Status 204 omits Content-Type, Content-Length and body.
    pub fn send(self, status: u16, content_type: &'static str, extra: &[(&str, String)], body: &[u8]) {
        let length = if status == 204 { Length::Unsaid } else { Length::Known(body.len()) };
        let body = if self.head_only || length == Length::Unsaid { &[] } else { body };
        self.write(status, content_type, length, extra, body);
    }

    /// Writes an answer to HEAD whose body was not produced. `length` is the length of the body that GET would get;
    /// `None` if it is not known without producing the body (RFC 9110, section 9.3.2).
    pub fn send_head(self, status: u16, content_type: &'static str, length: Option<usize>) {
        let length = length.map_or(Length::Unsaid, Length::Known);
        self.write(status, content_type, length, &[], &[]);
    }

    /// Writes the head (status 200) and the first part of a stream, which ends with the connection at the latest. For
    /// HEAD it writes the head only.
    pub fn stream(mut self, content_type: &'static str, first: &[u8]) {
        self.persist = Persist::Close;
        let first = if self.head_only { &[] } else { first };
        let length = Length::Framed(self.framing);
        self.write(200, content_type, length, &[], first);
    }

    fn write(
        self,
        status: u16,
        content_type: &'static str,
        length: Length,
        extra: &[(&str, String)],
        body: &[u8],
    ) {
        let out = self.out;
        let (second, persist) = (second(self.now), Some(self.persist));
        let last = &out.last;
        let alike = extra.is_empty()
            && (last.status, last.length, last.second) == (status, length, second)
            && last.persist == persist
            && std::ptr::eq(last.content_type, content_type);
        if alike {
            out.bytes.reserve(last.head.len() + body.len());
            out.bytes.extend_from_slice(&last.head);
            return length.append(body, &mut out.bytes);
        }
        let begin = out.bytes.len();
        // One allocation at most, because the fixed fields need less than this.
        out.bytes.reserve(384 + body.len());
        out.push(status_line(status));
        out.push("\r\nServer: kapo\r\nDate: ");
        out.push_date(self.now);
        if !content_type.is_empty() && status != 204 {
            out.push("\r\nContent-Type: ");
            out.push(content_type);
        }
        out.push_length(length);
        // A browser must not treat captured output as HTML or as a script.
        out.push("\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff");
        for (name, value) in extra {
            out.push("\r\n");
            out.push(name);
            out.push(": ");
            out.push(value);
        }
        out.push(match self.persist {
            Persist::Open => "\r\n\r\n",
            Persist::OpenAndSay => "\r\nConnection: keep-alive\r\n\r\n",
            Persist::Close => "\r\nConnection: close\r\n\r\n",
        });
        if extra.is_empty() {
            let last = LastHead { head: Vec::new(), second, status, content_type, length, persist };
            out.keep_head(begin, last);
        }
        length.append(body, &mut out.bytes);
    }
}

impl Length {
    /// Appends the body or, for a stream, its first part.
    fn append(self, body: &[u8], out: &mut Vec<u8>) {
        match self {
            Length::Unsaid | Length::Known(_) => out.extend_from_slice(body),
            Length::Framed(framing) => framing.append(body, out),
        }
    }
}

/// Returns the status line. All statuses that kapo uses are listed; any other one is a bug and becomes 500.
fn status_line(status: u16) -> &'static str {
    match status {
        200 => "HTTP/1.1 200 OK",
        204 => "HTTP/1.1 204 No Content",
        308 => "HTTP/1.1 308 Permanent Redirect",
        400 => "HTTP/1.1 400 Bad Request",
        404 => "HTTP/1.1 404 Not Found",
        405 => "HTTP/1.1 405 Method Not Allowed",
        414 => "HTTP/1.1 414 URI Too Long",
        431 => "HTTP/1.1 431 Request Header Fields Too Large",
        501 => "HTTP/1.1 501 Not Implemented",
        502 => "HTTP/1.1 502 Bad Gateway",
        503 => "HTTP/1.1 503 Service Unavailable",
        504 => "HTTP/1.1 504 Gateway Timeout",
        505 => "HTTP/1.1 505 HTTP Version Not Supported",
        _ => "HTTP/1.1 500 Internal Server Error",
    }
}
