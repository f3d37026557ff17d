//! Answers the complete requests in the bytes that were read, one after the other. Each answer decides the next phase
//! of the connection.

use super::{Conn, Feed, HeldRequest, OUT_LIMIT, Phase, TURN_LIMIT};
use crate::logic::Now;
use crate::logic::http::framing::Framing;
use crate::logic::http::head::{Found, Search};
use crate::logic::http::head_cache::HeadCache;
use crate::logic::http::refusal::Refusal;
use crate::logic::http::request::{self, ALLOW, Parsed};
use crate::logic::http::response::{Out, Reply};
use crate::logic::http::{Handler, Method, Next, Persist};

/// The answer if the handler reports that it has answered but has sent nothing: the peer must not wait for ever.
pub(super) const NO_ANSWER: Refusal = Refusal { status: 500, why: "no answer" };

impl Conn {
    /// Answers the requests in `input` and keeps only the bytes that were not used.
    pub(super) fn go_on(
        &mut self,
        now: Now,
        head_cache: &mut HeadCache,
        handler: &mut dyn Handler,
        out: &mut Out,
    ) {
        if !self.keeps_input() {
            return;
        }
        if !self.unsent.is_empty() && !self.input.is_empty() {
            return self.defer(now);
        }
        let mut input = std::mem::take(&mut self.input);
        let used = self.answer(now, &input, head_cache, handler, out);
        if self.keeps_input() && used < input.len() {
            self.input = if used == 0 { input } else { input.split_off(used) };
        }
        if self.eof && matches!(self.phase, Phase::Idle | Phase::Head) {
            self.close(false);
        }
    }

    /// Answers the requests at the start of `bytes` and returns how many bytes were used.
    pub(super) fn answer(
        &mut self,
        now: Now,
        bytes: &[u8],
        head_cache: &mut HeadCache,
        handler: &mut dyn Handler,
        out: &mut Out,
    ) -> usize {
        let before = out.bytes.len();
        let (mut used, mut answered) = (0, 0);
        loop {
            match self.search.skip_blank(bytes.get(used..).unwrap_or_default()) {
                Ok(skipped) => used += skipped,
                Err(refusal) => {
                    self.refuse(now, refusal, Method::Get, handler, out);
                    return bytes.len();
                }
            }
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                self.phase = Phase::Idle;
                return used;
            }
            if out.bytes.len() - before >= OUT_LIMIT || answered == TURN_LIMIT {
                self.defer(now);
                return used;
            }
            let found = match head_cache.find(rest).filter(|_| self.search.is_new()) {
                Some(found) => Ok(Some(found)),
                None => self.read(rest, head_cache),
            };
            let (parsed, length) = match found {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.wait_for_head(now);
                    return used;
                }
                Err(refusal) => {
                    self.refuse(now, refusal, refused_method(rest), handler, out);
                    return bytes.len();
                }
            };
            self.search = Search::default();
            if !self.is_deferred() && handler.is_costly(&parsed.request) {
                self.defer(now);
                return used;
            }
            self.ask(now, &parsed, length == rest.len(), handler, out);
            if matches!(self.phase, Phase::Deferred | Phase::Awaiting { .. }) {
                return used;
            }
            used += length;
            answered += 1;
            match self.phase {
                Phase::Idle => {}
                Phase::Held { .. } => return used,
                _ => return bytes.len(),
            }
        }
    }

    /// Returns the request at the start of `bytes` and the length of its head; `None` if the head is not complete.
    fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        head_cache: &mut HeadCache,
    ) -> Result<Option<(Parsed<'a>, usize)>, Refusal> {
        match self.search.advance(bytes) {
            Found::Partial => Ok(None),
            Found::Refused(refusal) => Err(refusal),
            Found::Head(length) => {
                let head = bytes.get(..length).unwrap_or(bytes);
                let parsed = request::parse(head)?;
                head_cache.insert(head, &parsed);
                Ok(Some((parsed, length)))
            }
        }
    }

    /// Waits for the rest of a head. Its deadline starts when its first part has arrived.
    fn wait_for_head(&mut self, now: Now) {
        if self.phase != Phase::Head {
            self.phase = Phase::Head;
            self.since = now.mono;
        }
    }

    /// Asks the handler to answer one request. `last`: no bytes follow it.
    fn ask(&mut self, now: Now, parsed: &Parsed<'_>, last: bool, handler: &mut dyn Handler, out: &mut Out) {
        let Parsed { ref request, persist, body, framing } = *parsed;
        let asked = HeldRequest { method: request.method, persist, body, framing };
        let before = out.bytes.len();
        if matches!(self.phase, Phase::Awaiting { until } if until <= now.mono) {
            handler.overdue();
        }
        let reply = Reply::new(out, now, asked.method, persist).framed(framing);
        let next = handler.answer(now, request, reply);
        let sent = out.bytes.len() > before;
        self.conclude(now, asked, next, sent, last, handler, out);
    }

    /// Sets the next phase after the handler was asked.
    #[expect(clippy::too_many_arguments, reason = "all that an answer and a refusal need")]
    pub(super) fn conclude(
        &mut self,
        now: Now,
        asked: HeldRequest,
        next: Next,
        sent: bool,
        last: bool,
        handler: &mut dyn Handler,
        out: &mut Out,
    ) {
        // Closing a socket that has unread bytes sends a reset, which could destroy the answer.
        let linger = (asked.body || !last) && !self.eof;
        match next {
            Next::Wait(until) => {
                self.phase = Phase::Held { until, asked };
                self.since = now.mono;
            }
            Next::Lacking => self.defer(now),
            // The first deadline stays, as for a held request.
            Next::Await(_) if matches!(self.phase, Phase::Awaiting { .. }) => {}
            Next::Await(until) => {
                self.phase = Phase::Awaiting { until };
                self.since = now.mono;
            }
            Next::HandOver => self.phase = Phase::HandedOver,
            _ if !sent => self.refuse(now, NO_ANSWER, asked.method, handler, out),
            Next::Answered => {
                self.phase = Phase::Idle;
                self.since = now.mono;
                if asked.persist == Persist::Close {
                    self.close(linger);
                }
            }
            Next::Events | Next::Logs(_) if asked.method == Method::Head => self.close(linger),
            Next::Events => self.stream(now, Feed::Events, asked.framing, out),
            Next::Logs(which) => self.stream(now, Feed::Logs(which), asked.framing, out),
        }
    }

    /// Leaves the remaining requests for another turn and restarts the deadline by which the peer must take the
    /// answers.
    fn defer(&mut self, now: Now) {
        self.phase = Phase::Deferred;
        self.since = now.mono;
    }

    fn stream(&mut self, now: Now, feed: Feed, framing: Framing, out: &mut Out) {
        self.phase = Phase::Streaming { feed, framing };
        self.since = now.mono;
        if self.eof {
            self.end_of_stream(out);
        }
    }

    /// Sends the refusal and closes; bytes that follow are not read as a request.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        refusal: Refusal,
        method: Method,
        handler: &mut dyn Handler,
        out: &mut Out,
    ) {
        handler.refused(refusal.status);
        let mut body = Vec::with_capacity(refusal.why.len() + 1);
        body.extend_from_slice(refusal.why.as_bytes());
        body.push(b'\n');
        let allow = [("Allow", ALLOW.to_owned())];
        let extra = if refusal.status == 405 { allow.as_slice() } else { &[] };
        let reply = Reply::new(out, now, method, Persist::Close);
        reply.send(refusal.status, "text/plain; charset=utf-8", extra, &body);
        self.close(!self.eof);
    }
}

/// Returns the method of a refused request. It is needed because an answer to HEAD has no body, even if it is an error.
fn refused_method(head: &[u8]) -> Method {
    if head.starts_with(b"HEAD ") { Method::Head } else { Method::Get }
}
