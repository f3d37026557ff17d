//! Refusals of requests, shared by the head search, the parser and the connection.

/// The status and the reason with which a request is refused. The connection is closed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 405, 414, 431, 501 or 505.
    pub status: u16,
    /// The reason in one line, sent as the body.
    pub why: &'static str,
}

/// The refusal of a method that is not registered with IANA.
pub const UNKNOWN_METHOD: Refusal = Refusal { status: 501, why: "the method is unknown" };

/// Returns the refusal of a malformed request.
pub const fn bad(why: &'static str) -> Refusal {
    Refusal { status: 400, why }
}
