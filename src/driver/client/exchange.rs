//! Sends one request and reads its answer. One deadline covers connecting, sending and reading.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::connect::{Socket, connect};
use crate::error::reason;
use crate::logic::client::body::{Body, BodyPart};
use crate::sys::clock;
use crate::target::Address;

/// The maximum length of a head, in bytes. The head of a kapo is shorter.
const LONGEST_HEAD: usize = 64 << 10;
/// The maximum length of a body that is read, in bytes. The arguments of a command may take 2 MiB, and more if they
/// are escaped.
const LONGEST_BODY: usize = 8 << 20;
/// The maximum number of fields in a head, the same as for requests to kapo.
const FIELDS: usize = 128;

/// Which part of the body to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No part.
    Head,
    /// The body of a failure, which gives the reason.
    BodyOfFailure,
    /// The whole body.
    Body,
}

/// The parts of the answer that the client uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// The status code. It is at least 200 and may be above 599.
    pub status: u16,
    /// The value of the field Kapo-Exit-Code.
    pub kapo_exit_code: Option<u8>,
    /// Whether the Content-Type is text/plain.
    pub is_text: bool,
    /// The part of the body that has arrived, if it was asked for.
    pub body: Vec<u8>,
}

/// The reason why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExchangeError {
    /// The deadline has passed.
    TimedOut,
    /// No connection was made. The text is the reason, in one line.
    Unreachable(String),
    /// The connection ended before an answer. The text describes how, in one line.
    Cut(String),
    /// Another error, described in one line.
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

/// The time at which everything must be finished; `None` if there is no limit.
#[derive(Clone, Copy)]
pub(super) struct RequestDeadline(Option<Instant>);

impl RequestDeadline {
    /// No deadline.
    pub(super) const NEVER: RequestDeadline = RequestDeadline(None);

    /// Returns the deadline `timeout` from now. A time beyond the range of the clock is no deadline.
    pub(super) fn after(timeout: Option<Duration>) -> RequestDeadline {
        RequestDeadline(timeout.and_then(|timeout| clock::now().0.checked_add(timeout)))
    }

    /// Returns the remaining time. It is never zero, because a socket timeout of zero means no limit.
    pub(super) fn left(self) -> Result<Option<Duration>, ExchangeError> {
        let Some(end) = self.0 else { return Ok(None) };
        let (now, _) = clock::now();
        match end.checked_duration_since(now) {
            Some(left) if left > Duration::ZERO => Ok(Some(left)),
            _ => Err(ExchangeError::TimedOut),
        }
    }
}

/// Sends a `GET` request and reads the answer. If the deadline passes while the body arrives, the result is the part
/// that has arrived.
pub(super) fn exchange(
    target: &Address,
    timeout: Option<Duration>,
    wanted: Wanted,
) -> Result<Response, ExchangeError> {
    let deadline = RequestDeadline::after(timeout);
    let mut reply = OpenResponse::to(target, deadline)?;
    let OpenResponse { status, kapo_exit_code, is_text, .. } = reply;
    let wanted = match wanted {
        Wanted::Head => false,
        Wanted::BodyOfFailure => !(200..300).contains(&status),
        Wanted::Body => true,
    };
    let mut body = Vec::new();
    // If the deadline passes, return the part of the body that has arrived. It shows at least the beginning of the
    // reason.
    while wanted
        && body.len() <= LONGEST_BODY
        && matches!(reply.read(deadline, &mut body), Ok(BodyProgress::More))
    {}
    Ok(Response { status, kapo_exit_code, is_text, body })
}

/// Sends a `GET` request and reads the answer. The whole body must arrive in time and have at most `limit` bytes.
pub(super) fn exchange_whole(
    target: &Address,
    deadline: RequestDeadline,
    limit: usize,
) -> Result<Response, ExchangeError> {
    let mut reply = OpenResponse::to(target, deadline)?;
    let mut body = Vec::new();
    while let BodyProgress::More = reply.read(deadline, &mut body)? {
        if body.len() > limit {
            return Err(ExchangeError::Other(format!(
                "the answer of {} is longer than {limit} bytes",
                target.peer
            )));
        }
    }
    let OpenResponse { status, kapo_exit_code, is_text, .. } = reply;
    Ok(Response { status, kapo_exit_code, is_text, body })
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyProgress {
    /// A part of the body, possibly empty.
    More,
    /// A part that ends with the end of a chunk.
    Chunk,
    /// The end of the body.
    Complete,
}

/// An answer whose head has been read, and whose body can be read in parts.
pub(super) struct OpenResponse {
    stream: Socket,
    peer: String,
    /// The status code. It is at least 200 and may be above 599.
    pub status: u16,
    /// The value of the field Kapo-Exit-Code.
    pub kapo_exit_code: Option<u8>,
    /// Whether the Content-Type is text/plain.
    pub is_text: bool,
    body: Body,
    /// Received bytes that were not taken yet. At first, those that came together with the head.
    early: Vec<u8>,
}

impl OpenResponse {
    /// Sends a `GET` request and reads the head of the answer.
    pub(super) fn to(target: &Address, deadline: RequestDeadline) -> Result<OpenResponse, ExchangeError> {
        let mut stream = connect(&target.peer, deadline)?;
        let Address { authority, path, peer } = target;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: kapo/{}\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        );
        let peer = peer.to_string();
        stream.limit(deadline)?;
        // The answer may have arrived although the peer did not read the whole request.
        let sent = stream.write_all(request.as_bytes());
        let mut text = Vec::new();
        let late = loop {
            match parse(&text) {
                Err(Malformed) => return Err(ExchangeError::Other(format!("no HTTP answer from {peer}"))),
                Ok(Some(Head { status, kapo_exit_code, is_text, body, end })) => {
                    let early = text.split_off(end);
                    return Ok(OpenResponse { stream, peer, status, kapo_exit_code, is_text, body, early });
                }
                Ok(None) if text.len() > LONGEST_HEAD => {
                    return Err(ExchangeError::Other(format!("the head of {peer}'s answer has no end")));
                }
                Ok(None) => {}
            }
            match receive(&mut stream, &peer, deadline) {
                Ok(ReadBuffer(_, 0)) => {
                    break ExchangeError::Cut(format!("{peer} closed the connection without an answer"));
                }
                Ok(received) => text.extend_from_slice(received.bytes()),
                Err(late) => break late,
            }
        };
        Err(sent.err().map_or(late, |error| failed(&peer, &error)))
    }

    /// Whether received bytes are left that were not taken yet.
    pub(super) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Appends the next part of the body to `out`.
    pub(super) fn read(
        &mut self,
        deadline: RequestDeadline,
        out: &mut Vec<u8>,
    ) -> Result<BodyProgress, ExchangeError> {
        loop {
            match self.read_chunk(deadline, out)? {
                BodyProgress::Chunk if self.has_early() => {}
                BodyProgress::Chunk => return Ok(BodyProgress::More),
                progress => return Ok(progress),
            }
        }
    }

    /// Appends the next part of the body to `out`, up to the end of a chunk at most.
    pub(super) fn read_chunk(
        &mut self,
        deadline: RequestDeadline,
        out: &mut Vec<u8>,
    ) -> Result<BodyProgress, ExchangeError> {
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() || self.body == Body::Length(0) {
            return self.take(&early, out);
        }
        let received = receive(&mut self.stream, &self.peer, deadline)?;
        match received.bytes() {
            [] if self.body.may_end() => Ok(BodyProgress::Complete),
            [] => Err(ExchangeError::Cut(format!("{} closed the connection within an answer", self.peer))),
            bytes => self.take(bytes, out),
        }
    }

    fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<BodyProgress, ExchangeError> {
        loop {
            match self.body.next(&mut bytes) {
                BodyPart::Content(content, ends) => {
                    out.extend_from_slice(content);
                    if ends {
                        self.early.extend_from_slice(bytes);
                        return Ok(BodyProgress::Chunk);
                    }
                }
                BodyPart::More => return Ok(BodyProgress::More),
                BodyPart::Complete => return Ok(BodyProgress::Complete),
                BodyPart::Malformed => {
                    return Err(ExchangeError::Cut(format!("the answer of {} is malformed", self.peer)));
                }
            }
        }
    }
}

impl AsFd for OpenResponse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A buffer, and the number of bytes received into it; 0 at the end of the connection.
struct ReadBuffer([u8; 16_384], usize);

impl ReadBuffer {
    fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

fn receive(stream: &mut Socket, peer: &str, deadline: RequestDeadline) -> Result<ReadBuffer, ExchangeError> {
    let mut received = ReadBuffer([0; 16_384], 0);
    loop {
        stream.limit(deadline)?;
        match stream.read(&mut received.0) {
            Ok(n) => received.1 = n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(peer, &error)),
        }
        return Ok(received);
    }
}

fn failed(peer: &str, error: &io::Error) -> ExchangeError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ExchangeError::TimedOut,
        _ => ExchangeError::Cut(format!("cannot talk to {peer}: {}", reason(error))),
    }
}

/// The text is not the head of an answer.
pub(super) struct Malformed;

/// The parsed head of an answer.
pub(super) struct Head {
    /// The status code.
    pub status: u16,
    kapo_exit_code: Option<u8>,
    is_text: bool,
    /// How the body ends.
    pub body: Body,
    /// The offset of the body.
    pub end: usize,
}

/// Parses the head of the final answer; `None` if it is not complete yet.
pub(super) fn parse(text: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut start = 0;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let parsed = head.parse(text.get(start..).unwrap_or_default()).map_err(|_| Malformed)?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let status = head.code.ok_or(Malformed)?;
        let end = start + length;
        if status < 100 {
            return Err(Malformed);
        }
        // This is an interim answer, and the final one follows (RFC 9110, section 15.2).
        if (100..200).contains(&status) {
            start = end;
            continue;
        }
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        let length = || field("Content-Length").and_then(|length| length.trim().parse().ok());
        let body = match field("Transfer-Encoding") {
            _ if matches!(status, 204 | 304) => Body::Length(0),
            Some(_) => Body::CHUNKED,
            None => length().map_or(Body::Connection, Body::Length),
        };
        let kapo_exit_code = field("Kapo-Exit-Code").and_then(|code| code.trim().parse().ok());
        let is_text = field("Content-Type").is_some_and(|kind| {
            kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/plain"))
        });
        return Ok(Some(Head { status, kapo_exit_code, is_text, body, end }));
    }
}
