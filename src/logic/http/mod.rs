//! HTTP/1.0 and 1.1 by hand on httparse (RFC 9110, RFC 9112): bytes in, bytes out, no socket. `conn` is the life of
//! one connection, `head` finds the end of a head, `request` reads a head or says with which status it is refused,
//! `response` writes answers, `framing` delimits streams, `routes` knows the paths. `table` is about all connections, with
//! `quota` (what they may take together), `turn` (when each is served) and `heartbeat` (what silent streams are sent).
//! What a request is answered with comes from a [`Handler`].

pub mod activation;
pub mod conn;
pub mod framing;
pub mod head;
pub mod head_cache;
pub mod heartbeat;
pub mod query;
pub mod quota;
pub mod refusal;
pub mod request;
pub mod response;
pub mod routes;
pub mod table;
pub mod turn;

use std::time::Instant;

use super::{Now, Stream};

/// The methods that are answered; all others are refused before a [`Handler`] sees them (405 or 501).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// RFC 9110, 9.3.1.
    Get,
    /// The same header fields as GET and no body.
    Head,
    /// 204 and Allow.
    Options,
}

/// A request whose head is complete and correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is asked.
    pub method: Method,
    /// The path as sent, still percent-encoded, of origin-form or absolute-form; `*` with OPTIONS only.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
    /// The Accept field; empty when there is none.
    pub accept: &'a str,
    /// The Last-Event-ID field; empty when there is none.
    pub last_event_id: &'a str,
}

/// What becomes of the connection after an answer, and how the answer says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// HTTP/1.1: it stays open, which needs no word.
    Open,
    /// HTTP/1.0 with `Connection: keep-alive`: it stays open, and the answer says so.
    OpenAndSay,
    /// It is closed.
    Close,
}

/// Who knows the answers.
pub trait Handler {
    /// Answers `request` through `reply`, or says how to go on without.
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: response::Reply<'_>) -> Next;

    /// Answers a request that is held ([`Next::Wait`]), or leaves it held; with `overdue` its time has passed, and it
    /// must be answered now. Nothing of the request is known any more: a handler holds those of one kind alone.
    fn again(&mut self, now: Now, overdue: bool, reply: response::Reply<'_>) -> Next;

    /// Whether the answer to `request` is so large that clients with smaller requests should come first. It is asked for
    /// once these have had their turn.
    fn is_costly(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// A request was refused with this status before it could be asked for an answer; told for counting.
    fn refused(&mut self, status: u16) {
        let _ = status;
    }
}

/// What happens to a connection after [`Handler::answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// `reply.send` was called; the connection goes on with the next request.
    Answered,
    /// Nothing was sent. The request is held: [`Handler::again`] is asked at each `Conn::resume` and once this moment
    /// has passed.
    Wait(Option<Instant>),
    /// Nothing was sent, because the handler lacks data that the driver has to read first. The request stays in front of
    /// what is left over and is answered at the next `Conn::resume`.
    Lacking,
    /// `reply.stream` was called; what follows is pushed at each change of state.
    Events,
    /// `reply.stream` was called; what follows is captured output, of one stream or of both.
    Logs(Option<Stream>),
}

#[cfg(test)]
mod tests;
