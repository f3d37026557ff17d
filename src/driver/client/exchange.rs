//! One request and its answer, with one deadline for the whole: connecting, sending, reading.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::connect::connect;
use crate::error::reason;
use crate::sys::clock;
use crate::target::Address;

/// A longer head is no answer of a kapo.
const LONGEST_HEAD: usize = 64 << 10;
/// A longer body is not read to its end. The arguments of a command may fill 2 MiB, and more when they are escaped.
const LONGEST_BODY: usize = 8 << 20;
/// The most fields in a head, as many as kapo itself takes.
const FIELDS: usize = 128;

/// Which part of the body is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// None: the head is enough.
    Ignored,
    /// That of a failure, which is its reason.
    OfFailure,
    /// All of it.
    Whole,
}

/// The answer, as far as it is of interest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// 200 to 599, or an invented one above.
    pub status: u16,
    /// The field Kapo-Exit-Code.
    pub kapo_exit_code: Option<u8>,
    /// As much as came, if it was asked for.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExchangeError {
    /// The deadline has passed.
    TimedOut,
    /// No connection was made, for the reason in this line.
    Unreachable(String),
    /// The connection ended before an answer, as this line says.
    Cut(String),
    /// Anything else, in one line.
    Other(String),
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::TimedOut => f.write_str("no answer in time"),
            ExchangeError::Unreachable(line) | ExchangeError::Cut(line) | ExchangeError::Other(line) => {
                f.write_str(line)
            }
        }
    }
}

/// The moment when the whole must be over; `None`: never.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now. A moment beyond the clock's range is never.
    pub(super) fn after(timeout: Option<Duration>) -> Deadline {
        Deadline(timeout.and_then(|timeout| clock::now().0.checked_add(timeout)))
    }

    /// The time that is left, never zero, which would mean no limit to a socket.
    pub(super) fn left(self) -> Result<Option<Duration>, ExchangeError> {
        let Some(end) = self.0 else { return Ok(None) };
        let (now, _) = clock::now();
        match end.checked_duration_since(now) {
            Some(left) if left > Duration::ZERO => Ok(Some(left)),
            _ => Err(ExchangeError::TimedOut),
        }
    }
}

/// Sends `GET` and reads the answer. A body is waited for no longer than there is time: the part that came counts.
pub(super) fn exchange(
    target: &Address,
    timeout: Option<Duration>,
    body: Body,
) -> Result<Answer, ExchangeError> {
    let deadline = Deadline::after(timeout);
    let mut stream = connect(&target.peer, deadline)?;
    let Address { authority, path, peer } = target;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: kapo/{}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ExchangeError::TimedOut,
        _ => ExchangeError::Cut(format!("cannot talk to {peer}: {}", reason(&error))),
    };
    stream.limit(deadline)?;
    // The answer may have come already if the request is not taken to its end.
    let sent = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let late = loop {
        match parse(&text) {
            Err(Malformed) => return Err(ExchangeError::Other(format!("no HTTP answer from {peer}"))),
            Ok(Some((answer, whole))) => {
                let wanted = match body {
                    Body::Ignored => false,
                    Body::OfFailure => !(200..300).contains(&answer.status),
                    Body::Whole => true,
                };
                if !wanted || whole || text.len() > LONGEST_BODY {
                    return Ok(answer);
                }
            }
            Ok(None) if text.len() > LONGEST_HEAD => {
                return Err(ExchangeError::Other(format!("the head of {peer}'s answer has no end")));
            }
            Ok(None) => {}
        }
        if let Err(late) = stream.limit(deadline) {
            break late;
        }
        let mut buffer = [0; 16_384];
        match stream.read(&mut buffer) {
            Ok(0) => break ExchangeError::Cut(format!("{peer} closed the connection without an answer")),
            Ok(n) => text.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break failed(error),
        }
    };
    match (parse(&text), sent) {
        // The beginning of a failure's reason is better than none.
        (Ok(Some((answer, _))), _) => Ok(answer),
        (_, Err(error)) => Err(failed(error)),
        _ => Err(late),
    }
}

struct Malformed;

/// The answer, and whether its body is complete; `None` while the head is not.
fn parse(text: &[u8]) -> Result<Option<(Answer, bool)>, Malformed> {
    let mut rest = text;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(parsed) = head.parse(rest) else { return Err(Malformed) };
        let httparse::Status::Complete(end) = parsed else { return Ok(None) };
        let status = head.code.ok_or(Malformed)?;
        let body = rest.get(end..).unwrap_or_default();
        if status < 100 {
            return Err(Malformed);
        }
        // An interim answer; the final one follows (RFC 9110, 15.2).
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        let length = || field("Content-Length").and_then(|length| length.trim().parse::<usize>().ok());
        let (body, whole) = match field("Transfer-Encoding") {
            _ if matches!(status, 204 | 304) => (Vec::new(), true),
            // kapo sends none, but a proxy may.
            Some(_) => unchunk(body),
            None => (body.to_vec(), length().is_some_and(|length| body.len() >= length)),
        };
        let kapo_exit_code = field("Kapo-Exit-Code").and_then(|code| code.trim().parse().ok());
        return Ok(Some((Answer { status, kapo_exit_code, body }, whole)));
    }
}

/// The content of the chunks that came, and whether the last one is among them (RFC 9112, 7.1). What is no chunk ends
/// it.
fn unchunk(mut text: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    loop {
        let chunk = match httparse::parse_chunk_size(text) {
            Ok(httparse::Status::Complete((start, size))) => {
                (start, usize::try_from(size).unwrap_or(usize::MAX))
            }
            Ok(httparse::Status::Partial) => return (content, false),
            Err(_) => return (content, true),
        };
        let (start, size) = chunk;
        let rest = text.get(start..).unwrap_or_default();
        if size == 0 {
            return (content, true);
        }
        content.extend_from_slice(rest.get(..size).unwrap_or(rest));
        match size.checked_add(2).and_then(|behind| rest.get(behind..)) {
            Some(behind) => text = behind,
            None => return (content, false),
        }
    }
}
