//! The limits that all connections share: held connections, memory for unsent output, and memory for unfinished
//! requests.

/// The limit for the unsent output of all connections except the one with the most. That one is not counted, because a
/// single answer may be larger than the limit.
pub const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// The limit for the received but unprocessed bytes of all connections. One connection has up to 32 KiB: an unfinished
/// head, or requests behind a held one.
pub const INPUT_LIMIT: usize = 4 * 1024 * 1024;

/// The share of the common limits that one connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// It is held: `/wait`, `/events`, or `/logs?follow`.
    pub held: bool,
    /// It needs heartbeats while it is silent.
    pub heartbeat: bool,
    /// The capacity of the buffer of unsent output, in bytes.
    pub owed: usize,
    /// The capacity of the buffer of received bytes that are not processed yet.
    pub received: usize,
}

/// The sums of the shares of all connections.
#[derive(Debug)]
pub struct Quota {
    most_held: usize,
    held: usize,
    heartbeats: usize,
    owed: usize,
    received: usize,
}

impl Quota {
    /// Returns the quota of a table of `connections`. Three quarters of them may be held, so that health checks always
    /// find room.
    pub fn new(connections: usize) -> Quota {
        Quota {
            most_held: (connections / 4 * 3 + connections % 4 * 3 / 4).max(1),
            held: 0,
            heartbeats: 0,
            owed: 0,
            received: 0,
        }
    }

    /// Records that the share of one connection has changed from `before` to `after`.
    pub fn change(&mut self, before: Share, after: Share) {
        self.held = self.held + usize::from(after.held) - usize::from(before.held);
        self.heartbeats = self.heartbeats + usize::from(after.heartbeat) - usize::from(before.heartbeat);
        self.owed = self.owed + after.owed - before.owed;
        self.received = self.received + after.received - before.received;
    }

    /// Returns the number of held connections.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns the number of connections that need heartbeats.
    pub fn heartbeats(&self) -> usize {
        self.heartbeats
    }

    /// Whether one of the held connections must be evicted.
    pub fn holds_too_many(&self) -> bool {
        self.held > self.most_held
    }

    /// Whether an unfinished request must be evicted.
    pub fn received_too_much(&self) -> bool {
        self.received > INPUT_LIMIT
    }

    /// Whether the unsent output may exceed its limit after a share has changed from `before` to `after`. Then
    /// [`Quota::owes_too_much`] decides, which needs a search for the connection with the most. The sum of the others
    /// grows only if a share has grown, so a large answer that is being sent causes no search after each part.
    pub fn may_owe_too_much(&self, before: Share, after: Share) -> bool {
        after.owed > before.owed && self.owed > OUTPUT_LIMIT
    }

    /// Whether the connection with the most unsent output, which is `most`, must be evicted.
    pub fn owes_too_much(&self, most: usize) -> bool {
        self.owed.saturating_sub(most) > OUTPUT_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_but_at_least_one_may_be_held() {
        for (connections, held) in
            [(1, 1), (2, 1), (3, 2), (4, 3), (7, 5), (512, 384), (usize::MAX, usize::MAX / 4 * 3 + 2)]
        {
            assert_eq!(Quota::new(connections).most_held, held, "{connections}");
        }
    }

    #[test]
    fn one_connection_beyond_the_quota_is_too_many() {
        let mut quota = Quota::new(4);
        let (none, held) = (Share::default(), Share { held: true, ..Share::default() });
        for _ in 0..3 {
            quota.change(none, held);
            assert!(!quota.holds_too_many());
        }
        quota.change(none, held);
        assert!(quota.holds_too_many());
        quota.change(held, none);
        assert_eq!((quota.holds_too_many(), quota.held()), (false, 3));
    }

    #[test]
    fn the_sum_of_unfinished_requests_is_limited() {
        let mut quota = Quota::new(4);
        let (none, full) = (Share::default(), Share { received: 32 * 1024, ..Share::default() });
        for _ in 0..INPUT_LIMIT / full.received {
            quota.change(none, full);
            assert!(!quota.received_too_much());
        }
        quota.change(none, full);
        assert!(quota.received_too_much() && !quota.may_owe_too_much(none, full));
        quota.change(full, none);
        assert!(!quota.received_too_much());
    }

    #[test]
    fn one_answer_may_exceed_the_limit_but_not_several() {
        let mut quota = Quota::new(4);
        let owes = |owed| Share { owed, ..Share::default() };
        quota.change(owes(0), owes(100 << 20));
        assert!(quota.may_owe_too_much(owes(0), owes(100 << 20)) && !quota.owes_too_much(100 << 20));
        quota.change(owes(0), owes(OUTPUT_LIMIT));
        assert!(!quota.owes_too_much(100 << 20));
        quota.change(owes(0), owes(1));
        assert!(quota.owes_too_much(100 << 20));
        quota.change(owes(100 << 20), owes(0));
        assert!(!quota.owes_too_much(OUTPUT_LIMIT));
    }

    #[test]
    fn a_large_answer_that_shrinks_needs_no_search() {
        let mut quota = Quota::new(4);
        let owes = |owed| Share { owed, ..Share::default() };
        quota.change(owes(0), owes(100 << 20));
        quota.change(owes(100 << 20), owes(99 << 20));
        assert!(!quota.may_owe_too_much(owes(100 << 20), owes(99 << 20)));
        // A change elsewhere in the share needs no search either.
        assert!(!quota.may_owe_too_much(owes(7), Share { held: true, ..owes(7) }));
        assert!(quota.may_owe_too_much(owes(7), owes(8)));
    }
}
