//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112) on httparse: bytes in, bytes out, no socket. `conn` is the state machine
//! of one connection, `head` finds the end of a request head, `request` parses a head or refuses it, `response` writes
//! answers, `framing` delimits streams, `routes` lists the paths. `table` manages all connections with `quota` (shared
//! limits), `turn` (order of service) and `heartbeat` (for silent streams). A [`Handler`] decides the content of the
//! answers.

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

/// The methods that a [`Handler`] sees; all others are refused earlier with 405 or 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET (RFC 9110, section 9.3.1).
    Get,
    /// HEAD: the header fields of GET without a body.
    Head,
    /// OPTIONS: answered with 204 and Allow.
    Options,
}

/// A request whose head is complete and valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The path as sent, still percent-encoded, from origin-form or absolute-form; `*` with OPTIONS only.
    pub path: &'a str,
    /// The query after the `?`, still percent-encoded.
    pub query: Option<&'a str>,
    /// The Host field; empty if there is none.
    pub host: &'a str,
    /// The Accept field; empty if there is none.
    pub accept: &'a str,
    /// The Accept-Encoding field; empty if there is none.
    pub accept_encoding: &'a str,
    /// The Last-Event-ID field; empty if there is none.
    pub last_event_id: &'a str,
    /// Whether the request has `Upgrade-Insecure-Requests: 1`, which browsers send when a person opens a page.
    pub navigates: bool,
}

/// Whether the connection stays open after an answer, and whether the answer must state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// The connection stays open, as is the default of HTTP/1.1.
    Open,
    /// The connection of an HTTP/1.0 client with `Connection: keep-alive` stays open, and the answer repeats that
    /// field.
    OpenAndSay,
    /// The connection is closed.
    Close,
}

/// Decides the answers to requests.
pub trait Handler {
    /// Answers `request` through `reply`, or returns why it was not answered yet.
    fn answer(&mut self, now: Now, request: &Request<'_>, reply: response::Reply<'_>) -> Next;

    /// Answers a held request ([`Next::Wait`]) or leaves it held. If it is `overdue`, it must be answered now. The
    /// request itself is not kept, so a handler can hold requests of one kind only.
    fn again(&mut self, now: Now, overdue: bool, reply: response::Reply<'_>) -> Next;

    /// Whether the answer to `request` is so expensive that smaller requests should be served first.
    /// [`Handler::answer`] is then called in a later turn.
    fn is_costly(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// Called before a request is asked again whose deadline ([`Next::Await`]) has passed: it must be answered now.
    fn overdue(&mut self) {}

    /// Counts a request that was refused with this status before it reached [`Handler::answer`].
    fn refused(&mut self, status: u16) {
        let _ = status;
    }
}

/// How a connection continues after [`Handler::answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// `reply.send` was called; the connection continues with the next request.
    Answered,
    /// Nothing was sent. The request is held: [`Handler::again`] is called at each `Conn::resume`, and once this
    /// deadline has passed.
    Wait(Option<Instant>),
    /// Nothing was sent because the handler needs data that the driver must read first. The request is asked again,
    /// before all later ones, at the next `Conn::resume`.
    Lacking,
    /// Nothing was sent. Like [`Next::Lacking`], but the request is kept until the first `Conn::resume` at which it can
    /// be answered, and at the longest until this deadline.
    Await(Instant),
    /// `reply.stream` was called; each change of the status document is pushed.
    Events,
    /// Nothing was sent. The connection ends here without being closed: the driver takes its socket, and another part of
    /// kapo answers the request on it.
    HandOver,
    /// `reply.stream` was called; captured output of one stream or of both is pushed.
    Logs(Option<Stream>),
}

#[cfg(test)]
mod tests;
