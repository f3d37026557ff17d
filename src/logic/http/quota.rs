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
    pub unsent: usize,
    /// The capacity of the buffer of received bytes that are not processed yet.
    pub received: usize,
}

/// The sums of the shares of all connections.
#[derive(Debug)]
pub struct Quota {
    most_held: usize,
    held: usize,
    heartbeats: usize,
    unsent: usize,
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
            unsent: 0,
            received: 0,
        }
    }

    /// Records that the share of one connection has changed from `before` to `after`.
    pub fn change(&mut self, before: Share, after: Share) {
        self.held = self.held + usize::from(after.held) - usize::from(before.held);
        self.heartbeats = self.heartbeats + usize::from(after.heartbeat) - usize::from(before.heartbeat);
        self.unsent = self.unsent + after.unsent - before.unsent;
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
    pub fn exceeds_held_limit(&self) -> bool {
        self.held > self.most_held
    }

    /// Whether an unfinished request must be evicted.
    pub fn exceeds_input_limit(&self) -> bool {
        self.received > INPUT_LIMIT
    }

    /// Whether the unsent output may exceed its limit after a share has changed from `before` to `after`. Then
    /// [`Quota::exceeds_output_limit`] decides, which needs a search for the connection with the most. The sum of the
    /// others grows only if a share has grown, so a large answer that is being sent causes no search after each part.
    pub fn may_exceed_output_limit(&self, before: Share, after: Share) -> bool {
        after.unsent > before.unsent && self.unsent > OUTPUT_LIMIT
    }

    /// Whether the connection with the most unsent output must be evicted. `most` is the size of that output.
    pub fn exceeds_output_limit(&self, most: usize) -> bool {
        self.unsent.saturating_sub(most) > OUTPUT_LIMIT
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
            assert!(!quota.exceeds_held_limit());
        }
        quota.change(none, held);
        assert!(quota.exceeds_held_limit());
        quota.change(held, none);
        assert_eq!((quota.exceeds_held_limit(), quota.held()), (false, 3));
    }

    #[test]
    fn the_sum_of_unfinished_requests_is_limited() {
        let mut quota = Quota::new(4);
        let (none, full) = (Share::default(), Share { received: 32 * 1024, ..Share::default() });
        for _ in 0..INPUT_LIMIT / full.received {
            quota.change(none, full);
            assert!(!quota.exceeds_input_limit());
        }
        quota.change(none, full);
        assert!(quota.exceeds_input_limit() && !quota.may_exceed_output_limit(none, full));
        quota.change(full, none);
        assert!(!quota.exceeds_input_limit());
    }

    #[test]
    fn one_answer_may_exceed_the_limit_but_not_several() {
        let mut quota = Quota::new(4);
        let unsent = |unsent| Share { unsent, ..Share::default() };
        quota.change(unsent(0), unsent(100 << 20));
        assert!(
            quota.may_exceed_output_limit(unsent(0), unsent(100 << 20))
                && !quota.exceeds_output_limit(100 << 20)
        );
        quota.change(unsent(0), unsent(OUTPUT_LIMIT));
        assert!(!quota.exceeds_output_limit(100 << 20));
        quota.change(unsent(0), unsent(1));
        assert!(quota.exceeds_output_limit(100 << 20));
        quota.change(unsent(100 << 20), unsent(0));
        assert!(!quota.exceeds_output_limit(OUTPUT_LIMIT));
    }

    #[test]
    fn a_large_answer_that_shrinks_needs_no_search() {
        let mut quota = Quota::new(4);
        let unsent = |unsent| Share { unsent, ..Share::default() };
        quota.change(unsent(0), unsent(100 << 20));
        quota.change(unsent(100 << 20), unsent(99 << 20));
        assert!(!quota.may_exceed_output_limit(unsent(100 << 20), unsent(99 << 20)));
        // A change elsewhere in the share needs no search either.
        assert!(!quota.may_exceed_output_limit(unsent(7), Share { held: true, ..unsent(7) }));
        assert!(quota.may_exceed_output_limit(unsent(7), unsent(8)));
    }
}
