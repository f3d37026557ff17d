//! The state machine of one connection: bytes in, bytes out, no socket. Complete requests are answered in order,
//! straight from the bytes that were read, into the loop's one buffer. A connection owns memory only while a head is
//! unfinished, requests wait behind another one, or an answer is unsent. This module decides when to read, write,
//! half-close or give up, and ranks connections for eviction; `driver::http::connection` carries that out.
//!
//! ```text
//! Idle -> Head (unfinished, 10 s) -> Idle (answered), or
//!                                 -> Held (/wait, until its deadline) -> Idle, or
//!                                 -> Awaiting (results of probes, until its deadline) -> Idle, or
//!                                 -> Deferred (more requests than one turn answers; 10 s) -> Idle, or
//!                                 -> Streaming (/events, /logs), or
//!                                 -> HandedOver (the socket is given away), or
//!                                 -> Closing (answer is sent) -> Lingering (discards input) -> Done
//! ```
//!
//! In every phase an answer that the socket did not take has 10 s to be sent. So has a connection that is Deferred,
//! because the kernel may buffer 64 KiB that the peer never reads.

mod answering;
mod facts;

use std::time::{Duration, Instant};

use self::answering::NO_ANSWER;
pub use self::facts::{Class, Facts, Rank};
use super::framing::Framing;
use super::head::{HEAD_LIMIT, Search};
use super::head_cache::HeadCache;
use super::response::{Out, Reply};
use super::{Handler, Method, Next, Persist};
use crate::logic::{Now, Stream};

/// How long a head may take from its first byte, and how long an answer may stay unsent.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lingering close waits after the last input of the peer (RFC 9112, section 9.6).
pub const LINGER: Duration = Duration::from_secs(10);
/// The longest lingering close. A peer that needs longer to send its body is closed without reading the rest.
pub const LINGER_MOST: Duration = Duration::from_secs(30);
/// How many bytes a lingering close discards before it closes without reading the rest.
const LINGER_BYTES: usize = 256 * 1024 * 1024;
/// Pipelined requests wait for the next turn once the answers of this turn have this many bytes.
const OUT_LIMIT: usize = 64 * 1024;
/// Pipelined requests also wait after this many answers, because an answer without a body may be as expensive as one
/// with a body.
const TURN_LIMIT: usize = 32;
/// How much may be pushed to a stream while an earlier part is unsent: as much as one turn reads from the stdout and
/// stderr pipes of a command.
const BACKLOG_LIMIT: usize = 512 * 1024;
/// The size of one read. A read that fills it may have left bytes in the socket, and closing the socket then would
/// reset the connection.
pub const READ_SIZE: usize = 16 * 1024;

/// The stream that a connection receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The status document at each change.
    Events,
    /// The captured output of one stream or of both.
    Logs(Option<Stream>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between two requests, or before the first.
    Idle,
    /// An unfinished head is in `input`.
    Head,
    /// A request waits for a change of state. `input` has the bytes behind it.
    Held { until: Option<Instant>, asked: HeldRequest },
    /// `input` begins with requests that wait until their answers can be sent.
    Deferred,
    /// `input` begins with a request that waits for the results of probes.
    Awaiting { until: Instant },
    /// A stream is sent until the connection ends.
    Streaming { feed: Feed, framing: Framing },
    /// The last answer has been produced; further input is discarded.
    Closing { linger: bool },
    /// The socket belongs to another part of kapo from now on.
    HandedOver,
    /// Our side is closed. Input is discarded until the peer closes its side or `most` is reached.
    Lingering { left: usize, most: Instant },
    /// The connection is to be dropped. `given_up`: its peer did not get a complete answer.
    Done { given_up: bool },
}

/// What is known of a held request. Its head is not kept, because thousands of requests with heads of up to 16 KiB may
/// be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HeldRequest {
    method: Method,
    persist: Persist,
    /// A body follows the head.
    body: bool,
    /// The framing of the answer, if it is a stream.
    framing: Framing,
}

/// The readiness that the driver waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Bytes or the end of the stream can be read.
    pub read: bool,
    /// The socket has room for unsent bytes or for the answers to requests that were already read.
    pub write: bool,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Conn {
    /// An unfinished head, or requests that were pipelined behind a held request or left for another turn.
    input: Vec<u8>,
    /// Output that the socket did not take; the first `sent` bytes have been sent since.
    unsent: Vec<u8>,
    sent: usize,
    /// How many bytes were pushed while others were unsent.
    backlog: usize,
    /// When the connection entered its current wait.
    since: Instant,
    /// Since when `unsent` has not been empty; for a stream, since when it made no progress.
    unsent_since: Instant,
    phase: Phase,
    search: Search,
    /// The peer has closed its write side.
    eof: bool,
}

impl Conn {
    /// Returns the state of a connection that was just accepted.
    pub fn new(now: Now) -> Conn {
        Conn {
            input: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            backlog: 0,
            since: now.mono,
            unsent_since: now.mono,
            phase: Phase::Idle,
            search: Search::default(),
            eof: false,
        }
    }

    /// Processes the bytes of one read, at most [`READ_SIZE`], and appends the answers to all complete requests to
    /// `out`, in order. The driver then sends `out`, calls [`Conn::keep`] with the part that the socket did not take,
    /// and reads [`Conn::half_close`], [`Conn::is_done`] and [`Conn::wants`].
    pub fn receive(
        &mut self,
        now: Now,
        bytes: &[u8],
        head_cache: &mut HeadCache,
        handler: &mut dyn Handler,
        out: &mut Out,
    ) {
        match self.phase {
            Phase::Streaming { .. } | Phase::Closing { .. } | Phase::Done { .. } | Phase::HandedOver => {}
            Phase::Lingering { left, most } => match left.checked_sub(bytes.len()) {
                Some(left) => {
                    self.phase = Phase::Lingering { left, most };
                    self.since = now.mono;
                }
                None => self.finish(false),
            },
            Phase::Held { .. } | Phase::Deferred | Phase::Awaiting { .. } => {
                self.input.extend_from_slice(bytes);
            }
            Phase::Idle | Phase::Head if self.input.is_empty() => {
                let used = self.answer(now, bytes, head_cache, handler, out);
                if self.keeps_input() {
                    self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
                }
            }
            Phase::Idle | Phase::Head => {
                self.input.extend_from_slice(bytes);
                self.go_on(now, head_cache, handler, out);
            }
        }
        if bytes.len() >= READ_SIZE && self.phase == (Phase::Closing { linger: false }) && !self.eof {
            self.phase = Phase::Closing { linger: true };
        }
    }

    /// Processes the end of the peer's stream: complete requests are still answered, an unfinished one is not.
    pub fn eof(&mut self, out: &mut Out) {
        self.eof = true;
        match self.phase {
            Phase::Held { .. } | Phase::Deferred | Phase::Awaiting { .. } => {}
            Phase::Done { .. } | Phase::HandedOver => {}
            Phase::Streaming { .. } => self.end_of_stream(out),
            Phase::Idle | Phase::Head | Phase::Closing { .. } => self.close(false),
            Phase::Lingering { .. } => self.finish(false),
        }
    }

    /// Asks the handler again for a held request after the state has changed, and answers requests that were left over.
    /// Does nothing if there are neither.
    pub fn resume(&mut self, now: Now, head_cache: &mut HeadCache, handler: &mut dyn Handler, out: &mut Out) {
        match self.phase {
            Phase::Held { until, asked } => {
                let overdue = until.is_some_and(|until| until <= now.mono);
                let before = out.bytes.len();
                match handler.again(now, overdue, Reply::new(out, now, asked.method, asked.persist)) {
                    // The first deadline stays: if each change of state renewed it, it might never pass.
                    Next::Wait(_) if !overdue => return,
                    // `input` no longer contains the head of the held request, so the request cannot be parsed a second
                    // time.
                    Next::Wait(_) | Next::Lacking | Next::Await(_) => {
                        self.refuse(now, NO_ANSWER, asked.method, handler, out)
                    }
                    next => {
                        let sent = out.bytes.len() > before;
                        self.conclude(now, asked, next, sent, self.input.is_empty(), handler, out);
                    }
                }
                self.go_on(now, head_cache, handler, out);
            }
            Phase::Deferred | Phase::Awaiting { .. } => self.go_on(now, head_cache, handler, out),
            _ => {}
        }
    }

    /// Answers a held request now, as if its deadline had passed.
    pub fn give_up_waiting(
        &mut self,
        now: Now,
        head_cache: &mut HeadCache,
        handler: &mut dyn Handler,
        out: &mut Out,
    ) {
        match &mut self.phase {
            Phase::Held { until, .. } => *until = Some(now.mono),
            Phase::Awaiting { until } => *until = now.mono,
            _ => return,
        }
        self.resume(now, head_cache, handler, out);
    }

    /// Returns which stream the connection receives, if any.
    pub fn feed(&self) -> Option<Feed> {
        match self.phase {
            Phase::Streaming { feed, .. } => Some(feed),
            _ => None,
        }
    }

    /// Whether a request is held until the state changes.
    pub fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. } | Phase::Awaiting { .. })
    }

    /// Whether requests that were already read wait for another turn.
    pub fn is_deferred(&self) -> bool {
        matches!(self.phase, Phase::Deferred)
    }

    /// Whether output is unsent, or requests that were read are not answered yet.
    pub fn is_busy(&self) -> bool {
        !self.unsent.is_empty() || self.is_deferred()
    }

    /// Returns the facts that the connection table needs; read them after each call on the connection.
    pub fn facts(&self) -> Facts {
        Facts {
            deadline: self.deadline(),
            rank: self.rank(),
            feed: self.feed(),
            held: self.is_held(),
            deferred: self.is_deferred(),
            busy: self.is_busy(),
            unsent: self.unsent.capacity(),
            received: self.input.capacity(),
        }
    }

    /// Sends the next part of a stream. A reader that is too far behind is given up.
    pub fn push(&mut self, bytes: &[u8], out: &mut Out) {
        let Phase::Streaming { framing, .. } = self.phase else { return };
        if self.unsent.is_empty() {
            return framing.append(bytes, &mut out.bytes);
        }
        self.backlog = self.backlog.saturating_add(bytes.len());
        if self.backlog > BACKLOG_LIMIT {
            return self.finish(true);
        }
        self.unsent.drain(..self.sent.min(self.unsent.len()));
        self.sent = 0;
        framing.append(bytes, &mut self.unsent);
    }

    /// Ends the stream. The connection ends once the peer has taken the rest of it.
    pub fn end_of_stream(&mut self, out: &mut Out) {
        if let Phase::Streaming { framing, .. } = self.phase {
            framing.finish(&mut out.bytes);
            self.close(!self.eof);
        }
    }

    /// Keeps the part of `out` that the socket did not take.
    pub fn keep(&mut self, now: Now, unsent: &[u8]) {
        if unsent.is_empty() || matches!(self.phase, Phase::Done { .. }) {
            return;
        }
        if self.unsent.is_empty() {
            self.unsent_since = now.mono;
        }
        self.unsent.extend_from_slice(unsent);
    }

    /// Gives the connection up in any phase. Unsent bytes are lost.
    pub fn give_up(&mut self) {
        self.finish(self.feed().is_some() || !self.unsent.is_empty());
    }

    /// Returns the bytes that must be sent before anything else.
    pub fn pending(&self) -> &[u8] {
        self.unsent.get(self.sent..).unwrap_or_default()
    }

    /// Records that the socket took `n` bytes of [`Conn::pending`].
    pub fn sent(&mut self, now: Now, n: usize) {
        self.sent = self.sent.saturating_add(n);
        if self.sent >= self.unsent.len() {
            (self.unsent, self.sent, self.backlog) = (Vec::new(), 0, 0);
            if matches!(self.phase, Phase::Idle | Phase::Head | Phase::Deferred) {
                self.since = now.mono;
            }
        } else if n > 0 && matches!(self.phase, Phase::Streaming { .. }) {
            // A stream has no end that a deadline could apply to, so the deadline applies to its progress.
            self.unsent_since = now.mono;
        }
    }

    /// Returns the readiness to wait for.
    pub fn wants(&self) -> Interest {
        let read = match self.phase {
            // A peer that does not read its answers may not send more requests.
            Phase::Idle | Phase::Head => self.unsent.is_empty() && !self.eof,
            Phase::Held { .. } | Phase::Awaiting { .. } => self.input.len() < HEAD_LIMIT && !self.eof,
            Phase::Deferred => false,
            Phase::Streaming { .. } => true,
            Phase::Closing { linger } => linger,
            Phase::Lingering { .. } => true,
            Phase::Done { .. } | Phase::HandedOver => false,
        };
        Interest { read, write: self.is_busy() }
    }

    /// Returns when [`Conn::expire`] must be called; `None` for an idle connection.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.unsent.is_empty() {
            return Some(self.unsent_since + EXCHANGE_TIMEOUT);
        }
        match self.phase {
            Phase::Head | Phase::Deferred => Some(self.since + EXCHANGE_TIMEOUT),
            Phase::Held { until, .. } => until,
            Phase::Awaiting { until } => Some(until),
            Phase::Lingering { most, .. } => Some(most.min(self.since + LINGER)),
            _ => None,
        }
    }

    /// Handles a deadline that has passed: a held request is answered, any other connection is closed.
    pub fn expire(&mut self, now: Now, head_cache: &mut HeadCache, handler: &mut dyn Handler, out: &mut Out) {
        if self.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        match self.phase {
            Phase::Held { .. } | Phase::Awaiting { .. } if self.unsent.is_empty() => {
                self.resume(now, head_cache, handler, out)
            }
            _ => self.finish(!self.unsent.is_empty()),
        }
    }

    /// Returns the eviction rank of the connection.
    pub fn rank(&self) -> Rank {
        let class = match self.phase {
            _ if self.is_held() && self.eof => Class::HalfClosed,
            Phase::Held { .. } | Phase::Awaiting { .. } | Phase::Streaming { .. } => Class::Waiting,
            Phase::Idle if self.unsent.is_empty() => Class::Idle,
            _ => Class::Unfinished,
        };
        Rank { class, since: self.since }
    }

    /// Whether the driver must close its write side and keep reading. Returns true once, after everything was sent.
    pub fn half_close(&mut self, now: Now) -> bool {
        let due = self.unsent.is_empty() && self.phase == (Phase::Closing { linger: true });
        if due {
            self.phase = Phase::Lingering { left: LINGER_BYTES, most: now.mono + LINGER_MOST };
            self.since = now.mono;
        }
        due
    }

    /// Whether our side is closed as soon as everything is sent, so that the FIN may leave with the last bytes.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Whether the connection can be dropped because nothing is left to send or expected. Ask after `out` was sent.
    pub fn is_done(&self) -> bool {
        match self.phase {
            Phase::Done { .. } => true,
            Phase::Closing { linger } => !linger && self.unsent.is_empty(),
            _ => false,
        }
    }

    /// Whether another part of kapo continues with the socket, and first sends [`Conn::pending`].
    pub fn is_handed_over(&self) -> bool {
        matches!(self.phase, Phase::HandedOver)
    }

    /// Whether the connection ended before an answer was complete.
    pub fn is_given_up(&self) -> bool {
        matches!(self.phase, Phase::Done { given_up: true })
    }

    /// Returns the memory that the connection owns, for tests.
    #[cfg(test)]
    pub fn owns(&self) -> usize {
        self.input.capacity() + self.unsent.capacity()
    }

    /// Whether further input will be answered; otherwise it is discarded.
    fn keeps_input(&self) -> bool {
        self.is_held() || matches!(self.phase, Phase::Idle | Phase::Head | Phase::Deferred)
    }

    fn close(&mut self, linger: bool) {
        self.phase = Phase::Closing { linger };
        self.input = Vec::new();
    }

    fn finish(&mut self, given_up: bool) {
        self.close(false);
        self.phase = Phase::Done { given_up };
        self.unsent = Vec::new();
        self.sent = 0;
    }
}
