//! How much of a turn connections get, and in which order: what is left over waits for the next turn, so that signals,
//! deadlines and fresh requests are served in between whatever clients send.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that a turn has for connections. The first of them is served in any case.
pub const BUDGET: Duration = Duration::from_millis(2);

/// What is left of the time of a turn.
#[derive(Debug, Default)]
pub struct Budget {
    begun: bool,
    until: Option<Instant>,
}

impl Budget {
    /// Whether one more connection may be served. `clock` is read from the second on alone, because most turns have one;
    /// the time counts from then.
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

/// Connections that are ready and wait for a turn with time for them, each of them once. Those that have something new
/// to say come first, the newest and the oldest of them by turns, then those with pipelined requests that were left over:
/// a client that asks once is held up neither by one that asks without end nor by a crowd that came before it.
#[derive(Debug)]
pub struct Queue<T> {
    fresh: VecDeque<T>,
    /// The oldest of `fresh` is next, because the newest was served last.
    oldest_next: bool,
    left_over: VecDeque<T>,
}

/// The queue of an instance that nobody floods owns no memory.
impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { fresh: VecDeque::new(), oldest_next: false, left_over: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.left_over.is_empty()
    }

    /// Nobody waits with something new to say.
    pub fn has_no_fresh(&self) -> bool {
        self.fresh.is_empty()
    }

    /// Takes in a connection that is not in it; `left_over`: it has been served and has more requests.
    pub fn push(&mut self, connection: T, left_over: bool) {
        if left_over { self.left_over.push_back(connection) } else { self.fresh.push_back(connection) }
    }

    /// Takes those that this turn serves, one a call, until there is no time left. One of those with left-over requests
    /// is served in each turn: `served` says whether it was.
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

    /// After a flood the memory goes back.
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
    fn the_first_of_a_turn_is_served_without_a_look_at_the_clock() {
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
    fn who_has_something_new_to_say_comes_before_what_was_left_over() {
        let mut queue = Queue::default();
        for (connection, left_over) in [(1, true), (2, false), (3, true), (4, false)] {
            queue.push(connection, left_over);
        }
        assert_eq!(turn(&mut queue, 10), [4, 2, 1, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_turn_ends_with_its_time_and_each_kind_gets_on() {
        let mut queue = Queue::default();
        for connection in 0..6 {
            queue.push(connection, connection % 2 == 0);
        }
        // Time for one; one that was left over is served all the same.
        assert_eq!(turn(&mut queue, 2), [5, 0]);
        assert_eq!(turn(&mut queue, 2), [1, 2]);
        assert_eq!(turn(&mut queue, 0), [4]);
        assert!(turn(&mut queue, 0).is_empty());
        assert!(!queue.is_empty() && !queue.has_no_fresh());
        assert_eq!(turn(&mut queue, 9), [3]);
    }

    #[test]
    fn a_newcomer_does_not_wait_for_all_that_came_before_it() {
        let mut queue = Queue::default();
        (0..100).for_each(|connection| queue.push(connection, false));
        assert_eq!(turn(&mut queue, 4), [99, 0, 98]);
        queue.push(100, false);
        assert_eq!(turn(&mut queue, 4), [1, 100, 2], "the newest and the oldest by turns");
    }

    #[test]
    fn a_queue_that_is_empty_again_owns_no_memory() {
        let mut queue = Queue::default();
        (0..100).for_each(|connection| queue.push(connection, false));
        assert_eq!(turn(&mut queue, 1000).len(), 100);
        assert_eq!(queue.fresh.capacity(), 0);
    }
}
