//! What connections may take together: places for those that are held, memory for output that is not taken, and memory
//! for requests that are not complete.

/// The most memory for output of all connections but the one that owes most: a single answer may be larger.
pub const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// The most memory for received bytes that could not be dealt with yet, of all connections: one of them holds up to 32
/// KiB, an unfinished head or requests behind one that is held.
pub const INPUT_LIMIT: usize = 4 * 1024 * 1024;

/// What one connection takes of what all share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// It is held for long: `/wait`, `/events`, or a follower of `/logs`.
    pub held: bool,
    /// It wants a sign of life when nothing happens for long.
    pub heartbeat: bool,
    /// Memory for output that its socket has not taken.
    pub owed: usize,
    /// Memory for bytes it has sent that could not be dealt with yet.
    pub received: usize,
}

/// The sums over all connections.
#[derive(Debug)]
pub struct Quota {
    most_held: usize,
    held: usize,
    heartbeats: usize,
    owed: usize,
    received: usize,
}

impl Quota {
    /// For at most so many connections: three quarters of them may be held, so that a fresh check finds room.
    pub fn new(connections: usize) -> Quota {
        Quota {
            most_held: (connections / 4 * 3 + connections % 4 * 3 / 4).max(1),
            held: 0,
            heartbeats: 0,
            owed: 0,
            received: 0,
        }
    }

    /// A connection took `before` and takes `after` now.
    pub fn change(&mut self, before: Share, after: Share) {
        self.held = self.held + usize::from(after.held) - usize::from(before.held);
        self.heartbeats = self.heartbeats + usize::from(after.heartbeat) - usize::from(before.heartbeat);
        self.owed = self.owed + after.owed - before.owed;
        self.received = self.received + after.received - before.received;
    }

    /// Connections that are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Connections that want a sign of life.
    pub fn heartbeats(&self) -> usize {
        self.heartbeats
    }

    /// One of those that are held must make room.
    pub fn holds_too_many(&self) -> bool {
        self.held > self.most_held
    }

    /// The requests that are not complete take too much: one of them must go.
    pub fn received_too_much(&self) -> bool {
        self.received > INPUT_LIMIT
    }

    /// After a connection took `before` and takes `after`: the output that is not taken may be too much.
    /// [`Quota::owes_too_much`] tells, for the price of a search. What all but one owe grows only if one of them owes more
    /// than before, so a large answer that is being taken costs no search for each portion.
    pub fn may_owe_too_much(&self, before: Share, after: Share) -> bool {
        after.owed > before.owed && self.owed > OUTPUT_LIMIT
    }

    /// The connection that owes most, and owes this much, must go.
    pub fn owes_too_much(&self, most: usize) -> bool {
        self.owed.saturating_sub(most) > OUTPUT_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_of_the_connections_may_be_held_and_at_least_one() {
        for (connections, held) in
            [(1, 1), (2, 1), (3, 2), (4, 3), (7, 5), (512, 384), (usize::MAX, usize::MAX / 4 * 3 + 2)]
        {
            assert_eq!(Quota::new(connections).most_held, held, "{connections}");
        }
    }

    #[test]
    fn one_more_than_may_be_held_is_too_many() {
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
    fn unfinished_requests_are_bounded_in_sum() {
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
    fn a_single_answer_may_be_larger_than_the_limit_but_not_many() {
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
    fn a_large_answer_that_is_being_taken_costs_no_search() {
        let mut quota = Quota::new(4);
        let owes = |owed| Share { owed, ..Share::default() };
        quota.change(owes(0), owes(100 << 20));
        quota.change(owes(100 << 20), owes(99 << 20));
        assert!(!quota.may_owe_too_much(owes(100 << 20), owes(99 << 20)));
        // Nor what happens to others that owe as much as before.
        assert!(!quota.may_owe_too_much(owes(7), Share { held: true, ..owes(7) }));
        assert!(quota.may_owe_too_much(owes(7), owes(8)));
    }
}
