//! A small random generator for TTL ranges and jitter. It is not for secrets, and it is deterministic, so that a test
//! with a fixed seed can be repeated.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014), which works with any seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Returns a generator. In the program the seed comes from the kernel, in a test from the test.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns the next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a uniformly distributed duration from `min` to `max`, both included; `min` if the range is empty.
    pub(crate) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_nanos();
        let bits = (u128::from(self.bits()) << 64) | u128::from(self.bits());
        // A Duration has fewer than 2^94 nanoseconds, so the bias of the remainder is below 2^-34.
        let nanos = bits % (span + 1);
        let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        let offset =
            Duration::new(u64::try_from(seconds).unwrap_or(u64::MAX), u32::try_from(rest).unwrap_or(0));
        min.saturating_add(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_the_range_and_reach_both_halves() {
        let mut random = Random::new(7);
        let (min, max) = (Duration::from_secs(10), Duration::from_secs(20));
        let drawn: Vec<_> = (0..1_000).map(|_| random.between(min, max)).collect();
        assert!(drawn.iter().all(|d| (min..=max).contains(d)));
        assert!((300..700).contains(&drawn.iter().filter(|d| **d < Duration::from_secs(15)).count()));
        assert_eq!(random.between(max, max), max);
        assert_eq!(random.between(max, min), max);
        let _no_overflow = random.between(Duration::ZERO, Duration::MAX);
    }
}
