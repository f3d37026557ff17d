//! How often the memory that requests have used is returned to the kernel.

use std::time::{Duration, Instant};

/// The average interval. Returning the memory and touching it again costs about 50 µs.
const INTERVAL: Duration = Duration::from_secs(1);
/// How much of the future may be used up at once: a scrape and the probes of the same second count separately, so that
/// the memory is returned after the last of them. No timer is needed for that.
const AHEAD: Duration = Duration::from_secs(8);

/// Allows one trim for each [`INTERVAL`] on average, and [`AHEAD`] in a burst.
#[derive(Debug, Default)]
pub(crate) struct TrimPacer {
    /// The time up to which the intervals are used up.
    used: Option<Instant>,
}

impl TrimPacer {
    /// Whether the memory may be returned now. If so, this trim is counted.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let used = self.used.map_or(now, |used| used.max(now));
        let allowed = used.saturating_duration_since(now) <= AHEAD - INTERVAL;
        if allowed {
            self.used = Some(used + INTERVAL);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        crate::sys::clock::now().0
    }

    #[test]
    fn a_busy_kapo_trims_once_a_second() {
        let start = start();
        let mut pacer = TrimPacer::default();
        let trims = |pacer: &mut TrimPacer, seconds: std::ops::Range<u64>| {
            let turns = (seconds.start * 1000..seconds.end * 1000).map(Duration::from_millis);
            turns.filter(|after| pacer.allow(start + *after)).count()
        };
        assert_eq!(trims(&mut pacer, 0..1), 8);
        assert_eq!(trims(&mut pacer, 1..101), 100);
        // Unused intervals are kept for the next burst, but not more than the burst may use.
        assert_eq!(trims(&mut pacer, 1000..1001), 8);
    }

    #[test]
    fn requests_each_second_are_all_followed_by_a_trim() {
        let start = start();
        let mut pacer = TrimPacer::default();
        assert!((0..1000).all(|second| pacer.allow(start + Duration::from_secs(second))));
    }
}
