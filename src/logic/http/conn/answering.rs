//! How a connection answers: complete requests are taken one after the other from the bytes that were read, and the
//! answer to each decides the next phase.

use super::{Asked, Conn, Feed, OUT_LIMIT, Phase, TURN_LIMIT};
use crate::logic::Now;
use crate::logic::http::framing::Framing;
use crate::logic::http::head::{Found, Search};
use crate::logic::http::head_cache::Memory;
use crate::logic::http::refusal::Refusal;
use crate::logic::http::request::{self, ALLOW, Parsed};
use crate::logic::http::response::{Out, Reply};
use crate::logic::http::{Handler, Method, Next, Persist};

/// The handler said that it has answered and sent nothing: the peer must not wait for an answer.
pub(super) const NO_ANSWER: Refusal = Refusal { status: 500, why: "no answer" };

impl Conn {
    /// Answers out of `input`, of which no more is kept than is not used up.
    pub(super) fn go_on(&mut self, now: Now, site: &mut dyn Handler, out: &mut Out) {
        if !self.keeps_input() {
            return;
        }
        if !self.unsent.is_empty() && !self.input.is_empty() {
            return self.crowd(now);
        }
        let mut input = std::mem::take(&mut self.input);
        let used = self.answer(now, &input, site, out);
        if self.keeps_input() && used < input.len() {
            self.input = if used == 0 { input } else { input.split_off(used) };
        }
        if self.eof && matches!(self.phase, Phase::Idle | Phase::Head) {
            self.close(false);
        }
    }

    /// Answers the requests at the start of `bytes`; returns how many bytes are done with.
    pub(super) fn answer(&mut self, now: Now, bytes: &[u8], site: &mut dyn Handler, out: &mut Out) -> usize {
        let mut known = std::mem::take(&mut out.known);
        let used = self.answer_all(now, bytes, &mut known, site, out);
        out.known = known;
        used
    }

    fn answer_all(
        &mut self,
        now: Now,
        bytes: &[u8],
        known: &mut Memory,
        site: &mut dyn Handler,
        out: &mut Out,
    ) -> usize {
        let before = out.bytes.len();
        let (mut used, mut answered) = (0, 0);
        loop {
            let skipped = self.search.skip_blank(bytes.get(used..).unwrap_or_default());
            used += match skipped {
                Ok(skipped) => skipped,
                Err(refusal) => {
                    self.refuse(now, refusal, Method::Get, site, out);
                    return bytes.len();
                }
            };
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                self.phase = Phase::Idle;
                return used;
            }
            if out.bytes.len() - before >= OUT_LIMIT || answered == TURN_LIMIT {
                self.crowd(now);
                return used;
            }
            let found = match known.at_the_start_of(rest).filter(|_| self.search.is_new()) {
                Some(found) => Ok(Some(found)),
                None => self.read(rest, known),
            };
            let (parsed, length) = match found {
                Ok(Some(found)) => found,
                Ok(None) => {
                    if self.phase != Phase::Head {
                        self.phase = Phase::Head;
                        self.since = now.mono;
                    }
                    return used;
                }
                Err(refusal) => {
                    self.refuse(now, refusal, refused_method(rest), site, out);
                    return bytes.len();
                }
            };
            self.search = Search::default();
            if self.phase != Phase::Crowded && site.is_costly(&parsed.request) {
                self.crowd(now);
                return used;
            }
            self.ask(now, &parsed, length == rest.len(), site, out);
            if self.phase == Phase::Crowded {
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

    /// The request at the start of `bytes` and the length of its head; `None` while that is not complete.
    fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        known: &mut Memory,
    ) -> Result<Option<(Parsed<'a>, usize)>, Refusal> {
        match self.search.advance(bytes) {
            Found::Partial => Ok(None),
            Found::Refused(refusal) => Err(refusal),
            Found::Head(length) => {
                let head = bytes.get(..length).unwrap_or(bytes);
                let parsed = request::parse(head)?;
                known.learn(head, &parsed);
                Ok(Some((parsed, length)))
            }
        }
    }

    /// Asks the site for an answer to one request, `last` if nothing has come behind it.
    fn ask(&mut self, now: Now, parsed: &Parsed<'_>, last: bool, site: &mut dyn Handler, out: &mut Out) {
        let Parsed { request, persist, body, framing } = *parsed;
        let asked = Asked { method: request.method, persist, body, framing };
        let before = out.bytes.len();
        let reply = Reply::new(out, now, asked.method, persist).framed(framing);
        let next = site.answer(now, &request, reply);
        let sent = out.bytes.len() > before;
        self.conclude(now, asked, next, sent, last, site, out);
    }

    /// What becomes of the connection once the site has been asked.
    #[expect(clippy::too_many_arguments, reason = "all that an answer and a refusal need")]
    pub(super) fn conclude(
        &mut self,
        now: Now,
        asked: Asked,
        next: Next,
        sent: bool,
        last: bool,
        site: &mut dyn Handler,
        out: &mut Out,
    ) {
        // Bytes that nobody reads turn a close into a reset.
        let linger = (asked.body || !last) && !self.eof;
        match next {
            Next::Wait(until) => {
                self.phase = Phase::Held { until, asked };
                self.since = now.mono;
            }
            Next::Lacking => self.crowd(now),
            _ if !sent => self.refuse(now, NO_ANSWER, asked.method, site, out),
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

    /// The time to take answers begins anew with each portion of them.
    fn crowd(&mut self, now: Now) {
        self.phase = Phase::Crowded;
        self.since = now.mono;
    }

    fn stream(&mut self, now: Now, feed: Feed, framing: Framing, out: &mut Out) {
        self.phase = Phase::Streaming { feed, framing };
        self.since = now.mono;
        if self.eof {
            self.end_of_stream(out);
        }
    }

    /// Says why and closes; nothing that follows is read as a request.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        refusal: Refusal,
        method: Method,
        site: &mut dyn Handler,
        out: &mut Out,
    ) {
        site.refused(refusal.status);
        let mut body = Vec::with_capacity(refusal.why.len() + 1);
        body.extend_from_slice(refusal.why.as_bytes());
        body.push(b'\n');
        let allow = [("Allow", ALLOW)];
        let extra = if refusal.status == 405 { allow.as_slice() } else { &[] };
        let reply = Reply::new(out, now, method, Persist::Close);
        reply.send(refusal.status, "text/plain; charset=utf-8", extra, &body);
        self.close(!self.eof);
    }
}

/// The answer to a refused HEAD has no body either.
fn refused_method(head: &[u8]) -> Method {
    if head.starts_with(b"HEAD ") { Method::Head } else { Method::Get }
}
