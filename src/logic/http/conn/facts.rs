//! What the connection table must know of a connection.

use std::time::Instant;

use super::Feed;
use crate::logic::http::quota::Share;

/// The eviction rank: the connection with the lowest rank is closed first. Within a class it is the one that has waited
/// longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// What the connection would lose.
    pub class: Class,
    /// When the connection entered its current wait.
    pub since: Instant,
}

/// What a connection would lose if it were closed, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An unfinished request, an unsent answer or a lingering close.
    Unfinished,
    /// A held request whose peer has closed at least its write side; a peer that has disconnected looks the same.
    HalfClosed,
    /// Between two requests, or before the first.
    Idle,
    /// A held request or a stream: /wait, /events, /logs.
    Waiting,
}

/// What the connection table must know of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// See [`Conn::deadline`](super::Conn::deadline).
    pub deadline: Option<Instant>,
    /// See [`Conn::rank`](super::Conn::rank).
    pub rank: Rank,
    /// See [`Conn::feed`](super::Conn::feed).
    pub feed: Option<Feed>,
    /// See [`Conn::is_held`](super::Conn::is_held).
    pub held: bool,
    /// See [`Conn::is_deferred`](super::Conn::is_deferred).
    pub deferred: bool,
    /// See [`Conn::is_busy`](super::Conn::is_busy).
    pub busy: bool,
    /// The capacity of the buffer of unsent output, in bytes.
    pub unsent: usize,
    /// The capacity of the buffer of received bytes that are not processed yet.
    pub received: usize,
}

impl Facts {
    /// Returns the share of the common limits that this connection uses. `network`: the socket is not a Unix socket.
    pub fn share(&self, network: bool) -> Share {
        Share {
            held: self.feed.is_some() || self.held,
            heartbeat: network && self.feed == Some(Feed::Events),
            unsent: self.unsent,
            received: self.received,
        }
    }

    /// Whether [`Facts::share`] returns the same for `self` and `other`, for both values of `network`.
    pub fn takes_as_much_as(&self, other: &Facts) -> bool {
        self.held == other.held
            && self.feed == other.feed
            && self.unsent == other.unsent
            && self.received == other.received
    }
}
