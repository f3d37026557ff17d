//! The life of one connection: bytes in, bytes out, no socket. Complete requests are answered in order straight from
//! the bytes that were read, into the loop's one buffer; a connection owns memory only while a head is unfinished,
//! requests wait behind another one, or an answer is not taken. When to read, to write, to half-close, to give up and
//! whom to close for a newcomer is decided here and done by `driver::http::connection`.
//!
//! ```text
//! Idle -> Head (unfinished, 10 s) -> Idle (answered), or
//!                                 -> Held (/wait, its own time) -> Idle, or
//!                                 -> Crowded (answers enough for one turn; room for more within 10 s) -> Idle, or
//!                                 -> Streaming (/events, /logs), or
//!                                 -> Closing (answer under way) -> Lingering (discards, 10 s since the last of it) -> Done
//! ```
//!
//! In every phase an answer that the socket did not take has 10 s to go; so has a whole connection that is Crowded,
//! since the kernel may take 64 KiB that the peer never reads.

mod answering;

use std::time::{Duration, Instant};

use self::answering::NO_ANSWER;
use super::framing::Framing;
use super::head::{HEAD_LIMIT, Search};
use super::quota::Share;
use super::response::{Out, Reply};
use super::{Handler, Method, Next, Persist};
use crate::logic::{Now, Stream};

/// For a head to be complete since its first byte, and for an answer to be taken.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// For the peer to close after we did (RFC 9112, section 9.6), since it has last sent something;
pub const LINGER: Duration = Duration::from_secs(10);
/// and in all: who sends a megabyte over a slow line gets his answer, who drips for ever is closed.
pub const LINGER_MOST: Duration = Duration::from_secs(30);
/// What is discarded from a peer that goes on sending, until it is closed in its face.
const LINGER_BYTES: usize = 256 * 1024 * 1024;
/// Pipelined requests are left for the next turn when the answers of this one exceed this,
const OUT_LIMIT: usize = 64 * 1024;
/// or when so many were answered: an answer without a body may have cost as much as one with it.
const TURN_LIMIT: usize = 32;
/// What may be pushed to a stream while an earlier part of it is not taken: as much as a turn reads of a command's two
/// outputs.
const BACKLOG_LIMIT: usize = 512 * 1024;
/// A read of this size may have left bytes in the socket; closing then would reset the connection.
pub const READ_SIZE: usize = 16 * 1024;

/// What is streamed to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The document at each change.
    Events,
    /// Captured output, of one stream or of both.
    Logs(Option<Stream>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A head has begun.
    Head,
    /// The site is asked again at each resume; `input` is what came behind.
    Held { until: Option<Instant>, asked: Asked },
    /// `input` begins with requests that wait until there is room for their answers.
    Crowded,
    /// The rest of the connection is one answer.
    Streaming { feed: Feed, framing: Framing },
    /// The last answer is written; what else comes in is discarded.
    Closing { linger: bool },
    /// Our side is closed, the other is read until it is closed too, or until then at the latest.
    Lingering { left: usize, most: Instant },
    /// To be dropped; `given_up`: before the answer was complete.
    Done { given_up: bool },
}

/// What is known of a request that is held. Of its head nothing is kept: thousands may wait, with heads of 16 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    method: Method,
    persist: Persist,
    /// A body follows it.
    body: bool,
    /// For a stream.
    framing: Framing,
}

/// What the driver is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Bytes or the end from the peer.
    pub read: bool,
    /// Room in the socket: for what is unsent, or for the answers to requests that are already here.
    pub write: bool,
}

/// Who is closed for a newcomer: the least of all. Within a class the one that has waited longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// What it would lose.
    pub class: Class,
    /// When it came to wait for what it waits for now.
    pub since: Instant,
}

/// What a connection would lose if it were closed, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Half a request, an answer not taken, a lingering close.
    Unfinished,
    /// It is held, and its peer has closed at least half: who left and who waits on look alike.
    HalfClosed,
    /// Between two requests, or before the first.
    Idle,
    /// /wait, /events, /logs.
    Waiting,
}

/// What the table of all connections must know of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// See [`Conn::deadline`].
    pub deadline: Option<Instant>,
    /// See [`Conn::rank`].
    pub rank: Rank,
    /// See [`Conn::feed`].
    pub feed: Option<Feed>,
    /// See [`Conn::is_held`].
    pub held: bool,
    /// See [`Conn::is_crowded`].
    pub crowded: bool,
    /// See [`Conn::is_busy`].
    pub busy: bool,
    /// Memory for output that its socket has not taken.
    pub owed: usize,
    /// Memory for bytes it has sent that could not be dealt with yet.
    pub received: usize,
}

impl Facts {
    /// What it takes of what all connections share; `network`: it is not a Unix socket.
    pub fn share(&self, network: bool) -> Share {
        Share {
            held: self.feed.is_some() || self.held,
            heartbeat: network && self.feed == Some(Feed::Events),
            owed: self.owed,
            received: self.received,
        }
    }

    /// Whether the share is the same, on any kind of socket.
    pub fn takes_as_much_as(&self, other: &Facts) -> bool {
        self.held == other.held
            && self.feed == other.feed
            && self.owed == other.owed
            && self.received == other.received
    }
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    /// An unfinished head, or what was pipelined behind a held request or for another turn.
    input: Vec<u8>,
    /// What the socket did not accept, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// Bytes pushed while others were unsent.
    backlog: usize,
    /// When it came to wait for what it waits for now.
    since: Instant,
    /// When the oldest of `unsent` was kept.
    unsent_since: Instant,
    phase: Phase,
    search: Search,
    /// The peer will send no more.
    eof: bool,
}

impl Conn {
    /// A connection that was accepted just now.
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

    /// Takes what was read, at most [`READ_SIZE`] bytes, and appends the answers to all complete requests to `out`,
    /// in order. The driver sends them, tells by [`Conn::keep`] what was not accepted, then asks
    /// [`Conn::half_close`], [`Conn::is_done`] and [`Conn::wants`].
    pub fn receive(&mut self, now: Now, bytes: &[u8], site: &mut dyn Handler, out: &mut Out) {
        match self.phase {
            Phase::Streaming { .. } | Phase::Closing { .. } | Phase::Done { .. } => {}
            Phase::Lingering { left, most } => match left.checked_sub(bytes.len()) {
                Some(left) => {
                    self.phase = Phase::Lingering { left, most };
                    self.since = now.mono;
                }
                None => self.finish(false),
            },
            Phase::Held { .. } | Phase::Crowded => self.input.extend_from_slice(bytes),
            Phase::Idle | Phase::Head if self.input.is_empty() => {
                let used = self.answer(now, bytes, site, out);
                if self.keeps_input() {
                    self.input.extend_from_slice(bytes.get(used..).unwrap_or_default());
                }
            }
            Phase::Idle | Phase::Head => {
                self.input.extend_from_slice(bytes);
                self.go_on(now, site, out);
            }
        }
        if bytes.len() >= READ_SIZE && self.phase == (Phase::Closing { linger: false }) && !self.eof {
            self.phase = Phase::Closing { linger: true };
        }
    }

    /// The peer will send no more: what it asked is still answered, half a request never.
    pub fn eof(&mut self, out: &mut Out) {
        self.eof = true;
        match self.phase {
            Phase::Held { .. } | Phase::Crowded | Phase::Done { .. } => {}
            Phase::Streaming { .. } => self.end_of_stream(out),
            Phase::Idle | Phase::Head | Phase::Closing { .. } => self.close(false),
            Phase::Lingering { .. } => self.finish(false),
        }
    }

    /// Goes on: asks the site again for a held request, since the state has changed, and answers requests that were
    /// left over. Nothing happens where there is neither.
    pub fn resume(&mut self, now: Now, site: &mut dyn Handler, out: &mut Out) {
        match self.phase {
            Phase::Held { until, asked } => {
                let overdue = until.is_some_and(|until| until <= now.mono);
                let before = out.bytes.len();
                match site.again(now, overdue, Reply::new(out, now, asked.method, asked.persist)) {
                    // The first moment stands: counted anew it would never come.
                    Next::Wait(_) if !overdue => return,
                    // The held request is not in `input` any more and could not be asked again.
                    Next::Wait(_) | Next::Lacking => self.refuse(now, NO_ANSWER, asked.method, site, out),
                    next => {
                        let sent = out.bytes.len() > before;
                        self.conclude(now, asked, next, sent, self.input.is_empty(), site, out);
                    }
                }
                self.go_on(now, site, out);
            }
            Phase::Crowded => self.go_on(now, site, out),
            _ => {}
        }
    }

    /// A request that is held is answered now, as if its time had passed.
    pub fn give_up_waiting(&mut self, now: Now, site: &mut dyn Handler, out: &mut Out) {
        if let Phase::Held { until, .. } = &mut self.phase {
            *until = Some(now.mono);
            self.resume(now, site, out);
        }
    }

    /// What is streamed to it, if anything is.
    pub fn feed(&self) -> Option<Feed> {
        match self.phase {
            Phase::Streaming { feed, .. } => Some(feed),
            _ => None,
        }
    }

    /// A request is held until the state changes.
    pub fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    /// Requests that are here already wait for a turn of their own.
    pub fn is_crowded(&self) -> bool {
        self.phase == Phase::Crowded
    }

    /// An answer is on its way: bytes are unsent, or requests that were read are not answered yet.
    pub fn is_busy(&self) -> bool {
        !self.unsent.is_empty() || self.is_crowded()
    }

    /// What the table of all connections must know, after anything was done with this one.
    pub fn facts(&self) -> Facts {
        Facts {
            deadline: self.deadline(),
            rank: self.rank(),
            feed: self.feed(),
            held: self.is_held(),
            crowded: self.is_crowded(),
            busy: self.is_busy(),
            owed: self.unsent.capacity(),
            received: self.input.capacity(),
        }
    }

    /// The next part of a stream. A reader that is too far behind is given up.
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

    /// The stream is complete: the connection ends once it was taken.
    pub fn end_of_stream(&mut self, out: &mut Out) {
        if let Phase::Streaming { framing, .. } = self.phase {
            framing.finish(&mut out.bytes);
            self.close(!self.eof);
        }
    }

    /// Keeps what the socket did not accept of `out`.
    pub fn keep(&mut self, now: Now, unsent: &[u8]) {
        if unsent.is_empty() || matches!(self.phase, Phase::Done { .. }) {
            return;
        }
        if self.unsent.is_empty() {
            self.unsent_since = now.mono;
        }
        self.unsent.extend_from_slice(unsent);
    }

    /// It is to be dropped, whatever it is about.
    pub fn give_up(&mut self) {
        self.finish(self.feed().is_some() || !self.unsent.is_empty());
    }

    /// What is to be sent before anything else.
    pub fn pending(&self) -> &[u8] {
        self.unsent.get(self.sent..).unwrap_or_default()
    }

    /// The socket accepted `n` bytes of [`Conn::pending`].
    pub fn sent(&mut self, now: Now, n: usize) {
        self.sent = self.sent.saturating_add(n);
        if self.sent >= self.unsent.len() {
            (self.unsent, self.sent, self.backlog) = (Vec::new(), 0, 0);
            if matches!(self.phase, Phase::Idle | Phase::Head | Phase::Crowded) {
                self.since = now.mono;
            }
        } else if n > 0 && matches!(self.phase, Phase::Streaming { .. }) {
            // A stream has no end that could be taken within a time: there progress counts.
            self.unsent_since = now.mono;
        }
    }

    /// What to wait for.
    pub fn wants(&self) -> Interest {
        let read = match self.phase {
            // Who does not take answers gets to ask no more questions.
            Phase::Idle | Phase::Head => self.unsent.is_empty() && !self.eof,
            Phase::Held { .. } => self.input.len() < HEAD_LIMIT && !self.eof,
            Phase::Crowded => false,
            Phase::Streaming { .. } => true,
            Phase::Closing { linger } => linger,
            Phase::Lingering { .. } => true,
            Phase::Done { .. } => false,
        };
        Interest { read, write: self.is_busy() }
    }

    /// When [`Conn::expire`] is to be called; an idle connection never.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.unsent.is_empty() {
            return Some(self.unsent_since + PATIENCE);
        }
        match self.phase {
            Phase::Head | Phase::Crowded => Some(self.since + PATIENCE),
            Phase::Held { until, .. } => until,
            Phase::Lingering { most, .. } => Some(most.min(self.since + LINGER)),
            _ => None,
        }
    }

    /// Does what is due: a held request is answered now, everything else that took too long is over.
    pub fn expire(&mut self, now: Now, site: &mut dyn Handler, out: &mut Out) {
        if self.deadline().is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        match self.phase {
            Phase::Held { .. } if self.unsent.is_empty() => self.resume(now, site, out),
            _ => self.finish(!self.unsent.is_empty()),
        }
    }

    /// How soon it is closed to make room.
    pub fn rank(&self) -> Rank {
        let class = match self.phase {
            Phase::Held { .. } if self.eof => Class::HalfClosed,
            Phase::Held { .. } | Phase::Streaming { .. } => Class::Waiting,
            Phase::Idle if self.unsent.is_empty() => Class::Idle,
            _ => Class::Unfinished,
        };
        Rank { class, since: self.since }
    }

    /// True once: everything was sent, and the driver is to close our side and leave the other open.
    pub fn half_close(&mut self, now: Now) -> bool {
        let due = self.unsent.is_empty() && self.phase == (Phase::Closing { linger: true });
        if due {
            self.phase = Phase::Lingering { left: LINGER_BYTES, most: now.mono + LINGER_MOST };
            self.since = now.mono;
        }
        due
    }

    /// Our side is closed as soon as everything was sent: the end may travel with the last bytes.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Everything was sent and nothing more is expected: drop it. To be asked after `out` was sent.
    pub fn is_done(&self) -> bool {
        match self.phase {
            Phase::Done { .. } => true,
            Phase::Closing { linger } => !linger && self.unsent.is_empty(),
            _ => false,
        }
    }

    /// It is done before the peer had all of an answer.
    pub fn is_given_up(&self) -> bool {
        matches!(self.phase, Phase::Done { given_up: true })
    }

    /// The memory that it owns, for tests.
    #[cfg(test)]
    pub fn owns(&self) -> usize {
        self.input.capacity() + self.unsent.capacity()
    }

    /// What comes in will still be answered; otherwise it is discarded.
    fn keeps_input(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Head | Phase::Held { .. } | Phase::Crowded)
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
