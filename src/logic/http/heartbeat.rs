//! Heartbeats for silent streams: proxies and NATs cut connections on which nothing is sent.

use std::time::{Duration, Instant};

/// The time between two heartbeats.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// A comment of the event stream format, which clients ignore.
pub const LINE: &[u8] = b":\n\n";

/// The schedule of the heartbeats. All streams share it, so that kapo wakes once for all of them, and only while there
/// is a stream.
#[derive(Debug, Default)]
pub struct Heartbeat {
    next: Option<Instant>,
}

impl Heartbeat {
    /// Starts the schedule with the first stream.
    pub fn begin(&mut self, now: Instant) {
        self.next = now.checked_add(INTERVAL);
    }

    /// Returns when [`Heartbeat::is_due`] is true next; `None` without streams.
    pub fn deadline(&self, streams: usize) -> Option<Instant> {
        self.next.filter(|_| streams > 0)
    }

    /// Whether a heartbeat is due. Returns true once for each heartbeat.
    pub fn is_due(&mut self, now: Instant, streams: usize) -> bool {
        let due = self.deadline(streams).is_some_and(|next| next <= now);
        if due {
            self.begin(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::tests::epoch;

    #[test]
    fn a_heartbeat_is_due_every_30_s_while_there_is_a_stream() {
        let start = epoch().mono;
        let mut heartbeat = Heartbeat::default();
        assert_eq!((heartbeat.deadline(0), heartbeat.is_due(start + 9 * INTERVAL, 0)), (None, false));
        heartbeat.begin(start);
        assert_eq!(heartbeat.deadline(1), Some(start + INTERVAL));
        assert!(!heartbeat.is_due(start + INTERVAL - Duration::from_millis(1), 1));
        assert!(heartbeat.is_due(start + INTERVAL, 1));
        assert_eq!(
            (heartbeat.is_due(start + INTERVAL, 2), heartbeat.deadline(2)),
            (false, Some(start + 2 * INTERVAL))
        );
        // Without a stream there is no deadline.
        assert_eq!((heartbeat.deadline(0), heartbeat.is_due(start + 9 * INTERVAL, 0)), (None, false));
    }
}
