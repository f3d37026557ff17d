//! The time and the order in which a turn of the loop serves connections. Connections beyond the budget wait for the
//! next turn, so that signals, deadlines and new requests are handled in time, regardless of what clients send.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that one turn spends on connections. The first connection is served in any case.
pub const BUDGET: Duration = Duration::from_millis(2);

/// The remaining time budget of a turn.
#[derive(Debug, Default)]
pub struct Budget {
    begun: bool,
    until: Option<Instant>,
}

impl Budget {
    /// Whether one more connection may be served. The budget begins at the second connection and `clock` is not read
    /// before, because most turns serve only one.
    pub fn allows(&mut self, clock: impl FnOnce() -> Instant) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            return true;
        }
        let now = clock();
        match self.until {
            Some(until) => now < until,
            None => {
                self.until = now.checked_add(BUDGET);
                true
            }
        }
    }
}

/// The connections that are ready and wait for a turn with time for them; each is queued once. Connections with new
/// input come first, alternately the newest and the oldest. Connections whose pipelined requests were left over come
/// after them. A client with one request is therefore not delayed by a client with an endless pipeline, or by many
/// clients that connected earlier.
#[derive(Debug)]
pub struct Queue<T> {
    fresh: VecDeque<T>,
    /// The last one was the newest of `fresh`, so the oldest is next.
    oldest_next: bool,
    left_over: VecDeque<T>,
}

/// An empty queue, which owns no memory.
impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { fresh: VecDeque::new(), oldest_next: false, left_over: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.left_over.is_empty()
    }

    /// Whether no connection with new input waits.
    pub fn has_no_fresh(&self) -> bool {
        self.fresh.is_empty()
    }

    /// Queues a connection that is not queued. `left_over`: it was served in an earlier turn and has more requests.
    pub fn push(&mut self, connection: T, left_over: bool) {
        if left_over { self.left_over.push_back(connection) } else { self.fresh.push_back(connection) }
    }

    /// Removes the next connection to serve; `None` once this turn has no time left. Each turn serves at least one
    /// connection with left-over requests, and `served` records whether it has.
    pub fn next(&mut self, served: &mut bool, may_go_on: impl FnOnce() -> bool) -> Option<T> {
        if self.is_empty() {
            return self.shrink();
        }
        if may_go_on() {
            let fresh = if self.oldest_next { self.fresh.pop_front() } else { self.fresh.pop_back() };
            self.oldest_next = !self.oldest_next;
            if fresh.is_some() {
                return fresh;
            }
        } else if *served {
            return None;
        }
        *served = true;
        self.left_over.pop_front()
    }

    /// Frees the memory of an empty queue.
    fn shrink(&mut self) -> Option<T> {
        if self.fresh.capacity() + self.left_over.capacity() > 0 {
            *self = Queue::default();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::tests::epoch;

    #[test]
    fn the_first_connection_of_a_turn_needs_no_clock() {
        let start = epoch().mono;
        let mut budget = Budget::default();
        assert!(budget.allows(|| panic!("the clock was read")));
        assert!(budget.allows(|| start));
        assert!(budget.allows(|| start + BUDGET / 2));
        assert!(!budget.allows(|| start + BUDGET));
    }

    /// Serves while `time` allows, as the server does in one turn.
    fn turn(queue: &mut Queue<u32>, time: usize) -> Vec<u32> {
        let (mut served, mut left, mut seen) = (false, time, Vec::new());
        while let Some(connection) = queue.next(&mut served, || {
            left = left.saturating_sub(1);
            left > 0
        }) {
            seen.push(connection);
        }
        seen
    }

    #[test]
    fn new_input_is_served_before_left_over_requests() {
        let mut queue = Queue::default();
        for (connection, left_over) in [(1, true), (2, false), (3, true), (4, false)] {
            queue.push(connection, left_over);
        }
        assert_eq!(turn(&mut queue, 10), [4, 2, 1, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_turn_without_time_still_serves_left_over_requests() {
        let mut queue = Queue::default();
        for connection in 0..6 {
            queue.push(connection, connection % 2 == 0);
        }
        // There is time for one connection; one with left-over requests is served in addition.
        assert_eq!(turn(&mut queue, 2), [5, 0]);
        assert_eq!(turn(&mut queue, 2), [1, 2]);
        assert_eq!(turn(&mut queue, 0), [4]);
        assert!(turn(&mut queue, 0).is_empty());
        assert!(!queue.is_empty() && !queue.has_no_fresh());
        assert_eq!(turn(&mut queue, 9), [3]);
    }

    #[test]
    fn a_new_connection_does_not_wait_for_all_earlier_ones() {
        let mut queue = Queue::default();
        (0..100).for_each(|connection| queue.push(connection, false));
        assert_eq!(turn(&mut queue, 4), [99, 0, 98]);
        queue.push(100, false);
        assert_eq!(turn(&mut queue, 4), [1, 100, 2], "the newest and the oldest are served alternately");
    }

    #[test]
    fn an_emptied_queue_owns_no_memory() {
        let mut queue = Queue::default();
        (0..100).for_each(|connection| queue.push(connection, false));
        assert_eq!(turn(&mut queue, 1000).len(), 100);
        assert_eq!(queue.fresh.capacity(), 0);
    }
}
