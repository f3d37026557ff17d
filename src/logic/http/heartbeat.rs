//! Signs of life on streams that are silent for long: proxies and NATs cut connections on which nothing is sent.

use std::time::{Duration, Instant};

/// From one sign of life to the next.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// A comment, which readers of event streams skip.
pub const LINE: &[u8] = b":\n\n";

/// When the next sign of life is due, for all streams at once: kapo wakes once, and only while there is a stream.
#[derive(Debug, Default)]
pub struct Heartbeat {
    next: Option<Instant>,
}

impl Heartbeat {
    /// The first stream has begun.
    pub fn begin(&mut self, now: Instant) {
        self.next = now.checked_add(INTERVAL);
    }

    /// When [`Heartbeat::is_due`] is true next, while there are so many streams.
    pub fn deadline(&self, streams: usize) -> Option<Instant> {
        self.next.filter(|_| streams > 0)
    }

    /// True once for each sign of life that is due.
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
    fn it_beats_each_half_minute_while_there_is_a_stream() {
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
        // Without a stream kapo is not woken.
        assert_eq!((heartbeat.deadline(0), heartbeat.is_due(start + 9 * INTERVAL, 0)), (None, false));
    }
}
