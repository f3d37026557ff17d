//! The refusals of requests. The search for the end of a head, the parser and the connection all refuse.

/// Why a request is not answered; the connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 405, 414, 431, 501 or 505.
    pub status: u16,
    /// One line for people, sent as the body.
    pub why: &'static str,
}

/// Answers a method that is in no registry.
pub const UNKNOWN_METHOD: Refusal = Refusal { status: 501, why: "the method is unknown" };

/// Malformed.
pub const fn bad(why: &'static str) -> Refusal {
    Refusal { status: 400, why }
}
